"""Detectors compared on simulated people that no fit has seen: ``python benchmarks/held_out.py``.

    python benchmarks/held_out.py simulate FOLDER --nprocs 2
    python benchmarks/held_out.py detect FOLDER --detector classical
    python benchmarks/held_out.py detect FOLDER --detector learned [--without phase echoes]
    python benchmarks/held_out.py detect FOLDER --threshold 0.2 --name learned-all
    python benchmarks/held_out.py table FOLDER learned classical [--write-docs]

People have 14 microbleeds each, and are scanned under presets, none of which any fit uses. It
measures detection alone: scans are bias-corrected as the program does, within the head's own
brain, and there is no registration. ``benchmarks/recipe.py`` measures the whole program.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from detection import open_detector
from numpy.typing import NDArray
from recipe import figure, markdown, mimic_table
from tables import save_tables

#: First word of the seeds of people. Those of the test are used for nothing but figures that
#: are reported; those of development are looked at while the detector is changed.
SEEDS = {"test": tuple(range(9125, 9135)), "development": tuple(range(9150, 9155))}
PROTOCOLS = (
    "clinical-2d-1.5t",
    "clinical-2d-1.5t-long-te",
    "clinical-2d-3t",
    "ukb-swi",
    "gre3d-3t",
    "swi-3t",
)
MIN_DIAMETER_MM = 2
#: What a lesion can be called where there is phase.
CALLED = ("paramagnetic", "diamagnetic", "unknown")
#: A listed lesion is at a thing if its centre is this near to its surface, or inside, mm.
NEAR_MM = 1.0
#: Figure -> head of its column.
SHOWN = {
    "sensitivity": "sensitivity",
    "precision": "precision",
    "f1": "F1",
    "fp_per_scan": "false positives per scan",
    "ece": "calibration error",
    "volume_error_median": "volume error, median",
}
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
    simulate.add_argument("--use", choices=SEEDS, default="test")
    simulate.add_argument("--heads", type=int, default=len(SEEDS["test"]))
    simulate.add_argument("--nprocs", type=int, default=1, help="people at a time")
    detect = commands.add_parser("detect")
    detect.add_argument("folder", type=Path)
    detect.add_argument("--detector", default="learned")
    detect.add_argument("--model", type=Path, help="folder of other models")
    detect.add_argument("--threshold", type=float, help="probability from which lesions are listed")
    detect.add_argument("--without", nargs="*", choices=("phase", "echoes"), default=())
    detect.add_argument("--name", help="folder of the results (default: the detector's name)")
    detect.add_argument("--scans", nargs="*", default=["*"], help="patterns of scans")
    table = commands.add_parser("table")
    table.add_argument("folder", type=Path)
    table.add_argument("names", nargs="+", help="folders of results, the first in detail")
    table.add_argument("--write-docs", action="store_true", help="write the tables of the docs")
    arguments = parser.parse_args()
    if arguments.command == "table":
        text = make_table(arguments.folder, arguments.names)
        print(text, end="")
        if arguments.write_docs:
            save_tables(text, "held-out")
        return 0
    if arguments.command == "simulate":
        seeds = SEEDS[arguments.use][: arguments.heads]
        with ProcessPoolExecutor(arguments.nprocs, mp_context=get_context("spawn")) as pool:
            list(pool.map(simulate_person, itertools.repeat(arguments.folder), seeds))
        return 0
    detect_all(arguments)
    return 0


def simulate_person(folder: Path, seed: int) -> None:
    """Scan one person under all presets, and keep the scans and their truth."""
    folder.mkdir(parents=True, exist_ok=True)
    left = [name for name in PROTOCOLS if not (folder / f"{name}-{seed}.npz").exists()]
    if not left:
        return
    for name, scan in zip(left, scan_person(seed, left), strict=True):
        kept = {key: scan[key] for key in ("echoes", "affine", "brain", "bt", "ot")}
        partial = folder / f"{name}-{seed}.partial.npz"
        np.savez(partial, **kept)
        partial.rename(folder / f"{name}-{seed}.npz")
        print(f"{name}-{seed}", flush=True)


def make_table(folder: Path, names: list[str]) -> str:
    """Evaluate results and show them beside each other, those of the first by protocol too."""
    truth = folder / "truth"
    found = {name: evaluate(folder / name, truth, folder / f"{name}.json") for name in names}
    first = found[names[0]]
    counts, splits = first["counts"], first["splits"]
    about = (
        f"{counts['subjects']} simulated people, {counts['scans']} scans, "
        f"{counts['true_lesions']} visible bleeds of at least {MIN_DIAMETER_MM} mm; rule "
        f"`{first['rule']['short']}`. In brackets: 95 % intervals, "
        f"{first['bootstrap']['draws']} bootstrap draws of people."
    )
    parts = [
        about,
        _table({name: _whole(evaluation) for name, evaluation in found.items()}),
        f"`{names[0]}` by protocol:",
        _table(splits["protocol"]),
        "By diameter of the void, mm:",
        _table(splits["size"], ("sensitivity",)),
        f"What the {counts['false_positives']} false positives of `{names[0]}` lie on:",
        mimic_table(first["false_positives"]),
        f"What is called what, of the visible things in scans with phase that `{names[0]}` lists:",
        substance_table(folder / names[0], truth),
    ]
    return "\n\n".join(parts) + "\n"


def evaluate(results: Path, truth: Path, figures: Path) -> dict[str, Any]:
    """Return the figures of ``cmbprep-tools evaluate``."""
    from cmbprep.lab.cli import main as tools

    words = ["evaluate", str(results), str(truth), "--min-diameter", str(MIN_DIAMETER_MM)]
    if tools([*words, "--json", str(figures)]):
        raise SystemExit("the evaluation failed")
    content: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return content


def substance_table(results: Path, truth: Path) -> str:
    """Count how listed lesions are called: those at visible bleeds, and at calcifications."""
    counts = dict.fromkeys(itertools.product(("microbleed", "calcification"), CALLED), 0)
    for path in sorted(results.glob("sub-*/anat/*_seg-CMB_dseg.tsv")):
        found = read_table(path)
        if all(row["susceptibility"] == "unknown" for row in found):
            continue  # no phase
        same = truth / path.relative_to(results)
        known = read_table(same)
        known += read_table(same.with_name(same.name.replace("CMB", "mimics")))
        for row in found:
            at = min(known, key=lambda other: _apart(row, other), default=None)
            if at is None or _apart(row, at) > NEAR_MM or at["visible"] != "true":
                continue
            if at["kind"] in ("microbleed", "calcification"):
                counts[at["kind"], row["susceptibility"]] += 1
    kinds = ("microbleed", "calcification")
    rows = [[kind, *(str(counts[kind, called]) for called in CALLED)] for kind in kinds]
    return markdown([["", *CALLED], *rows])


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _apart(one: dict[str, str], other: dict[str, str]) -> float:
    """Distance from a lesion's centre to the surface of a thing's ball, mm."""
    centres = [np.array([float(row[axis]) for axis in "xyz"]) for row in (one, other)]
    return float(np.linalg.norm(centres[0] - centres[1])) - float(other["diameter_mm"]) / 2


def _whole(evaluation: dict[str, Any]) -> dict[str, Any]:
    counts = evaluation["counts"]
    return {"scans": counts["scans"], "lesions": counts["true_lesions"], **evaluation["figures"]}


def _table(groups: dict[str, dict[str, Any]], names: tuple[str, ...] = tuple(SHOWN)) -> str:
    """One row a group."""
    rows = [["", "scans", "bleeds", *(SHOWN[name] for name in names)]]
    for label, group in groups.items():
        cells = [figure(group[name]).replace("<br>", " ") for name in names]
        rows.append([label, str(group["scans"]), str(group["lesions"]), *cells])
    return markdown(rows)


def detect_all(arguments: argparse.Namespace) -> None:
    """Run a detector on all scans of a folder; write its tables and those of the truth."""
    from cmbprep.lab.simulate.protocols import get_protocol
    from cmbprep.lab.training.scans import detector_inputs

    detector = open_detector(arguments.detector, arguments.model, arguments.threshold)
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
            stem = f"sub-{seed}_acq-{scan_label(preset, scan.sequence)}"
            write_tables(arguments.folder, name, stem, found, str(data["bt"]), str(data["ot"]))
            print(f"{stem}: {len(found.lesions)} listed, {seconds:.1f} s", flush=True)


def scan_label(preset: str, sequence: str) -> str:
    """Return the ``acq`` entity of what is detected in: the magnitude, or the processed SWI."""
    kind = "processed" if sequence == "swi" else "magnitude"
    return preset.replace("-", "").replace(".", "") + kind


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


# --- The people ----------------------------------------------------------------------------------

AGE, BLEEDS = 72.0, 14


def scan_person(seed: int, names: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
    """Make one person, and scan them under presets.

    Parameters
    ----------
    seed
        First word of the seeds of the person, and of each scan.
    names
        Presets. A scan does not depend on which others are made.

    Yields
    ------
    dict
        ``echoes`` (complex), ``affine``, ``brain`` (its true mask), the truth's ``bleeds`` and
        ``others`` (labels) with their tables ``bt`` and ``ot``, and the preset's echo times
        (``te``), ``field`` and phase ``sign``.
    """
    from scipy import ndimage

    from cmbprep.lab.simulate import scanner, sources, vessels
    from cmbprep.lab.simulate.field import plan_geometry
    from cmbprep.lab.simulate.head import build_head
    from cmbprep.lab.simulate.heads import load_template_head
    from cmbprep.lab.simulate.protocols import get_protocol
    from cmbprep.lab.simulate.truth import tell_truth

    streams = [np.random.default_rng([seed, 2, 0, k]) for k in range(4)]
    head = build_head(load_template_head(), streams[0], age=AGE, atrophy=0.35, lesion_load=0.3)
    places = sources.place_masks(head)
    found = sources.draw_microbleeds(head, places, BLEEDS, streams[1])
    found += sources.draw_mimics(head, places, AGE, streams[2])
    tubes = vessels.draw_veins(head, head.to_template.inverse, streams[3])
    tubes += vessels.draw_arteries(head.to_template.inverse, streams[3])
    centre = head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    for name in names:
        protocol = get_protocol(name)
        rng = np.random.default_rng([seed, 3, sum(map(ord, name))])
        geometry = plan_geometry(protocol, centre, rng)
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
        yield {
            "echoes": np.stack(scan.echoes),
            "affine": geometry.affine,
            "brain": brain > 0.5,
            "bleeds": truth.microbleeds,
            "others": truth.others,
            "bt": np.array(truth.microbleed_table),
            "ot": np.array(truth.other_table),
            "te": np.array(protocol.echo_times),
            "field": np.array(protocol.field_strength),
            "sign": np.array(protocol.phase_sign),
        }


if __name__ == "__main__":
    sys.exit(main())
