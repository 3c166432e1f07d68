"""Presets whose contrast was measured in real scans, and variants of scans."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from cmbprep.errors import UsageError
from cmbprep.lab.simulate import vessels
from cmbprep.lab.simulate.dataset import simulate_dataset
from cmbprep.lab.simulate.head import build_head
from cmbprep.lab.simulate.heads import load_template_head
from cmbprep.lab.simulate.protocols import PROTOCOLS, get_protocol
from cmbprep.lab.simulate.scene import head_maps
from cmbprep.lab.simulate.variants import (
    Variant,
    isotropic_grid,
    resample_image,
    resample_labels,
    scale_veins,
)

#: Tissue -> range of its median relative to the brain's in real scans, as docs/simulator.md lists.
MEASURED = {
    "swi-3t-flat": {"gm": (0.95, 1.03), "wm": (0.95, 1.03), "csf": (1.03, 1.17)},
    "epi-3t": {"gm": (1.00, 1.10), "wm": (0.88, 0.96), "csf": (1.30, 1.75)},
    "gre-field-3t": {"gm": (0.97, 1.05), "wm": (0.96, 1.03), "csf": (0.62, 0.78)},
}


@pytest.fixture(scope="module")
def head():
    return build_head(load_template_head(), np.random.default_rng(4), age=50, lesion_load=0.1)


@pytest.mark.parametrize("name", MEASURED)
def test_tissues_are_as_bright_as_in_real_scans(head, name):
    """At the last echo, without noise and shading: medians of pure voxels."""
    protocol = get_protocol(name)
    amplitude, r2star = head_maps(head, protocol)
    image = amplitude * np.exp(-protocol.echo_times[-1] * r2star)
    level = np.median(image[head.brain_mask()])
    for tissue, (low, high) in MEASURED[name].items():
        assert low <= np.median(image[head.fraction(tissue) > 0.85]) / level <= high, tissue
    pallidum = np.median(image[head.iron > 12]) / level
    scalp = np.median(image[head.fraction("fat") > 0.7]) / level
    if name == "gre-field-3t":
        assert scalp > 1.05
    else:
        assert pallidum < 0.85
    if name == "epi-3t":
        assert scalp < 0.7


def test_presets_without_measured_contrast_follow_relaxation(head):
    """Grey over white matter at 3 T, TE 20 ms, as the Ernst amplitude and T2* say."""
    from dataclasses import replace

    preset = get_protocol("swi-3t-flat")
    usual, _ = head_maps(head, replace(preset, tissue_signal=()))
    changed, _ = head_maps(head, preset)
    white = head.fraction("wm") == 1
    np.testing.assert_array_equal(usual[white], changed[white])
    assert not np.allclose(usual, changed)
    assert {name for name, p in PROTOCOLS.items() if p.tissue_signal} == {
        "swi-3t-flat",
        "megre-3t-flat",
        "epi-3t",
        "gre-field-3t",
    }


def test_a_wider_rim_of_fluid_takes_the_place_of_what_is_outside(head):
    rng = np.random.default_rng(4)
    wide = build_head(load_template_head(), rng, age=50, lesion_load=0.1, rim=3.0)
    more = wide.fraction("csf").sum() - head.fraction("csf").sum()
    skin = ndimage.binary_erosion(head.brain_mask()) ^ head.brain_mask()
    # About 3 mm on the surface of the brain.
    assert 2.0 * skin.sum() < more < 4.5 * skin.sum()
    np.testing.assert_array_equal(wide.fraction("gm"), head.fraction("gm"))


def test_only_cortical_veins_grow(head):
    tubes = vessels.draw_veins(head, head.to_template.inverse, np.random.default_rng(0))
    assert scale_veins(tubes, 1.0) == tubes
    for before, after in zip(tubes, scale_veins(tubes, 2.0), strict=True):
        factor = 2 if before.kind == "cortical" else 1
        np.testing.assert_allclose(after.radii, factor * before.radii)


def test_a_resampled_grid_covers_the_scan_with_cubes_along_the_axes():
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.9, 0.9, 3.0]
    affine[:3, 3] = -20, 5, 9
    x, y, z = np.meshgrid(*[np.arange(n) for n in (40, 50, 12)], indexing="ij")
    places = np.stack([x, y, z], -1) @ affine[:3, :3].T + affine[:3, 3]
    grid = isotropic_grid((40, 50, 12), affine, 1.5)
    np.testing.assert_allclose(grid.affine[:3, :3], 1.5 * np.eye(3))
    slope = resample_image(places[..., 0].astype(np.float32), affine, grid)
    middle = tuple(n // 2 for n in grid.shape)
    wanted = (grid.affine @ [*middle, 1.0])[0]
    assert slope[middle] == pytest.approx(wanted, abs=0.05)
    wave = np.exp(1j * 0.05 * places[..., 2]).astype(np.complex64)
    angle = np.angle(resample_image(wave, affine, grid)[middle])
    assert angle == pytest.approx(0.05 * (grid.affine @ [*middle, 1.0])[2], abs=0.02)


def test_no_label_is_lost_between_grids():
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[10, 11, 12], labels[20:26, 20:26, 20:26] = 1, 2
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    grid = isotropic_grid(labels.shape, affine, 2.0)
    carried = resample_labels(labels, affine, grid)
    assert np.count_nonzero(carried == 1) == 1
    at = grid.affine @ [*np.argwhere(carried == 1)[0], 1.0]
    assert np.abs(at[:3] - [5, 5.5, 6]).max() <= 1.0
    assert np.count_nonzero(carried == 2) == pytest.approx(27 / 8, abs=5)


@pytest.mark.parametrize("wrong", [{"veins": 0.0}, {"rim": -1.0}, {"resampled": 0.1}])
def test_impossible_variants_are_refused(wrong):
    with pytest.raises(UsageError, match="must"):
        Variant(**wrong)


@pytest.mark.slow
def test_a_stripped_resampled_dataset_without_units(tmp_path):
    variant = Variant(stripped=True, resampled=2.0, unitless=True, veins=1.5, rim=1.0)
    folder = tmp_path / "bids"
    simulate_dataset(folder, participants=1, seed=3, protocols=["demo"], variant=variant)
    scan = nib.load(folder / "sub-01" / "anat" / "sub-01_T2starw.nii.gz")
    assert scan.header.get_xyzt_units()[0] == "unknown"
    np.testing.assert_allclose(scan.affine[:3, :3], 2 * np.eye(3))
    data = np.asarray(scan.dataobj)
    assert 1000 < np.count_nonzero(data > 300) * 0.008 < 2200  # ml: brain alone
    truth = folder / "derivatives" / "truth" / "sub-01" / "anat"
    for path in truth.glob("*.nii.gz"):
        image = nib.load(path)
        assert image.shape == scan.shape, path.name
        assert image.header.get_xyzt_units()[0] == "mm"
    mask = np.asarray(nib.load(truth / "sub-01_label-CMB_mask.nii.gz").dataobj)
    rows = (truth / "sub-01_seg-CMB_dseg.tsv").read_text().splitlines()[1:]
    assert bool(mask.any()) == bool(rows)
    assert data[mask > 0].all()
    assert "Variant: skull-stripped, resampled to 2 mm" in (folder / "README.md").read_text()
