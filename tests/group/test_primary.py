"""The scan that stands for a visit: each part of the rule decides where those before it tie."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from cmbprep.group.primary import choose_primary
from cmbprep.group.rows import make_rows
from cmbprep.reports.results import collect_results
from tests.reports.outputtree import Tree

FINE, COARSE = (0.5, 0.5, 2.0), (1.0, 1.0, 3.0)


def registered(verdict: str = "ok", **figures: Any) -> dict[str, Any]:
    return {
        "route": "template",
        "template_registration": {"verdict": verdict},
        "snr": 20.0,
        **figures,
    }


def covered(part: float) -> dict[str, float]:
    return {"lobar": 1.0, "deep": 1.0, "infratentorial": part}


#: Better and worse scan; the worse one is better by all that comes later in the rule.
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "registration": (
        {"quality": registered(snr=2.0), "voxel": COARSE, "coverage": covered(0.6)},
        {"quality": registered("doubtful"), "voxel": FINE},
    ),
    "doubtful before failed": (
        {"quality": registered("doubtful"), "voxel": COARSE, "coverage": covered(0.6)},
        {"quality": registered("failed"), "voxel": FINE},
    ),
    "slab": (
        {"quality": registered(snr=2.0), "voxel": COARSE, "coverage": covered(0.81)},
        {"quality": registered(), "voxel": FINE, "coverage": covered(0.79)},
    ),
    "quality": (
        {"quality": registered(), "voxel": COARSE},
        {"quality": registered(snr=2.0), "voxel": FINE},
    ),
    "voxels": (
        {"quality": registered(), "voxel": (0.5, 0.5, 3.0)},
        {"quality": registered(), "voxel": (1.0, 1.0, 1.0)},
    ),
    "slices": (
        {"quality": registered(), "voxel": (1.0, 1.0, 1.0)},
        {"quality": registered(), "voxel": (0.5, 1.0, 2.0)},
    ),
}


@pytest.mark.parametrize("part", PAIRS)
@pytest.mark.parametrize("first", [True, False])
def test_each_part_of_the_rule(tree: Tree, part: str, first: bool) -> None:
    names = ("sub-1_run-1_T2starw", "sub-1_run-2_T2starw")
    better, worse = names if first else names[::-1]
    tree.add(better, **PAIRS[part][0])
    tree.add(worse, **PAIRS[part][1])
    rows = make_rows(collect_results(tree.finish()))
    assert choose_primary(rows).name == choose_primary(rows[::-1]).name == better


def test_results_come_first_and_names_last(tree: Tree) -> None:
    tree.fail("sub-1_acq-a_T2starw", "it broke")
    tree.add("sub-1_acq-b_T2starw", quality=registered("failed"), coverage=covered(0.1))
    tree.add("sub-2_run-2_T2starw", quality=registered())
    tree.add("sub-2_run-1_T2starw", quality=registered())
    tree.fail("sub-3_run-2_T2starw", "it broke")
    tree.fail("sub-3_run-1_T2starw", "it broke")
    found = make_rows(collect_results(tree.finish()))
    for subject, name in (("1", "acq-b"), ("2", "run-1"), ("3", "run-1")):
        for rows in permutations(row for row in found if row.subject == subject):
            assert name in choose_primary(rows).name
