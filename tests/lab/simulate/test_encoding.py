"""A box of voxels with and without a source: the same at once and one after the other."""

import numpy as np
import pytest

from cmbprep.lab.simulate.scanner import acquire_box
from cmbprep.lab.simulate.scene import lay_scene
from tests.lab.simulate.phantoms import centred, protocol, sphere, uniform_head

WHOLE = ((0, 32), (0, 32), (0, 16))
PART = ((6, 26), (4, 30), (3, 13))


def scene(sources, **changes):
    preset = protocol(echo_times=(0.008, 0.020), **changes)
    head = uniform_head()
    flat = np.ones(head.shape, np.float32)
    maps = (flat, 20 * flat, 0 * flat)
    return lay_scene(head, maps, [], sources, preset, centred(preset), np.random.default_rng(0))


@pytest.fixture(params=[{}, {"three_d": False}, {"three_d": False, "gap": 0.4}], ids=str)
def two(request):
    """Two sources near each other."""
    return scene([sphere(2.5, 1.5), sphere(2.0, 1.0, (6.0, 1.0, 2.0))], **request.param)


def test_what_is_computed_at_once_is_what_is_computed_alone(two):
    times = two.protocol.echo_times
    together = acquire_box(two, PART, times, (None, 1, 0))
    for version, left_out in zip(together, (None, 1, 0), strict=True):
        (alone,) = acquire_box(two, PART, times, (left_out,))
        assert len(alone) == len(times)
        for one, other in zip(version, alone, strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_echo_does_not_depend_on_the_others(two):
    (both,) = acquire_box(two, PART, two.protocol.echo_times)
    ((last,),) = acquire_box(two, PART, two.protocol.echo_times[-1:])
    np.testing.assert_array_equal(last, both[-1])
    assert not np.array_equal(last, both[0])


def test_without_its_source_a_scan_is_that_of_the_others():
    first, second = sphere(2.5, 1.5), sphere(2.0, 1.0, (6.0, 1.0, 2.0))
    times = (0.020,)
    present, absent = (
        images[0] for images in acquire_box(scene([first, second]), WHOLE, times, (None, 0))
    )
    ((other,),) = acquire_box(scene([second]), WHOLE, times)
    np.testing.assert_allclose(absent, other, atol=2e-5)
    assert np.abs(present - other).max() > 0.2
