import nibabel as nib
import numpy as np
import pytest

from cmbprep.algorithms.brain_extraction import BrainExtraction
from cmbprep.algorithms.mask_choice import choose_brain_mask, doubts
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


def test_of_two_that_agree_the_networks_is_taken():
    choice = choose_brain_mask(extraction(block(8, 32)), lambda: block(8, 31), registered=True)
    assert choice.source == "network"
    assert 0.9 < choice.agreement < 1
    assert choice.warnings == ()


def test_two_that_disagree_are_told_of():
    choice = choose_brain_mask(extraction(block(8, 32)), lambda: block(2, 20), registered=True)
    assert choice.source == "network"
    assert len(choice.warnings) == 1
    assert "overlap" in choice.warnings[0]


@pytest.mark.parametrize(
    "changes",
    [{"volume_ml": 300.0}, {"volume_ml": 2600.0}, {"sureness": 0.4}],
    ids=["small", "large", "unsure"],
)
def test_an_implausible_mask_gives_way_to_a_good_registration_only(changes):
    found = extraction(block(8, 32), **changes)
    assert len(doubts(found)) == 1
    carried = block(9, 33)
    good = choose_brain_mask(found, lambda: carried, registered=True)
    assert good.source == "registration"
    assert np.array_equal(good.mask.dataobj, carried.dataobj)
    bad = choose_brain_mask(found, lambda: carried, registered=False)
    assert bad.source == "network"
    assert good.warnings and bad.warnings


def test_a_slab_may_hold_less_than_a_brain():
    assert doubts(extraction(block(8, 32), volume_ml=300.0, cut_fraction=0.3)) == ()


def test_one_mask_is_better_than_none():
    alone = choose_brain_mask(None, lambda: block(8, 32), registered=False)
    assert (alone.source, alone.agreement) == ("registration", None)
    assert alone.warnings
    other = choose_brain_mask(extraction(block(8, 32)), missing, registered=True)
    assert (other.source, other.agreement) == ("network", None)
    assert other.warnings
    with pytest.raises(ScanError):
        choose_brain_mask(None, missing, registered=True)
