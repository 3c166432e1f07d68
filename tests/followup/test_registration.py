"""Registration of two visits: halfway, symmetric, and judged."""

import nibabel as nib
import numpy as np
import pytest

from cmbprep.followup import registration
from cmbprep.followup.registration import (
    FAILED_MM,
    HeadScan,
    VisitRegistration,
    halfway,
    judge,
    register_visits,
    registration_gap,
)
from cmbprep.registration.quality import RegistrationQuality
from cmbprep.spatial.transforms import LinearMap, map_points
from tests.registration import headphantom

SHAPE = (48, 56, 40)


def rigid(degrees, shift):
    return LinearMap(headphantom.rigid(degrees, shift))


def quality(verdict="ok"):
    reasons = () if verdict == "ok" else (f"it is {verdict}",)
    return RegistrationQuality(
        similarity=1.2,
        overlap=0.9,
        brain_volume_ml=1400.0,
        rotation_deg=2.0,
        shift_mm=3.0,
        verdict=verdict,
        reasons=reasons,
    )


ONE, OTHER = rigid((20, -5, 40), (10, -30, 5)), rigid((22, -4, 39), (11, -28, 5))


def test_halfway_between_a_shift_and_none_is_half_of_it():
    found = halfway(LinearMap(np.eye(4)), rigid((0, 0, 0), (4, 0, -2)))
    assert np.allclose(found.matrix[:3, 3], (2, 0, -1))


def test_halfway_is_as_far_from_either():
    middle = halfway(ONE, OTHER)
    points = headphantom.brain_points()
    gaps = [registration_gap(middle, end, points, points) for end in (ONE, OTHER)]
    assert gaps[0] == pytest.approx(gaps[1], rel=0.02)
    assert gaps[0] == pytest.approx(registration_gap(ONE, OTHER, points, points) / 2, rel=0.02)


def test_halfway_of_the_inverses_is_the_inverse_and_order_does_not_matter():
    middle = halfway(ONE, OTHER).matrix
    assert np.allclose(middle, halfway(OTHER, ONE).matrix)
    back = halfway(OTHER.inverse(), ONE.inverse()).matrix
    assert np.allclose(middle @ back, np.eye(4))


def test_the_gap_does_not_favour_a_visit():
    points, elsewhere = headphantom.brain_points(), headphantom.brain_points()[::7] + 20
    forward = registration_gap(ONE, OTHER, points, elsewhere)
    backward = registration_gap(OTHER.inverse(), ONE.inverse(), elsewhere, points)
    assert forward == pytest.approx(backward)


def visit(pose, spacing):
    affine = headphantom.grid_affine(SHAPE, spacing, centre=pose.matrix[:3, 3])
    image = headphantom.head(SHAPE, affine, contrast="T2starw", pose=pose.matrix)
    # The brain in the pose of this visit.
    fixed = headphantom.grid_affine(SHAPE, (4.0, 4.0, 5.0))
    brain = headphantom.brain(SHAPE, fixed)
    mask = nib.Nifti1Image(np.asarray(brain.dataobj), pose.matrix @ brain.affine)
    return HeadScan(image=image, brain_mask=mask)


def test_exchanged_visits_give_the_inverse_map_and_the_true_one():
    poses = rigid((0, 0, 0), (0, 0, 0)), rigid((7, -4, 9), (6, -8, 5))
    first, second = (visit(pose, (4.0, 4.0, 5.0)) for pose in poses)
    found, back = register_visits(first, second), register_visits(second, first)
    assert np.allclose(found.to_second.matrix @ back.to_second.matrix, np.eye(4), atol=1e-6)
    assert found.gap_mm == pytest.approx(back.gap_mm)
    assert (found.verdict, found.reasons) == ("ok", ())
    points = headphantom.brain_points()
    errors = np.linalg.norm(
        map_points(points, (found.to_second,)) - map_points(points, (poses[1],)), axis=1
    )
    assert np.percentile(errors, 95) < 1.5


def test_two_registrations_that_disagree_have_failed():
    found = judge([ONE, OTHER], FAILED_MM + 0.1, (quality(), quality()))
    assert found.verdict == "failed"
    assert "differ by 4.1 mm" in found.reasons[0]


def test_one_failed_direction_is_left_out_and_doubted():
    found = judge([OTHER], None, (quality("failed"), quality()))
    assert found.verdict == "doubtful"
    assert found.to_second is OTHER
    assert found.error_mm > judge([ONE, OTHER], 0.1, (quality(), quality())).error_mm


def test_two_failed_directions_have_failed():
    found = judge([ONE, OTHER], 0.5, (quality("failed"), quality("failed")))
    assert (found.verdict, found.reasons) == ("failed", ("it is failed",))


def test_the_inverse_of_a_registration_says_the_same():
    found = judge([ONE, OTHER], 1.0, (quality(), quality()))
    back = found.inverse()
    assert np.allclose(found.to_second.matrix @ back.to_second.matrix, np.eye(4))
    assert (back.gap_mm, back.verdict) == (found.gap_mm, found.verdict)


def test_a_verdict_needs_its_reasons():
    with pytest.raises(ValueError, match="reasons"):
        VisitRegistration(
            to_second=ONE, gap_mm=0.1, similarity=1.1, overlap=1.0, verdict="doubtful"
        )


def test_scans_that_cannot_be_registered_raise(monkeypatch):
    from cmbprep.errors import ScanError

    def broken(*_, **__):
        raise ScanError("nothing is seen")

    monkeypatch.setattr(registration, "register_rigid", broken)
    first = visit(rigid((0, 0, 0), (0, 0, 0)), (4.0, 4.0, 5.0))
    with pytest.raises(ScanError, match="nothing is seen"):
        register_visits(first, first)


def test_reasons_name_the_other_visit_and_no_t1w_image():
    first = visit(rigid((0, 0, 0), (0, 0, 0)), (4.0, 4.0, 5.0))
    values = np.random.default_rng(3).uniform(0, 100, first.image.shape).astype(np.float32)
    noise = HeadScan(image=nib.Nifti1Image(values, first.image.affine), brain_mask=first.brain_mask)
    found = register_visits(first, noise)
    assert found.verdict == "failed"
    said = "; ".join(found.reasons)
    assert "image of the other visit" in said
    assert "T1w" not in said
