"""Images between nodes: what is handed on is what was given, and never half a file."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.interfaces.files import hand_on, image_like, load_image, voxels
from cmbprep.interfaces.images import ReadMagnitude
from tests.registration.headphantom import grid_affine, head

OBLIQUE = np.array([[1.1, 0.2, 0, -30], [-0.2, 1.1, 0.1, 4], [0, -0.1, 2.5, 7], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32])
def test_image_that_is_handed_on_comes_back(tmp_path: Path, dtype: type) -> None:
    data = np.random.default_rng(1).integers(0, 200, (7, 5, 6)).astype(dtype)
    path = hand_on(tmp_path / "image.nii", nib.Nifti1Image(data, OBLIQUE, dtype=dtype))
    assert Path(path).name == "image.nii"
    image = load_image(path)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(image.dataobj), data)
    assert np.asarray(image.dataobj).dtype == dtype
    assert [each.name for each in tmp_path.iterdir()] == ["image.nii"]


def test_changing_what_was_read_leaves_the_file(tmp_path: Path) -> None:
    path = hand_on(tmp_path / "a.nii", nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)))
    voxels(path)[:] = 5
    np.testing.assert_array_equal(voxels(path), 1)


def test_a_file_that_could_not_be_written_is_not_there(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    image = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4))
    monkeypatch.setattr(nib.Nifti1Image, "to_filename", fail)
    with pytest.raises(OSError, match="No space"):
        hand_on(tmp_path / "a.nii", image)
    assert not list(tmp_path.iterdir())


def test_voxels_on_the_grid_of_another_image_keep_their_own_type() -> None:
    like = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), OBLIQUE)
    like.header.set_slope_inter(0.5, 3)
    like.header["cal_max"] = 9
    image = image_like(np.full((2, 3, 4), 0.25, np.float32), like)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, like.affine)
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.float32(0.25))
    assert float(image.header["cal_max"]) == 0


def test_rough_correction_evens_the_head(tmp_path: Path) -> None:
    """A head with a bias along x: most of the slope goes."""
    shape = (48, 56, 48)
    affine = grid_affine(shape, (4.0, 4.0, 4.0))
    plain = np.asarray(head(shape, affine, noise=0.0).dataobj)
    x = np.broadcast_to(np.linspace(-0.5, 0.5, shape[0])[:, None, None], shape)
    biased = nib.Nifti1Image((plain * np.exp(x)).astype(np.float32), affine)
    path = hand_on(tmp_path / "biased.nii", biased)
    found = ReadMagnitude(in_files=[path], echo_times=[None]).run(cwd=str(tmp_path))
    inside = plain > 0.4 * plain.max()
    before, after = (
        np.polyfit(x[inside], np.log(voxels(name)[inside] / plain[inside]), 1)[0]
        for name in (path, found.outputs.rough)
    )
    assert before == pytest.approx(1, abs=1e-3)
    assert abs(after) < 0.5  # the head is not even itself
