"""The lesion table: checks, formatting, and reading back."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cmbprep.errors import CmbprepError
from cmbprep.lesions import COLUMNS, Lesion, format_lesions, read_lesions
from cmbprep.zones.schemes import BOMBS, MARS


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
        {"volume_mm3": math.inf},
        {"diameter_mm": -1.0},
        {"z_mni": math.nan},
        {"boundary_distance_mm": math.inf},
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


def whole_table() -> str:
    """Three sound rows: lobar, in a ventricle, and without a place."""
    place = {"x_mni": 1.0, "y_mni": 2.0, "z_mni": 3.0, "boundary_distance_mm": 4.0}
    return format_lesions(
        [
            lesion(**place, region_fraction=1.0),
            lesion(
                index=2, name="CMB-002", zone=None, region="ventricle", hemisphere=None, **place
            ),
            lesion(index=5, name="CMB-005", zone=None, region=None, hemisphere=None),
        ]
    )


def cells(line: int, **changes: str) -> Callable[[str], str]:
    """Make a function that replaces cells of a line by column."""

    def change(text: str) -> str:
        lines = text.splitlines()
        row = dict(zip(COLUMNS, lines[line - 1].split("\t"), strict=True))
        lines[line - 1] = "\t".join({**row, **changes}.values())
        return "\n".join(lines) + "\n"

    return change


def without(column: str) -> Callable[[str], str]:
    at = list(COLUMNS).index(column)

    def change(text: str) -> str:
        lines = [line.split("\t") for line in text.splitlines()]
        return "".join("\t".join([*line[:at], *line[at + 1 :]]) + "\n" for line in lines)

    return change


def read_changed(tmp_path: Path, change: Callable[[str], str | bytes]) -> list[Lesion]:
    table = tmp_path / "lesions.tsv"
    content = change(whole_table())
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_lesions(table, scheme=MARS, labels={1, 2, 5})


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n\n",
        # Quotation marks are text in TSV: the cell does not reach to the next mark.
        cells(3, name='CMB "two'),
        cells(2, x="1e1", y="-.5", z="+7."),
        lambda text: "".join(
            "\t".join([*line.split("\t")[::-1], "more"]) + "\n" for line in text.splitlines()
        ),
    ],
)
def test_a_whole_table_is_believed(tmp_path: Path, change: Callable[[str], str]) -> None:
    lesions = read_changed(tmp_path, change)
    assert [item.index for item in lesions] == [1, 2, 5]
    assert [item.region for item in lesions] == ["frontal", "ventricle", None]
    assert [item.placed for item in lesions] == [True, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:0], "empty"),
        (lambda text: text[:0] + "\n \n", "empty"),
        (lambda text: bytes(len(text)), "not text"),
        (lambda text: text.replace("\t", ";"), "semicolons separate"),
        (lambda text: text.replace("\t", ";").splitlines()[0] + "\n", "semicolons separate"),
        (lambda text: text.replace("\t", ","), "commas separate"),
        (lambda text: text.split("\n", 1)[1], "no column"),
        (lambda text: text.splitlines()[0] + "\n", "0 rows .* 3 labels.* no row for 1, 2, 5"),
        (without("rating"), "no column rating"),
        (without("susceptibility"), "no column susceptibility"),
        (lambda text: text.replace("rating", "Rating", 1), "no column rating .*'Rating'"),
        (lambda text: text.replace("contrast", "rating", 1), "'rating' twice"),
        (lambda text: text.replace("contrast", "Rating", 1), "'rating' and 'Rating'"),
        (lambda text: text.replace("rating", '"rating"', 1), "no column rating"),
        (lambda text: text[: text.rindex("\t")] + "\n", "line 4 has 19 cells"),
        (lambda text: text[: len(text) * 3 // 4], "line 3 has|line 4 has"),
        (lambda text: text[:-3], "line 4 .*susceptibility 'unkno'"),
        (lambda text: text[: text.rindex("5\tCMB")], "2 rows .* 3 labels.* no row for 5"),
        (cells(4, index="4"), "no row for 5; no label for 4"),
        (cells(4, index="1"), "two rows have the index 1"),
        (cells(4, name="CMB-001"), "two rows have the name CMB-001"),
        (cells(3, index="2.0"), "line 3 .*index: '2.0' is not a whole number"),
        (cells(3, index="9" * 400), "line 3 .*index"),
        (cells(3, x="n/a"), "line 3 .*x is missing"),
        (cells(3, volume_mm3="n/a"), "line 3 .*volume_mm3 is missing"),
        (cells(3, susceptibility="n/a"), "line 3 .*susceptibility is missing"),
        (cells(3, rating=""), "line 3 .*rating is empty"),
        (cells(3, x="nan"), "line 3 .*x: 'nan' is not a number"),
        (cells(3, x="1e999"), "line 3 .*x: '1e999' is not a finite number"),
        (cells(3, x="12,5"), "line 3 .*x: '12,5' is not a number"),
        (cells(3, x="1_0"), "line 3 .*x: '1_0' is not a number"),
        (cells(3, diameter_mm="-3"), "line 3 .*diameter_mm -3.0 is not positive"),
        (cells(3, probability="1.2"), "line 3 .*outside 0..1"),
        (cells(3, rating="certain"), "line 3 .*rating 'certain' is none of definite, possible"),
        (cells(3, hemisphere="L"), "line 3 .*hemisphere"),
        (cells(3, boundary="TRUE"), "line 3 .*boundary: 'TRUE' is neither"),
        (cells(3, y_mni="n/a"), "line 3 .*one of x_mni, y_mni, z_mni is missing"),
        (cells(2, zone="infratentorial", region="cerebelum"), "line 2 .*did you mean 'cerebellum'"),
        (cells(2, zone="deep"), "line 2 .*frontal is in the zone lobar, not in the zone deep"),
        (cells(2, zone="n/a"), "line 2 .*frontal is in the zone lobar, not in no zone"),
        (cells(3, zone="deep"), "line 3 .*ventricle is in no zone, not in the zone deep"),
        (cells(2, region="cortex and grey-white junction"), "line 2 .*MARS has no region"),
        (lambda text: text.encode() + b"\xff", "not UTF-8"),
        (lambda text: text.replace("frontal", "fron\0tal"), "not text"),
    ],
)
def test_a_damaged_table_is_never_a_shorter_one(
    tmp_path: Path, change: Callable[[str], str | bytes], message: str
) -> None:
    with pytest.raises(CmbprepError, match=message) as caught:
        read_changed(tmp_path, change)
    assert caught.value.path == str(tmp_path / "lesions.tsv")
    assert caught.value.hint


def test_every_cut_of_a_table_is_noticed(tmp_path: Path) -> None:
    text = whole_table()
    for length in range(len(text) - 1):
        with pytest.raises(CmbprepError):
            read_changed(tmp_path, lambda text, length=length: text[:length])  # type: ignore[misc]


def test_a_header_alone_needs_an_image_without_labels(tmp_path: Path) -> None:
    table = tmp_path / "lesions.tsv"
    table.write_text(format_lesions([]))
    assert read_lesions(table, scheme=BOMBS, labels=()) == []
    with pytest.raises(CmbprepError, match="0 rows and its label image has 1 label: no row for 3"):
        read_lesions(table, labels=[3])
    table.write_text(format_lesions([lesion()]))
    with pytest.raises(CmbprepError, match="1 row and its label image has 0 labels"):
        read_lesions(table, labels=[])


def test_regions_belong_to_their_scheme(tmp_path: Path) -> None:
    table = tmp_path / "lesions.tsv"
    table.write_text(format_lesions([lesion(region="subcortical white matter")]))
    assert read_lesions(table, scheme=BOMBS)[0].region == "subcortical white matter"
    assert read_lesions(table)[0].zone == "lobar"
    with pytest.raises(CmbprepError, match="MARS has no region"):
        read_lesions(table, scheme=MARS)


@pytest.mark.parametrize("kind", ["absent", "folder", "pipe", "link", "huge"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    table = tmp_path / "lesions.tsv"
    if kind == "folder":
        table.mkdir()
    elif kind == "pipe":
        os.mkfifo(table)
    elif kind == "link":
        table.symlink_to(tmp_path / "gone.tsv")
    elif kind == "huge":
        with open(table, "wb") as stream:
            stream.truncate(2**33)
    with pytest.raises(CmbprepError) as caught:
        read_lesions(table)
    assert caught.value.path == str(table)


def test_an_outside_lesion_is_placed() -> None:
    outside = lesion(zone=None, region=None, boundary_distance_mm=7.0)
    assert outside.placed
    # Coordinates of the template alone do not say that there was an atlas to look in.
    assert not lesion(zone=None, region=None, x_mni=1.0, y_mni=1.0, z_mni=1.0).placed
