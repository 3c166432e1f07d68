"""Images of one scan: echoes and phase on one grid, at planning as in the run."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.bids.images import check_files
from cmbprep.errors import ScanError
from cmbprep.interfaces.echoes import read_echoes
from cmbprep.interfaces.images import ReadMagnitude
from tests.bidsdata import head, save

AFFINE = np.diag([3.0, 3.0, 8.0, 1.0]) + np.outer([-36, -42, -80, 0], [0, 0, 0, 1])


def moved(mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[2, 3] += mm
    return affine


def echoes(folder: Path, mm: float) -> list[Path]:
    return [
        save(folder / f"sub-01_echo-{number}_MEGRE.nii.gz", head(seed=number), affine)
        for number, affine in ((1, AFFINE), (2, moved(mm)))
    ]


def phase(folder: Path, number: int, affine: np.ndarray) -> Path:
    values = np.random.default_rng(number).uniform(-np.pi, np.pi, (24, 28, 20))
    return save(folder / f"sub-01_echo-{number}_part-phase_MEGRE.nii.gz", values, affine)


def test_the_grid_of_the_first_echo_is_taken(tmp_path: Path) -> None:
    paths = echoes(tmp_path, 0.004)
    assert check_files(paths, []) == ()
    node = ReadMagnitude(in_files=[str(path) for path in paths], echo_times=[0.015, 0.02])
    found = node.run(cwd=str(tmp_path)).outputs
    image = nib.load(found.image)
    np.testing.assert_array_equal(image.affine, AFFINE)
    expected = (head(seed=1).astype(np.float64) + head(seed=2)) / 2
    np.testing.assert_allclose(image.get_fdata(), expected, rtol=1e-6)
    assert found.warnings == []


def test_an_echo_on_another_grid_ends_plan_and_run_alike(tmp_path: Path) -> None:
    paths = echoes(tmp_path, 0.4)
    with pytest.raises(ScanError) as planned:
        check_files(paths, [])
    node = ReadMagnitude(in_files=[str(path) for path in paths], echo_times=[0.015, 0.02])
    with pytest.raises(ScanError) as failed:
        node.run(cwd=str(tmp_path))
    assert str(failed.value) == str(planned.value)
    assert planned.value.path == str(paths[1])
    assert planned.value.message == (
        "this echo is not on the grid of sub-01_echo-1_MEGRE.nii.gz: "
        "corners up to 0.4 mm (0.05 voxels) apart"
    )


@pytest.mark.parametrize(("mm", "used"), [(0.004, 2), (0.4, 1)])
def test_phase_near_the_grid_is_used(tmp_path: Path, mm: float, used: int) -> None:
    paths = echoes(tmp_path, 0.0)
    phases = [phase(tmp_path, 1, AFFINE), phase(tmp_path, 2, moved(mm))]
    found = read_echoes(
        [str(path) for path in paths],
        [str(path) for path in phases],
        ["rad", "rad"],
        [0.01, 0.02],
        nib.load(paths[0]),
    )
    assert len(found.phases) == used
    assert check_files(paths, phases) == found.warnings
    assert [text for text in found.warnings if "not on the grid" in text] == (
        [] if used == 2 else [found.warnings[0]]
    )


def test_what_is_odd_about_a_phase_that_is_used_is_told(tmp_path: Path) -> None:
    paths = echoes(tmp_path, 0.0)
    phases = [phase(tmp_path, 1, AFFINE), phase(tmp_path, 2, AFFINE)]
    values = nib.load(phases[1]).get_fdata()
    values[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(values, AFFINE), phases[1])  # no unit either
    found = read_echoes(
        [str(path) for path in paths],
        [str(path) for path in phases],
        ["rad", "rad"],
        [0.01, 0.02],
        nib.load(paths[0]),
    )
    name = "phase image sub-01_echo-2_part-phase_MEGRE.nii.gz"
    assert found.warnings == (
        f"{name}: its header gives no unit of length; 3 × 3 × 8 is taken to be in mm",
        f"{name}: 1 voxels that are not a number (NaN or infinite): their phase counts as unknown",
    )
    assert check_files(paths, phases) == found.warnings[:1]


def test_what_is_odd_about_all_images_is_told_once(tmp_path: Path) -> None:
    """A slab is a slab in each image; only the magnitude says so."""
    affine = np.diag([2.5, 2.5, 1.5, 1.0])
    magnitude = save(tmp_path / "sub-01_T2starw.nii.gz", head(), affine)
    angle = phase(tmp_path, 1, affine)
    slab = "it covers a slab of 30 mm only; its registration is uncertain"
    assert check_files([magnitude], [angle]) == (slab,)
    assert (
        read_echoes([str(magnitude)], [str(angle)], ["rad"], [0.02], nib.load(magnitude)).warnings
        == ()
    )


def test_a_missing_phase_is_a_warning_and_a_missing_echo_an_error(tmp_path: Path) -> None:
    paths = echoes(tmp_path, 0.0)
    (warning,) = check_files(paths, [None, tmp_path / "none.nii.gz"])
    assert warning.startswith("a phase image is not used:")
    assert "none.nii.gz: there is no such file" in warning
    with pytest.raises(ScanError, match="no such file"):
        check_files([*paths, tmp_path / "none.nii.gz"], [])


def test_unknown_phase_is_told_though_the_magnitude_has_as_many_gaps(tmp_path: Path) -> None:
    (path,), angle = echoes(tmp_path, 0.0)[:1], phase(tmp_path, 1, AFFINE)
    for name in (path, angle):
        image = nib.load(name)
        values = image.get_fdata()
        values[0, 0, 0] = np.nan
        save(name, values.astype(np.float32), image.affine)
    found = read_echoes([str(path)], [str(angle)], ["rad"], [0.02], nib.load(path))
    assert len(found.warnings) == 1 and "phase counts as unknown" in found.warnings[0]
    assert np.isnan(found.phases[0][0, 0, 0]) and np.isfinite(found.magnitudes[0]).all()
