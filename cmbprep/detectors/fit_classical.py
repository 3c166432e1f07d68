"""Fit the classical detector's model: ``python -m cmbprep.detectors.fit_classical``.

Physically modelled microbleeds are implanted into scans of people without any (or into
simulated heads); the candidates that the detector finds there are measured; those at an
implanted bleed are positive, those near none are negative, and those near a bleed too faint
to be seen are left out. Weights make the probability refer to a scan with
:data:`PREVALENCE` visible bleeds.

The backgrounds are given in a table (TSV, one row a background) with the columns

``name``, ``image``, ``mask``
    A name that begins with the person and a hyphen, and files relative to the table: a
    bias-corrected magnitude and its brain mask.
``role``
    ``fit`` or ``report``; a background serves one of them, and their seeds differ.
``power``
    The image is raised to this power. 1 for GRE; a T1-weighted image to the power 0.4 has
    about the contrast of a T1-weighted (short TR) SWI: dark fluid, little grey against white.
``thickness``
    Slices are averaged to this thickness in mm; 0 leaves them.
``weight``
    How much a scan of this background counts.
``exclude``
    May be empty: a label image of what is there already and is not to count, neither as a
    bleed nor as a false positive (a simulated head's own bleeds and calcifications).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..algorithms.candidate_features import FEATURES
from ..algorithms.candidates import Candidates, relative_intensity, voxel_spacing
from ..simulate.implant import Implanted, draw_deposits, implant, plausible_places
from .additive_model import AdditiveModel, fit_additive_model
from .classical import measure_candidates

__all__ = ["Background", "implanted_scan", "load_backgrounds", "main", "operating_points"]

#: Visible bleeds a scan that the probability refers to.
PREVALENCE = 3.0
FIT_SEEDS = range(1000, 1003)
REPORT_SEEDS = range(9000, 9006)
#: Bleeds implanted into one scan, as far as there is room.
BLEEDS = 16
#: Candidates this near to a bleed's centre are at it, mm (or within its void).
NEAR_MM = 2.5
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


def assign(
    candidates: Candidates, corner: NDArray[np.int_], background: Background, scan: Implanted
) -> NDArray[np.int_]:
    """Bleed of each candidate: its index, 0 for none, -1 for one that must not count.

    The nearest candidate of a bleed is the one at it; others near it are not counted.
    """
    affine = background.affine
    points = (candidates.voxels + corner) @ affine[:3, :3].T + affine[:3, 3]
    result = np.where(background.excluded(points), -1, 0)
    reach = NEAR_MM + 0.5 * float(np.median(voxel_spacing(affine)) - 1)
    for lesion in scan.lesions:
        distance = np.linalg.norm(points - lesion.centre_ras, axis=1)
        near = distance <= max(reach, 0.6 * lesion.void_diameter_mm)
        result[near] = -1
        if lesion.visible and near.any():
            result[int(np.argmin(distance))] = lesion.index
    return result


def training_rows(
    background: Background, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Features, targets and weights of the candidates of one implanted scan."""
    scan = implanted_scan(background, seed)
    spacing = voxel_spacing(background.affine)
    measured = measure_candidates(scan.image, background.mask, spacing)
    corner = np.array([s.start for s in measured.box])
    owner = assign(measured.candidates, corner, background, scan)
    counted = owner >= 0
    target = (owner[counted] > 0).astype(float)
    visible = sum(lesion.visible for lesion in scan.lesions)
    weight = np.where(target > 0, PREVALENCE / max(visible, 1), 1.0) * background.weight
    return measured.table[counted], target, weight


def fit(
    backgrounds: Sequence[Background], seeds: Sequence[int] | range, ridge: float = 3.0
) -> tuple[AdditiveModel, dict[str, object]]:
    """Fit on all backgrounds; calibrate and choose operating points on left-out ones."""
    parts = {
        background.name: [training_rows(background, seed) for seed in seeds]
        for background in backgrounds
    }
    return fit_rows(parts, ridge)


def fit_rows(
    parts: dict[str, list[tuple[NDArray, NDArray, NDArray]]], ridge: float
) -> tuple[AdditiveModel, dict[str, object]]:
    """Fit from the rows of each background (one entry a scan)."""
    names = list(parts)
    pooled = {name: tuple(np.concatenate(c) for c in zip(*parts[name])) for name in names}  # noqa: B905
    odds, target, weight = [], [], []
    for name in names:
        others = [pooled[n] for n in names if _person(n) != _person(name)] or [pooled[name]]
        table, y, w = (np.concatenate(c) for c in zip(*others, strict=True))
        model = fit_additive_model(table, y, w, FEATURES, ridge=ridge)
        odds.append(model.log_odds(pooled[name][0]))
        target.append(pooled[name][1])
        weight.append(pooled[name][2])
    held_out = (np.concatenate(odds), np.concatenate(target), np.concatenate(weight))
    slope, offset = _platt(*held_out)
    table, y, w = (np.concatenate(c) for c in zip(*pooled.values(), strict=True))
    model = fit_additive_model(table, y, w, FEATURES, ridge=ridge)
    model = AdditiveModel(
        features=model.features,
        centre=model.centre,
        scale=model.scale,
        weights=model.weights * slope,
        intercept=model.intercept * slope + offset,
    )
    probability = 1 / (1 + np.exp(-(held_out[0] * slope + offset)))
    scans = sum(len(p) for p in parts.values())
    summary: dict[str, object] = {
        "held_out_calibration": _reliability(probability, held_out[1], held_out[2]),
        "calibration_slope": round(slope, 4),
        "calibration_offset": round(offset, 4),
        "scans": scans,
        "positives": int(y.sum()),
        "negatives": int((1 - y).sum()),
    }
    summary["operating_points"] = operating_points(probability, held_out[1], scans)
    return model, summary


def _person(name: str) -> str:
    """Backgrounds of one person share the part of their names before the first hyphen."""
    return name.partition("-")[0]


def _platt(
    odds: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[float, float]:
    """Slope and offset of a logistic regression of the target on held-out log-odds."""
    values = np.array([1.0, 0.0])
    design = np.column_stack([np.clip(odds, -15, 15), np.ones(len(odds))])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ values))
        hessian = design.T @ (design * (weight * p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
        values = values - np.linalg.solve(hessian, design.T @ (weight * (p - target)))
    return float(values[0]), float(values[1])


def operating_points(
    probability: NDArray[np.float64],
    target: NDArray[np.float64],
    scans: int,
    false_positives: tuple[float, float] = (1.0, 4.0),
) -> dict[str, float]:
    """Operating points from held-out scans.

    ``definite`` is at least 0.5 (more likely a bleed than not) and lets at most one false
    positive a scan pass, ``possible`` at least 0.15 and at most four.
    """
    wrong = np.sort(probability[target == 0])[::-1]
    points = {}
    floors = (0.5, 0.15)
    for name, rate, floor in zip(("definite", "possible"), false_positives, floors, strict=True):
        place = min(int(rate * scans), len(wrong) - 1)
        points[name] = round(float(np.clip(wrong[place], floor, 0.95)), 3)
    return points


def _reliability(
    probability: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]
) -> list[dict[str, float]]:
    """Mean probability against the weighted part of true ones, in five classes."""
    rows = []
    for low, high in ((0.05, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.01)):
        chosen = (probability >= low) & (probability < high)
        if not chosen.any():
            continue
        total = float(weight[chosen].sum())
        rows.append(
            {
                "from": low,
                "to": min(high, 1.0),
                "probability": round(float(weight[chosen] @ probability[chosen]) / total, 3),
                "true": round(float(weight[chosen] @ target[chosen]) / total, 3),
                "candidates": int(chosen.sum()),
            }
        )
    return rows


def card(
    model: AdditiveModel, summary: dict[str, object], scans: dict[str, int]
) -> dict[str, object]:
    """The model file: weights with what a reader must know about them."""
    summary = dict(summary)
    points = summary.pop("operating_points")
    return {
        "name": "classical",
        "version": "1",
        "intended_use": "Research. Candidates for microbleeds on T2*-weighted GRE, multi-echo "
        "GRE magnitude and SWI magnitude; a person looks at every one.",
        "data": {
            "positives": "Physically modelled bleeds (cmbprep.simulate.implant), visible by "
            "contrast-to-noise; no real microbleed has been seen.",
            "scans_by_background": dict(scans),
            "seeds_from": FIT_SEEDS.start,
            "bleeds_a_scan": BLEEDS,
            "protocols_tesla_seconds": [list(p) for p in PROTOCOLS],
        },
        "probability": f"Chance that a candidate is a visible bleed in a scan with {PREVALENCE:g} "
        "of them, calibrated on backgrounds left out of the fit, on simulated bleeds.",
        "licence": "Apache-2.0",
        "fit": summary,
        "operating_points": points,
        "model": model.to_json(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Fit from a table of backgrounds and write the model file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backgrounds", type=Path, help="table of backgrounds (TSV)")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("classical.json"), help="model file"
    )
    parser.add_argument("--ridge", type=float, default=3.0, help="penalty (default %(default)s)")
    arguments = parser.parse_args(argv)
    backgrounds = load_backgrounds(arguments.backgrounds, role="fit")
    model, summary = fit(backgrounds, FIT_SEEDS, arguments.ridge)
    scans = {background.name: len(FIT_SEEDS) for background in backgrounds}
    text = json.dumps(card(model, summary, scans), indent=1) + "\n"
    arguments.out.write_text(text, encoding="utf-8")
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
