"""Time and memory of the group level on a made-up output dataset.

    python benchmarks/cohort.py build DEST [--scans 10000] [--lesions 50000] [--visits 2]
    python benchmarks/cohort.py measure DEST [--model "n_any ~ age + C(site)"]

``build`` writes finished results with the names, sizes and records of real ones: participants with
one session or two, a T1w image and a scan of the whole head each. Nothing in them was computed:
half of the scans have lesions, whose number per scan is geometric, at random places. With two
sessions the follow-up of each participant is made up too: three quarters of the lesions of the
shorter list are persistent, the others new or gone. Images of equal content share a file on the
disk. ``rawdata`` in it has the tables of a raw dataset: age, sex and site of participants, dates of
their sessions. ``measure`` runs ``cmbprep ... group``, with a model if one is given, and prints
seconds, processor seconds, the largest memory, and the size of the page.
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
from cmbprep.followup.pair import BLOCK as FOLLOWED
from cmbprep.followup.pair import pair_visits, read_pair
from cmbprep.followup.status import MATCHED, Fate
from cmbprep.followup.table import format_followup
from cmbprep.lesions import COLUMNS, HEMISPHERES, Lesion, format_lesions
from cmbprep.outputs.files import file_digest, write_image, write_json, write_text
from cmbprep.outputs.names import Names
from cmbprep.outputs.sparse import describe_mask
from cmbprep.outputs.stages import StageFiles, place_and_size
from cmbprep.reports.followup import followed_scans
from cmbprep.reports.results import collect_results
from cmbprep.spatial.transforms import LinearMap
from cmbprep.templates import load_template
from cmbprep.zones.schemes import MARS

TEMPLATE = "MNI152NLin2009cAsym"
#: Grid of a scan with thick slices.
SCAN_SHAPE, SCAN_AFFINE = (256, 256, 48), np.diag([0.9, 0.9, 3.0, 1.0])
#: Different images of microbleeds in template space, and most lesions of a scan.
N_MASKS, MOST = 40, 90
#: Folder of the tables of the raw dataset; labels of the sessions.
RAW, SESSIONS = "rawdata", "ab"
#: Made-up registration of two visits.
VISITS = {
    "Route": "direct",
    "Verdict": "ok",
    "Reasons": [],
    "Gap": 0.1,
    "ErrorToReckonWith": 0.7,
    "Similarity": 1.2,
    "Overlap": 0.98,
}
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

    def follow(self, subject: str) -> None:
        """Write the follow-up of a participant with two sessions."""
        (found,) = collect_results(self.root, subject=subject)
        for pair in pair_visits(self.root, followed_scans(found), SESSIONS):
            first, second = pair.first.counted, pair.second.counted
            kept = 3 * min(len(first), len(second)) // 4
            fates = [
                *(
                    Fate(first=one, second=other, status="persistent", reason=MATCHED)
                    for one, other in zip(first[:kept], second[:kept], strict=True)
                ),
                *(Fate(first=item, status="gone", reason="made up") for item in first[kept:]),
                *(Fate(second=item, status="new", reason="made up") for item in second[kept:]),
            ]
            sources = pair.first.source, pair.second.source
            still = LinearMap(np.eye(4))
            text = format_followup(fates, still, sources=sources, limits=pair.limits)
            images = [pair.image(scan) for scan in (pair.first, pair.second)]
            for path in images:
                self.link("any", path)
            files = [write_text(pair.table, text), *images]
            block = {
                "Version": __version__,
                "Fingerprint": pair.fingerprint,
                "Order": "known",
                "Registration": VISITS,
                "Limits": list(pair.limits),
                "Table": file_digest(pair.table),
                "Files": {
                    path.relative_to(self.root).as_posix(): path.stat().st_size for path in files
                },
            }
            write_json(pair.sidecar, {"Description": "made up", FOLLOWED: block})
            assert read_pair(pair) is not None, pair.table

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
    parser.add_argument("--visits", type=int, choices=(1, 2), default=1)
    parser.set_defaults(run=run_build)


def run_build(arguments: argparse.Namespace) -> int:
    """Write the dataset."""
    maker = Maker(arguments.dest)
    (arguments.dest / "logs").mkdir()
    positive = arguments.scans // 2
    mean = arguments.lesions / positive
    drawn = np.minimum(maker.rng.geometric(1 / mean, positive), MOST)
    numbers = maker.rng.permutation([*drawn, *[0] * (arguments.scans - positive)])
    people = -(-arguments.scans // arguments.visits)
    for scan, number in enumerate(numbers):
        visit, person = divmod(scan, people)
        maker.add(f"{person + 1:05}", SESSIONS[visit], int(number))
    write_raw(arguments.dest / RAW, people, arguments.visits, maker.rng)
    pairs = arguments.scans - people
    for person in range(1, pairs + 1):
        maker.follow(f"{person:05}")
    print(f"{arguments.scans} scans, {positive} with lesions, {numbers.sum()} lesions")
    print(f"{people} participants, {pairs} with a follow-up")
    return 0


def write_raw(root: Path, number: int, visits: int, rng: np.random.Generator) -> None:
    """Write the tables of the raw dataset."""
    lines = ["participant_id\tage\tsex\tsite"]
    for person in range(1, number + 1):
        label, site = f"sub-{person:05}", f"site{person % 3}"
        lines.append(f"{label}\t{rng.normal(70, 8):.1f}\t{'MF'[person % 2]}\t{site}")
        (root / label).mkdir(parents=True)
        dates = [f"ses-{SESSIONS[n]}\t{2019 + n}-05-0{1 + person % 9}" for n in range(visits)]
        sessions = ["session_id\tacq_time", *dates]
        (root / label / f"{label}_sessions.tsv").write_text("\n".join(sessions) + "\n")
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")


def add_measure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``measure``."""
    parser.add_argument("dest", type=Path)
    parser.add_argument("--model", metavar="FORMULA", help="fit a model, too")
    parser.set_defaults(run=run_measure)


def run_measure(arguments: argparse.Namespace) -> int:
    """Run the group level, and print what it took."""
    words = [str(arguments.dest / RAW), str(arguments.dest), "group"]
    if arguments.model is not None:
        words += ["--model", arguments.model]
    report("group level", measure([sys.executable, "-m", "cmbprep", *words]))
    print(f"group.html {(arguments.dest / 'group.html').stat().st_size / 1e6:.2f} MB")
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
