"""Registration of heads whose pose is known, and the judgement of what went wrong."""

import hashlib
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from cmbprep.registration import fit as registration
from cmbprep.registration.fit import RegistrationQuality, register_rigid, register_to_template
from cmbprep.spatial.grids import resample_to_grid, working_grid
from cmbprep.spatial.transforms import LinearMap, map_points
from cmbprep.templates import load_template
from tests.registration import headphantom

# 4 mm: quick, and enough to tell a millimetre.
SHAPE = (48, 56, 52)
AFFINE = headphantom.grid_affine(SHAPE, (4.0, 4.0, 4.0))


def reference():
    return headphantom.head(SHAPE, AFFINE), headphantom.brain(SHAPE, AFFINE)


SCANS = {
    "turned 30 degrees and 40 mm off": (
        (48, 56, 40), (4.0, 4.0, 4.0), "LAS", (30, -12, 15), (10, -40, 22), (0, 0, 0)
    ),
    "sagittal thick slices": (
        (52, 56, 28), (4.0, 4.0, 6.0), "AIR", (8, 5, -10), (-15, 10, 5), (0, 0, 0)
    ),
    "a slab of 60 mm": (
        (48, 56, 12), (4.0, 4.0, 5.0), "LPS", (-12, 0, 6), (5, -8, 10), (0, 0, 15)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SCANS))
def test_a_scan_finds_its_pose_whatever_the_header_says(name):
    shape, spacing, codes, degrees, shift, centre = SCANS[name]
    pose = headphantom.rigid(degrees, shift)
    where = pose[:3, :3] @ centre + pose[:3, 3]
    affine = headphantom.grid_affine(shape, spacing, codes=codes, centre=where)
    scan = headphantom.head(shape, affine, contrast="T2starw", pose=pose)
    found = register_rigid(scan, *reference())
    truth = headphantom.brain_points()
    scanner = truth @ pose[:3, :3].T + pose[:3, 3]
    errors = np.linalg.norm(map_points(scanner, (found.to_reference,)) - truth, axis=1)
    assert np.median(errors) < 1.0
    assert np.percentile(errors, 95) < 2
    assert found.quality.verdict == "ok", found.quality.reasons
    assert found.quality.rotation_deg == pytest.approx(
        np.degrees(np.arccos((np.trace(pose[:3, :3]) - 1) / 2)), abs=3
    )


def test_a_head_that_is_stored_upside_down_is_found_and_doubted():
    pose = headphantom.rigid((180, 0, 0), (0, 0, 0))
    scan = headphantom.head(SHAPE, AFFINE, contrast="T2starw", pose=pose)
    found = register_rigid(scan, *reference())
    truth = headphantom.brain_points()
    scanner = truth @ pose[:3, :3].T + pose[:3, 3]
    errors = np.linalg.norm(map_points(scanner, (found.to_reference,)) - truth, axis=1)
    assert np.median(errors) < 1.5
    assert found.quality.verdict == "doubtful"
    assert "180 degrees" in found.quality.reasons[0]


def test_half_a_head_is_not_taken_for_a_whole_one():
    data = np.array(headphantom.head(SHAPE, AFFINE, contrast="T2starw").dataobj)
    data[: SHAPE[0] // 2] = 0
    found = register_rigid(nib.Nifti1Image(data, AFFINE), *reference())
    assert found.quality.verdict == "failed"
    assert "falls outside" in " ".join(found.quality.reasons)


@pytest.fixture(scope="module")
def warped():
    """A larger head in another pose and contrast, laid onto the reference."""
    pose = headphantom.rigid((12, -6, 10), (6, -15, 12)) @ np.diag([1.06, 0.97, 1.04, 1.0])
    affine = headphantom.grid_affine(SHAPE, (4.2, 4.0, 4.4), codes="LPS", centre=(6, -15, 12))
    image = headphantom.head(SHAPE, affine, contrast="T2starw", pose=pose)
    return pose, affine, register_to_template(image, *reference())


def test_template_maps_find_a_known_affine_both_ways(warped):
    pose, _, found = warped
    truth = headphantom.brain_points()
    person = truth @ pose[:3, :3].T + pose[:3, 3]
    there = np.linalg.norm(map_points(person, (found.to_template,)) - truth, axis=1)
    back = np.linalg.norm(map_points(truth, (found.to_image,)) - person, axis=1)
    assert np.median(there) < 1.0
    assert np.median(back) < 1.0
    assert np.percentile(there, 95) < 3


def test_redrawing_the_template_brings_the_inside_closer(monkeypatch):
    """The template's own head warped by a known map, in a contrast that has no order of its."""
    packaged = load_template()
    grid = working_grid((193, 229, 193), nib.load(packaged.t1w).affine, 3.0)
    values, mask = (
        resample_to_grid(np.asarray(nib.load(path).dataobj, np.float32), grid_.affine, grid)
        for path, grid_ in (
            (packaged.t1w, nib.load(packaged.t1w)),
            (packaged.brain_mask, nib.load(packaged.brain_mask)),
        )
    )
    template = (
        nib.Nifti1Image(values, grid.affine),
        nib.Nifti1Image((mask > 0.5).astype(np.uint8), grid.affine),
    )
    bright = np.percentile(values[mask > 0.5], 90)
    colours = np.interp(values / bright, [0, 0.1, 0.35, 0.7, 1], [2, 10, 105, 100, 97])

    def moved(points):
        return points + 3 * np.sin(points[..., [1, 2, 0]] / 20)

    index = np.moveaxis((moved(grid.points()) - grid.affine[:3, 3]) / 3.0, -1, 0)
    warped = ndimage.map_coordinates(colours, index, order=1).reshape(grid.shape)
    warped += np.random.default_rng(3).normal(0, 4, grid.shape)
    image = nib.Nifti1Image(np.maximum(warped, 0).astype(np.float32), grid.affine)
    points = grid.points()[(mask > 0.5).ravel()][::97]
    errors = []
    for stages, settled in ((registration.REDRAWN, registration.SETTLED), ((), 0.0)):
        monkeypatch.setattr(registration, "REDRAWN", stages)
        monkeypatch.setattr(registration, "SETTLED", settled)
        found = register_to_template(image, *template)
        assert found.quality.verdict == "ok", found.quality.reasons
        back = map_points(moved(points), (found.to_image,))
        errors.append(float(np.median(np.linalg.norm(back - points, axis=1))))
    assert errors[0] < 0.8 * errors[1]


def test_the_two_maps_undo_each_other(warped):
    found = warped[2]
    points = headphantom.brain_points()
    there_and_back = map_points(points, (found.to_image, found.to_template))
    assert np.percentile(np.linalg.norm(there_and_back - points, axis=1), 95) < 0.7


def test_prior_covers_the_brain_and_the_judgement_is_right(warped):
    pose, affine, found = warped
    prior = found.brain_prior
    same_grid = headphantom.brain(prior.shape, prior.affine, pose=pose)
    assert headphantom.dice(np.asarray(prior.dataobj) >= 0.5, same_grid.dataobj) > 0.95
    truth = headphantom.brain(SHAPE, affine, pose=pose)
    volume = np.asarray(truth.dataobj).sum() * np.prod([4.2, 4.0, 4.4]) / 1000
    assert found.quality.brain_volume_ml == pytest.approx(volume, rel=0.08)
    assert found.quality.verdict == "ok", found.quality.reasons
    assert found.quality.folding_fraction == 0


def test_noise_is_not_taken_for_a_head():
    rng = np.random.default_rng(0)
    noise = nib.Nifti1Image(rng.gamma(2, 20, size=SHAPE).astype(np.float32), AFFINE)
    assert register_rigid(noise, *reference()).quality.verdict == "failed"


def test_a_phantom_is_no_brain_though_its_outline_fits():
    """An ellipsoid as large as a head, evenly filled; with the head's inside it would do."""
    template = reference()
    found = register_to_template(_filled(np.full(SHAPE, 100.0)), *template)
    assert found.quality.verdict == "failed"
    assert "of the inside of the brain fits the template" in " ".join(found.quality.reasons)
    # Its outline makes it alike, which is why nothing is judged by that.
    assert found.quality.agreeing < 0.3
    assert found.quality.similarity > 1.1


def _filled(values):
    """The head's outline with other values in it, and noise."""
    head = np.asarray(headphantom.head(SHAPE, AFFINE).dataobj)
    inside = ndimage.binary_fill_holes(head > 0.2 * head.max())
    noise = np.random.default_rng(2).normal(0, 3, SHAPE)
    return nib.Nifti1Image(np.abs(np.where(inside, values, 2.0) + noise).astype(np.float32), AFFINE)


def test_the_inside_of_a_warped_head_fits_where_it_was_laid(warped):
    assert warped[2].quality.agreeing > 0.9


def test_a_head_in_bright_fat_without_contrast_is_found_by_its_outline():
    """The template's own head, even inside but for fluid, with a scalp as bright as can be."""
    packaged = load_template()
    head, mask = nib.load(packaged.t1w), nib.load(packaged.brain_mask)
    grid = working_grid(head.shape, head.affine, 4.0)
    values = resample_to_grid(np.asarray(head.dataobj, np.float32), head.affine, grid)
    brain = resample_to_grid(np.asarray(mask.dataobj) > 0, mask.affine, grid) >= 0.5
    level = np.percentile(values[brain], 90)
    flat = np.interp(values / level, [0, 0.1, 0.35, 0.6, 1], [0, 10, 70, 100, 100])
    fat = ~brain & (values > 0.4 * level)
    scan = np.where(fat, 300, np.where(brain, flat, 0.3 * flat))
    scan += np.random.default_rng(4).normal(0, 3, grid.shape)
    pose = headphantom.rigid((20, 5, -8), (6, 30, -25))
    image = nib.Nifti1Image(np.maximum(scan, 0).astype(np.float32), pose @ grid.affine)
    found_brain = nib.Nifti1Image(brain.astype(np.uint8), pose @ grid.affine)
    template = (
        nib.Nifti1Image(values, grid.affine),
        nib.Nifti1Image(brain.astype(np.uint8), grid.affine),
    )
    found = register_to_template(image, *template, found_brain)
    points = grid.points()[brain.ravel()][::37]
    there = map_points(map_points(points, (LinearMap(pose),)), (found.to_template,))
    assert np.median(np.linalg.norm(there - points, axis=1)) < 2
    assert found.quality.verdict == "ok", found.quality.reasons


def test_what_surrounds_the_brain_helps_to_lay_its_surface():
    pose = headphantom.rigid((8, 5, -8), (6, 10, -5))
    affine = pose @ AFFINE
    scan = headphantom.head(SHAPE, affine, contrast="T2starw", pose=pose)
    brain = headphantom.brain(SHAPE, affine, pose=pose)
    found = register_to_template(scan, *reference(), brain)
    truth = headphantom.brain_points()
    scanner = truth @ pose[:3, :3].T + pose[:3, 3]
    errors = np.linalg.norm(map_points(scanner, (found.to_template,)) - truth, axis=1)
    # With the brains alone: 0.78 and 1.88 mm.
    assert np.median(errors) < 0.72
    assert np.percentile(errors, 95) < 1.65


@pytest.mark.parametrize(
    ("verdicts", "agreements", "better"),
    [
        (("ok", "doubtful"), (0.5, 0.9), True),
        (("doubtful", "ok"), (0.9, 0.5), False),
        (("ok", "ok"), (0.86, 0.80), True),
        (("ok", "ok"), (0.84, 0.80), False),
        (("failed", "failed"), (None, 0.1), False),
        (("failed", "failed"), (0.1, None), True),
    ],
)
def test_the_likelier_start_is_kept_unless_the_other_is_clearly_better(
    verdicts, agreements, better
):
    figures = {"similarity": 1.1, "overlap": 1.0, "brain_volume_ml": 1400.0,
               "rotation_deg": 2.0, "shift_mm": 3.0}  # fmt: skip
    new, old = (
        RegistrationQuality(**figures, agreeing=a, verdict=v, reasons=() if v == "ok" else ("off",))
        for v, a in zip(verdicts, agreements, strict=True)
    )
    assert registration._is_better(new, old, registration.CLEARLY) == better


def test_a_slab_that_is_laid_too_small_is_not_taken_for_a_whole_brain():
    figures = {"similarity": 1.1, "rotation_deg": 2.0, "shift_mm": 3.0}
    right = RegistrationQuality(
        **figures,
        overlap=0.68,
        agreeing=0.89,
        brain_volume_ml=2093.0,
        verdict="doubtful",
        reasons=("the image shows 68% of the brain",),
    )
    small = RegistrationQuality(**figures, overlap=0.85, agreeing=0.76, brain_volume_ml=1024.0)
    assert not registration._is_better(small, right, registration.CLEARLY)
    assert registration._is_better(right, small, registration.CLEARLY)


def test_quality_checks_itself():
    figures = {"similarity": 1.1, "overlap": 1.0, "brain_volume_ml": 1400.0,
               "rotation_deg": 2.0, "shift_mm": 3.0}  # fmt: skip
    assert RegistrationQuality(**figures).verdict == "ok"
    with pytest.raises(ValueError, match="reasons"):
        RegistrationQuality(**figures, verdict="doubtful")
    with pytest.raises(ValueError, match="reasons"):
        RegistrationQuality(**figures, reasons=("it is off",))
    with pytest.raises(ValueError, match="between 0 and 1"):
        RegistrationQuality(**{**figures, "overlap": 1.2})


SAME_BYTES = """
import hashlib, os, sys
import numpy as np
if sys.argv[1] == "1" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
from tests.registration import headphantom
from cmbprep.brain.bias import correct_bias
from cmbprep.brain.refine import refine_brain_mask
from cmbprep.registration.fit import register_to_template
shape = (40, 46, 42)
affine = headphantom.grid_affine(shape, (5.0, 5.0, 5.0))
template = headphantom.head(shape, affine), headphantom.brain(shape, affine)
pose = headphantom.rigid((5, 5, 5), (4, 4, 4))
image = correct_bias(headphantom.head(shape, affine, pose=pose), iterations=3).image
found = register_to_template(image, *template)
mask = refine_brain_mask(image, found.brain_prior)
parts = (image.dataobj, found.to_template.displacement, found.to_image.displacement, mask.dataobj)
print(hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest())
"""


def test_two_processes_give_the_same_bytes_and_leave_no_files(tmp_path):
    """One has all processors and a shell that wants many threads, the other a single processor."""
    digests = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = subprocess.run(
            [sys.executable, "-c", SAME_BYTES, str(number)],
            capture_output=True, text=True, check=True,
            env={
                **os.environ, "TMPDIR": str(folder), "PYTHONHASHSEED": str(number),
                "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1" if number else "8",
            },
        )  # fmt: skip
        digests.append(result.stdout.split()[-1])
        assert list(folder.iterdir()) == []
    assert len(digests[0]) == len(hashlib.sha256().hexdigest())
    assert digests[0] == digests[1]
