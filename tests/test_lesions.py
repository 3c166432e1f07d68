"""The lesion table: checks, formatting, and reading back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cmbprep.errors import CmbprepError
from cmbprep.lesions import COLUMNS, Lesion, format_lesions, read_lesions


def lesion(**changes: object) -> Lesion:
    values: dict[str, object] = {
        "index": 1,
        "name": "CMB-001",
        "x": -12.345,
        "y": 0.0,
        "z": 7.0,
        "volume_mm3": 14.137,
        "diameter_mm": 3.0,
        "probability": 0.91234,
        "rating": "definite",
        "zone": "lobar",
        "region": "frontal",
        "hemisphere": "left",
        "boundary": False,
        "contrast": 0.5,
    }
    return Lesion(**{**values, **changes})


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table = tmp_path / "lesions.tsv"
    table.write_text(format_lesions([lesion(), lesion(index=2, name="CMB-002", zone=None)]))
    first, second = read_lesions(table)
    assert first.x == pytest.approx(-12.35, abs=0.006)
    assert (first.zone, first.boundary, first.susceptibility) == ("lobar", False, "unknown")
    assert second.zone is None
    # Writing what was read changes nothing: rounding is done once.
    assert format_lesions([first, second]) == table.read_text()


def test_an_empty_table_still_has_its_header(tmp_path: Path) -> None:
    table = tmp_path / "lesions.tsv"
    table.write_text(format_lesions([]))
    assert table.read_text().splitlines() == ["\t".join(COLUMNS)]
    assert read_lesions(table) == []


def test_missing_values_are_written_as_bids_asks() -> None:
    row = format_lesions([lesion(probability=None, boundary=None)]).splitlines()[1].split("\t")
    cells = dict(zip(COLUMNS, row, strict=True))
    assert cells["probability"] == cells["boundary"] == cells["x_mni"] == "n/a"


def test_minus_zero_is_zero() -> None:
    row = format_lesions([lesion(x=-0.0, y=-0.0001)]).splitlines()[1].split("\t")
    assert row[2:4] == ["0.00", "0.00"]


@pytest.mark.parametrize(
    "changes",
    [
        {"index": 0},
        {"x": math.nan},
        {"volume_mm3": 0.0},
        {"probability": 1.1},
        {"contrast": -0.1},
        {"rating": "certain"},
        {"zone": "cortical"},
        {"hemisphere": "L"},
        {"susceptibility": "iron"},
    ],
)
def test_a_lesion_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="lesion"):
        lesion(**changes)


@pytest.mark.parametrize(
    ("column", "value"), [("x", "left"), ("boundary", "maybe"), ("index", "0"), ("zone", "brain")]
)
def test_reading_names_the_line_that_is_wrong(tmp_path: Path, column: str, value: str) -> None:
    lines = format_lesions([lesion(), lesion(index=2)]).splitlines()
    cells = dict(zip(COLUMNS, lines[2].split("\t"), strict=True))
    lines[2] = "\t".join({**cells, column: value}.values())
    table = tmp_path / "lesions.tsv"
    table.write_text("\n".join(lines))
    with pytest.raises(CmbprepError, match="line 3"):
        read_lesions(table)


def test_unknown_columns_are_passed_over(tmp_path: Path) -> None:
    head, row = format_lesions([lesion()]).splitlines()
    table = tmp_path / "lesions.tsv"
    table.write_text(f"{head}\tchi_ppm\n{row}\t1.5\n")
    assert read_lesions(table)[0].index == 1
