"""The sign of the phase: veins against sheets of dura, and the field above the skull base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cmbprep.phase.dipole import dipole_at
from cmbprep.phase.local_field import LocalField, local_field
from cmbprep.phase.sign import BASE_AT_MOST, base_skewness, phase_sign, sheets
from tests.phase.ballphantom import Phantom, make_veined_block

SPACING = np.array([1.0, 1.0, 2.0])


def _field(phantom: Phantom) -> LocalField:
    return local_field(
        phantom.phases,
        phantom.magnitudes,
        phantom.echo_times,
        phantom.mask,
        phantom.spacing,
        phantom.b0,
        field_strength=3.0,
    )


def test_sheets_across_any_axis_are_found_and_veins_are_not() -> None:
    shape = (70, 70, 36)
    for axis in range(3):
        dark = np.zeros(shape, bool)
        place: list[Any] = [slice(5, -5)] * 3
        place[axis] = shape[axis] // 2
        dark[tuple(place)] = True
        found = sheets(dark, np.ones(shape, bool), SPACING)
        middle = tuple(n // 2 for n in shape)
        assert found[middle]
        # The sheet and little around it.
        assert found.mean() < 8 / shape[axis]
    veins = np.zeros(shape, bool)
    veins[30, 5:-5, 18] = veins[5:-5, 40, 10] = veins[50, 20, 2:-2] = True
    assert not sheets(veins, np.ones(shape, bool), SPACING).any()


def test_a_tilted_sheet_with_gaps_is_found() -> None:
    rng = np.random.default_rng(0)
    y, z = np.meshgrid(np.arange(70), np.arange(36), indexing="ij")
    dark = np.zeros((70, 70, 36), bool)
    dark[np.rint(35 + 0.05 * (y - 35)).astype(int), y, z] = rng.random(y.shape) < 0.7
    found = sheets(dark, np.ones(dark.shape, bool), SPACING)
    assert found[dark & (np.abs(np.arange(70) - 35)[None, :, None] < 25)].mean() > 0.95


def _with_falx(sign: int, chi: float) -> Phantom:
    """The veined block with a dark sheet in its middle, whose susceptibility is `chi`."""
    block = make_veined_block(sign, 0.4)
    offset = np.zeros(block.mask.shape, np.float32)
    offset[44:46, 3:-3, 3:-3] = chi / 3  # a wide sheet along the main field
    turn = sign * 2 * np.pi * 42.577 * 3.0 * block.echo_times[0]
    phase = np.angle(np.exp(1j * (block.phases[0] + turn * offset))).astype(np.float32)
    magnitude = np.where(offset != 0, np.float32(0.5), np.float32(1)) * block.magnitudes[0]
    return replace(block, phases=[phase], magnitudes=[magnitude])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_dark_diamagnetic_sheet_does_not_turn_the_sign(sign: int) -> None:
    phantom = _with_falx(sign, -0.3)
    found = phase_sign(_field(phantom), phantom.magnitudes[0])
    assert found.sign == sign
    assert found.veins * sign > 3


def test_the_other_convention_gives_the_other_sign_and_the_same_confidence() -> None:
    one, other = (
        phase_sign(_field(phantom), phantom.magnitudes[0])
        for phantom in (_with_falx(1, -0.2), _with_falx(-1, -0.2))
    )
    assert one.confidence == pytest.approx(-other.confidence, rel=0.15)


def _brain(sign: int, *, cut: bool = False, flip: bool = False) -> LocalField:
    """A brain of 1.2 l above two cavities of air; its field as a scan of `sign` has it."""
    shape, step = (60, 70, 50), 2.5
    axes = [(np.arange(n) - (n - 1) / 2) * step for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    brain = (x / 62) ** 2 + (y / 78) ** 2 + (z / 56) ** 2 < 1
    points = np.stack([x, y, z], axis=-1)
    volume = 4 / 3 * np.pi * 10.0**3
    total = np.zeros(shape)
    for place in ((0.0, 45.0, -58.0), (45.0, -10.0, -58.0), (-45.0, -10.0, -58.0)):
        total += 9.4 * volume * dipole_at(points - place, (0, 0, 1), least_mm=10.0)
    total += 0.01 * np.random.default_rng(0).standard_normal(shape) + 0.5 * x / 100
    if cut:
        brain, total = brain[:, :, 22:], total[:, :, 22:]
    if flip:
        brain, total = brain[:, :, ::-1], total[:, :, ::-1]
    trust = brain.astype(np.float32)
    return LocalField(
        local=np.zeros(brain.shape, np.float32),
        total=(sign * total * brain).astype(np.float32),
        trust=trust,
        noise=0.01 * trust,
        depth=5 * trust,
        spacing=np.full(3, step),
        b0=np.array([0.0, 0.0, -1.0 if flip else 1.0]),
        in_plane_only=False,
        box=(slice(None),) * 3,
    )


def test_the_field_above_air_is_raised() -> None:
    found = base_skewness(_brain(1))
    assert found > 0.3
    assert base_skewness(_brain(-1)) == pytest.approx(-found)
    assert base_skewness(_brain(1, flip=True)) == pytest.approx(found, abs=0.02)


def test_a_scan_without_the_base_of_a_brain_says_nothing_about_it() -> None:
    assert base_skewness(_brain(1, cut=True)) == 0


def test_the_base_alone_decides_nothing() -> None:
    field = _brain(1)
    magnitude = np.random.default_rng(1).normal(1, 0.01, field.trust.shape).astype(np.float32)
    found = phase_sign(field, magnitude, field.local)
    assert found.base == BASE_AT_MOST
    assert found.veins == 0 and found.sign is None


# --- a real crop: midline sheet, veins, 0.47 x 0.47 x 1 mm ---

CROP_SPACING = (0.46875, 0.46875, 1.0)
CROP_TE = (0.004, 0.008, 0.012)


@pytest.fixture(scope="module")
def crop(real_phase: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Phases in rad, which are stored in an odd unit, and magnitudes, one an echo."""
    phase, magnitude = (
        np.asarray(nib.load(real_phase / f"gre3_{name}.nii.gz").dataobj, np.float32)
        for name in ("phase", "mag")
    )
    phase = phase * np.float32(np.pi / np.abs(phase).max())
    magnitude = magnitude / np.median(magnitude)
    return [np.moveaxis(image, 3, 0).copy() for image in (phase, magnitude)]  # type: ignore[return-value]


def _crop_field(crop: Any, part: Any = slice(None), turn: int = 1) -> tuple[LocalField, np.ndarray]:
    phases, magnitudes = ([echo[part] for echo in images] for images in crop)
    field = local_field(
        [turn * phase for phase in phases],
        magnitudes,
        CROP_TE,
        np.ones(phases[0].shape, bool),
        CROP_SPACING,
        (0, 0, 1),
        field_strength=7.0,
    )
    return field, magnitudes[-1]


@pytest.mark.parametrize("turn", [1, -1])
def test_the_sign_of_a_real_crop_with_its_falx(crop: Any, turn: int) -> None:
    found = phase_sign(*_crop_field(crop, turn=turn))
    assert found.sign == turn
    assert abs(found.confidence) > 6


@pytest.mark.parametrize(
    "part", [np.s_[:26], np.s_[25:], np.s_[:, :, 21:], np.s_[:, :, :20], np.s_[:, :, 26:]]
)
def test_the_sign_of_a_part_of_a_real_crop_is_right_or_unknown(crop: Any, part: Any) -> None:
    for turn in (1, -1):
        assert phase_sign(*_crop_field(crop, part, turn)).sign in (turn, None)


def test_a_real_falx_is_diamagnetic_and_real_veins_are_not(crop: Any) -> None:
    """The sheet at column 22 of the upper slices, and the darkest spots beside it."""
    from cmbprep.phase.susceptibility import susceptibility_map

    field, magnitude = _crop_field(crop)
    chi = susceptibility_map(field)
    assert chi[22, 8:-8, 30:36].mean() < -0.05
    aside = np.zeros(chi.shape, bool)
    aside[8:18, 8:-8, 8:-8] = aside[28:-8, 8:-8, 8:-8] = True
    dark = aside & (magnitude < np.percentile(magnitude[aside], 1))
    assert chi[dark].mean() > 0.05
