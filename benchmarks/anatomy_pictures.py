"""Zones drawn on real scans, to be looked at: ``python benchmarks/anatomy_pictures.py DIR DEST``.

Every T2*-weighted scan and T1w image of a BIDS dataset is placed as the program places it, and one
picture each shows the borders of the zones (blue lobar, red deep, green infratentorial), of the
ventricles (yellow) and of the brain mask (white).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

COLOURS = {
    "lobar": (90, 160, 255),
    "deep": (255, 80, 60),
    "infratentorial": (70, 220, 100),
    None: (255, 230, 60),
}
#: Size of the pictures' pixels, mm, and where sections are taken, parts of the brain's extent.
PIXEL = 1.0
SECTIONS = ((2, 0.3), (2, 0.5), (2, 0.7), (0, 0.35), (1, 0.5))


def main() -> int:
    """Draw what the arguments ask for."""
    for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ.setdefault(name, "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("dest", type=Path)
    parser.add_argument("--subjects", nargs="*")
    arguments = parser.parse_args()
    arguments.dest.mkdir(parents=True, exist_ok=True)
    for folder in sorted(arguments.dataset.glob("sub-*")):
        if not arguments.subjects or folder.name[4:] in arguments.subjects:
            _subject(folder, arguments.dest)
    return 0


def _load(path: Path) -> nib.Nifti1Image:
    from cmbprep.brain.bias import correct_bias

    image = nib.squeeze_image(nib.load(path))
    image = nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), image.affine)
    return correct_bias(image).image


def _subject(folder: Path, dest: Path) -> None:
    from cmbprep.brain.refine import refine_brain_mask
    from cmbprep.registration.fit import register_to_template
    from cmbprep.registration.scan import AnatomicalImage, register_scan
    from cmbprep.templates import load_template

    template = load_template()
    reference, mask = nib.load(template.t1w), nib.load(template.brain_mask)
    anatomy, to_template = None, None
    for path in sorted(folder.glob("anat/*_T1w.nii*")):
        image = _load(path)
        found = register_to_template(image, reference, mask)
        brain = refine_brain_mask(image, found.brain_prior)
        anatomy = AnatomicalImage(image=image, brain_mask=brain, verdict=found.quality.verdict)
        to_template = found.to_template
        print(path.name, found.quality, flush=True)
        draw(dest / f"{folder.name}_T1w.png", image, brain, (found.to_template,))
    for path in sorted(folder.glob("anat/*_T2starw.nii*")):
        image = _load(path)
        placed = register_scan(image, anatomy, reference, mask)
        print(path.name, placed.route, placed.quality, placed.warnings, flush=True)
        chain = placed.chain(to_template)
        draw(dest / f"{folder.name}_T2starw.png", image, placed.brain_mask, chain)


def draw(path: Path, image: nib.Nifti1Image, brain: nib.Nifti1Image, chain: Any) -> None:
    """Draw sections of an image with the borders of the zones."""
    from PIL import Image

    from cmbprep.spatial.grids import resample_to_grid, respaced_grid
    from cmbprep.spatial.propagate import carry_atlas
    from cmbprep.templates import load_template
    from cmbprep.zones.schemes import MARS

    image, brain = nib.as_closest_canonical(image), nib.as_closest_canonical(brain)
    grid = respaced_grid(image.shape, image.affine, (PIXEL,) * 3)
    values = resample_to_grid(np.asarray(image.dataobj), image.affine, grid)
    inside = resample_to_grid(np.asarray(brain.dataobj) > 0, brain.affine, grid) >= 0.5
    atlas_path = load_template().atlas("mars")
    assert atlas_path is not None
    atlas = carry_atlas(nib.load(atlas_path), inside, grid, chain)
    codes = np.zeros(256, np.uint8)
    for region in MARS.regions:
        codes[region.index] = 1 + list(COLOURS).index(region.zone)
    zones = codes[atlas]
    where = np.argwhere(inside)
    low, high = where.min(axis=0), where.max(axis=0)
    panels = []
    for axis, part in SECTIONS:
        index = int(low[axis] + part * (high[axis] - low[axis]))
        panels.append(
            _panel(*(np.rot90(np.take(one, index, axis)) for one in (values, zones, inside)))
        )
    height = max(panel.shape[0] for panel in panels)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, 6), (0, 0))) for p in panels]
    Image.fromarray(np.concatenate(padded, axis=1)).save(path)


def _panel(values: Any, zones: Any, inside: Any) -> Any:
    top = max(float(np.percentile(values[inside], 99)), 1e-6) if inside.any() else 1.0
    grey = np.clip(values / top * 220, 0, 255).astype(np.uint8)
    picture = np.repeat(np.stack([grey] * 3, axis=-1), 2, axis=0).repeat(2, axis=1)
    zones, inside = (one.repeat(2, axis=0).repeat(2, axis=1) for one in (zones, inside))
    picture[_edge(inside)] = (255, 255, 255)
    for code, colour in enumerate(COLOURS.values(), start=1):
        picture[_edge(zones == code)] = colour
    return picture


def _edge(region: Any) -> Any:
    """Pixels of a region that touch what is none of it."""
    padded = np.pad(region, 1)
    core = region.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            core &= np.roll(padded, step, axis)[1:-1, 1:-1]
    return region & ~core


if __name__ == "__main__":
    sys.exit(main())
