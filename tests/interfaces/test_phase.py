"""The node that finds lesions, on a scan with phase: what it hands on and what it leaves out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.bids.images import read_phase
from cmbprep.detectors import DetectedLesion, Detection, DetectorInput
from cmbprep.detectors.susceptibility import marked
from cmbprep.errors import ScanError
from cmbprep.interfaces import lesions as nodes
from cmbprep.interfaces.echoes import read_echoes
from tests.phase.ballphantom import BALLS, Phantom, make_veined_block


class KnowsWhere:
    """A detector that knows the two balls."""

    name = "knows"
    version = "1"
    parameters: Mapping[str, object] = {}

    def __init__(self, block: Phantom) -> None:
        self._block = block
        self.seen: DetectorInput | None = None

    def detect(self, scan: DetectorInput) -> Detection:
        self.seen = scan
        ball = self._block.ball
        labels = np.where(ball, 2, 0).astype(np.int32)
        half = labels[: (BALLS[0][0] + BALLS[1][0]) // 2]
        half[half > 0] = 1
        found = [
            DetectedLesion(
                index=index,
                centre_ras=tuple((np.asarray(centre) * self._block.spacing).tolist()),
                volume_mm3=30.0,
                diameter_mm=4.0,
                probability=0.9,
                rating="definite",
                contrast=0.8,
            )
            for index, centre in enumerate(BALLS, start=1)
        ]
        known, warnings = marked(scan, labels, found)
        return Detection(
            probability=(ball * np.float32(0.9)).astype(np.float32),
            labels=labels,
            lesions=known,
            warnings=warnings,
        )


@pytest.fixture(scope="module")
def block() -> Phantom:
    return make_veined_block(-1, 0.4, (1.0, -1.5))


def _save(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> str:
    nib.save(nib.Nifti1Image(data, affine), path)
    return str(path)


def _run(
    block: Phantom,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    phase: NDArray[Any] | None,
    units: str = "rad",
    phase_affine: NDArray[np.float64] | None = None,
) -> tuple[Any, DetectorInput]:
    affine = np.diag([*block.spacing, 1.0])
    detector = KnowsWhere(block)
    monkeypatch.setattr(nodes, "get_detector", lambda *_, **__: detector)
    monkeypatch.chdir(folder)
    phases: list[str | None] = []
    if phase is not None:
        where = affine if phase_affine is None else phase_affine
        phases = [_save(folder / "phase.nii.gz", phase, where)]
    magnitude = _save(folder / "mag.nii.gz", block.magnitudes[0], affine)
    node = nodes.DetectLesions(
        in_file=magnitude,
        mask=_save(folder / "brain.nii.gz", block.mask.astype(np.uint8), affine),
        sequence="T2starw",
        field_strength=3.0,
        echo_times=block.echo_times,
        magnitudes=[magnitude] if phases else [],
        phases=phases,
        phase_units=[units] if phases else [],
        detector="knows",
        threshold=None,
    )
    result = node.run(cwd=str(folder)).outputs
    assert detector.seen is not None
    return result, detector.seen


def _voxels(path: str) -> NDArray[Any]:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("stored", ["rad", "12 bits"])
def test_a_calcification_is_listed_but_in_no_mask(
    block: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    phase = block.phases[0]
    if stored == "12 bits":
        # Air fills the circle with noise.
        noise = np.random.default_rng(5).uniform(-np.pi, np.pi, phase.shape)
        phase = np.where(block.mask, phase, noise)
        phase = np.round((phase / (2 * np.pi) + 0.5) * 4095).astype(np.int16)
    units = "rad" if stored == "rad" else "arbitrary"
    found, seen = _run(block, tmp_path, monkeypatch, phase=phase, units=units)
    assert len(seen.phases) == len(seen.echoes) == 1
    assert [one["susceptibility"] for one in found.lesions] == ["paramagnetic", "diamagnetic"]
    labels, mask, probability = map(_voxels, (found.dseg, found.mask, found.probseg))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert np.array_equal(mask > 0, labels == 1)
    assert np.array_equal(probability > 0, labels == 1)
    assert found.quality["phase_used"] is True
    assert found.quality["phase_sign"] == -1
    weighted = _voxels(found.swi)
    assert weighted.shape == mask.shape and weighted.dtype == np.float32
    assert np.all(weighted <= block.magnitudes[0] + 1e-4)
    assert found.details["swi"]["PhaseSign"] == -1


def test_without_phase_there_is_no_weighted_image(
    block: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, seen = _run(block, tmp_path, monkeypatch, phase=None)
    assert seen.phases == ()
    assert np.array_equal(_voxels(found.mask) > 0, _voxels(found.dseg) > 0)
    assert not isinstance(found.swi, str)
    assert found.quality == {} and found.warnings == []


@pytest.mark.parametrize("problem", ["grid", "hertz", "range", "constant"])
def test_phase_that_cannot_be_used_is_a_warning(
    block: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    phase, units, affine = block.phases[0], "rad", None
    if problem == "grid":
        affine = np.diag([*block.spacing, 1.0])
        affine[0, 3] = 4.0
    elif problem == "hertz":
        units = "Hz"
    elif problem == "range":
        phase, units = np.round(phase * 100).astype(np.int16), "arbitrary"
    else:
        phase = np.zeros_like(phase)
    found, seen = _run(block, tmp_path, monkeypatch, phase=phase, units=units, phase_affine=affine)
    assert seen.phases == ()
    assert len(found.lesions) == 2
    assert found.quality == {"phase_used": False}
    assert any("phase.nii.gz" in warning for warning in found.warnings)


def test_the_same_input_gives_the_same_bytes(
    block: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        found, _ = _run(block, folder, monkeypatch, phase=block.phases[0])
        results.append([Path(getattr(found, key)).read_bytes() for key in ("swi", "mask", "dseg")])
    assert results[0] == results[1]


def _echo_files(folder: Path, count: int) -> tuple[Any, list[str], list[str | None]]:
    rng = np.random.default_rng(0)
    shape, affine = (20, 20, 8), np.eye(4)
    signal = np.zeros(shape, np.float32)
    signal[5:15, 5:15] = 100
    magnitudes = [
        _save(folder / f"m{i}.nii.gz", signal + rng.random(shape, np.float32), affine)
        for i in range(count)
    ]
    phases: list[str | None] = [
        _save(
            folder / f"p{i}.nii.gz",
            rng.uniform(-np.pi, np.pi, shape).astype(np.float32),
            affine,
        )
        for i in range(count)
    ]
    return nib.load(magnitudes[0]), magnitudes, phases


def test_echoes_without_phase_are_left_out_where_others_have_it(tmp_path: Path) -> None:
    like, magnitudes, phases = _echo_files(tmp_path, 3)
    phases[1] = None
    found = read_echoes(magnitudes, phases, ["rad"] * 3, [0.01, 0.02, 0.03], like)
    assert found.times == (0.01, 0.03)
    assert len(found.magnitudes) == len(found.phases) == 2


def test_echoes_are_there_without_any_phase(tmp_path: Path) -> None:
    like, magnitudes, _ = _echo_files(tmp_path, 2)
    found = read_echoes(magnitudes, [], [], [0.01, 0.02], like)
    assert len(found.magnitudes) == 2 and found.phases == () and found.warnings == ()


def test_an_unknown_echo_time_makes_phase_useless(tmp_path: Path) -> None:
    like, magnitudes, phases = _echo_files(tmp_path, 2)
    found = read_echoes(magnitudes, phases, ["rad"] * 2, [None, 0.02], like)
    assert found.phases == () and "echo time" in found.warnings[0]


def test_units_that_are_no_phase_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.nii.gz"
    _save(path, np.random.default_rng(1).random((20, 20, 8), np.float32), np.eye(4))
    with pytest.raises(ScanError, match=re.escape("'Hz'")):
        read_phase(path, "Hz")


@pytest.mark.parametrize(
    ("low", "high"),
    [(-np.pi, np.pi), (0, 2 * np.pi), (0, 4095), (-4096, 4095)],
    ids=["-pi..pi", "0..2pi", "0..4095", "-4096..4095"],
)
def test_usual_ranges_of_phase(tmp_path: Path, low: float, high: float) -> None:
    turns = np.random.default_rng(1).random((24, 24, 8))
    values = low + turns * (high - low)
    data = np.round(values).astype(np.int16) if high > 100 else values.astype(np.float32)
    path = tmp_path / "p.nii.gz"
    _save(path, data, np.eye(4))
    radians = np.asarray(read_phase(path, None).image.dataobj)
    wanted = np.angle(np.exp(2j * np.pi * turns))
    error = np.exp(1j * (radians - wanted))
    # One constant is left free: scanners differ in where they put zero.
    assert np.abs(np.angle(error / error.mean())).max() < 0.01
