"""The frequency map gives each session one vote, and no scan whose mask cannot be used."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cmbprep.group import run_group
from cmbprep.group.frequency import write_frequency_maps
from cmbprep.outputs.files import file_digest
from cmbprep.outputs.sparse import describe_mask
from cmbprep.reports.results import collect_results
from tests.group.cohort import MAP, UNPLACED
from tests.reports.outputtree import (
    TEMPLATE_AFFINE,
    TEMPLATE_SHAPE,
    Tree,
    make_lesion,
    paint,
    voxel_of,
)
from tests.reports.test_individual import Page

pytestmark = pytest.mark.usefixtures("quick")


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
    (path,) = run_group(tree.finish(), participants_tsv=None).maps
    np.testing.assert_allclose(nib.load(path).get_fdata(), (first + second) / 2)


def test_recorded_masks_give_the_same_map_as_files(tree: Tree) -> None:
    here, there = make_lesion(1), make_lesion(2)
    files = [
        tree.add(f"sub-{n}_T2starw", lesions) for n, lesions in enumerate(([here], [there], []))
    ]
    root = tree.finish()
    (path,) = run_group(root, participants_tsv=None).maps
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
