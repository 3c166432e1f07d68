"""Nodes that read other programs' results, and that draw zones from them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cmbprep.errors import CmbprepError, ScanError
from cmbprep.interfaces.given import ReadGivenT1w, ReadGivenTransforms, read_given_mask
from cmbprep.interfaces.zones import DrawAtlas, DrawPersonZones
from cmbprep.spatial.ants import sample_transform
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import (
    DisplacementMap,
    LinearMap,
    apply_transforms,
    map_points,
    read_transform,
    write_transform,
)
from cmbprep.zones.parcellation import Parcellation
from cmbprep.zones.person import person_zones
from cmbprep.zones.schemes import MARS
from tests.bidsdata import head, save
from tests.zones.segmentphantom import SegmentedHead, segmented_head


@pytest.fixture(scope="module")
def person() -> SegmentedHead:
    return segmented_head()


def oblique(angle: float = 25.0) -> np.ndarray:
    """An affine map of a head: turned about an oblique axis, and shifted."""
    turned = np.eye(4)
    axis = np.array([1.0, 2.0, -1.0]) / np.sqrt(6)
    turned[:3, :3] = Rotation.from_rotvec(np.deg2rad(angle) * axis).as_matrix()
    turned[:3, 3] = 12.0, -7.0, 31.0
    return turned


def voxels(path: str) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


# --- images and masks --------------------------------------------------------------------


def test_a_t1w_image_of_freesurfer_becomes_nifti(tmp_path: Path) -> None:
    data, affine = (head() / 8).astype(np.uint8), oblique() @ np.diag([2.5, 2.5, 2.5, 1])
    nib.save(nib.MGHImage(data, affine), tmp_path / "T1.mgz")
    found = ReadGivenT1w(in_file=str(tmp_path / "T1.mgz")).run(cwd=str(tmp_path)).outputs
    assert found.rough == found.image
    image = nib.load(found.image)
    assert found.warnings == []
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(image.dataobj, data)
    assert np.allclose(image.affine, affine, atol=1e-4)


def test_a_damaged_image_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "T1.mgz").write_bytes(b"no image")
    with pytest.raises(ScanError, match=r"T1\.mgz.*cannot be read.*--derivatives"):
        ReadGivenT1w(in_file=str(tmp_path / "T1.mgz")).run(cwd=str(tmp_path))


def test_a_mask_on_the_same_grid_is_taken_as_it_is(tmp_path: Path) -> None:
    inside = head() > 500
    image = save(tmp_path / "image.nii.gz", head())
    mask = save(tmp_path / "mask.nii.gz", inside, dtype=np.uint8)
    found, _ = read_given_mask(str(mask), nib.load(image))
    assert np.array_equal(np.asarray(found.dataobj) > 0, inside)


@pytest.mark.parametrize("shift", [0.0, 0.004, 0.04])
def test_a_mask_near_the_grid_is_taken_as_it_is(
    tmp_path: Path, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmbprep.interfaces.given.apply_transforms", None)  # not resampled
    inside = head() > 500
    affine = np.diag([2.5, 2.5, 2.5, 1.0])
    image = save(tmp_path / "image.nii.gz", head(), affine)
    affine[0, 3] = shift
    mask = save(tmp_path / "mask.nii.gz", inside[..., None], affine, dtype=np.uint8)
    found, _ = read_given_mask(str(mask), nib.load(image))
    assert np.array_equal(np.asarray(found.dataobj) > 0, inside)
    assert np.array_equal(found.affine, nib.load(image).affine)


def test_a_mask_in_metres_is_converted_with_a_warning(tmp_path: Path) -> None:
    inside = head() > 500
    image = save(tmp_path / "image.nii.gz", head())
    mask = nib.Nifti1Image(inside.astype(np.uint8), np.diag([0.0025, 0.0025, 0.0025, 1]))
    mask.header.set_xyzt_units("meter")
    nib.save(mask, tmp_path / "mask.nii.gz")
    found, warnings = read_given_mask(str(tmp_path / "mask.nii.gz"), nib.load(image))
    assert np.array_equal(np.asarray(found.dataobj) > 0, inside)
    assert warnings == ["brain mask given: its header is in metres; it was converted to mm"]


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_given_image_that_is_cut_short_is_named_with_a_remedy(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / "T1w.nii", head())
    path.write_bytes(path.read_bytes()[:-100])
    read: Any = ReadGivenT1w(in_file=str(path)).run
    if kind == "mask":
        read = partial(read_given_mask, str(path), nib.Nifti1Image(head(), np.eye(4)))
    with pytest.raises(ScanError, match=r"T1w\.nii.*cut short.*--derivatives"):
        read()


def test_a_stripped_image_on_another_grid_becomes_a_mask(tmp_path: Path) -> None:
    """FreeSurfer's ``brainmask.mgz`` is an image, on a conformed grid."""
    inside = head() > 500
    image = save(tmp_path / "image.nii.gz", head())
    affine = np.diag([2.5, 2.5, 2.5, 1.0])
    flipped = affine.copy()
    flipped[0, 0], flipped[0, 3] = -2.5, 2.5 * 23
    stripped = (head() * inside)[::-1].astype(np.float32)
    nib.save(nib.MGHImage(stripped, flipped), tmp_path / "brainmask.mgz")
    found, _ = read_given_mask(str(tmp_path / "brainmask.mgz"), nib.load(image))
    assert np.array_equal(np.asarray(found.dataobj) > 0, inside)
    assert found.get_data_dtype() == np.uint8


def test_a_mask_beside_the_image_is_an_error(tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii.gz", head())
    away = np.diag([2.5, 2.5, 2.5, 1.0])
    away[:3, 3] = 500
    mask = save(tmp_path / "mask.nii.gz", np.ones((5, 5, 5), np.uint8), away)
    with pytest.raises(ScanError, match=r"mask\.nii\.gz.*beside the image"):
        read_given_mask(str(mask), nib.load(image))


# --- transforms --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def composite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A composite transform as antsRegistration writes it, and its parts."""
    import ants

    folder = tmp_path_factory.mktemp("composite")
    ants.config.set_ants_deterministic(True, 1)
    fixed = ants.from_numpy(head((24, 24, 24)), spacing=(2.0, 2.0, 2.0))
    moving = ants.from_numpy(
        np.roll(head((24, 24, 24), seed=3), 2, axis=0), spacing=(2.0, 2.0, 2.0), origin=(3, 1, 0)
    )
    options: dict[str, Any] = {"type_of_transform": "SyN", "reg_iterations": (10, 5)}
    parts = ants.registration(fixed, moving, outprefix=f"{folder}/parts_", **options)
    ants.registration(
        fixed, moving, outprefix=f"{folder}/whole_", write_composite_transform=True, **options
    )
    return folder / "whole_Composite.h5", parts["fwdtransforms"]


def test_a_composite_maps_points_as_its_parts_do(composite: tuple[Path, list[str]]) -> None:
    path, parts = composite
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])  # the fixed image's grid in RAS+
    grid = Grid((24, 24, 24), affine)
    found = sample_transform(path, grid)
    inner = grid.points().reshape(24, 24, 24, 3)[6:18, 6:18, 6:18].reshape(-1, 3)
    wanted = map_points(inner, [read_transform(Path(part)) for part in parts])
    assert np.abs(wanted - inner).max() > 1.0
    assert np.abs(found(inner) - wanted).max() < 0.05


def test_other_kinds_of_transform_are_sampled_too(tmp_path: Path) -> None:
    linear = LinearMap(oblique(10))
    write_transform(linear, tmp_path / "x.txt")
    grid = Grid((8, 9, 7), oblique(40) @ np.diag([3, 2, 2, 1.0]))
    found = sample_transform(tmp_path / "x.txt", grid)
    assert np.allclose(found(grid.points()), linear(grid.points()), atol=1e-3)


def test_a_damaged_composite_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"no transform")
    with pytest.raises(CmbprepError, match=r"x\.h5.*not a transform"):
        sample_transform(tmp_path / "x.h5", Grid((4, 4, 4), np.eye(4)))


def transforms(tmp_path: Path, shift: float) -> Any:
    """Read transforms of a T1w image that lies 20 mm beside the template."""
    brain = head((30, 30, 30)) > 500
    away = np.diag([2.5, 2.5, 2.5, 1.0])
    away[0, 3] = 20
    t1w = save(tmp_path / "t1w_mask.nii.gz", brain, away, dtype=np.uint8)
    template = save(tmp_path / "template_mask.nii.gz", brain, dtype=np.uint8)
    move = np.eye(4)
    move[0, 3] = shift
    # To bring the T1w image onto the template, a template's point is taken to the T1w image.
    write_transform(LinearMap(move), tmp_path / "to.txt")
    write_transform(LinearMap(np.linalg.inv(move)), tmp_path / "from.txt")
    return (
        ReadGivenTransforms(
            to_reference=str(tmp_path / "to.txt"),
            from_reference=str(tmp_path / "from.txt"),
            brain_mask=str(t1w),
            reference_mask=str(template),
        )
        .run(cwd=str(tmp_path))
        .outputs
    )


def test_transforms_become_fields_and_are_judged(tmp_path: Path) -> None:
    found = transforms(tmp_path, 20)
    assert found.warnings == []
    overlaps = found.quality["template_registration"]
    assert overlaps["reference_overlap"] > 0.99 and overlaps["t1w_overlap"] > 0.99
    assert overlaps["verdict"] == "ok", "the search for zones asks for it"
    field = read_transform(Path(found.to_reference))
    assert isinstance(field, DisplacementMap)
    assert np.allclose(field(np.zeros((1, 3))), [[20, 0, 0]], atol=1e-4)


def test_transforms_that_do_not_fit_are_doubtful(tmp_path: Path) -> None:
    found = transforms(tmp_path, -20)
    assert found.quality["template_registration"]["verdict"] == "doubtful"
    (warning,) = found.warnings
    assert "doubtful" in warning and "in common" in warning


# --- zones -------------------------------------------------------------------------------


def draw(
    tmp_path: Path, person: SegmentedHead, *, place: np.ndarray, spacing: float = 1.0, **more: Any
) -> Any:
    """Draw the zones of the person with the whole head moved by an affine map."""
    affine = place @ person.affine
    packed = Parcellation(person.template, 0 * person.template, 0 * person.template).pack()
    save(tmp_path / "parcellation.nii.gz", packed, person.affine)
    mask = nib.Nifti1Image(person.brain.astype(np.uint8), affine)
    if spacing != 1.0:
        step = np.diag([spacing, spacing, spacing, 1.0])
        shape = tuple(int(n / spacing) for n in person.brain.shape)
        mask = apply_transforms(mask, Grid(shape, affine @ step), (), interpolation="nearest")
    nib.save(mask, tmp_path / "mask.nii.gz")
    nib.save(nib.MGHImage(person.labels, affine), tmp_path / "aparc+aseg.mgz")
    write_transform(LinearMap(np.linalg.inv(place)), tmp_path / "back.txt")
    given = {
        "segmentation": str(tmp_path / "aparc+aseg.mgz"),
        "brain_mask": str(tmp_path / "mask.nii.gz"),
        "to_reference": str(tmp_path / "back.txt"),
        "parcellation": str(tmp_path / "parcellation.nii.gz"),
        "scheme": "mars",
        "border_mm": 10.0,
    }
    return DrawPersonZones(**{**given, **more}).run(cwd=str(tmp_path)).outputs


def at_head(found: Any, person: SegmentedHead, place: np.ndarray) -> np.ndarray:
    """Bring drawn zones back to the phantom's own grid."""
    image = nib.load(found.atlas)
    grid = Grid(person.labels.shape, person.affine)
    back = apply_transforms(image, grid, (LinearMap(place),), interpolation="nearest")
    return np.asarray(back.dataobj)


@pytest.mark.parametrize("place", [np.eye(4), oblique()], ids=["straight", "oblique"])
def test_the_node_draws_what_the_function_draws(
    tmp_path: Path, person: SegmentedHead, place: np.ndarray
) -> None:
    found = draw(tmp_path, person, place=place)
    wanted = person_zones(person.labels, person.template, person.brain, MARS).labels
    assert np.mean(at_head(found, person, place) != wanted) < 1e-3
    assert found.warnings == []
    assert found.quality == {"segmentation_in_brain_fraction": 1.0}


def test_zones_of_a_finer_t1w_image_are_the_same_zones(
    tmp_path: Path, person: SegmentedHead
) -> None:
    found = draw(tmp_path, person, place=oblique(), spacing=0.75)
    assert np.allclose(nib.load(found.atlas).header.get_zooms(), 1.0, atol=1e-3)
    wanted = person_zones(person.labels, person.template, person.brain, MARS).labels
    got = at_head(found, person, oblique())
    # Voxels at the borders of regions may fall to either side.
    assert np.mean(got[person.labels > 0] != wanted[person.labels > 0]) < 0.08


def test_a_segmentation_in_its_own_space_is_brought_over(
    tmp_path: Path, person: SegmentedHead
) -> None:
    place, away = oblique(), np.eye(4)
    away[:3, 3] = 40, -15, 8
    nib.save(nib.MGHImage(person.labels, away @ place @ person.affine), tmp_path / "native.mgz")
    native = str(tmp_path / "native.mgz")
    with pytest.raises(ScanError, match=r"native\.mgz: only \d+% of the segmentation lies"):
        draw(tmp_path, person, place=place, segmentation=native)
    write_transform(LinearMap(away), tmp_path / "xfm.txt")
    found = draw(
        tmp_path,
        person,
        place=place,
        segmentation=native,
        to_segmentation=str(tmp_path / "xfm.txt"),
    )
    wanted = person_zones(person.labels, person.template, person.brain, MARS).labels
    assert np.mean(at_head(found, person, place) != wanted) < 1e-3


def test_what_is_no_segmentation_is_named(tmp_path: Path, person: SegmentedHead) -> None:
    affine = person.affine
    probability = save(tmp_path / "p.nii.gz", np.where(person.brain, 0.5, 0).astype("f4"), affine)
    with pytest.raises(ScanError, match=r"p\.nii\.gz: it is no image of labels"):
        draw(tmp_path, person, place=np.eye(4), segmentation=str(probability))
    other = np.where(person.brain, 500, 0).astype(np.int16)
    path = save(tmp_path / "o.nii.gz", other, affine)
    with pytest.raises(ScanError, match=r"o\.nii\.gz: its labels are not those of FreeSurfer"):
        draw(tmp_path, person, place=np.eye(4), segmentation=str(path))


def test_an_atlas_is_drawn_on_the_grid_of_the_parcellation(
    tmp_path: Path, person: SegmentedHead
) -> None:
    side = np.where(person.x < 0, 1, 2).astype(np.uint8)
    tissue = np.where(person.labels > 1000, 1, 2).astype(np.uint8)
    packed = Parcellation(person.template, side, tissue).pack()
    found = (
        DrawAtlas(
            parcellation=str(save(tmp_path / "p.nii.gz", packed, person.affine)),
            brain_mask=str(save(tmp_path / "b.nii.gz", person.template > 0, dtype=np.uint8)),
            mars=str(save(tmp_path / "m.nii.gz", packed * 0 + 1, person.affine)),
            scheme="bombs",
            border_mm=2.5,
        )
        .run(cwd=str(tmp_path))
        .outputs
    )
    assert nib.load(found.atlas).shape == packed.shape
    assert set(np.unique(voxels(found.atlas))) == {1, 2}
