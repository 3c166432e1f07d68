"""The frequency map gives each person one vote, and none to a scan that cannot be used."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cmbprep.group import run_group
from cmbprep.group.frequency import FrequencyMap, Vote, make_vote, write_frequency_maps
from cmbprep.group.rows import make_rows
from cmbprep.outputs.files import file_digest
from cmbprep.outputs.sparse import describe_blocks, describe_mask
from cmbprep.outputs.stages import StageFiles
from cmbprep.reports.results import collect_results
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import DisplacementMap, read_transform, write_transform
from cmbprep.spatial.view import block_shape, seen_blocks
from tests.group.cohort import MAP, UNPLACED, read
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

TEMPLATE_GRID = Grid(TEMPLATE_SHAPE, TEMPLATE_AFFINE)

pytestmark = pytest.mark.usefixtures("quick")


def vote_maps(root: Path) -> tuple[list[FrequencyMap], tuple[str, ...]]:
    rows = make_rows(collect_results(root))
    return write_frequency_maps(root, rows)


def test_each_person_has_one_vote_that_of_the_primary_baseline_scan(tree: Tree) -> None:
    here, there = make_lesion(1), make_lesion(2)
    tree.add("sub-1_ses-1_run-1_T2starw", [here], voxel=(0.5, 0.5, 1.0))
    tree.add("sub-1_ses-1_run-2_T2starw", [here, there])
    tree.add("sub-1_ses-2_T2starw", [there])
    tree.add("sub-2_ses-1_T2starw", [here])
    tree.add("sub-3_ses-1_T2starw")
    tree.add("sub-4_ses-1_T2starw")
    tree.fail("sub-5_ses-1_T2starw", "broken")
    result = run_group(tree.finish(), participants_tsv=None, baseline_session="1")
    chosen = [row["scan"] for row in read(result.scans) if stands(row)]
    assert len(chosen) == 4
    both = "sub-1_ses-1_run-2_T2starw" in chosen
    files = {path.name: nib.load(path).get_fdata() for path in result.maps}
    data = files[MAP]
    assert data[voxel_of(here)] == pytest.approx(2 / 4)
    assert data[voxel_of(there)] == pytest.approx(both / 4)
    assert np.count_nonzero(data) == 1 + both
    np.testing.assert_allclose(nib.load(tree.root / MAP).affine, TEMPLATE_AFFINE)
    block = json.loads((tree.root / MAP.replace(".nii.gz", ".json")).read_text())["Cmbprep"]
    assert block["NumberOfParticipants"] == 4
    people = files[f"space-{TEMPLATE}_label-CMB_desc-people_count.nii.gz"]
    seen = files[f"space-{TEMPLATE}_desc-coverage_count.nii.gz"]
    np.testing.assert_allclose(data, people / seen)
    assert (seen == 4).all()


def stands(row: dict[str, str]) -> bool:
    flags = (row["is_baseline"], row["is_primary"], row["status"])
    return flags == ("true", "true", "complete")


def test_the_map_of_the_definite_ones_leaves_possible_ones_out(tree: Tree) -> None:
    definite, possible = make_lesion(1), make_lesion(2, rating="possible")
    tree.add("sub-1_T2starw", [definite, possible])
    tree.add("sub-2_T2starw", [possible])
    tree.add("sub-3_T2starw", [make_lesion(1, rating=None)])
    (made,), _ = vote_maps(tree.finish())
    for rating, expected in ((True, (1, 0)), (False, (2, 2))):
        people = made.people(definite=rating)
        assert (people[voxel_of(definite)], people[voxel_of(possible)]) == expected
        stored = nib.load(made.files[3 if rating else 2]).get_fdata()
        np.testing.assert_array_equal(stored, people)


def test_voxels_belong_to_the_lesion_whose_surface_is_nearest(tree: Tree) -> None:
    # Two lesions side by side along x: a large definite one, and a small possible one.
    large = make_lesion(1, x_mni=0.0, y_mni=0.0, z_mni=0.0, diameter_mm=8.0)
    small = make_lesion(2, x_mni=7.0, y_mni=0.0, z_mni=0.0, diameter_mm=2.0, rating="possible")
    affine = np.diag([1.0, 1, 1, 1])
    mask = np.zeros((12, 3, 3), np.uint8)
    mask[0:9, 0, 0] = 1
    tree.add("sub-1_T2starw", [large, small])
    ((scan,),) = (item.scans for item in collect_results(tree.finish()))
    vote = make_vote(scan, np.flatnonzero(mask.ravel(order="F")), mask.shape, affine)
    # The surfaces lie at 4 and 6 mm.
    assert vote.definite.tolist() == [True] * 5 + [True] + [False] * 3


def partly(template: tuple[int, int, int], votes: Sequence[Vote]) -> FrequencyMap:
    return FrequencyMap(template="T", shape=template, affine=np.eye(4), votes=tuple(votes))


def vote(*inside: int, seen: np.ndarray | None = None) -> Vote:
    voxels = np.array(inside, dtype=np.intp)
    return Vote(scan="s", participant="p", inside=voxels, definite=voxels >= 0, seen=seen)


def test_a_voxel_is_seen_by_those_whose_scan_covers_it() -> None:
    shape = (9, 8, 8)
    lower = np.zeros((3, 2, 2), bool)
    lower[:1] = True
    made = partly(shape, [vote(), vote(), vote(0, seen=lower), vote(8, seen=lower)])
    seen = made.seen()
    assert (seen[:4] == 4).all(), "the first block of 4 voxels is seen by all"
    assert seen[8, 0, 0] == 3, "a lesion was seen, wherever the field of view ends"
    assert (seen[4:8] == 2).all()
    assert np.count_nonzero(seen[8] == 3) == 1
    share = made.share(definite=False)
    assert share[0, 0, 0] == pytest.approx(1 / 4)
    assert share[8, 0, 0] == pytest.approx(1 / 3)
    only = partly(shape, [vote(seen=np.zeros((3, 2, 2), bool))])
    assert not only.seen().any()
    assert not only.share(definite=False).any()


def test_a_part_of_the_head_is_brought_into_the_template(tree: Tree) -> None:
    here = make_lesion(1)
    tree.add("sub-1_T2starw", [here])
    files = tree.add("sub-2_T2starw", [], voxel=(50.0, 60.0, 20.0))
    shift = np.eye(4)
    # The image of 4 voxels along each axis begins here, in mm of the template.
    shift[:3, 3] = (-96.0, -132.0, -78.0)
    record(tree, files.names.src, coverage={"lobar": 0.4, "deep": 0.9, "infratentorial": 0.0})
    preproc = StageFiles(tree.root, "preproc", files.names)
    for name in ("to_target", "from_target"):
        path = preproc.path(name)
        write_transform(DisplacementMap(constant(-shift[:3, 3]), TEMPLATE_AFFINE), path)
    (made,), notes = vote_maps(tree.finish())
    assert notes == ()
    seen = made.seen()
    # Middles of the blocks lie at 6, 22, 38 ... mm from the corner; the field of view ends half a
    # voxel beyond the last of 4 voxels: at 175, 210 and 70 mm.
    expected = np.ones(TEMPLATE_SHAPE)
    expected[: 4 * 11, : 4 * 13, : 4 * 5] = 2
    np.testing.assert_array_equal(seen, expected)


def test_what_the_participant_level_has_recorded_agrees_with_the_transforms(tree: Tree) -> None:
    files = tree.add("sub-1_T2starw", [], voxel=(50.0, 60.0, 20.0))
    preproc = StageFiles(tree.root, "preproc", files.names)
    shift = (-96.0, -132.0, -78.0)
    rng = np.random.default_rng(3)
    field = constant(-np.array(shift)) + rng.normal(0, 8, (*TEMPLATE_SHAPE, 3)).astype(np.float32)
    turn = Rotation.from_euler("xyz", (8, -5, 12), degrees=True).as_matrix()
    turned = field + (TEMPLATE_GRID.points() @ (turn - np.eye(3)).T).reshape(field.shape)
    for name in ("to_target", "from_target"):
        write_transform(DisplacementMap(turned, TEMPLATE_AFFINE), preproc.path(name))
    record(tree, files.names.src, coverage={"lobar": 0.4, "deep": 0.9, "infratentorial": 0.0})
    (made,), _ = vote_maps(tree.finish())
    older = made.votes[0].seen
    assert older is not None and 0.01 < older.mean() < 0.9, "a part of the head"
    # What the node of the participant level records, from the same files.
    scan = image_grid(nib.load(preproc.path("preproc")))
    seen = seen_blocks(TEMPLATE_GRID, [read_transform(preproc.path("to_target"))], scan)
    (path,) = tree.root.rglob("*_seg-CMB_dseg.json")
    content = json.loads(path.read_text())
    content["Cmbprep"]["SeenBlocks"] = describe_blocks(seen, TEMPLATE_GRID)
    path.write_text(json.dumps(content))
    for name in ("to_target", "from_target"):
        preproc.path(name).write_bytes(b"not read again")
    ((made,), notes) = vote_maps(tree.root)
    assert notes == ()
    np.testing.assert_array_equal(made.votes[0].seen, older)


def test_a_part_of_the_head_without_transforms_has_no_vote(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)])
    files = tree.add("sub-2_T2starw")
    record(tree, files.names.src, coverage={"lobar": 0.4, "deep": 0.9, "infratentorial": 0.0})
    (made,), (note,) = vote_maps(tree.finish())
    assert [item.scan for item in made.votes] == ["sub-1_T2starw"]
    assert "what it shows of the brain is not known" in note
    assert "sub-2_T2starw" in note


def test_an_older_slab_does_not_count_as_the_whole_brain(tree: Tree) -> None:
    # The field of view holds 0.4 of the brain, and all of that lies in the head.
    registration = {"overlap": 0.4, "covered": 1.0, "verdict": "doubtful"}
    quality = {"route": "template", "template_registration": registration}
    tree.add("sub-1_T2starw")
    tree.add("sub-2_T2starw", quality=quality, coverage={})
    (made,), (note,) = vote_maps(tree.finish())
    assert [item.scan for item in made.votes] == ["sub-1_T2starw"]
    assert "what it shows of the brain is not known" in note


def test_blocks_are_used_where_no_zone_is_recorded(tree: Tree) -> None:
    # Without a way to the person's own zones, a scan has blocks of the template alone.
    registration = {"overlap": 1.0, "covered": 1.0, "verdict": "ok"}
    quality = {"route": "template", "template_registration": registration}
    tree.add("sub-1_T2starw", quality=quality, coverage={})
    seen = np.zeros(block_shape(TEMPLATE_SHAPE), dtype=bool)
    seen[:4] = True
    (path,) = tree.root.rglob("*_seg-CMB_dseg.json")
    content = json.loads(path.read_text())
    content["Cmbprep"]["SeenBlocks"] = describe_blocks(seen, TEMPLATE_GRID)
    path.write_text(json.dumps(content))
    (made,), notes = vote_maps(tree.finish())
    assert notes == ()
    np.testing.assert_array_equal(made.votes[0].seen, seen)


def record(tree: Tree, src: str, *, coverage: dict[str, float]) -> None:
    """Write what part of each zone a scan shows into its sidecar."""
    (path,) = tree.root.rglob(f"{src}_seg-CMB_dseg.json")
    content = json.loads(path.read_text())
    content["Cmbprep"]["Coverage"] = coverage
    path.write_text(json.dumps(content))


def constant(vector: np.ndarray) -> np.ndarray:
    return np.broadcast_to(vector.astype(np.float32), (*TEMPLATE_SHAPE, 3)).copy()


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
    path = result.maps[0]
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
    whole = [replace(s, scans=tuple(replace(i, problem=None) for i in s.scans)) for s in subjects]
    (made,), (note,) = write_frequency_maps(tree.root, make_rows(whole))
    share = made.share(definite=False)
    assert share[voxel_of(here)] == pytest.approx(1 / 2)
    assert share[voxel_of(there)] == 0
    assert len(made.votes) == 2
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
    (made,), notes = vote_maps(tree.finish())
    assert notes == ()
    share = made.share(definite=False)
    assert share[voxel_of(here)] == 1
    assert np.count_nonzero(share) == 1


def test_without_a_usable_mask_there_is_no_map_and_no_old_one(tree: Tree) -> None:
    mask = tree.add("sub-1_T2starw", [make_lesion(1)]).path("template_mask")
    root = tree.finish()
    path, *_ = run_group(root, participants_tsv=None).maps
    mask.write_bytes(mask.read_bytes()[:100])
    result = run_group(root, participants_tsv=None)
    assert result.maps == ()
    assert any("cannot be read" in note for note in result.notes)
    assert any("there is no frequency map" in note for note in result.notes)
    assert list(root.glob("space-*")) == []
    assert path.name not in result.page.read_text()


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


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_masks_of_any_kind_and_odd_size_are_read(tree: Tree, kind: type) -> None:
    shape = (5, 3, 7)
    first, second = np.zeros(shape, kind), np.zeros(shape, kind)
    first[4, 2, 6] = first[0, 0, 0] = second[4, 2, 6] = 1
    tree.add("sub-1_T2starw", [make_lesion(1)], mask=first)
    tree.add("sub-2_T2starw", [make_lesion(1)], mask=second)
    path, *_ = run_group(tree.finish(), participants_tsv=None).maps
    np.testing.assert_allclose(nib.load(path).get_fdata(), (first + second) / 2)


def test_recorded_masks_give_the_same_map_as_files(tree: Tree) -> None:
    here, there = make_lesion(1), make_lesion(2)
    files = [
        tree.add(f"sub-{n}_T2starw", lesions) for n, lesions in enumerate(([here], [there], []))
    ]
    root = tree.finish()
    path, *_ = run_group(root, participants_tsv=None).maps
    before = path.read_bytes()
    for item in files:
        record = describe_mask(item.path("template_mask"))
        sidecar = json.loads(item.sidecar.read_text())
        sidecar["Cmbprep"]["TemplateMask"] = record
        item.sidecar.write_text(json.dumps(sidecar))
        # No byte of the file is unpacked: what it holds cannot be.
        item.path("template_mask").write_bytes(b"anything")
        sidecar["Cmbprep"]["TemplateMask"]["Digest"] = file_digest(item.path("template_mask"))
        item.sidecar.write_text(json.dumps(sidecar))
    result = run_group(root, participants_tsv=None)
    assert result.notes == ()
    assert result.maps[0].read_bytes() == before
