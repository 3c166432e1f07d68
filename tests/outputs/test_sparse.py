"""Masks recorded in a sidecar are those of the file, or are not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cmbprep.outputs.files import write_image
from cmbprep.outputs.sparse import (
    describe_blocks,
    describe_mask,
    recorded_blocks,
    recorded_mask,
)
from cmbprep.spatial.grids import Grid

AFFINE = np.array([[2.0, 0, 0, -9], [0, 3, 0, 1], [0, 0, 4, 5], [0, 0, 0, 1]])


def write(path: Path, mask: np.ndarray) -> Path:
    return write_image(path, nib.Nifti1Image(mask.astype(np.uint8), AFFINE))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_a_mask_comes_back_from_its_record(
    tmp_path: Path, rng: np.random.Generator, share: float
) -> None:
    mask = rng.random((7, 5, 6)) < share
    path = write(tmp_path / "m.nii.gz", mask)
    found = recorded_mask(describe_mask(path), path)
    assert found is not None
    assert found.shape == mask.shape
    assert np.array_equal(found.affine, AFFINE)
    assert np.array_equal(found.inside, np.flatnonzero(mask.ravel(order="F")))


def test_a_record_of_another_file_is_not_used(tmp_path: Path) -> None:
    mask = np.zeros((4, 4, 4))
    mask[1, 2, 3] = 1
    path = write(tmp_path / "m.nii.gz", mask)
    record = describe_mask(path)
    write(path, np.roll(mask, 1))
    assert recorded_mask(record, path) is None
    path.unlink()
    assert recorded_mask(record, path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"Runs": "60+9"},
        {"Runs": "-3+2"},
        {"Runs": "1+"},
        {"Runs": "1 2"},
        {"Runs": "1+99999999999"},
        {"Runs": "9999999999999999999999+1"},
        {"Runs": None},
        {"Shape": [4, 4]},
        {"Affine": [[1.0]]},
        {"Affine": [[float("nan")] * 4] * 4},
        {"Digest": None},
    ],
)
def test_a_damaged_record_is_not_used(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path / "m.nii.gz", np.ones((4, 4, 4)))
    record = describe_mask(path)
    assert recorded_mask(record, path) is not None
    assert recorded_mask({**record, **change}, path) is None
    assert recorded_mask(None, path) is None
    path.write_bytes(b"no image")
    assert describe_mask(path) == {} and recorded_mask({}, path) is None


TEMPLATE = Grid((9, 8, 5), AFFINE)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_blocks_come_back_from_their_record(rng: np.random.Generator, share: float) -> None:
    seen = rng.random((3, 2, 2)) < share
    found = recorded_blocks(describe_blocks(seen, TEMPLATE), TEMPLATE)
    assert found is not None
    np.testing.assert_array_equal(found, seen)


@pytest.mark.parametrize(
    "change",
    [
        {"Runs": "11+9"},
        {"Runs": "-3+2"},
        {"Runs": "1 2"},
        {"Runs": "1+99999999999"},
        {"Runs": "0+-3 1+4"},
        {"Runs": None},
        {"Shape": [9, 8, 4]},
        {"Shape": None},
        {"Affine": np.diag([2.0, 3, 4.5, 1]).tolist()},
        {"Affine": [[1.0]]},
        {"Block": 8},
    ],
)
def test_a_damaged_record_of_blocks_or_one_of_another_grid_is_not_used(
    change: dict[str, Any],
) -> None:
    record = describe_blocks(np.ones((3, 2, 2), bool), TEMPLATE)
    assert recorded_blocks(record, TEMPLATE) is not None
    assert recorded_blocks({**record, **change}, TEMPLATE) is None
    assert recorded_blocks(None, TEMPLATE) is None
