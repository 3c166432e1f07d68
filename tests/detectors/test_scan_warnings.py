import numpy as np
import pytest

from cmbprep.detectors import DetectorInput
from cmbprep.detectors.scan_warnings import character, domain_warnings, known_range
from cmbprep.detectors.views import view_scan


def scan(noise=2.0, contrast=10.0, size=48, gain=1.0, echo_time=0.02):
    rng = np.random.default_rng(0)
    shape = (size, size, 20)
    x, y, _ = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    tissue = np.where((x // 6 + y // 6) % 2, 100 + contrast, 100 - contrast)
    image = tissue + rng.normal(0, noise, shape)
    mask = np.zeros(shape, bool)
    mask[4:-4, 4:-4, 2:-2] = True
    return DetectorInput(
        magnitude=(gain * image).astype(np.float32),
        affine=np.diag([1.0, 1.0, 2.0, 1.0]),
        brain_mask=mask,
        sequence="T2starw",
        field_strength=3.0,
        echo_times=(echo_time,),
    )


def test_what_is_measured_is_what_was_put_in():
    plain = character(view_scan(scan()))
    assert plain["brain_ml"] == pytest.approx(40 * 40 * 16 * 2 / 1000)
    assert plain["noise"] == pytest.approx(0.02, rel=0.4)
    assert plain["contrast"] == pytest.approx(0.2, rel=0.2)
    assert character(view_scan(scan(noise=8)))["noise"] > 2.5 * plain["noise"]
    assert character(view_scan(scan(contrast=20)))["contrast"] > 1.7 * plain["contrast"]


def test_the_gain_of_the_scanner_does_not_matter():
    assert character(view_scan(scan(gain=37.0))) == pytest.approx(character(view_scan(scan())))


def test_a_scan_like_those_of_the_fit_is_not_remarked_on_and_others_are():
    fit = [character(view_scan(scan(noise=n, contrast=c))) for n, c in ((1, 8), (3, 12))]
    known = {"bloom_tesla_ms": [20, 120], **known_range(fit)}
    inside = scan()
    assert domain_warnings(inside, character(view_scan(inside)), known) == []
    for other, word in (
        (scan(noise=12), "noise"),
        (scan(contrast=40), "spread"),
        (scan(size=24), "that the scan shows has"),
        (scan(echo_time=0.05), "Echo time"),
    ):
        sentences = domain_warnings(other, character(view_scan(other)), known)
        assert any(word in sentence for sentence in sentences), word


def test_a_card_without_ranges_is_enough():
    assert (
        domain_warnings(scan(), character(view_scan(scan())), {"bloom_tesla_ms": [20, 120]}) == []
    )
