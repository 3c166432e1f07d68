"""Spoilt inputs of simulated people: how many are noticed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import nibabel as nib
import numpy as np
from cases import (
    REPORTED_SEEDS,
    TUNING_SEEDS,
    TruePerson,
    motion,
    simulated_person,
    turned,
)

Row = dict[str, Any]
Spoil = Callable[[nib.Nifti1Image], nib.Nifti1Image]


def broken(arguments: argparse.Namespace) -> str:
    """Spoil inputs; give the table."""
    # One more, whose T1w image stands in for that of the last.
    seeds = (TUNING_SEEDS if arguments.tuning else REPORTED_SEEDS)[: arguments.people + 1]
    people = [simulated_person(seed, arguments.cache) for seed in seeds[arguments.skip :]]
    rows: list[Row] = []
    for person, other in pairwise(people):
        for row in _person_rows(person, other, arguments.only, arguments.scan):
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows), encoding="utf-8")
    return format_table(rows, len(people) - 1)


def _centre(image: nib.Nifti1Image) -> Any:
    return image.affine[:3, :3] @ (np.array(image.shape) / 2) + image.affine[:3, 3]


def _header(degrees: tuple[float, float, float]) -> Spoil:
    return lambda image: turned(image, motion(degrees, (0, 0, 0), _centre(image)))


def _world_axis(image: nib.Nifti1Image, world: int) -> int:
    return int(np.argmax(np.abs(image.affine[world, :3])))


def _half(world: int, first: bool) -> Spoil:
    """Blank one half of the head along an axis of space."""

    def spoil(image: nib.Nifti1Image) -> nib.Nifti1Image:
        data = np.array(image.dataobj, dtype=np.float32)
        axis = _world_axis(image, world)
        head = np.argwhere(data > np.percentile(data, 60))[:, axis]
        middle = int(np.median(head))
        part: list[slice] = [slice(None)] * 3
        part[axis] = slice(0, middle) if first else slice(middle, None)
        data[tuple(part)] = 0
        return nib.Nifti1Image(data, image.affine)

    return spoil


def _noise(image: nib.Nifti1Image) -> nib.Nifti1Image:
    values = np.random.default_rng(1).rayleigh(50, image.shape).astype(np.float32)
    return nib.Nifti1Image(values, image.affine)


def _phantom(*radii: float) -> Spoil:
    """An evenly filled ellipsoid with noise; semi-axes in mm, left to right, back to front, up."""

    def spoil(image: nib.Nifti1Image) -> nib.Nifti1Image:
        index = np.indices(image.shape).reshape(3, -1)
        points = image.affine[:3, :3] @ index + image.affine[:3, 3:] - _centre(image)[:, None]
        inside = (((points / np.array(radii)[:, None]) ** 2).sum(axis=0) < 1).reshape(image.shape)
        noise = np.random.default_rng(1).normal(0, 4, image.shape)
        values = np.abs(np.where(inside, 100.0, 3.0) + noise)
        return nib.Nifti1Image(values.astype(np.float32), image.affine)

    return spoil


def _mirrored(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Turn left and right round: the header no longer tells the truth."""
    axis = _world_axis(image, 0)
    return nib.Nifti1Image(np.flip(np.asarray(image.dataobj), axis), image.affine)


def _voxel_size(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """A header whose voxels are a third too large."""
    return nib.Nifti1Image(np.asarray(image.dataobj), np.diag([1.35, 1.35, 1.35, 1]) @ image.affine)


def _same(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return image


#: Case -> what is done to the scan.
SCANS: dict[str, Spoil] = {
    "intact": _same,
    "header turned by 90 degrees": _header((0, 0, 90)),
    "header turned by 90 degrees, sagittal for axial": _header((90, 0, 90)),
    "header turned by 180 degrees: upside-down": _header((180, 0, 0)),
    "half of the head: left": _half(0, True),
    "half of the head: front": _half(1, False),
    "half of the head: top": _half(2, False),
    "noise": _noise,
    "a ball of 85 mm": _phantom(85, 85, 85),
    "an ellipsoid as large as a head": _phantom(72, 90, 75),
    "voxels a third too large": _voxel_size,
    "mirrored": _mirrored,
}


def _person_rows(
    person: TruePerson, other: TruePerson, only: str | None, scan: str | None
) -> Iterator[Row]:
    t1w = _corrected(person.t1w)
    for name in person.scans if scan is None else (scan,):
        image = person.scans[name].image
        if name == "thin":  # 2 mm are enough for what is asked here
            from cases import thick_slices

            image = thick_slices(image, 2, 2.0)
        for case, spoil in SCANS.items():
            if only and only not in f"scan: {case}":
                continue
            spoilt = _corrected(spoil(image))
            for given in (None, t1w):
                yield _row(person, f"scan: {case}", name, spoilt, given)
    if not only or only in "T1w: another person's":
        strange = _corrected(other.t1w)
        for name, own in person.scans.items():
            corrected = _corrected(own.image)
            yield _row(person, "T1w: another person's", name, corrected, strange)
    thick = _corrected(person.scans["thick"].image)
    for case in (
        "an ellipsoid as large as a head",
        "noise",
        "header turned by 180 degrees: upside-down",
    ):
        if not only or only in f"T1w: {case}":
            yield _row(person, f"T1w: {case}", "thick", thick, _corrected(SCANS[case](person.t1w)))


_ANATOMY: dict[int, Any] = {}


def _anatomy(image: nib.Nifti1Image) -> Any:
    """Register a T1w image as the program does, once."""
    from cmbprep.brain.refine import refine_brain_mask
    from cmbprep.registration.scan import AnatomicalImage, register_head
    from cmbprep.templates import load_template

    if id(image) not in _ANATOMY:
        template = load_template()
        head, brain = nib.load(template.t1w), nib.load(template.brain_mask)
        found = register_head(image, head, brain, same_contrast=True)
        mask = refine_brain_mask(image, found.brain_prior)
        anatomy = AnatomicalImage(image=image, brain_mask=mask, verdict=found.quality.verdict)
        _ANATOMY[id(image)] = (anatomy, found, image)
    return _ANATOMY[id(image)]


def _corrected(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Correct the bias; what it refuses goes on as it is, to be refused by what follows."""
    from cmbprep.brain.bias import correct_bias
    from cmbprep.errors import ScanError

    try:
        return correct_bias(image).image
    except ScanError:
        return image


def _row(person: TruePerson, case: str, name: str, scan: Any, t1w: Any) -> Row:
    from cmbprep.errors import ScanError
    from cmbprep.registration.scan import register_scan
    from cmbprep.spatial.transforms import map_points
    from cmbprep.templates import load_template

    template = load_template()
    start = time.perf_counter()
    row: Row = {"person": person.seed, "case": case, "scan": name, "t1w": t1w is not None}
    try:
        anatomy, to_template = None, None
        if t1w is not None:
            anatomy, found, _ = _anatomy(t1w)
            to_template = found.to_template
        placed = register_scan(scan, anatomy, nib.load(template.t1w), nib.load(template.brain_mask))
    except ScanError as error:
        return {**row, "route": "none", "flagged": True, "why": error.message, "error": None}
    error = None
    chain = placed.chain(to_template)
    if chain and case in ("scan: intact", "T1w: another person's"):
        truth = person.scans[name]
        error = float(
            np.median(np.linalg.norm(map_points(truth.points, chain) - truth.in_template, axis=1))
        )
    return {
        **row,
        "route": placed.route,
        "flagged": placed.route == "none" or bool(placed.warnings),
        "why": "; ".join(placed.warnings),
        "error": error,
        "rigid": None if placed.rigid is None else _figures(placed.rigid.quality),
        "direct": None if placed.direct is None else _figures(placed.direct.quality),
        "seconds": time.perf_counter() - start,
    }


def _figures(quality: Any) -> Row:
    return {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in vars(quality).items()
        if key != "reasons"
    }


def format_table(rows: list[Row], people: int) -> str:
    """Return the Markdown table of all cases."""
    lines = ["| case | n | flagged | without a zone |", "| --- | --- | --- | --- |"]
    spoilt = [r for r in rows if r["case"] != "scan: intact" and "mirrored" not in r["case"]]
    for case in [*dict.fromkeys(row["case"] for row in rows), None]:
        group = spoilt if case is None else [row for row in rows if row["case"] == case]
        if not group:
            continue
        flagged = sum(row["flagged"] for row in group)
        without = sum(row["route"] == "none" for row in group)
        title = "**all that are spoilt, but for mirrored ones**" if case is None else case
        lines.append(f"| {title} | {len(group)} | {flagged} | {without} |")
    who = "One simulated person" if people == 1 else f"{people} simulated people"
    return "\n".join(lines) + f"\n\n{who}.\n"
