"""Detectors compared on simulated people that no fit has seen: ``python benchmarks/held_out.py``.

    python benchmarks/held_out.py simulate FOLDER --heads 12
    python benchmarks/held_out.py detect FOLDER --detector classical
    python benchmarks/held_out.py detect FOLDER --detector learned [--without phase echoes]
    cmbprep-tools evaluate FOLDER/learned FOLDER/truth --min-diameter 2

People have 14 microbleeds each, and are scanned under presets, none of which any fit uses. It
measures detection alone: scans are bias-corrected as the program does, within the head's own
brain, and there is no registration. ``benchmarks/recipe.py`` measures the whole program.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import sys
import time
from pathlib import Path

import numpy as np

#: First word of the seeds of people; no other part of the project uses them.
SEEDS = (*range(9100, 9107), *range(9150, 9155))
PROTOCOLS = ("clinical-2d-1.5t", "clinical-2d-3t", "ukb-swi", "gre3d-3t", "swi-3t")
COLUMNS = (
    "index",
    "name",
    "x",
    "y",
    "z",
    "volume_mm3",
    "diameter_mm",
    "probability",
    "rating",
    "susceptibility",
)


def main() -> int:
    """Do what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    simulate = commands.add_parser("simulate")
    simulate.add_argument("folder", type=Path)
    simulate.add_argument("--heads", type=int, default=len(SEEDS))
    detect = commands.add_parser("detect")
    detect.add_argument("folder", type=Path)
    detect.add_argument("--detector", default="learned")
    detect.add_argument("--model", type=Path, help="folder of another model of `learned`")
    detect.add_argument("--without", nargs="*", choices=("phase", "echoes"), default=())
    detect.add_argument("--name", help="folder of the results (default: the detector's name)")
    detect.add_argument("--scans", nargs="*", default=["*"], help="patterns of scans")
    arguments = parser.parse_args()
    if arguments.command == "simulate":
        for seed in SEEDS[: arguments.heads]:
            simulate_person(arguments.folder, seed)
        return 0
    detect_all(arguments)
    return 0


def simulate_person(folder: Path, seed: int) -> None:
    """Scan one person under all presets, and keep the scans and their truth."""
    from scipy import ndimage

    from cmbprep.simulate import scanner, sources, vessels
    from cmbprep.simulate.head import build_head
    from cmbprep.simulate.protocols import get_protocol
    from cmbprep.simulate.template_head import load_template_head
    from cmbprep.simulate.truth import tell_truth

    folder.mkdir(parents=True, exist_ok=True)
    left = [name for name in PROTOCOLS if not (folder / f"{name}-{seed}.npz").exists()]
    streams = [np.random.default_rng([seed, 2, 0, k]) for k in range(6)]
    if not left:
        return
    head = build_head(load_template_head(), streams[0], age=72, atrophy=0.35, lesion_load=0.3)
    places = sources.place_masks(head)
    found = sources.draw_microbleeds(head, places, 14, streams[1])
    found += sources.draw_mimics(head, places, 72, streams[2])
    tubes = vessels.draw_veins(head, head.to_template.inverse, streams[3])
    tubes += vessels.draw_arteries(head.to_template.inverse, streams[3])
    centre = head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    for name in left:
        protocol = get_protocol(name)
        rng = np.random.default_rng([seed, 3, sum(map(ord, name))])
        geometry = scanner.plan_geometry(protocol, centre, rng)
        scan = scanner.acquire(head, tubes, found, protocol, geometry, rng)
        truth = tell_truth(head, found, scan)
        to_head = np.linalg.inv(head.affine) @ np.linalg.inv(geometry.head_to_voxel)
        brain = ndimage.affine_transform(
            head.brain_mask().astype(np.float32),
            to_head[:3, :3],
            to_head[:3, 3],
            geometry.shape,
            order=1,
        )
        np.savez(
            folder / f"{name}-{seed}.npz",
            echoes=np.stack(scan.echoes),
            affine=geometry.affine,
            brain=brain > 0.5,
            bt=truth.microbleed_table,
            ot=truth.other_table,
        )
        print(f"{name}-{seed}", flush=True)


def detect_all(arguments: argparse.Namespace) -> None:
    """Run a detector on all scans of a folder; write its tables and those of the truth."""
    from cmbprep.detectors import get_detector
    from cmbprep.simulate.protocols import get_protocol
    from cmbprep.training.scans import detector_inputs

    if arguments.model is None:
        detector = get_detector(arguments.detector)
    else:
        from cmbprep.detectors.learned import LearnedDetector

        detector = LearnedDetector(folder=arguments.model)
    name = arguments.name or arguments.detector
    paths = sorted(p for glob in arguments.scans for p in arguments.folder.glob(f"{glob}.npz"))
    for path in paths:
        preset, _, seed = path.stem.rpartition("-")
        protocol = get_protocol(preset)
        with np.load(path) as stored:
            data = {key: stored[key] for key in ("echoes", "affine", "brain", "bt", "ot")}
        for scan in detector_inputs(list(data["echoes"]), data["affine"], data["brain"], protocol):
            if "phase" in arguments.without:
                scan = dataclasses.replace(scan, phases=())
            if "echoes" in arguments.without:
                scan = dataclasses.replace(
                    scan,
                    echoes=scan.echoes[-1:],
                    echo_times=scan.echo_times[-1:],
                    phases=scan.phases[-1:],
                )
            start = time.perf_counter()
            found = detector.detect(scan)
            seconds = time.perf_counter() - start
            kind = "processed" if scan.sequence == "swi" else "magnitude"
            label = preset.replace("-", "").replace(".", "")
            stem = f"sub-{seed}_acq-{label}{kind}"
            write_tables(arguments.folder, name, stem, found, str(data["bt"]), str(data["ot"]))
            print(f"{stem}: {len(found.lesions)} listed, {seconds:.1f} s", flush=True)


def write_tables(folder: Path, name: str, stem: str, found, bleeds: str, mimics: str) -> None:
    """Write the truth's two tables and the prediction's."""
    subject = stem.split("_", maxsplit=1)[0]
    truth = folder / "truth" / subject / "anat"
    truth.mkdir(parents=True, exist_ok=True)
    (truth / f"{stem}_seg-CMB_dseg.tsv").write_text(bleeds, encoding="utf-8")
    (truth / f"{stem}_seg-mimics_dseg.tsv").write_text(mimics, encoding="utf-8")
    predicted = folder / name / subject / "anat"
    predicted.mkdir(parents=True, exist_ok=True)
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for lesion in found.lesions:
        writer.writerow(
            [
                lesion.index,
                f"CMB-{lesion.index:03d}",
                *(f"{value:.2f}" for value in lesion.centre_ras),
                f"{lesion.volume_mm3:.2f}",
                f"{lesion.diameter_mm:.2f}",
                f"{lesion.probability:.3f}",
                lesion.rating,
                lesion.susceptibility,
            ]
        )
    (predicted / f"{stem}_seg-CMB_dseg.tsv").write_text(out.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
