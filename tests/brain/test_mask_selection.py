import nibabel as nib
import numpy as np
import pytest

from cmbprep.brain.mask_selection import choose_brain_mask, doubts
from cmbprep.brain.network import BrainExtraction
from cmbprep.errors import ScanError

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def block(first, last):
    data = np.zeros((40, 40, 40), np.uint8)
    data[first:last, first:last, first:last] = 1
    return nib.Nifti1Image(data, AFFINE)


def extraction(mask, **changes):
    figures = {"volume_ml": 1400.0, "sureness": 0.95, "cut_fraction": 0.0, **changes}
    return BrainExtraction(mask, **figures)


def missing():
    raise ScanError("the brain mask lies outside the image")


def test_a_good_registration_gives_the_mask_and_the_network_checks_it():
    carried = block(8, 31)
    choice = choose_brain_mask(extraction(block(8, 32)), lambda: carried, verdict="ok")
    assert choice.source == "registration"
    assert np.array_equal(choice.mask.dataobj, carried.dataobj)
    assert 0.9 < choice.agreement < 1
    assert choice.warnings == ()


def test_two_that_disagree_are_told_of():
    choice = choose_brain_mask(extraction(block(8, 32)), lambda: block(2, 20), verdict="ok")
    assert choice.source == "registration"
    assert len(choice.warnings) == 1
    assert "overlap" in choice.warnings[0]


@pytest.mark.parametrize(
    "changes",
    [{"volume_ml": 300.0}, {"volume_ml": 2600.0}, {"sureness": 0.4}],
    ids=["small", "large", "unsure"],
)
def test_an_implausible_mask_casts_no_doubt_and_is_doubted_where_it_must_serve(changes):
    found = extraction(block(8, 32), **changes)
    assert len(doubts(found)) == 1
    good = choose_brain_mask(found, lambda: block(2, 20), verdict="ok")
    assert (good.source, good.warnings) == ("registration", ())
    bad = choose_brain_mask(found, lambda: block(2, 20), verdict="failed")
    assert bad.source == "network"
    assert len(bad.warnings) == 2
    # Of two doubtful ones, the registration's has the shape of a brain.
    both = choose_brain_mask(found, lambda: block(2, 20), verdict="doubtful")
    assert both.source == "registration"
    assert doubts(found)[0] in both.warnings[0]


def test_after_a_doubtful_registration_the_network_serves():
    choice = choose_brain_mask(extraction(block(8, 32)), lambda: block(8, 31), verdict="doubtful")
    assert choice.source == "network"
    assert len(choice.warnings) == 1


def test_a_slab_may_hold_less_than_a_brain():
    assert doubts(extraction(block(8, 32), volume_ml=300.0, cut_fraction=0.3)) == ()


def test_one_mask_is_better_than_none():
    alone = choose_brain_mask(None, lambda: block(8, 32), verdict="failed")
    assert (alone.source, alone.agreement) == ("registration", None)
    assert alone.warnings
    other = choose_brain_mask(extraction(block(8, 32)), missing, verdict="ok")
    assert (other.source, other.agreement) == ("network", None)
    assert other.warnings
    with pytest.raises(ScanError):
        choose_brain_mask(None, missing, verdict="ok")
