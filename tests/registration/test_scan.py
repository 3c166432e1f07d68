"""The chain of fallbacks: which way a scan takes when a step fails."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from cmbprep.brain.network import BrainExtraction
from cmbprep.errors import ScanError
from cmbprep.registration import scan as scan_registration
from cmbprep.registration.fit import RegistrationQuality, RigidRegistration, TemplateRegistration
from cmbprep.registration.scan import EXPECTED_ERROR_MM, AnatomicalImage, error_class, register_scan
from cmbprep.spatial.transforms import DisplacementMap, LinearMap, map_points

SCAN = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.diag([1.0, 1.0, 5.0, 1.0]))
MASK = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), SCAN.affine)
BRAIN = BrainExtraction(MASK, volume_ml=1400.0, sureness=0.8, cut_fraction=0.0)
FIELD = DisplacementMap(np.zeros((2, 2, 2, 3), np.float32), np.eye(4))


def quality(verdict):
    return RegistrationQuality(
        similarity=1.1, overlap=1.0, brain_volume_ml=1400.0, rotation_deg=0.0, shift_mm=0.0,
        verdict=verdict, reasons=() if verdict == "ok" else ("it is off",),
    )  # fmt: skip


@pytest.fixture
def steps(monkeypatch):
    """Replace the two registrations by ones with the verdicts that the test sets."""
    verdicts = {}

    def rigid(*_):
        if verdicts["rigid"] == "raises":
            raise ScanError("the two do not overlap")
        return RigidRegistration(LinearMap(np.eye(4)), quality(verdicts["rigid"]))

    def direct(*_, **__):
        return TemplateRegistration(
            FIELD, FIELD, LinearMap(np.eye(4)), SCAN, quality(verdicts["direct"])
        )

    monkeypatch.setattr(scan_registration, "register_rigid", rigid)
    monkeypatch.setattr(scan_registration, "register_to_template", direct)
    monkeypatch.setattr(scan_registration, "find_brain", lambda _: BRAIN)
    monkeypatch.setattr(scan_registration, "carry_brain_mask", lambda *_: SCAN)
    monkeypatch.setattr(scan_registration, "refine_brain_mask", lambda *_: SCAN)
    return verdicts


def anatomy(verdict):
    return (
        None if verdict is None else AnatomicalImage(image=SCAN, brain_mask=SCAN, verdict=verdict)
    )


@pytest.mark.parametrize(
    ("t1w", "rigid", "direct", "route"),
    [
        ("ok", "ok", "failed", "t1w"),
        ("ok", "doubtful", "ok", "t1w"),
        ("doubtful", "ok", "ok", "t1w"),
        ("failed", "ok", "ok", "template"),
        ("ok", "failed", "doubtful", "template"),
        ("ok", "raises", "ok", "template"),
        ("ok", "failed", "failed", "none"),
        (None, "ok", "ok", "template"),
        (None, "ok", "failed", "none"),
    ],
)
def test_the_first_way_that_has_not_failed_is_taken(steps, t1w, rigid, direct, route):
    steps.update(rigid=rigid, direct=direct)
    found = register_scan(SCAN, anatomy(t1w), SCAN, SCAN)
    assert found.route == route
    assert (found.direct is None) == (route == "t1w")
    assert len(found.chain(FIELD)) == {"t1w": 2, "template": 1, "none": 0}[route]
    said = " ".join(found.warnings)
    assert ("T1w image was not used" in said) == (t1w is not None and route != "t1w")
    assert ("none of them has a zone" in said) == (route == "none")
    assert (found.tolerance_mm == float("inf")) == (route == "none")


@pytest.mark.parametrize(
    ("mirrored", "direct", "verdict"),
    [
        (("ok", 0.9), "ok", "doubtful"),
        (("ok", 0.9), "failed", "failed"),
        (("failed", 0.9), "ok", "ok"),
        (("doubtful", 0.62), "ok", "ok"),  # hardly more of it fits
        (("raises", 0.9), "ok", "ok"),
    ],
)
def test_a_scan_that_fits_as_a_mirror_image_leaves_its_sides_in_doubt(
    steps, monkeypatch, mirrored, direct, verdict
):
    """Another person's T1w image does not fit the other way round either."""
    seen = []

    def rigid(scan, *_):
        seen.append(scan)
        if np.linalg.det(scan.affine) > 0:
            found = replace(quality("failed"), agreeing=0.5)
        elif mirrored[0] == "raises":
            raise ScanError("the two do not overlap")
        else:
            found = replace(quality(mirrored[0]), agreeing=mirrored[1])
        return RigidRegistration(LinearMap(np.eye(4)), found)

    monkeypatch.setattr(scan_registration, "register_rigid", rigid)
    steps.update(direct=direct)
    found = register_scan(SCAN, anatomy("ok"), SCAN, SCAN)
    # The mirror stands in the middle of the image.
    middle = [nib.affines.apply_affine(image.affine, (1.5, 1.5, 1.5)) for image in seen]
    np.testing.assert_allclose(middle[0], middle[1])
    assert found.quality.verdict == verdict
    said = " ".join(found.warnings)
    noticed = mirrored == ("ok", 0.9)
    assert ("left and right are exchanged" in said) == noticed
    assert ("left and right are in doubt" in said) == noticed


@pytest.mark.parametrize(
    ("brain", "ok", "doubtful", "said"),
    [
        (BRAIN, "ok", "doubtful", ""),  # They overlap: the brain lies where both say.
        (None, "ok", "failed", "no brain was found"),
        ({"volume_ml": 2600.0}, "ok", "doubtful", ""),
        # The one found in the image is plausible: one of the two is wrong.
        ({"place": (0, 0, 40)}, "doubtful", "doubtful", ""),
        ({"place": (0, 0, 40), "volume_ml": 2600.0}, "ok", "failed", "lies elsewhere"),
        ({"place": (0, 0, 40), "sureness": 0.3}, "ok", "failed", "is doubtful, too"),
    ],
)
def test_the_brain_found_in_the_image_checks_a_registration(
    steps, monkeypatch, brain, ok, doubtful, said
):
    if isinstance(brain, dict):
        figures = {"volume_ml": 1400.0, "sureness": 0.8, "cut_fraction": 0.0}
        affine = SCAN.affine.copy()
        affine[:3, 3] = brain.pop("place", (0, 0, 0))
        mask = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), affine)
        brain = BrainExtraction(mask, **{**figures, **brain})
    monkeypatch.setattr(scan_registration, "find_brain", lambda _: brain)
    steps.update(rigid="ok", direct="doubtful")
    found = scan_registration.register_head(SCAN, SCAN, SCAN).quality
    assert found.verdict == doubtful
    assert said in " ".join(found.reasons)
    steps.update(direct="ok")
    found = scan_registration.register_head(SCAN, SCAN, SCAN).quality
    assert found.verdict == ok
    assert ("lies elsewhere" in " ".join(found.reasons)) == (ok == "doubtful")


def upside_down(image):
    return nib.Nifti1Image(np.asarray(image.dataobj), np.diag([1, -1, -1, 1]) @ image.affine)


@pytest.mark.parametrize(
    ("image", "agreeing", "turned"),
    [
        (SCAN, {True: 0.9, False: 0.5}, False),
        (upside_down(SCAN), {True: 0.9, False: 0.5}, True),
        # What fits hardly better the other way round, and what fits well, stays.
        (upside_down(SCAN), {True: 0.58, False: 0.5}, False),
        (upside_down(SCAN), {True: 0.99, False: 0.8}, False),
    ],
)
def test_a_head_that_its_header_turns_upside_down_is_turned_back(
    monkeypatch, steps, image, agreeing, turned
):
    def direct(image, *_, **__):
        upright = bool(image.affine[1, 1] > 0 and image.affine[2, 2] > 0)
        found = replace(quality("ok"), agreeing=agreeing[upright])
        prior = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), image.affine)
        return TemplateRegistration(wide, wide, LinearMap(np.eye(4)), prior, found)

    affine = nib.affines.from_matvec(np.diag([50.0, 50.0, 50.0]), [-50.0, -50.0, -50.0])
    wide = DisplacementMap(np.zeros((3, 3, 3, 3), np.float32), affine)
    monkeypatch.setattr(scan_registration, "register_to_template", direct)
    monkeypatch.setattr(
        scan_registration, "find_brain", lambda image: replace(BRAIN, mask=mask_like(image))
    )
    found = scan_registration.register_head(image, SCAN, MASK)
    assert found.quality.agreeing == agreeing[turned or image is SCAN]
    assert np.allclose(found.brain_prior.affine, image.affine)
    assert found.quality.rotation_deg == pytest.approx(180.0 if turned else 0.0)
    assert found.quality.verdict == ("doubtful" if turned else "ok")
    # Half a turn about the image's middle.
    points = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 3.0]])
    middle = nib.affines.apply_affine(image.affine, [1.5, 1.5, 1.5])
    there = points * [1, -1, -1] + [0, 2 * middle[1], 2 * middle[2]] if turned else points
    for chain in ((found.to_template,), (found.linear,)):
        assert np.allclose(map_points(points, chain), there, atol=1e-4)
    assert np.allclose(map_points(there, (found.to_image,)), points, atol=1e-4)


@pytest.mark.parametrize(("upright", "taken"), [(0.92, True), (0.85, False)])
def test_a_head_that_registration_has_turned_is_looked_at_upright(
    monkeypatch, steps, upright, taken
):
    """Its brain is found then; the registration may lose a little by it."""
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    affine = nib.affines.from_matvec(np.diag([50.0, 50.0, 50.0]), [-50.0, -50.0, -50.0])
    wide = DisplacementMap(np.zeros((3, 3, 3, 3), np.float32), affine)
    image = nib.Nifti1Image(
        np.asarray(SCAN.dataobj), nib.affines.from_matvec(quarter.T) @ SCAN.affine
    )

    def direct(given, *_, **__):
        turned = given.affine[0, 0] < 1e-6
        found = replace(
            quality("doubtful" if turned else "ok"),
            agreeing=0.94 if turned else upright,
            rotation_deg=90.0 if turned else 0.0,
        )
        linear = LinearMap(nib.affines.from_matvec(quarter if turned else np.eye(3)))
        prior = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), given.affine)
        return TemplateRegistration(wide, wide, linear, prior, found)

    monkeypatch.setattr(scan_registration, "register_to_template", direct)
    monkeypatch.setattr(
        scan_registration, "find_brain", lambda given: replace(BRAIN, mask=mask_like(given))
    )
    found = scan_registration.register_head(image, SCAN, MASK)
    assert found.quality.agreeing == (upright if taken else 0.94)
    assert found.quality.verdict == "doubtful"
    assert found.quality.rotation_deg == pytest.approx(90.0)
    assert np.allclose(found.linear.matrix[:3, :3], quarter)


def test_a_turn_that_leads_nowhere_costs_no_registration(monkeypatch, steps):
    def direct(image, *_, **__):
        if image is not SCAN:
            raise ScanError("no pose was found")
        found = replace(quality("ok"), agreeing=0.55)
        return TemplateRegistration(FIELD, FIELD, LinearMap(np.eye(4)), SCAN, found)

    monkeypatch.setattr(scan_registration, "register_to_template", direct)
    found = scan_registration.register_head(SCAN, SCAN, MASK)
    assert (found.quality.verdict, found.quality.agreeing) == ("ok", 0.55)


def mask_like(image):
    return nib.Nifti1Image(np.ones(image.shape, np.uint8), image.affine)


def test_error_classes_are_those_of_the_table():
    assert error_class("t1w", 6.0) == error_class("t1w", 1.0) == "t1w"
    assert error_class("template", 1.0) == "template"
    assert error_class("template", 6.0) == "template, thick slices"
    names = {error_class(way, mm) for way in ("t1w", "template") for mm in (1.0, 6.0)}
    assert names == set(EXPECTED_ERROR_MM)
    with pytest.raises(ValueError, match="t1w or template"):
        error_class("none", 1.0)
