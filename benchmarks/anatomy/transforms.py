"""Known transforms of real heads: what registration makes of them, in millimetres."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from cases import motion, slab, smooth_warp, stored_as, thick_slices, turned

Row = dict[str, Any]

#: Standard deviation of the smooth displacements along each axis, mm.
WARP_MM = 3.0

#: Header errors: degrees about x, y and z, and mm.
HEADERS = {
    "0 degrees": ((0, 0, 0), (0, 0, 0)),
    "10 degrees about x": ((10, 0, 0), (0, 0, 0)),
    "20 degrees about x": ((20, 0, 0), (0, 0, 0)),
    "30 degrees about x": ((30, 0, 0), (0, 0, 0)),
    "-30 degrees about x": ((-30, 0, 0), (0, 0, 0)),
    "20 degrees about y": ((0, 20, 0), (0, 0, 0)),
    "30 degrees about y": ((0, 30, 0), (0, 0, 0)),
    "20 degrees about z": ((0, 0, 20), (0, 0, 0)),
    "30 degrees about z": ((0, 0, -30), (0, 0, 0)),
    "20 mm": ((0, 0, 0), (20, 0, 0)),
    "40 mm sideways": ((0, 0, 0), (40, 0, 0)),
    "40 mm downwards": ((0, 0, 0), (0, 0, -40)),
    "30 degrees about an oblique axis and 40 mm": ((17, -17, 17), (25, -20, 25)),
}


def transforms(arguments: argparse.Namespace) -> str:
    """Measure both kinds of error; give the tables."""
    if arguments.real is None:
        raise SystemExit("give the folder of real heads: --real DIR")
    rows: list[Row] = []
    for row in chain(_rigid_rows(arguments), _warp_rows(arguments)):
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows), encoding="utf-8")
    return format_tables(rows)


def _paths(dataset: Path, suffix: str) -> dict[str, Path]:
    paths = sorted(dataset.glob(f"sub-*/anat/*_{suffix}.nii*"))
    return {path.name.partition("_")[0].removeprefix("sub-"): path for path in paths}


def _image(path: Path) -> nib.Nifti1Image:
    from cmbprep.brain.bias import correct_bias

    image = nib.squeeze_image(nib.load(path))
    data = np.asarray(image.dataobj, dtype=np.float32)
    return correct_bias(nib.Nifti1Image(data, image.affine)).image


def _template() -> tuple[Any, Any]:
    from cmbprep.templates import load_template

    template = load_template()
    return nib.load(template.t1w), nib.load(template.brain_mask)


def _rigid_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Scan to T1w of the same person, headers and grids disturbed."""
    from cmbprep.brain.refine import refine_brain_mask
    from cmbprep.registration.fit import register_rigid
    from cmbprep.registration.scan import register_head

    scans, heads = _paths(arguments.real, "T2starw"), _paths(arguments.real, "T1w")
    for name in sorted(set(scans) & set(heads)):
        if arguments.only and arguments.only not in f"rigid {name}":
            continue
        scan, head = _image(scans[name]), _image(heads[name])
        found = register_head(head, *_template(), same_contrast=True)
        mask = refine_brain_mask(head, found.brain_prior)
        start = register_rigid(scan, head, mask).to_reference
        inside = np.argwhere(np.asarray(mask.dataobj) > 0)[::997]
        points = inside @ mask.affine[:3, :3].T + mask.affine[:3, 3]
        for case, disturbed, moved in _disturbed(scan, start.inverse()(points)):
            began = time.perf_counter()
            result = register_rigid(disturbed, head, mask)
            errors = np.linalg.norm(result.to_reference(moved) - points, axis=1)
            yield _row("rigid", name, case, errors, result.quality, began)


def _disturbed(scan: nib.Nifti1Image, points: Any) -> Iterator[tuple[str, nib.Nifti1Image, Any]]:
    """Return the case, the scan, and where the points of its brain then lie."""
    centre = points.mean(axis=0)
    for case, (degrees, shift) in HEADERS.items():
        matrix = motion(degrees, shift, centre)
        yield case, turned(scan, matrix), points @ matrix[:3, :3].T + matrix[:3, 3]
    for codes in ("ASR", "PIR"):
        matrix = motion((0, 20, 0), (0, 20, 0), centre)
        moved = points @ matrix[:3, :3].T + matrix[:3, 3]
        yield f"stored as {codes}, 20 degrees", turned(stored_as(scan, codes), matrix), moved
    for world, title in ((2, "axial"), (0, "sagittal")):
        axis = int(np.argmax(np.abs(scan.affine[world, :3])))
        yield f"{title} slices of 7 mm", thick_slices(scan, axis, 7.0), points
    matrix = motion((10, 5, -5), (10, 10, 10), centre)
    moved = points @ matrix[:3, :3].T + matrix[:3, 3]
    for offset in (-20, 0, 20):
        axis = int(np.argmax(np.abs(scan.affine[2, :3])))
        cut = slab(scan, axis, 40.0, centre + np.array([0, 0, offset]))
        yield f"slab of 40 mm at {offset} mm, 10 degrees", turned(cut, matrix), moved


def _warp_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """A head and its warped twin, both registered to the template."""
    from cmbprep.registration.scan import register_head
    from cmbprep.spatial.grids import Grid
    from cmbprep.spatial.transforms import LinearMap, apply_transforms, map_points

    reference, mask = _template()
    inside = np.argwhere(np.asarray(mask.dataobj) > 0)[::997]
    targets = inside @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    for suffix in ("T1w", "T2starw"):
        for number, (name, path) in enumerate(_paths(arguments.real, suffix).items()):
            if arguments.only and arguments.only not in f"warp {name} {suffix}":
                continue
            head = _image(path)
            same = suffix == "T1w"
            first = register_head(head, reference, mask, same_contrast=same)
            points = map_points(targets, (first.to_image,))
            centre = points.mean(axis=0)
            # From the twin's space to the head's: a warp, and then a motion.
            steps = (
                smooth_warp(head.shape, head.affine, WARP_MM, 70 + number),
                LinearMap(motion((12, -8, 10), (8, -12, 10), centre)),
            )
            grid = Grid(head.shape, np.linalg.inv(steps[1].matrix) @ head.affine)
            twin = apply_transforms(head, grid, steps, interpolation="cubic")
            began = time.perf_counter()
            second = register_head(twin, reference, mask, same_contrast=same)
            # Points of the template -> twin -> head, against template -> head.
            there = map_points(targets, (second.to_image, *steps))
            errors = np.linalg.norm(there - points, axis=1)
            yield _row("warp", name, suffix, errors, second.quality, began)


def _row(kind: str, name: str, case: str, errors: Any, quality: Any, began: float) -> Row:
    return {
        "kind": kind,
        "head": name,
        "case": case,
        "median": float(np.median(errors)),
        "p95": float(np.percentile(errors, 95)),
        "verdict": quality.verdict,
        "similarity": quality.similarity,
        "seconds": time.perf_counter() - began,
    }


def format_tables(rows: list[Row]) -> str:
    """Return the Markdown tables: header errors by case, warped heads one by one."""
    rigid = [row for row in rows if row["kind"] == "rigid"]
    warped = [row for row in rows if row["kind"] == "warp"]
    lines = []
    if rigid:
        lines += [
            "| scan to T1w | n | largest median, mm | largest 95 %, mm | not ok |",
            "| --- | --- | --- | --- | --- |",
        ]
    for case in dict.fromkeys(row["case"] for row in rigid):
        group = [row for row in rigid if row["case"] == case]
        lines.append(
            f"| {case} | {len(group)} | {max(r['median'] for r in group):.2f} | "
            f"{max(r['p95'] for r in group):.2f} | {sum(r['verdict'] != 'ok' for r in group)} |"
        )
    if warped:
        lines += [
            "",
            "| head and its warped twin | image | median, mm | 95 %, mm | verdict |",
            "| --- | --- | --- | --- | --- |",
        ]
    for row in warped:
        lines.append(
            f"| {row['head']} | {row['case']} | {row['median']:.2f} | {row['p95']:.2f} | "
            f"{row['verdict']} |"
        )
    return "\n".join(lines) + "\n"
