"""Mirrored views are those that are cut from a mirrored scan."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from cmbprep.detectors.learned import LearnedDetector
from cmbprep.detectors.patches import Patches, PatchMaps, cut_patches
from cmbprep.detectors.views import COLUMNS
from cmbprep.lab.training.symmetry import Mirror

SHAPE = (44, 44, 24)
CENTRE = np.array([20.3, 24.6, 11.7])


def maps_of(rng: np.random.Generator) -> dict[str, np.ndarray]:
    def smooth() -> np.ndarray:
        values = ndimage.gaussian_filter(rng.normal(0, 1, SHAPE), 1.0)
        return (values / values.std() * 0.2).astype(np.float32)

    return {
        "ratio": 1 + smooth(),
        "mask": smooth() > -0.1,
        "susceptibility": smooth(),
        "growth": smooth(),
    }


def patches_of(maps: dict[str, np.ndarray], centre: np.ndarray) -> Patches:
    spacing = np.array([1.1, 1.1, 2.3])
    whole = {name: np.ascontiguousarray(values) for name, values in maps.items()}
    return cut_patches(PatchMaps(**whole, spacing=spacing), centre[None])


@pytest.mark.parametrize(
    "flags", list(itertools.product((False, True), repeat=4)), ids=lambda f: str(tuple(map(int, f)))
)
def test_mirrored_views_are_views_of_the_mirrored_scan(flags: tuple[bool, ...]) -> None:
    mirror = Mirror(first=flags[0], second=flags[1], through=flags[2], swap=flags[3])
    maps = maps_of(np.random.default_rng(4))
    own = patches_of(maps, CENTRE)
    axes = [axis for axis in range(3) if flags[axis]]
    centre = CENTRE.copy()
    for axis in axes:
        centre[axis] = SHAPE[axis] - 1 - centre[axis]
    other = {name: np.flip(values, axes) for name, values in maps.items()}
    if mirror.swap:
        other = {name: values.swapaxes(0, 1) for name, values in other.items()}
        centre = centre[[1, 0, 2]]
    expected = patches_of(other, centre)
    found = mirror.views(own.near, own.across, own.wide)
    for name, values in zip(("near", "across", "wide"), found, strict=True):
        np.testing.assert_allclose(values, getattr(expected, name), atol=2e-4, err_msg=name)


def test_reflected_in_the_network_is_all_three_axes() -> None:
    torch = pytest.importorskip("torch")
    from cmbprep.lab.training.network import _reflected

    own = patches_of(maps_of(np.random.default_rng(9)), CENTRE)
    expected = Mirror(first=True, second=True, through=True).views(own.near, own.across, own.wide)
    tensors = [torch.from_numpy(part) for part in (own.near, own.across, own.wide)]
    for found, wanted in zip(_reflected(*tensors), expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted)


def test_the_packaged_network_sees_a_candidate_and_its_reflection_alike() -> None:
    detector = LearnedDetector()
    own = patches_of(maps_of(np.random.default_rng(9)), CENTRE)
    near, across, wide = Mirror(first=True, second=True, through=True).views(
        own.near, own.across, own.wide
    )
    assert not np.allclose(near, own.near)
    table = np.zeros((1, len(COLUMNS)), np.float32)
    logits = detector._run(own, table)
    other = detector._run(Patches(near=near, across=across, wide=wide), table)
    np.testing.assert_allclose(other, logits, atol=1e-4)
    # One mirrored axis alone is another picture to it.
    turned = Mirror(first=True).views(own.near, own.across, own.wide)
    third = detector._run(Patches(near=turned[0], across=turned[1], wide=turned[2]), table)
    assert not np.allclose(third, logits, atol=1e-3)
