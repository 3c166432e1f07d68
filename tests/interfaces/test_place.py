"""The node that places lesions: what reaches the template's space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cmbprep.interfaces.lesions import PlaceLesions
from cmbprep.lesions import read_lesions
from cmbprep.outputs.sparse import recorded_blocks
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import LinearMap, write_transform

BLEED = {
    "index": 1,
    "centre_ras": (9.0, 9.0, 9.0),
    "volume_mm3": 27.0,
    "diameter_mm": 3.7,
    "probability": 0.9,
    "rating": "definite",
    "contrast": 0.6,
    "susceptibility": "paramagnetic",
}


def _place(folder: Path, image: Any = None, **more: Any) -> tuple[Any, Any]:
    """Place one bleed, 9.5 mm from the deep zone; give the outputs and its row."""
    labels = np.zeros((30, 30, 30), np.int16)
    labels[8:11, 8:11, 8:11] = 1
    image = np.ones(labels.shape, np.float32) if image is None else image
    atlas = np.ones(labels.shape, np.uint8)
    atlas[19:] = 6
    write_transform(LinearMap(np.eye(4)), folder / "same.txt")
    moved = np.eye(4)
    moved[0, 3] = 14.0
    write_transform(LinearMap(moved), folder / "direct.txt")
    write_transform(LinearMap(moved).inverse(), folder / "back.txt")
    same = str(folder / "same.txt")
    ways = dict.fromkeys(("to_target", "from_target", "to_reference", "from_reference"), same)
    found = PlaceLesions(
        in_file=_save(folder / "scan.nii.gz", image),
        dseg=_save(folder / "dseg.nii.gz", labels),
        lesions=[BLEED],
        brain_mask=_save(folder / "brain.nii.gz", np.ones(labels.shape, np.uint8)),
        atlas=_save(folder / "atlas.nii.gz", atlas),
        template=_save(folder / "template.nii.gz", np.ones(labels.shape, np.float32)),
        scheme="mars",
        **{**ways, **more},
    ).run(cwd=str(folder))
    return found.outputs, read_lesions(Path(found.outputs.table))[0]


def test_a_failed_registration_gives_no_zone_and_says_so(tmp_path: Path) -> None:
    outputs, row = _place(tmp_path, judgement={"route": "none"})
    assert (row.zone, row.region, row.hemisphere, row.region_fraction) == (None,) * 4
    assert row.boundary and (row.x_mni, row.y_mni, row.z_mni) == (None,) * 3
    assert not np.asarray(nib.load(outputs.atlas).dataobj).any()
    assert not np.asarray(nib.load(outputs.template_mask).dataobj).any()
    assert outputs.warnings == ["CMB-001: no zone, because the registration has failed"]
    assert outputs.quality["zone_verdict"] == "failed"


@pytest.mark.parametrize("own", ["ok", "doubtful"])
@pytest.mark.parametrize("anatomy", ["ok", "doubtful"])
def test_a_doubtful_step_flags_every_lesion(tmp_path: Path, own: str, anatomy: str) -> None:
    outputs, row = _place(
        tmp_path,
        judgement={"route": "t1w", "t1w_registration": {"verdict": own}},
        t1w_judgement={"template_registration": {"verdict": anatomy}},
    )
    assert (row.zone, row.hemisphere) == ("lobar", "left")
    assert row.boundary == ("doubtful" in (own, anatomy))
    assert outputs.quality["zone_route"] == "t1w"


def test_the_direct_way_is_taken_where_the_t1w_image_was_not_used(tmp_path: Path) -> None:
    """The other way says frontal: the direct one lies 14 mm aside, in the basal ganglia."""
    outputs, row = _place(
        tmp_path,
        judgement={
            "route": "template",
            "t1w_registration": {"verdict": "failed"},
            "template_registration": {"verdict": "ok"},
        },
        t1w_judgement={"template_registration": {"verdict": "failed"}},
        from_direct=str(tmp_path / "direct.txt"),
        to_direct=str(tmp_path / "back.txt"),
    )
    assert (row.zone, row.region, row.x_mni) == ("deep", "basal ganglia", 23.0)
    carried = np.argwhere(np.asarray(nib.load(outputs.template_mask).dataobj) > 0)
    assert carried.mean(axis=0) == pytest.approx([23, 9, 9])
    assert outputs.quality["zone_verdict"] == "ok"


def test_points_pass_the_transforms_in_the_right_order(tmp_path: Path) -> None:
    """Scan to T1w image to reference to template, by the files that bring images the other way."""
    turned, moved, wide = np.eye(4), np.eye(4), np.eye(4)
    turned[:2, :2] = [[0, -1], [1, 0]]  # about the first corner, and back into the image
    turned[0, 3] = 29.0
    moved[2, 3] = 3.0
    wide[0, 0], wide[0, 3] = 0.5, 2.0
    paths = {}
    for name, matrix in (("target", turned), ("reference", moved), ("template", wide)):
        for way, inverse in (("from", False), ("to", True)):
            path = tmp_path / f"{way}_{name}.txt"
            there = LinearMap(matrix)
            write_transform(there.inverse() if inverse else there, path)
            paths[f"{way}_{name}"] = str(path)
    outputs, row = _place(tmp_path, judgement={"route": "t1w"}, **paths)
    # (9, 9, 9) is turned to (20, 9, 9), moved to (20, 9, 12), and lies at (12, 9, 12) then.
    assert (row.x_mni, row.y_mni, row.z_mni) == (20.0, 9.0, 12.0)
    carried = np.argwhere(np.asarray(nib.load(outputs.template_mask).dataobj) > 0)
    assert carried.mean(axis=0) == pytest.approx([12, 9, 12], abs=0.5)


def test_what_a_scan_shows_of_zones_and_template_is_recorded(tmp_path: Path) -> None:
    """The scan lies 14 mm aside: it shows a part of the deep zone, and no more."""
    outputs, _ = _place(tmp_path)
    assert outputs.view == {"Coverage": {"lobar": 1.0, "deep": 1.0}}
    back, direct = str(tmp_path / "back.txt"), str(tmp_path / "direct.txt")
    ways = {"to_target": back, "from_target": direct}
    outputs, _ = _place(tmp_path, **ways)
    # Points of the template come to lie 14 mm lower in the scan: the lowest 13.5 mm are not shown.
    # The zones meet at 19; every second voxel counts.
    assert outputs.view["Coverage"] == {"lobar": 0.3, "deep": 1.0}
    template = Grid((30, 30, 30), np.eye(4))
    seen = recorded_blocks(outputs.view["SeenBlocks"], template)
    assert seen is not None
    # Centres of blocks lie at 1.5, 5.5, 9.5, 13.5, ...
    assert seen.all(axis=(1, 2)).tolist() == [False] * 3 + [True] * 5
    assert not seen[:3].any()
    outputs, _ = _place(tmp_path, judgement={"route": "none"}, **ways)
    assert outputs.view == {}
    own = {"judgement": {"route": "t1w"}, "person_atlas": True}
    outputs, _ = _place(tmp_path, to_target=back, from_target=direct, **own)
    assert outputs.view["Coverage"] == {"lobar": 0.3, "deep": 1.0}
    outputs, _ = _place(tmp_path, to_reference=back, from_reference=direct, **own)
    assert outputs.view["Coverage"] == {"lobar": 1.0, "deep": 1.0}, "the atlas is the person's own"


def test_what_the_image_does_not_show_is_not_seen(tmp_path: Path) -> None:
    """A quarter of the deep zone, and nothing of the other, is in an empty block."""
    image = np.ones((30, 30, 30), np.float32)
    image[19:, :15, :15] = 0
    outputs, _ = _place(tmp_path, image)
    # All planes, and 8 of 15 columns and rows; the inner edge of the block counts as seen.
    assert outputs.view["Coverage"]["lobar"] == 1.0
    assert outputs.view["Coverage"]["deep"] == pytest.approx(1 - (8 / 15) ** 2, abs=0.03)
    assert outputs.warnings == [
        "the image is empty in 26% of the deep brain: no microbleed can be seen there"
    ]
    seen = recorded_blocks(outputs.view["SeenBlocks"], Grid((30, 30, 30), np.eye(4)))
    assert seen is not None and seen[6, 6, 6] and seen[2, 1, 1] and not seen[6, 1, 1]
    # The black bleed of 3 mm is seen.
    image = np.ones((30, 30, 30), np.float32)
    image[8:11, 8:11, 8:11] = 0
    outputs, _ = _place(tmp_path, image)
    assert outputs.view == {"Coverage": {"lobar": 1.0, "deep": 1.0}}
    assert outputs.warnings == []


def test_a_segmentation_that_the_scan_was_not_registered_to_gives_no_zone(tmp_path: Path) -> None:
    """The zones of a person lie in the T1w image's space; past it they mean nothing."""
    ways = {
        "from_direct": str(tmp_path / "direct.txt"),
        "to_direct": str(tmp_path / "back.txt"),
        "person_atlas": True,
    }
    ok, failed = {"verdict": "ok"}, {"verdict": "failed"}
    _, row = _place(tmp_path, judgement={"route": "t1w", "t1w_registration": ok}, **ways)
    assert row.zone == "lobar"
    outputs, row = _place(
        tmp_path,
        judgement={
            "route": "template",
            "t1w_registration": failed,
            "template_registration": ok,
        },
        **ways,
    )
    assert row.zone is None and row.boundary
    assert row.x_mni == 23.0, "where it is in the template is known"
    assert "segmented T1w image" in outputs.warnings[0]


def _save(path: Path, data: Any) -> str:
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return str(path)


def test_a_mimic_is_in_the_table_and_not_in_the_template_mask(tmp_path: Path) -> None:
    labels = np.zeros((30, 30, 30), np.int16)
    labels[8:11, 8:11, 8:11], labels[20:23, 20:23, 20:23] = 1, 2
    write_transform(LinearMap(np.eye(4)), tmp_path / "same.txt")
    same = str(tmp_path / "same.txt")
    lesions = [
        {
            "index": index,
            "centre_ras": (at, at, at),
            "volume_mm3": 27.0,
            "diameter_mm": 3.7,
            "probability": 0.9,
            "rating": "definite",
            "contrast": 0.6,
            "susceptibility": called,
        }
        for index, at, called in ((1, 9.0, "paramagnetic"), (2, 21.0, "diamagnetic"))
    ]
    found = (
        PlaceLesions(
            in_file=_save(tmp_path / "scan.nii.gz", np.ones(labels.shape, np.float32)),
            dseg=_save(tmp_path / "dseg.nii.gz", labels),
            lesions=lesions,
            brain_mask=_save(tmp_path / "brain.nii.gz", np.ones(labels.shape, np.uint8)),
            atlas=_save(tmp_path / "atlas.nii.gz", np.ones(labels.shape, np.uint8)),
            template=_save(tmp_path / "template.nii.gz", np.ones(labels.shape, np.float32)),
            scheme="mars",
            to_target=same,
            from_target=same,
        )
        .run(cwd=str(tmp_path))
        .outputs
    )
    carried = np.asarray(nib.load(found.template_mask).dataobj) > 0
    assert np.array_equal(carried, labels == 1)
    rows = read_lesions(Path(found.table))
    assert [row.susceptibility for row in rows] == ["paramagnetic", "diamagnetic"]
