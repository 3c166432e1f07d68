"""The group level joins what the participant level left, and counts by hand agree."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import UsageError
from cmbprep.group import run_group
from cmbprep.group.participants import Participants
from cmbprep.group.protocols import find_outliers, group_by_protocol, wilson_interval
from cmbprep.group.tables import ScanTable
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


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "out")


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
    assert (result.n_scans, result.n_complete, result.n_failed, result.n_refused) == (6, 4, 1, 1)


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


@pytest.mark.parametrize("content", [b"name\tage\nx\t1\n", b"\xff\xfe\x00broken", b""])
def test_unusable_participants_stop_nothing(tree: Tree, tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "participants.tsv"
    table.write_bytes(content)
    result = run_group(cohort(tree), participants_tsv=table)
    assert any("participants.tsv" in note for note in result.notes)
    assert result.n_complete == 4


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


def test_map_is_skipped_with_a_reason_when_grids_differ(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)])
    tree.add("sub-2_T2starw", mask=np.zeros((5, 5, 5), np.uint8))
    result = run_group(tree.finish(), participants_tsv=None)
    assert result.maps == ()
    assert any("another grid" in note for note in result.notes)
    assert "another grid" in Page(result.page.read_text()).text


def test_map_is_skipped_when_the_affine_differs(tree: Tree) -> None:
    moved = TEMPLATE_AFFINE.copy()
    moved[0, 3] += 2
    tree.add("sub-1_T2starw", [make_lesion(1)])
    tree.add("sub-2_T2starw", mask=np.zeros(TEMPLATE_SHAPE, np.uint8), mask_affine=moved)
    assert run_group(tree.finish(), participants_tsv=None).maps == ()


def test_truncated_mask_is_no_crash(tree: Tree) -> None:
    files = tree.add("sub-1_T2starw", [make_lesion(1)])
    mask = files.path("template_mask")
    mask.write_bytes(mask.read_bytes()[:200])
    result = run_group(tree.finish(), participants_tsv=None)
    assert result.maps == ()
    assert any("cannot be read" in note for note in result.notes)


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
    assert first.n_scans == second.n_scans


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
    table = ScanTable.build(collect_results(cohort(tree)), Participants())
    protocols = group_by_protocol(table)
    assert [(len(item.rows), item.field, item.echo_time) for item in protocols] == [
        (2, "3 T", "20 ms"),
        (1, "3 T", "20 ms"),
        (1, "1.5 T", "30 ms"),
    ]
    maker = next(item for item in protocols if item.scanner == "Maker One")
    assert maker.prevalence()[:2] == (1, 1)
    assert maker.zone("deep") == 0, "possible and diamagnetic ones are not definite"


def test_one_scan_a_participant_counts(tree: Tree) -> None:
    for run in (1, 2, 3):
        tree.add(f"sub-1_run-{run}_T2starw", [make_lesion(1)])
    tree.add("sub-2_T2starw")
    table = ScanTable.build(collect_results(tree.finish()), Participants())
    (protocol,) = group_by_protocol(table)
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
    table = ScanTable.build(collect_results(tree.finish()), Participants())
    outliers = find_outliers(table, group_by_protocol(table))
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
