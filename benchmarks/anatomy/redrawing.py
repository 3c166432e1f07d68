"""What redrawing the template in an image's contrast brings on real heads.

Two figures need no truth about the heads. How much the ventricles, carried over from the atlas,
stand out from what is 1 to 4 mm around them, in standard deviations: laid right, they are all
fluid. And T1w heads in another contrast (fluid bright, hardly any between grey and white
matter, noise; as they are and in slices of 6 mm): how far they lie from where they lie as
T1w images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
from cases import thick_slices
from scipy import ndimage
from transforms import _image, _paths, _template

Row = dict[str, Any]

#: Grey value of a T1w image against its white matter, and what it becomes.
COLOURS = ((0, 0.12, 0.35, 0.68, 1.0, 1.4, 3.0), (0.02, 0.15, 1.10, 1.0, 0.94, 0.9, 1.3))
NOISE = 0.04
THICK_MM = 6.0
SEED = 1


def redrawing(arguments: argparse.Namespace) -> str:
    """Measure both; give the table."""
    if arguments.real is None:
        raise SystemExit("give the folder of real heads: --real DIR")
    rows: list[Row] = []
    for row in _rows(arguments):
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows), encoding="utf-8")
    return format_table(rows)


def _rows(arguments: argparse.Namespace) -> Iterator[Row]:
    mask = _template()[1]
    inside = np.argwhere(np.asarray(mask.dataobj) > 0)[::997]
    targets = inside @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    for suffix in ("T2starw", "T2w", "T1w"):
        for name, path in _paths(arguments.real, suffix).items():
            if arguments.only and arguments.only not in f"{name} {suffix}":
                continue
            head = _image(path)
            both = _registered(head)
            contrast = [_ventricle_contrast(head, found) for found in both]
            yield {"head": name, "image": suffix, "ventricles": contrast}
            if suffix == "T1w":
                yield from _recoloured_rows(name, head, both[1], targets)


def _recoloured_rows(name: str, head: nib.Nifti1Image, own: Any, targets: Any) -> Iterator[Row]:
    from cmbprep.brain.bias import correct_bias
    from cmbprep.spatial.transforms import map_points

    truth = map_points(targets, (own.to_image,))
    thin = _recoloured(head, own)
    axis = int(np.argmax(np.abs(head.affine[2, :3])))
    for kind, image in (("thin", thin), ("6 mm", thick_slices(thin, axis, THICK_MM))):
        start = time.perf_counter()
        errors = [
            np.linalg.norm(map_points(targets, (found.to_image,)) - truth, axis=1)
            for found in _registered(correct_bias(image).image)
        ]
        yield {
            "head": name,
            "image": f"T1w recoloured, {kind}",
            "median": [float(np.median(e)) for e in errors],
            "p95": [float(np.percentile(e, 95)) for e in errors],
            "seconds": time.perf_counter() - start,
        }


def _registered(image: nib.Nifti1Image) -> list[Any]:
    """Register to the template without redrawing it, and with."""
    from cmbprep.registration import fit as registration
    from cmbprep.registration.scan import register_head

    usual, found = (registration.REDRAWN, registration.SETTLED), []
    try:
        for stages in (((), 0.0), usual):
            registration.REDRAWN, registration.SETTLED = stages
            found.append(register_head(image, *_template()))
    finally:
        registration.REDRAWN, registration.SETTLED = usual
    return found


def _recoloured(head: nib.Nifti1Image, own: Any) -> nib.Nifti1Image:
    from cmbprep.spatial.grids import Grid, resample_to_grid

    values = np.asarray(head.dataobj, dtype=np.float32)
    prior, grid = own.brain_prior, Grid(head.shape, head.affine)
    brain = resample_to_grid(np.asarray(prior.dataobj), prior.affine, grid) > 0.5
    values = np.interp(values / np.percentile(values[brain], 85), *COLOURS)
    values = ndimage.gaussian_filter(values, 0.3)
    values += np.random.default_rng(SEED).normal(0, NOISE, values.shape)
    return nib.Nifti1Image(np.abs(500 * values).astype(np.float32), head.affine)


def _ventricle_contrast(image: nib.Nifti1Image, found: Any) -> float:
    from cmbprep.spatial.grids import resample_to_grid, working_grid
    from cmbprep.spatial.transforms import apply_transforms
    from cmbprep.templates import load_template
    from cmbprep.zones.schemes import VENTRICLE_INDEX

    path = load_template().atlas("mars")
    assert path is not None
    atlas = nib.load(path)
    ventricle = (np.asarray(atlas.dataobj) == VENTRICLE_INDEX).astype(np.float32)
    grid = working_grid(image.shape, image.affine, 1.0)
    values = resample_to_grid(np.asarray(image.dataobj, np.float32), image.affine, grid)
    moved = apply_transforms(nib.Nifti1Image(ventricle, atlas.affine), grid, (found.to_template,))
    inside = np.asarray(moved.dataobj) > 0.5
    distance = ndimage.distance_transform_edt(~inside, sampling=grid.spacing)
    within, around = values[inside], values[(distance > 1) & (distance <= 4)]
    return float((within.mean() - around.mean()) / np.sqrt((within.var() + around.var()) / 2))


def format_table(rows: list[Row]) -> str:
    """Return the Markdown table, without redrawing and with."""
    lines = [
        "| head | image | ventricles stand out by | error, mm: median | 95 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            " → ".join(f"{value:.2f}" for value in row[key]) if key in row else ""
            for key in ("ventricles", "median", "p95")
        ]
        lines.append(f"| {row['head']} | {row['image']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
