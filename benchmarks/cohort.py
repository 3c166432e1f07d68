"""Time and memory of the group level on a made-up output dataset.

    python benchmarks/cohort.py build DEST [--scans 10000] [--lesions 50000]
    python benchmarks/cohort.py measure DEST

``build`` writes finished results with the names, sizes and records of real ones: participants with
one session, a T1w image and a scan of the whole head each. Nothing in them was computed: half of
the scans have lesions, whose number per scan is geometric, at random places. Images of equal
content share a file on the disk. ``rawdata`` in it has the tables of a raw dataset: age, sex and
site of participants, dates of their sessions. ``measure`` runs ``cmbprep ... group`` and prints
seconds, processor seconds and the largest memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from cost import measure, report

from cmbprep import __version__
from cmbprep.lesions import COLUMNS, HEMISPHERES, Lesion, format_lesions
from cmbprep.outputs.files import file_digest, write_image
from cmbprep.outputs.names import Names
from cmbprep.outputs.sparse import describe_mask
from cmbprep.outputs.stages import StageFiles, place_and_size
from cmbprep.templates import load_template
from cmbprep.zones.schemes import MARS

TEMPLATE = "MNI152NLin2009cAsym"
#: Grid of a scan with thick slices.
SCAN_SHAPE, SCAN_AFFINE = (256, 256, 48), np.diag([0.9, 0.9, 3.0, 1.0])
#: Different images of microbleeds in template space, and most lesions of a scan.
N_MASKS, MOST = 40, 90
#: Folder of the tables of the raw dataset; label of the sessions.
RAW, SESSION = "rawdata", "a"
WARNINGS = ["the slices are thick"]
PARAMETERS = {
    "detector": "learned",
    "detector_parameters": {"name": "learned", "version": "5", "threshold": 0.671, "definite": 0.9},
    "scheme": "mars",
    "border_mm": 10.0,
}
REGISTRATION = {
    "similarity": 1.063,
    "overlap": 0.9777,
    "covered": 0.9982,
    "local_shift_mm": 0.3812,
    "brain_volume_ml": 1470.8,
    "scale": 1.0,
    "jacobian_low": 1.0,
    "jacobian_high": 1.0,
    "folding_fraction": 0.0,
    "rotation_deg": 3.0185,
    "shift_mm": 0.7604,
    "verdict": "ok",
}


class Maker:
    """Writes scans that share the files of their images."""

    def __init__(self, root: Path, seed: int = 1) -> None:
        self.root, self.rng = root, np.random.default_rng(seed)
        self.regions = [region for region in MARS.regions if region.zone is not None]
        self.pool = root / ".pool"
        self.pool.mkdir(parents=True)
        (self.pool / "any").write_bytes(b"\x1f\x8b" + bytes(4000))
        self.template = nib.load(load_template().t1w)
        values = self.rng.integers(0, 800, (*SCAN_SHAPE[:2], 4)).astype(np.int16)
        write_image(self.pool / "preproc", nib.Nifti1Image(values, SCAN_AFFINE))

    @cache  # noqa: B019 - one maker a program
    def mask(self, number: int) -> dict:
        """Write a mask in template space, empty for 0, and return its record."""
        mask = np.zeros(self.template.shape, np.uint8)
        for centre in self.rng.integers(40, 150, (2 * bool(number), 3)):
            mask[tuple(slice(at, at + 4) for at in centre)] = 1
        path = self.pool / f"mask{number}.nii.gz"
        return describe_mask(write_image(path, nib.Nifti1Image(mask, self.template.affine)))

    @cache  # noqa: B019
    def label_image(self, number: int) -> str:
        """Write a label image with so many lesions, and return its digest."""
        labels = np.zeros(SCAN_SHAPE, np.int16)
        labels[40, 40 : 40 + number, 20] = np.arange(1, number + 1)
        image = nib.Nifti1Image(labels, SCAN_AFFINE)
        return file_digest(write_image(self.pool / f"dseg{number}", image))

    def add(self, subject: str, session: str, number: int) -> None:
        """Write one session with a scan that has so many lesions."""
        unit = f"sub-{subject}_ses-{session}"
        names = Names(
            subject=subject,
            session=session,
            src=unit,
            suffix="T2starw",
            template=TEMPLATE,
            reference=TEMPLATE,
            target="T1w",
            scheme="MARS",
        )
        lesions = [self.lesion(index) for index in range(1, number + 1)]
        mask = int(self.rng.integers(1, N_MASKS + 1)) if lesions else 0
        noise = float(self.rng.normal(20, 2))
        blocks = {
            "anatomy": {"Quality": {"snr": noise, "template_registration": REGISTRATION}},
            "preproc": {
                "Parameters": {"reference": TEMPLATE, "anatomy": f"{unit}_T1w"},
                "Quality": {"snr": noise, "bias_ratio": 1.3, "t1w_registration": REGISTRATION},
                "Warnings": WARNINGS * (number > 20),
            },
            "lesions": {
                "Parameters": PARAMETERS,
                "Quality": {"zone_route": "t1w", "zone_verdict": "ok", "zone_tolerance_mm": 2.0},
                "Coverage": {"lobar": 1.0, "deep": 1.0, "infratentorial": 0.995},
                "Labels": list(range(1, number + 1)),
                "LabelImage": self.label_image(number),
                "TemplateMask": self.mask(mask),
                "Lesions": {str(item.index): place_and_size(item) for item in lesions},
            },
        }
        images = {
            "dseg": f"dseg{number}",
            "template_mask": f"mask{mask}.nii.gz",
            "preproc": "preproc",
        }
        stages = {}
        for stage, block in blocks.items():
            files = StageFiles(self.root, stage, names)
            self.write_stage(files, block, images, lesions)
            sidecar = files.sidecar.relative_to(self.root).as_posix()
            stages[stage] = {"sidecar": sidecar, "fingerprint": f"{stage}-1"}
        name = f"{unit}_T2starw"
        scan = {"name": name, "files": [f"{name}.nii.gz"], "warnings": [], "stages": stages}
        record = {"unit": unit, "scans": [scan], "withdrawn": [], "refused": [], "anatomy": None}
        (self.root / "logs" / f"{unit}_inputs.json").write_text(json.dumps(record, indent=2))

    def link(self, name: str, path: Path) -> None:
        """Make a file another name of one of the pool."""
        source = self.pool / name
        try:
            os.link(source, path)
        except OSError:  # it has as many names as a file may have
            shutil.copy(source, path)
            source.unlink()
            os.link(path, source)

    def write_stage(
        self, files: StageFiles, block: dict, shared: dict[str, str], lesions: list[Lesion]
    ) -> None:
        """Write the files of a stage, its sidecar last; ``shared`` names files of the pool."""
        files.sidecar.parent.mkdir(parents=True, exist_ok=True)
        sizes = {}
        for key in files.keys:
            path = files.path(key)
            if key == "table":
                path.write_text(format_lesions(lesions))
            else:
                self.link(shared.get(key, "any"), path)
            sizes[key] = path.stat().st_size
        field = (1.5, 3.0)[int(files.names.subject) % 2]
        acquired = {
            "Manufacturer": "Siemens",
            "ManufacturersModelName": "Skyra",
            "MagneticFieldStrength": field,
            "EchoTime": 0.02,
            "SliceThickness": 3.0,
        }
        content = {
            **(COLUMNS if files.stage == "lesions" else {}),
            **acquired,
            "Sources": ["bids:raw:x"],
            "Cmbprep": {
                "Version": __version__,
                "Stage": files.stage,
                "Fingerprint": f"{files.stage}-1",
                "Names": asdict(files.names),
                "Parameters": {},
                "Warnings": [],
                "Files": sizes,
                **block,
                "Scan": f"{files.names.src}_T2starw",
                "Sequence": "T2starw",
                "EchoTimes": [0.02],
            },
        }
        files.sidecar.write_text(json.dumps(content, indent=2))

    def lesion(self, index: int) -> Lesion:
        """Return a lesion at a random place."""
        region = self.regions[self.rng.integers(len(self.regions))]
        place = np.round(self.rng.normal(0, 30, 3), 2).tolist()
        chance = float(self.rng.uniform(0.67, 1))
        return Lesion(
            index=index,
            name=f"CMB-{index:03d}",
            **dict(zip("xyz", place, strict=True)),
            **dict(zip(("x_mni", "y_mni", "z_mni"), place, strict=True)),
            volume_mm3=round(float(self.rng.gamma(4, 8)) + 1, 2),
            diameter_mm=4.0,
            probability=chance,
            rating="definite" if chance > 0.9 else "possible",
            zone=region.zone,
            region=region.name,
            hemisphere=HEMISPHERES[int(self.rng.integers(2))],
            region_fraction=0.9,
            boundary_distance_mm=5.0,
            boundary=False,
            contrast=0.5,
        )


def add_build(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``build``."""
    parser.add_argument("dest", type=Path)
    parser.add_argument("--scans", type=int, default=10_000)
    parser.add_argument("--lesions", type=int, default=50_000)
    parser.set_defaults(run=run_build)


def run_build(arguments: argparse.Namespace) -> int:
    """Write the dataset."""
    maker = Maker(arguments.dest)
    (arguments.dest / "logs").mkdir()
    positive = arguments.scans // 2
    mean = arguments.lesions / positive
    drawn = np.minimum(maker.rng.geometric(1 / mean, positive), MOST)
    numbers = maker.rng.permutation([*drawn, *[0] * (arguments.scans - positive)])
    for scan, number in enumerate(numbers):
        maker.add(f"{scan + 1:05}", SESSION, int(number))
    write_raw(arguments.dest / RAW, arguments.scans, maker.rng)
    print(f"{arguments.scans} scans, {positive} with lesions, {numbers.sum()} lesions")
    return 0


def write_raw(root: Path, number: int, rng: np.random.Generator) -> None:
    """Write the tables of the raw dataset."""
    lines = ["participant_id\tage\tsex\tsite"]
    for person in range(1, number + 1):
        label, site = f"sub-{person:05}", f"site{person % 3}"
        lines.append(f"{label}\t{rng.normal(70, 8):.1f}\t{'MF'[person % 2]}\t{site}")
        (root / label).mkdir(parents=True)
        sessions = f"session_id\tacq_time\nses-{SESSION}\t2019-05-0{1 + person % 9}\n"
        (root / label / f"{label}_sessions.tsv").write_text(sessions)
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")


def add_measure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``measure``."""
    parser.add_argument("dest", type=Path)
    parser.set_defaults(run=run_measure)


def run_measure(arguments: argparse.Namespace) -> int:
    """Run the group level, and print what it took."""
    folders = [str(arguments.dest / RAW), str(arguments.dest)]
    report("group level", measure([sys.executable, "-m", "cmbprep", *folders, "group"]))
    return 0


COMMANDS = {
    "build": (add_build, "write an output dataset"),
    "measure": (add_measure, "run the group level on it"),
}


def main() -> int:
    """Run a sub-command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (add, text) in COMMANDS.items():
        add(commands.add_parser(name, help=text, description=text))
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
