"""The group level joins what the participant level left, and counts by hand agree."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cmbprep.cli.main import main
from cmbprep.errors import UsageError
from cmbprep.group import run_group
from cmbprep.group.frequency import write_frequency_maps
from cmbprep.group.page import render_group_page
from cmbprep.group.participants import Participants
from cmbprep.group.protocols import (
    ProtocolGroup,
    find_outliers,
    group_by_protocol,
    wilson_interval,
)
from cmbprep.group.rows import make_rows
from cmbprep.group.tables import lesion_table, scan_table
from cmbprep.lesions import COLUMNS, ZONES, Lesion
from cmbprep.reports.results import collect_results
from tests.reports.outputtree import (
    TEMPLATE,
    TEMPLATE_AFFINE,
    TEMPLATE_SHAPE,
    Tree,
    make_lesion,
    paint,
    voxel_of,
)
from tests.reports.test_individual import Page

MAP = f"space-{TEMPLATE}_label-CMB_desc-frequency_probseg.nii.gz"
COUNTS = [
    "n_total",
    "n_definite",
    "n_possible",
    "n_lobar",
    "n_deep",
    "n_infratentorial",
    "n_diamagnetic",
    "volume_mm3",
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures that take a second: test_standard_space.py tests them."""
    monkeypatch.setattr("cmbprep.group.page.frequency_viewer", lambda *_: "")
    monkeypatch.setattr("cmbprep.group.page.glass_brain", lambda *_: "")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "out")


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def grouped(root: Path) -> list[ProtocolGroup]:
    rows = make_rows(collect_results(root))
    return group_by_protocol(rows, scan_table(rows, Participants()))


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


def test_counts_by_hand(tree: Tree) -> None:
    result = run_group(cohort(tree), participants_tsv=None)
    rows = {row["scan"]: row for row in read(result.scans)}
    assert [rows["sub-1_ses-a_T2starw"][name] for name in COUNTS] == [
        "3",
        "2",
        "1",
        "1",
        "1",
        "1",
        "1",
        "60",
    ]
    first = rows["sub-1_ses-a_T2starw"]
    assert first["participant_id"] == "sub-1"
    assert first["session_id"] == "ses-a"
    assert first["n_region_frontal"] == "1"
    assert first["n_region_basal_ganglia"] == "0"
    assert first["pattern"] == "strictly lobar"
    assert first["pattern_with_possible"] == "mixed"
    assert first["cerebellar"] == "true"
    assert first["burden_count"] == "2-4"
    assert first["Manufacturer"] == "Maker"
    assert float(first["MagneticFieldStrength"]) == 3
    assert float(first["EchoTime"]) == pytest.approx(0.02)
    assert [first[f"voxel_{axis}_mm"] for axis in "ijk"] == ["0.9", "0.9", "3"]
    assert first["n_warnings"] == "2"
    assert first["cmbprep_version"] == "1.2.3"
    assert first["preproc_snr"] == "20"
    assert result.statuses == {"complete": 4, "failed": 1, "refused": 1}


def test_scan_without_lesions_is_zero_and_failed_scan_is_not(tree: Tree) -> None:
    rows = {row["scan"]: row for row in read(run_group(cohort(tree), participants_tsv=None).scans)}
    assert {rows["sub-2_T2starw"][name] for name in COUNTS} == {"0"}
    assert rows["sub-2_T2starw"]["pattern"] == "none"
    for name, status in (("sub-3_T2starw", "failed"), ("sub-4_part-phase_T2starw", "refused")):
        assert rows[name]["status"] == status
        assert {rows[name][column] for column in COUNTS} == {"n/a"}
        assert {rows[name][c] for c in ("pattern", "burden_count", "n_region_frontal")} == {"n/a"}
    assert rows["sub-3_T2starw"]["reason"] == "it broke badly"


def test_every_column_is_described_and_none_else(tree: Tree) -> None:
    result = run_group(cohort(tree), participants_tsv=None)
    for table in (result.scans, result.lesions):
        header = table.read_text().splitlines()[0].split("\t")
        assert len(header) == len(set(header))
        assert list(json.loads(table.with_suffix(".json").read_text())) == header
        width = {line.count("\t") for line in table.read_text().splitlines()}
        assert width == {len(header) - 1}


def test_all_lesions_are_listed_and_mimics_marked(tree: Tree) -> None:
    rows = read(run_group(cohort(tree), participants_tsv=None).lesions)
    assert [(row["scan"], row["index"], row["counted"]) for row in rows] == [
        ("sub-1_ses-a_T2starw", "1", "true"),
        ("sub-1_ses-a_T2starw", "2", "true"),
        ("sub-1_ses-a_T2starw", "3", "true"),
        ("sub-1_ses-a_T2starw", "4", "false"),
        ("sub-1_ses-b_T2starw", "1", "true"),
    ]
    assert rows[1]["region"] == "thalamus"
    assert rows[1]["hemisphere"] == "left"
    assert float(rows[1]["volume_mm3"]) == 20


def test_participants_are_joined(tree: Tree, tmp_path: Path) -> None:
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tage\tsite\nsub-1\t71\tA\n2\tn/a\tB\nsub-9\t50\tC\n")
    rows = {row["scan"]: row for row in read(run_group(cohort(tree), participants_tsv=table).scans)}
    assert rows["sub-1_ses-b_T2starw"]["participants_age"] == "71"
    assert rows["sub-2_T2starw"]["participants_age"] == "n/a"
    assert rows["sub-2_T2starw"]["participants_site"] == "B"
    assert rows["sub-5_acq-x_swi"]["participants_site"] == "n/a"
    (note,) = (n for n in run_group(tree.root, participants_tsv=table).notes if "has no row" in n)
    assert note.startswith("participants.tsv has no row of 3 of the 5 participants")
    table.write_text("participant_id\tage\n001\t71\n")
    result = run_group(tree.root, participants_tsv=table)
    (note,) = (note for note in result.notes if "no column could be joined" in note)
    assert "it has 001, the results have sub-1" in note
    assert "it has 001" in result.page.read_text()


@pytest.mark.parametrize("content", [b"name\tage\nx\t1\n", b"\xff\xfe\x00broken", b""])
def test_unusable_participants_stop_nothing(tree: Tree, tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "participants.tsv"
    table.write_bytes(content)
    result = run_group(cohort(tree), participants_tsv=table)
    assert any("participants.tsv" in note for note in result.notes)
    assert result.statuses["complete"] == 4


def test_map_gives_each_session_one_vote(tree: Tree) -> None:
    here, there = make_lesion(1), make_lesion(2)
    tree.add("sub-1_run-1_T2starw", [here])
    tree.add("sub-1_run-2_T2starw", [here, there])
    tree.add("sub-2_T2starw", [here])
    tree.add("sub-3_T2starw")
    tree.add("sub-4_T2starw")
    tree.fail("sub-5_T2starw", "broken")
    result = run_group(tree.finish(), participants_tsv=None)
    (path,) = result.maps
    assert path.name == MAP
    image = nib.load(path)
    data = image.get_fdata()
    assert data[voxel_of(here)] == pytest.approx(2 / 4)
    assert data[voxel_of(there)] == pytest.approx(0.5 / 4)
    assert np.count_nonzero(data) == 2
    np.testing.assert_allclose(image.affine, TEMPLATE_AFFINE)
    block = json.loads(path.with_name(MAP.replace(".nii.gz", ".json")).read_text())["Cmbprep"]
    assert (block["NumberOfScans"], block["NumberOfSessions"]) == (5, 4)


def test_a_scan_with_nothing_but_a_diamagnetic_spot_votes_with_zeros(tree: Tree) -> None:
    bleed, mimic = make_lesion(1), make_lesion(2, susceptibility="diamagnetic")
    tree.add("sub-1_T2starw", [bleed, mimic])
    tree.add("sub-2_T2starw", [make_lesion(1, susceptibility="diamagnetic")])
    data = nib.load(run_group(tree.finish(), participants_tsv=None).maps[0]).get_fdata()
    assert data[voxel_of(bleed)] == pytest.approx(1 / 2)
    assert data[voxel_of(mimic)] == 0


def test_a_microbleed_beside_a_diamagnetic_spot_keeps_all_its_voxels(tree: Tree) -> None:
    bleed, mimic = make_lesion(1), make_lesion(2, susceptibility="diamagnetic")
    mask = paint([bleed])
    near = tuple(n + step for n, step in zip(voxel_of(mimic), (1, 0, 0), strict=True))
    mask[near] = 1
    tree.add("sub-1_T2starw", [bleed, mimic], mask=mask)
    data = nib.load(run_group(tree.finish(), participants_tsv=None).maps[0]).get_fdata()
    assert np.array_equal(data, mask)


def test_masks_on_another_grid_than_most_are_left_out_of_the_map(tree: Tree) -> None:
    here = make_lesion(1)
    moved = TEMPLATE_AFFINE.copy()
    moved[0, 3] += 2
    tree.add("sub-1_T2starw", mask=np.ones((5, 5, 5), np.uint8))
    tree.add("sub-2_T2starw", [here])
    tree.add("sub-3_T2starw", [here], mask=paint([here]), mask_affine=moved)
    tree.add("sub-4_T2starw")
    result = run_group(tree.finish(), participants_tsv=None)
    (path,) = result.maps
    assert nib.load(path).shape == TEMPLATE_SHAPE
    assert nib.load(path).get_fdata()[voxel_of(here)] == pytest.approx(1 / 2)
    (note,) = result.notes
    assert note.startswith("2 scans are not in the frequency map")
    assert "another grid than 2 in the map" in note
    assert note.endswith(": sub-1_T2starw, sub-3_T2starw")
    assert "another grid" in Page(result.page.read_text()).text


def test_grids_may_differ_by_rounding(tree: Tree) -> None:
    here = make_lesion(1)
    rounded = TEMPLATE_AFFINE.copy()
    rounded[0, 3] += 0.004
    tree.add("sub-1_T2starw", [here])
    tree.add("sub-2_T2starw", [here], mask_affine=rounded)
    result = run_group(tree.finish(), participants_tsv=None)
    assert result.notes == ()
    assert nib.load(result.maps[0]).get_fdata()[voxel_of(here)] == 1


def with_field(offset: int, value: Any) -> Callable[[bytes], bytes]:
    """Make a function that overwrites a field of the header of a mask."""

    def change(content: bytes) -> bytes:
        raw, new = bytearray(gzip.decompress(content)), np.asarray(value).tobytes()
        raw[offset : offset + len(new)] = new
        return gzip.compress(bytes(raw))

    return change


DATA_TYPE, OFFSET, SHAPE = 70, 108, 42
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: content[:0],
    "no gzip": gzip.decompress,
    "cut short": lambda content: content[: len(content) // 2],
    "cut before its checksum": lambda content: content[:-6],
    "changed byte": lambda content: content[:-5] + bytes([content[-5] ^ 255]) + content[-4:],
    "fewer voxels": lambda content: gzip.compress(gzip.decompress(content)[:-10]),
    "more voxels": lambda content: gzip.compress(gzip.decompress(content) + bytes(10)),
    "no header": lambda content: gzip.compress(bytes(len(gzip.decompress(content)))),
    "no voxel set": lambda content: gzip.compress(
        gzip.decompress(content)[:352] + bytes(len(gzip.decompress(content)) - 352)
    ),
    "unknown type": with_field(DATA_TYPE, np.int16(77)),
    "complex": with_field(DATA_TYPE, np.array([32, 64], np.int16)),
    "wider type": with_field(DATA_TYPE, np.array([8, 32], np.int16)),
    "offset beyond the end": with_field(OFFSET, np.float32(1e7)),
    "shape of a giant": with_field(SHAPE, np.full(3, 30000, np.int16)),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_mask_costs_its_scan_and_not_the_map(tree: Tree, kind: str) -> None:
    here, there = make_lesion(1), make_lesion(2)
    mask = tree.add("sub-1_T2starw", [here, there]).path("template_mask")
    tree.add("sub-2_T2starw", [here])
    tree.add("sub-3_T2starw")
    mask.write_bytes(DAMAGES[kind](mask.read_bytes()))
    subjects = collect_results(tree.finish())
    scans = [replace(scan, problem=None) for subject in subjects for scan in subject.scans]
    (made,), (note,) = write_frequency_maps(tree.root, scans)
    assert made.data[voxel_of(here)] == pytest.approx(1 / 2)
    assert made.data[voxel_of(there)] == 0
    assert (made.n_scans, made.n_sessions) == (2, 2)
    assert "cannot be read" in note
    assert "sub-1_T2starw" in note


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extension", [0, 32])
def test_masks_in_either_byte_order_and_with_extensions_are_read(
    tree: Tree, order: str, extension: int
) -> None:
    here = make_lesion(1)
    path = tree.add("sub-1_T2starw", [here]).path("template_mask")
    image = nib.Nifti1Image(paint([here]).astype(f"{order}f4"), TEMPLATE_AFFINE)
    header = nib.Nifti1Header(endianness=order)
    image = nib.Nifti1Image(np.asarray(image.dataobj), TEMPLATE_AFFINE, header)
    if extension:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment in the header"))
    path.write_bytes(gzip.compress(image.to_bytes()))
    (scan,) = collect_results(tree.finish())[0].scans
    (made,), notes = write_frequency_maps(tree.root, [scan])
    assert notes == ()
    assert made.data[voxel_of(here)] == 1
    assert np.count_nonzero(made.data) == 1


def test_without_a_usable_mask_there_is_no_map_and_no_old_one(tree: Tree) -> None:
    mask = tree.add("sub-1_T2starw", [make_lesion(1)]).path("template_mask")
    root = tree.finish()
    (path,) = run_group(root, participants_tsv=None).maps
    mask.write_bytes(mask.read_bytes()[:100])
    result = run_group(root, participants_tsv=None)
    assert result.maps == ()
    assert any("cannot be read" in note for note in result.notes)
    assert any("there is no frequency map" in note for note in result.notes)
    assert list(root.glob("space-*")) == []
    assert path.name not in result.page.read_text()


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


def test_a_failed_registration_does_not_vote_with_zeros(tree: Tree) -> None:
    here = make_lesion(1)
    empty = np.zeros(TEMPLATE_SHAPE, np.uint8)
    tree.add("sub-1_T2starw", [make_lesion(1, **UNPLACED)], mask=empty)
    tree.add("sub-2_T2starw", [here])
    failed = tree.add("sub-3_T2starw", mask=empty)
    tree.add("sub-4_T2starw")
    content = json.loads(failed.sidecar.read_text())
    content["Cmbprep"]["Quality"] = {"zone_route": "none", "zone_verdict": "failed"}
    failed.sidecar.write_text(json.dumps(content))
    result = run_group(tree.finish(), participants_tsv=None)
    assert nib.load(result.maps[0]).get_fdata()[voxel_of(here)] == pytest.approx(1 / 2)
    (note,) = result.notes
    assert note.endswith("(not registered to the template): sub-1_T2starw, sub-3_T2starw")


def only_row(tree: Tree, lesions: list[Lesion]) -> dict[str, str]:
    tree.add("sub-1_T2starw", lesions)
    (row,) = read(run_group(tree.finish(), participants_tsv=None).scans)
    return row


def columns(row: dict[str, str], names: str) -> list[str]:
    return [row[name] for name in names.split()]


ZONE_COUNTS = (
    "n_lobar n_deep n_infratentorial n_definite_lobar n_definite_deep n_definite_infratentorial "
    "n_region_frontal n_region_cerebellum"
)


def test_without_zones_nothing_is_known_of_zones(tree: Tree) -> None:
    row = only_row(tree, [make_lesion(1, **UNPLACED), make_lesion(2, **UNPLACED)])
    assert set(columns(row, ZONE_COUNTS)) == {"n/a"}
    known = "n_total n_definite n_possible n_zone_unknown volume_mm3 volume_definite_mm3"
    assert columns(row, known) == ["2", "2", "0", "2", "30", "30"]
    assert columns(row, "pattern pattern_with_possible cerebellar burden_count burden_caa") == [
        "undetermined",
        "undetermined",
        "n/a",
        "2-4",
        "n/a",
    ]


def test_an_unplaced_possible_lesion_leaves_the_definite_counts(tree: Tree) -> None:
    row = only_row(tree, [make_lesion(1), make_lesion(2, rating="possible", **UNPLACED)])
    assert columns(row, ZONE_COUNTS) == ["n/a", "n/a", "n/a", "1", "0", "0", "n/a", "n/a"]
    assert columns(row, "pattern pattern_with_possible cerebellar") == [
        "strictly lobar",
        "undetermined",
        "false",
    ]
    assert columns(row, "burden_caa burden_caa_with_possible") == ["0-1", "n/a"]


def test_an_unplaced_mimic_is_in_no_count_and_harms_none(tree: Tree) -> None:
    mimic = make_lesion(2, susceptibility="diamagnetic", **UNPLACED)
    row = only_row(tree, [make_lesion(1), mimic])
    assert columns(row, ZONE_COUNTS) == ["1", "0", "0", "1", "0", "0", "1", "0"]
    assert columns(row, "pattern n_zone_unknown n_diamagnetic") == ["strictly lobar", "0", "1"]


@pytest.mark.parametrize("region", ["ventricle", None])
def test_a_place_in_no_zone_leaves_the_counts_and_not_the_pattern(
    tree: Tree, region: str | None
) -> None:
    row = only_row(tree, [make_lesion(1), make_lesion(2, zone=None, region=region)])
    assert columns(row, ZONE_COUNTS) == ["1", "0", "0", "1", "0", "0", "1", "0"]
    assert columns(row, "n_zone_unknown pattern cerebellar burden_caa") == [
        "1",
        "undetermined",
        "false",
        "n/a",  # one lobar microbleed, or two
    ]


def test_burden_of_lobar_ones_is_known_where_it_cannot_change(tree: Tree) -> None:
    lobar = [make_lesion(index) for index in range(1, 6)]
    row = only_row(tree, [*lobar, make_lesion(6, **UNPLACED)])
    assert columns(row, "n_lobar burden_caa pattern") == ["n/a", ">=5", "undetermined"]


def test_without_a_rating_numbers_of_definite_ones_are_unknown(tree: Tree) -> None:
    row = only_row(tree, [make_lesion(1), make_lesion(2, rating=None)])
    assert columns(row, "n_total n_definite n_possible n_lobar n_definite_lobar") == [
        "2",
        "n/a",
        "n/a",
        "2",
        "n/a",
    ]
    assert columns(row, "n_definite_deep volume_mm3 volume_definite_mm3") == ["0", "30", "n/a"]
    assert columns(row, "pattern burden_count burden_count_with_possible burden_prevention") == [
        "strictly lobar",
        "n/a",
        "2-4",
        "1-4",
    ]


def test_boundaries_are_counted_where_each_lesion_tells(tree: Tree) -> None:
    assert only_row(tree, [make_lesion(1, boundary=True)])["n_boundary"] == "1"
    assert only_row(tree, [make_lesion(1), make_lesion(2, boundary=None)])["n_boundary"] == "n/a"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:0], "the table is empty"),
        (lambda text: text.splitlines()[0].replace("\t", ";") + "\n", "semicolons"),
        (lambda text: text.splitlines()[0] + "\n", "0 rows and its label image has 2 labels"),
        (lambda text: text[: text.rindex("\n2\t") + 1], "1 row and its label image has 2 labels"),
        (lambda text: text.replace("frontal", "frontel"), "did you mean 'frontal'"),
        (lambda text: text.replace("lobar", "deep"), "frontal is in the zone lobar"),
        (lambda text: text.replace("rating", "class"), "no column rating"),
        (lambda text: text.replace("definite", "certain"), "rating 'certain'"),
    ],
)
def test_a_damaged_table_is_no_result(tree: Tree, damage: Any, reason: str) -> None:
    files = tree.add("sub-1_T2starw", [make_lesion(1), make_lesion(2)])
    tree.add("sub-2_T2starw", [make_lesion(1)])
    table = files.path("table")
    table.write_text(damage(table.read_text()))
    result = run_group(tree.finish(), participants_tsv=None)
    rows = {row["scan"]: row for row in read(result.scans)}
    lost = rows["sub-1_T2starw"]
    assert lost["status"] == "failed"
    assert reason in lost["reason"]
    assert set(columns(lost, ZONE_COUNTS)) | {lost[name] for name in COUNTS} == {"n/a"}
    assert set(columns(lost, "pattern cerebellar burden_count n_zone_unknown")) == {"n/a"}
    assert rows["sub-2_T2starw"]["n_total"] == "1"
    assert {row["scan"] for row in read(result.lesions)} == {"sub-2_T2starw"}
    assert result.statuses == {"complete": 1, "failed": 1}
    assert reason in Page(result.page.read_text()).text
    assert nib.load(result.maps[0]).get_fdata().max() == 1


def test_withdrawn_scans_are_listed_and_in_no_number(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)])
    tree.add("sub-2_T2starw")
    (one, two) = collect_results(tree.finish())
    (scan,) = one.scans
    reason = "its source is no longer in the dataset"
    gone = replace(one, scans=(replace(scan, withdrawn=reason),))
    rows = make_rows([gone, two])
    first, second = rows
    table = scan_table(rows, Participants())
    assert (first.status, first.reason, first.tally) == ("withdrawn", reason, None)
    assert [line.get("n_total") for line in table.values] == [None, 0]
    assert {first.status, second.status} <= set(table.dictionary["status"]["Levels"])
    (protocol,) = group_by_protocol(rows, table)
    assert protocol.prevalence()[:2] == (0, 1)
    assert lesion_table(rows).values == ()


def test_warnings_stand_in_the_table_in_words(tree: Tree) -> None:
    rows = {row["scan"]: row for row in read(run_group(cohort(tree), participants_tsv=None).scans)}
    assert rows["sub-1_ses-a_T2starw"]["warnings"] == "look; look again"
    assert rows["sub-2_T2starw"]["n_warnings"] == "0"
    assert rows["sub-2_T2starw"]["warnings"] == "n/a"
    header = list(rows["sub-2_T2starw"])
    assert header.index("warnings") == header.index("n_warnings") + 1


def test_failures_stand_before_the_numbers(tree: Tree) -> None:
    tree.refuse("0", "sub-0_part-phase_T2starw.nii.gz", "a phase image")
    text = " ".join(run_group(cohort(tree), participants_tsv=None).page.read_text().split())
    order = [text.index(part) for part in ("it broke badly", "a phase image", "By protocol</h2>")]
    assert order == sorted(order)


def test_page_names_what_is_not_known(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1, **UNPLACED)])
    tree.add("sub-2_T2starw", [make_lesion(1), make_lesion(2, zone="deep", region="thalamus")])
    tree.add("sub-3_T2starw", [make_lesion(1, rating=None)])
    root = tree.finish()
    page = Page(run_group(root, participants_tsv=None).page.read_text())
    assert "In 1 scan, microbleeds could not be compared with the zone atlas" in page.text
    assert "listed without a rating" in page.text
    (protocol,) = grouped(root)
    # One lobar for sure, one that may be anywhere, and one lobar that may be definite.
    assert [protocol.zone(zone) for zone in ZONES] == [(1, 3), (1, 2), (0, 1)]
    assert protocol.prevalence()[:2] == (2, 2), "of sub-3 it is not known"
    assert protocol.counts() == [1, 2]
    assert "1 or more" in page.text


def test_nothing_to_join_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results"):
        run_group(tmp_path, participants_tsv=None)
    assert list(tmp_path.iterdir()) == []


def test_same_outputs_give_the_same_bytes(tree: Tree, tmp_path: Path) -> None:
    other = Tree(tmp_path / "other")
    first, second = (run_group(cohort(t), participants_tsv=None) for t in (tree, other))
    names = {path.name for path in tree.root.iterdir() if path.is_file()}
    assert {"group_cmb.tsv", "group_lesions.json", "group.html", MAP} <= names
    for name in names:
        assert (tree.root / name).read_bytes() == (other.root / name).read_bytes(), name
    assert first.statuses == second.statuses


def test_page_is_sound(tree: Tree) -> None:
    root = cohort(tree)
    (root / "sub-1.html").write_text("x")
    page = Page(run_group(root, participants_tsv=None).page.read_text())
    assert [load for load in page.loads if not load.startswith(("#", "data:"))] == []
    assert str(root) not in page.text
    for name in ("sub-1_ses-a_T2starw", "sub-2_T2starw", "sub-3_T2starw", "sub-5_acq-x_swi"):
        assert name in page.text
    assert "it broke badly" in page.text.replace("\t", " ")
    assert "sub-1.html" in page.links
    assert "sub-2.html" not in page.links, "there is no such report"
    for link in page.links:
        assert link.startswith("#") or (root / link).exists(), link


def test_protocols_are_kept_apart(tree: Tree) -> None:
    protocols = grouped(cohort(tree))
    assert [
        (len(item.rows), item.protocol.field, item.protocol.echo_time) for item in protocols
    ] == [
        (2, "3 T", "20 ms"),
        (1, "3 T", "20 ms"),
        (1, "1.5 T", "30 ms"),
    ]
    maker = next(item for item in protocols if item.protocol.scanner == "Maker One")
    assert maker.prevalence()[:2] == (1, 1)
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
    table = scan_table(rows, Participants())
    outliers = find_outliers(rows, table, group_by_protocol(rows, table))
    assert [(item.row.name, item.measure) for item in outliers] == [
        ("sub-a9_T2starw", "preproc_snr")
    ]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_masks_of_any_kind_and_odd_size_are_read(tree: Tree, kind: type) -> None:
    shape = (5, 3, 7)
    first, second = np.zeros(shape, kind), np.zeros(shape, kind)
    first[4, 2, 6] = first[0, 0, 0] = second[4, 2, 6] = 1
    tree.add("sub-1_T2starw", [make_lesion(1)], mask=first)
    tree.add("sub-2_T2starw", [make_lesion(1)], mask=second)
    (path,) = run_group(tree.finish(), participants_tsv=None).maps
    np.testing.assert_allclose(nib.load(path).get_fdata(), (first + second) / 2)


def test_a_dry_run_writes_nothing(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("sub-1_T2starw")
    root = tree.finish()
    before = sorted(root.rglob("*"))
    assert main([str(root / "bids"), str(root), "group", "--dry-run"]) == 0
    assert "1 scans" in capsys.readouterr().out
    assert sorted(root.rglob("*")) == before


def test_options_without_effect_are_named(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("sub-1_T2starw")
    root = tree.finish()
    words = [str(root / "bids"), str(root), "group"]
    assert main([*words, "--participant-label", "1", "--threshold", "0.5"]) == 0
    told = capsys.readouterr().err
    assert "--participant-label has no effect" in told and "--threshold has no effect" in told
    assert main(words) == 0
    assert "no effect" not in capsys.readouterr().err


def test_a_scan_that_is_refused_now_has_one_row(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    root = tree.finish()
    path = root / "logs" / "sub-1_inputs.json"
    record = json.loads(path.read_text())
    record["scans"], record["withdrawn"] = [], [{"name": "sub-1_T2starw", "reason": "refused now"}]
    record["refused"] = [{"path": "sub-1/anat/sub-1_T2starw.nii.gz", "reason": "r", "hint": "h"}]
    path.write_text(json.dumps(record))
    rows = make_rows(collect_results(root))
    assert [(row.name, row.status) for row in rows] == [("sub-1_T2starw", "withdrawn")]


def dataset_with(tree: Tree, unit: str, **changes: Any) -> Path:
    """Change the record of what the last run found in a unit."""
    path = tree.finish() / "logs" / f"{unit}_inputs.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return tree.root


def test_no_name_of_a_refused_file_doubles_a_column(tree: Tree, tmp_path: Path) -> None:
    plain = run_group(cohort(tree), participants_tsv=None)
    taken = {name for table in (plain.scans, plain.lesions) for name in read(table)[0]}
    assert {"scan", "status", "index", "x", *COLUMNS} <= taken
    words = [name for name in sorted(taken) if name.isalpha()]
    name = "_".join(f"{word}-1" for word in [*words, "ce", "participants"])
    tree.refuse("4", f"sub-4/anat/sub-4_{name}_part-phase_T2starw.nii.gz", "a phase image")
    participants = tmp_path / "participants.tsv"
    participants.write_text(
        "participant_id\tscan\tstatus\tscan\tparticipants_scan\tacq\nsub-1\t1\t2\t3\t4\t5\n"
    )
    result = run_group(tree.finish(), participants_tsv=participants)
    for table, before in ((result.scans, taken), (result.lesions, taken)):
        header = table.read_text().splitlines()[0].split("\t")
        assert len(header) == len(set(header))
        assert list(json.loads(table.with_suffix(".json").read_text())) == header
        new = {name for name in header if not name.startswith("participants_")} - before
        assert new == {"ce"}, "an entity that scans can have, and no other"
    described = json.loads(result.scans.with_suffix(".json").read_text())
    assert described["status"]["Description"] == "Whether there is a result."
    (row,) = (row for row in read(result.scans) if "ce-1" in row["scan"])
    assert columns(row, "participant_id status ce sequence") == ["sub-4", "refused", "1", "n/a"]


@pytest.mark.parametrize(
    ("unit", "path", "scan", "session", "suffix", "acq"),
    [
        ("sub-1", "sub-1", "sub-1", "n/a", "n/a", "n/a"),
        ("sub-1_ses-a", "sub-1/ses-a", "ses-a", "ses-a", "n/a", "n/a"),
        ("sub-1_ses-a", "sub-1/ses-a/anat", "anat", "ses-a", "n/a", "n/a"),
        (
            "sub-1_ses-b",
            "sub-1/ses-b/anat/sub-1_ses-c_acq-x_T2starw.nii.gz",
            "sub-1_ses-c_acq-x_T2starw",
            "ses-b",
            "T2starw",
            "x",
        ),
        ("sub-1", "sub-1/anat/sub-2_ses-c_swi.mgz", "sub-2_ses-c_swi", "n/a", "swi", "n/a"),
        ("sub-1", "sub-1/anat/sub-1_acq-x_mag.nii", "sub-1_acq-x_mag", "n/a", "n/a", "x"),
    ],
)
def test_a_refused_file_stands_with_its_unit(
    tree: Tree, unit: str, path: str, scan: str, session: str, suffix: str, acq: str
) -> None:
    tree.unit("1", unit.partition("_ses-")[2] or None)
    refused = [{"path": path, "reason": "r", "hint": "h"}]
    root = dataset_with(tree, unit, refused=refused)
    (row,) = read(run_group(root, participants_tsv=None).scans)
    assert columns(row, "participant_id session_id scan suffix acq status") == [
        "sub-1",
        session,
        scan,
        suffix,
        acq,
        "refused",
    ]


def test_the_last_line_has_all_numbers(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.expect("sub-6_T2starw")
    tree.add("sub-7_T2starw")
    cohort(tree)
    gone = [{"name": "sub-7_T2starw", "reason": "gone"}]
    root = dataset_with(tree, "sub-7", scans=[], withdrawn=gone)
    assert main([str(root / "bids"), str(root), "group"]) == 0
    *_, warning, last = capsys.readouterr().err.splitlines()
    assert last == (
        "cmbprep: 4 scans complete, 1 failed, 1 incomplete, 1 withdrawn, 1 file refused; "
        f"the group report is {root / 'group.html'}"
    )
    assert warning.startswith("cmbprep: warning: 2 scans have no result")


def test_the_last_line_has_no_zeros(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("sub-1_T2starw")
    words = [str(tree.root / "bids"), str(tree.finish()), "group"]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert told.splitlines()[-1].startswith("cmbprep: 1 scan complete; the group report is ")
    assert "warning" not in told
    refused = [{"path": f"sub-1_run-{run}_swi.nii", "reason": "r", "hint": "h"} for run in (1, 2)]
    dataset_with(tree, "sub-1", refused=refused)
    assert main(words) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("cmbprep: 1 scan complete, 2 files refused; ")


def test_withdrawn_and_refused_rows_are_not_counted_as_participants(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    tree.fail("sub-2_T2starw", "it broke")
    tree.refuse("3", "sub-3_part-phase_T2starw.nii.gz", "a phase image")
    tree.add("sub-4_T2starw")
    gone = [{"name": "sub-4_T2starw", "reason": "gone"}]
    root = dataset_with(tree, "sub-4", scans=[], withdrawn=gone)
    text = " ".join(Page(run_group(root, participants_tsv=None).page.read_text()).text.split())
    assert "2 participants · 1 scan with a result" in text


def test_withdrawn_participants_need_no_row_in_participants_tsv(tree: Tree, tmp_path: Path) -> None:
    tree.add("sub-1_T2starw")
    tree.add("sub-4_T2starw")
    gone = [{"name": "sub-4_T2starw", "reason": "gone"}]
    root = dataset_with(tree, "sub-4", scans=[], withdrawn=gone)
    participants = tmp_path / "participants.tsv"
    participants.write_text("participant_id\tage\nsub-1\t71\n")
    assert run_group(root, participants_tsv=participants).notes == ()


def test_versions_on_the_page_are_not_those_of_withdrawn_scans(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    old = {"detector": "older", "detector_parameters": {"threshold": 0.35}}
    files = tree.add("sub-4_T2starw", [make_lesion(1)], parameters=old)
    for sidecar in tree.root.rglob("sub-4*.json"):
        sidecar.write_text(sidecar.read_text().replace('"1.2.3"', '"0.0.1"'))
    assert "0.0.1" in files.sidecar.read_text()
    one, two = collect_results(tree.finish())
    gone = replace(two, scans=tuple(replace(scan, withdrawn="gone") for scan in two.scans))
    for subjects, shown in (([one, two], True), ([one, gone], False)):
        rows = make_rows(subjects)
        table = scan_table(rows, Participants())
        text = Page(render_group_page(tree.root, rows, table, [], [])).text
        for word in ("0.0.1", "older", "several versions", "several schemes or detectors"):
            assert (word in text) is shown, word
