"""Tissue properties: between the tabulated fields, and of a sensible order."""

import pytest

from cmbprep.lab.simulate.tissue import TISSUES, iron_to_r2star, venous_r2star


@pytest.mark.parametrize("name", ["gm", "wm"])
def test_t2star_is_that_of_the_source(name):
    """Peters 2007: 84.0, 66.0 and 33.2 ms in grey matter, 66.2, 53.2 and 26.8 in white."""
    expected = {"gm": (84.0, 66.0, 33.2), "wm": (66.2, 53.2, 26.8)}[name]
    for field, t2star in zip((1.5, 3.0, 7.0), expected, strict=True):
        assert 1000 / TISSUES[name].r2star_at(field) == pytest.approx(t2star, rel=0.01)


def test_properties_grow_with_the_field_between_and_beyond_the_tabulated_ones():
    for tissue in TISSUES.values():
        rates = [tissue.r2star_at(field) for field in (0.5, 1.5, 2.0, 3.0, 4.7, 7.0, 9.4)]
        assert rates == sorted(rates)
        assert min(rates) >= 0
        assert tissue.t1_at(1.5) <= tissue.t1_at(3.0) <= tissue.t1_at(7.0)
    assert venous_r2star(1.5) < venous_r2star(3.0) < venous_r2star(7.0)
    assert iron_to_r2star(6.0) == 2 * iron_to_r2star(3.0)


def test_contrast_of_tissues_is_that_of_gradient_echoes():
    """Fluid is brightest at a long TR and darkest at a short one with the same flip angle."""
    from cmbprep.lab.simulate.signal import ernst_amplitude

    def signal(name: str, tr: float, flip: float) -> float:
        tissue = TISSUES[name]
        return ernst_amplitude(tissue.proton_density, tissue.t1_at(3.0), tr, flip)

    assert signal("csf", 650, 20) > 0.9 * signal("gm", 650, 20) > 0.8 * signal("wm", 650, 20)
    assert signal("csf", 27, 15) < signal("gm", 27, 15) < signal("wm", 27, 15)
    assert signal("bone", 27, 15) < 0.5 * signal("wm", 27, 15)
