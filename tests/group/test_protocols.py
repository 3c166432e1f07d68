"""Scans are compared with those that were acquired alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmbprep.group.protocols import (
    ProtocolGroup,
    find_outliers,
    group_by_protocol,
    wilson_interval,
)
from cmbprep.group.rows import make_rows
from cmbprep.group.tables import quality_table, scan_table
from cmbprep.reports.results import collect_results
from tests.group.cohort import cohort, raw_tables, visits_of
from tests.reports.outputtree import (
    Tree,
    make_lesion,
)

pytestmark = pytest.mark.usefixtures("quick")


def grouped(root: Path, raw: Path | None = None) -> list[ProtocolGroup]:
    rows = make_rows(collect_results(root))
    return group_by_protocol(rows, scan_table(rows, visits_of(rows, raw)))


def test_protocols_are_kept_apart(tree: Tree, tmp_path: Path) -> None:
    protocols = grouped(cohort(tree), raw_tables(tmp_path / "raw"))
    assert [
        (len(item.rows), item.protocol.field, item.protocol.echo_time) for item in protocols
    ] == [
        (2, "3 T", "20 ms"),
        (1, "3 T", "20 ms"),
        (1, "1.5 T", "30 ms"),
    ]
    maker = next(item for item in protocols if item.protocol.scanner == "Maker One")
    assert maker.prevalence()[:2] == (1, 1)
    assert [len(item.participants) for item in protocols] == [1, 1, 1], "ses-b is no baseline"
    assert maker.zone("deep") == (0, 0), "possible and diamagnetic ones are not definite"


def test_one_scan_a_participant_counts(tree: Tree) -> None:
    for run in (1, 2, 3):
        tree.add(f"sub-1_run-{run}_T2starw", [make_lesion(1)])
    tree.add("sub-2_T2starw")
    (protocol,) = grouped(tree.finish())
    assert len(protocol.rows) == 4
    assert protocol.prevalence()[:2] == (1, 2)


def test_wilson_interval_of_the_literature() -> None:
    # Newcombe RG. Stat Med 1998;17:857-872, table I, method 3: 81 of 263, 15 of 148, 0 of 20.
    for positive, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        np.testing.assert_allclose(wilson_interval(positive, total), (low, high), atol=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_outliers_are_told_within_a_protocol(tree: Tree) -> None:
    for number in range(9):
        tree.add(f"sub-a{number}_T2starw", quality={"snr": 20.0 + number % 3})
        tree.add(
            f"sub-b{number}_T2starw",
            quality={"snr": 60.0 + number % 3},
            acquisition={"MagneticFieldStrength": 7},
        )
    # 60 is far from the others at 3 T, and usual at 7 T.
    tree.add("sub-a9_T2starw", quality={"snr": 60.0})
    rows = make_rows(collect_results(tree.finish()))
    table = scan_table(rows)
    outliers = find_outliers(rows, quality_table(rows), group_by_protocol(rows, table))
    assert [(item.row.name, item.measure) for item in outliers] == [
        ("sub-a9_T2starw", "preproc_snr")
    ]
