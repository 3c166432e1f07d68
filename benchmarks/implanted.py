"""Scans with implanted bleeds, for benchmarks.

The backgrounds are given in a table (TSV, one row a background) with the columns

``name``, ``image``, ``mask``
    A name that begins with the person and a hyphen, and files relative to the table: a
    bias-corrected magnitude and its brain mask.
``role``
    ``report`` for those that are used.
``power``
    The image is raised to this power. 1 for GRE; a T1-weighted image to the power 0.4 has
    about the contrast of a T1-weighted (short TR) SWI: dark fluid, little grey against white.
``thickness``
    Slices are averaged to this thickness in mm; 0 leaves them.
``exclude``
    May be empty: a label image of what is there already and is not to count, neither as a
    bleed nor as a false positive (a simulated head's own bleeds and calcifications).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.detectors.candidates import relative_intensity, voxel_spacing
from cmbprep.lab.simulate.implant import Implanted, draw_deposits, implant, plausible_places

REPORT_SEEDS = range(9000, 9006)
#: Bleeds implanted into one scan, as far as there is room.
BLEEDS = 16
#: As far around an excluded label nothing counts, mm.
EXCLUDED_MM = 3.0
#: Field strength (T) and echo time (s) that an implanted scan may have.
PROTOCOLS = ((1.5, 0.020), (1.5, 0.040), (3.0, 0.015), (3.0, 0.020), (3.0, 0.030))


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """A scan without bleeds, its brain mask and grid."""

    name: str
    role: str
    weight: float
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    exclude: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.role not in ("fit", "report"):
            raise ValueError(f"background {self.name}: role {self.role!r} is not fit or report")
        if self.image.shape != self.mask.shape or not self.mask.any():
            raise ValueError(f"background {self.name}: image and mask do not belong together")

    @cached_property
    def places(self) -> NDArray[np.bool_]:
        """Where bleeds may be put."""
        return plausible_places(self.image, self.mask, self.affine) & ~self.exclude

    def excluded(self, points_ras: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each of (n, 3) positions (mm, RAS+) is at something that must not count."""
        inverse = np.linalg.inv(self.affine)
        voxels = np.round(points_ras @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        voxels = np.clip(voxels, 0, np.array(self.mask.shape) - 1)
        return np.asarray(self.exclude[tuple(voxels.T)])


def load_backgrounds(table: Path, role: str | None = None) -> list[Background]:
    """Read the backgrounds that a table names; see the module for its columns."""
    with open(table, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return [_load(row, table.parent) for row in rows if role in (None, row["role"])]


def _load(row: dict[str, str], folder: Path) -> Background:
    image, affine = _read(folder / row["image"])
    mask = _read(folder / row["mask"])[0] > 0.5
    exclude = np.zeros(image.shape, np.float32)
    if row.get("exclude"):
        exclude = (_read(folder / row["exclude"])[0] > 0).astype(np.float32)
    image = np.maximum(np.nan_to_num(image), 0) ** np.float32(row["power"])
    thickness = float(row["thickness"])
    if thickness > 0:
        exclude, _, _ = _thicken(exclude, mask, affine, thickness)
        image, mask, affine = _thicken(image, mask, affine, thickness)
    spacing = voxel_spacing(affine)
    near = exclude > 0
    if near.any():
        near = ndimage.distance_transform_edt(~near, sampling=spacing) <= EXCLUDED_MM
    return Background(
        name=row["name"],
        role=row["role"],
        weight=float(row["weight"]),
        image=_flatten(image, mask, spacing),
        mask=mask,
        affine=affine,
        exclude=near,
    )


def _read(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    import nibabel as nib

    image = nib.nifti1.load(str(path))
    data = np.squeeze(np.asarray(image.dataobj, dtype=np.float32))
    return data, np.asarray(image.affine, np.float64)


def _thicken(
    image: NDArray[np.float32], mask: NDArray[np.bool_], affine: NDArray[np.float64], mm: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Average neighbouring slices along the axis nearest to scanner z."""
    spacing = voxel_spacing(affine)
    axis = int(np.argmax(np.abs(affine[2, :3]) / spacing))
    factor = max(round(mm / spacing[axis]), 1)
    count = image.shape[axis] // factor

    def average(values: NDArray[np.float32]) -> NDArray[np.float32]:
        turned = np.moveaxis(values, axis, 0)[: count * factor]
        turned = turned.reshape(count, factor, *turned.shape[1:]).mean(axis=1)
        return np.ascontiguousarray(np.moveaxis(turned, 0, axis))

    new = affine.copy()
    new[:3, axis] *= factor
    new[:3, 3] += affine[:3, axis] * (factor - 1) / 2
    return average(image), average(mask.astype(np.float32)) > 0.5, new


def _flatten(
    image: NDArray[np.float32], mask: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Take off what bias there still is: divide by a very wide local mean."""
    _, background = relative_intensity(image, mask, spacing, width_mm=25.0)
    level = float(np.median(background[mask]))
    return (image * (level / np.maximum(background, 0.2 * level))).astype(np.float32)


def implanted_scan(background: Background, seed: int, count: int = BLEEDS) -> Implanted:
    """Implant bleeds into a background; field and echo time are drawn too."""
    rng = np.random.default_rng([seed, *background.name.encode()])
    deposits = draw_deposits(
        background.places, background.affine, count, rng, diameter_mm=(0.8, 5.0)
    )
    field_strength, echo_time = PROTOCOLS[int(rng.integers(len(PROTOCOLS)))]
    return implant(
        background.image,
        background.affine,
        background.mask,
        deposits,
        field_strength=field_strength,
        echo_time=echo_time,
        seed=seed,
    )
