"""Builders of tiny BIDS datasets and images for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

__all__ = ["GRE_SIDECAR", "add_image", "head", "make_dataset", "save"]

#: A sidecar that leaves nothing to warn about.
GRE_SIDECAR: Mapping[str, Any] = {"EchoTime": 0.02, "MagneticFieldStrength": 3}


def make_dataset(
    root: Path,
    images: Iterable[str] | Mapping[str, Mapping[str, Any] | None] = (),
    *,
    description: Mapping[str, Any] | None = None,
) -> Path:
    """Make a dataset of files whose content nobody looks at.

    Parameters
    ----------
    root
        Folder to make.
    images
        Paths of images below it; as a mapping with the sidecar of each (None for none),
        otherwise all get :data:`GRE_SIDECAR`.
    description
        What ``dataset_description.json`` says.
    """
    root.mkdir(parents=True, exist_ok=True)
    text = json.dumps(description or {"Name": "test", "BIDSVersion": "1.10.0"})
    (root / "dataset_description.json").write_text(text)
    if not isinstance(images, Mapping):
        images = dict.fromkeys(images, GRE_SIDECAR)
    for name, sidecar in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if sidecar is not None:
            stem = path.name.removesuffix(".gz").removesuffix(".nii")
            (path.parent / f"{stem}.json").write_text(json.dumps(sidecar))
    return root


def head(
    shape: tuple[int, int, int] = (24, 28, 20), *, seed: int = 1, noise: float = 0.02
) -> np.ndarray:
    """Return the magnitude of an ellipsoid in air, with Rician noise."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside = (x / 0.75) ** 2 + (y / 0.85) ** 2 + (z / 0.95) ** 2 < 1
    signal = inside + noise * rng.standard_normal(shape)
    return np.hypot(signal, noise * rng.standard_normal(shape)).astype(np.float32) * 1000


def save(
    path: Path, data: np.ndarray, affine: np.ndarray | None = None, *, dtype: Any = None
) -> Path:
    """Write an image with 2.5 mm voxels (or an affine), millimetres, sform and qform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([2.5, 2.5, 2.5, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(data if dtype is None else data.astype(dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)
    return path


def add_image(
    root: Path,
    name: str,
    data: np.ndarray | None = None,
    *,
    sidecar: Mapping[str, Any] | None = GRE_SIDECAR,
) -> Path:
    """Add an image with content, and its sidecar, to a dataset."""
    path = save(root / name, head() if data is None else data)
    if sidecar is not None:
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        (path.parent / f"{stem}.json").write_text(json.dumps(sidecar))
    return path


def wrapped(low: float, high: float, *, whole: bool) -> np.ndarray:
    """Return a phase image: a smooth field in the head, noise in the air."""
    magnitude = head()
    x = np.linspace(-6, 6, magnitude.size).reshape(magnitude.shape)
    noise = np.random.default_rng(3).uniform(0, 1, magnitude.shape)
    turns = np.where(magnitude > 300, np.mod(x, 1), noise)
    values = low + turns * (high - low)
    return np.rint(values) if whole else values
