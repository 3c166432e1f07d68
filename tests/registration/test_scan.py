"""The chain of fallbacks: which way a scan takes when a step fails."""

import nibabel as nib
import numpy as np
import pytest

from cmbprep.brain.network import BrainExtraction
from cmbprep.errors import ScanError
from cmbprep.registration import scan as scan_registration
from cmbprep.registration.fit import RegistrationQuality, RigidRegistration, TemplateRegistration
from cmbprep.registration.scan import EXPECTED_ERROR_MM, AnatomicalImage, error_class, register_scan
from cmbprep.spatial.transforms import DisplacementMap, LinearMap

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


def test_error_classes_are_those_of_the_table():
    assert error_class("t1w", 6.0) == error_class("t1w", 1.0) == "t1w"
    assert error_class("template", 1.0) == "template"
    assert error_class("template", 6.0) == "template, thick slices"
    names = {error_class(way, mm) for way in ("t1w", "template") for mm in (1.0, 6.0)}
    assert names == set(EXPECTED_ERROR_MM)
    with pytest.raises(ValueError, match="t1w or template"):
        error_class("none", 1.0)
