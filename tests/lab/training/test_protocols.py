import numpy as np

from cmbprep.lab.simulate.protocols import PROTOCOLS
from cmbprep.lab.training.protocols import draw_protocol


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    return [draw_protocol(rng) for _ in range(count)]


def test_no_preset_is_trained_on():
    def key(p):
        return (p.field_strength, p.echo_times, p.voxel)

    presets = {key(p) for p in PROTOCOLS.values()}
    assert not presets & {key(p) for p in drawn(300)}


def test_the_presets_lie_within_what_is_drawn():
    some = drawn(600)
    low = np.min([p.voxel for p in some], axis=0)
    high = np.max([p.voxel for p in some], axis=0)
    times = [p.echo_times[-1] * p.field_strength for p in some]
    for preset in PROTOCOLS.values():
        if preset.name in ("gre3d-7t", "gre-field-3t"):
            continue  # slices thinner, and an echo earlier, than any trained on
        assert (np.array(preset.voxel) >= low - 1e-3).all(), preset.name
        assert (np.array(preset.voxel) <= high + 1e-3).all(), preset.name
        assert min(times) <= preset.echo_times[-1] * preset.field_strength <= max(times)


def test_kinds_of_scan_that_must_occur():
    some = drawn(400)
    for suffix in ("T2starw", "MEGRE", "swi"):
        assert any(p.suffix == suffix for p in some)
    assert {p.orientation for p in some} == {"axial", "sagittal", "coronal"}
    assert {p.phase_sign for p in some} == {-1, 1}
    assert any(p.phase for p in some)
    assert any(not p.phase for p in some)
    assert any(p.motion for p in some)


def test_no_scan_is_larger_than_it_may_be():
    for p in drawn(400):
        voxels = p.matrix[0] * p.matrix[1] * p.slices
        height = p.slices * p.spacing[2]
        assert voxels <= 2.9e6 or height <= 50


def test_same_seed_same_protocols():
    assert drawn(20, 5) == drawn(20, 5)
