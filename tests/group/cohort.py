"""A made-up cohort whose counts are known, and how its tables are read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from cmbprep.group.covariates import read_covariates
from cmbprep.group.rows import Row
from cmbprep.group.timeline import session_of
from cmbprep.group.visits import ScanVisit, find_visits
from tests.group.datasets import write_dataset
from tests.reports.outputtree import TEMPLATE, Tree, make_lesion

MAP = f"space-{TEMPLATE}_label-CMB_desc-frequency_probseg.nii.gz"
#: What a lesion lacks that was not compared with the zone atlas.
UNPLACED = dict.fromkeys(
    (
        "x_mni",
        "y_mni",
        "z_mni",
        "zone",
        "region",
        "hemisphere",
        "region_fraction",
        "boundary_distance_mm",
    )
)


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def cohort(tree: Tree) -> Path:
    tree.add(
        "sub-1_ses-a_T2starw",
        [
            make_lesion(1),
            make_lesion(2, rating="possible", zone="deep", region="thalamus"),
            make_lesion(3, zone="infratentorial", region="cerebellum"),
            make_lesion(4, zone="deep", region="basal ganglia", susceptibility="diamagnetic"),
        ],
        acquisition={"Manufacturer": "Maker", "ManufacturersModelName": "One"},
        warnings=["look", "look again"],
    )
    tree.add("sub-1_ses-b_T2starw", [make_lesion(1)])
    tree.add("sub-2_T2starw")
    tree.fail("sub-3_T2starw", "it\tbroke\nbadly")
    tree.refuse("4", "sub-4_part-phase_T2starw.nii.gz", "a phase image")
    tree.add("sub-5_acq-x_swi", acquisition={"EchoTime": 0.03, "MagneticFieldStrength": 1.5})
    return tree.finish()


def visits_of(rows: Sequence[Row], raw: Path | None = None) -> tuple[ScanVisit, ...]:
    """Return the visit of each row; the raw dataset says the order of sessions."""
    covariates, _ = read_covariates(raw, [(row.subject, session_of(row)) for row in rows])
    return find_visits(rows, covariates)[0].scans


def raw_tables(root: Path) -> Path:
    """Write the tables of the raw dataset of :func:`cohort`: its sessions in their order."""
    return write_dataset(root, sessions={"1": "session_id\nses-a\nses-b\n"})
