"""Brain masks against references: whole scans, slabs, turned and mis-headered copies; cost.

    python benchmarks/brain_mask.py REFERENCES

REFERENCES holds, for each scan, NAME_image.nii.gz and NAME_mask.nii.gz on the same grid; the
mask is the mean of the probabilities of HD-BET and deepbet, cut at one half, largest piece,
holes filled. Names that the model's card lists as heads it learned from are marked.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cmbprep.brain.network import extract_brain, load_brain_model
from cmbprep.errors import ScanError

#: Thickness of the slabs, mm, and where they lie between the brain's lowest and highest slice.
SLAB = 40.0
PLACES = {"low": 0.0, "middle": 0.5, "high": 1.0}


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("references", type=Path)
    parser.add_argument("--names", nargs="+", help="only these")
    parser.add_argument("--picture", type=Path, help="PNG of both outlines on each scan")
    parser.add_argument("--model", type=Path, help="folder of another brain.onnx and its card")
    arguments = parser.parse_args()
    model = load_brain_model(arguments.model)
    known = model.card["data"]["real_heads"]
    rows = []
    print("scan\tdice\tlost\tborder_mm\tsureness\tseconds\tlow\tmiddle\thigh\tturned\tmisheadered")
    for path in sorted(arguments.references.glob("*_image.nii.gz")):
        name = path.name.removesuffix("_image.nii.gz")
        if arguments.names and name not in arguments.names:
            continue
        image = nib.load(path)
        truth = np.asarray(nib.load(path.with_name(f"{name}_mask.nii.gz")).dataobj) > 0
        line, mask = measure(image, truth, model.predict)
        print(f"{name}{'*' if name in known else ''}\t{line}", flush=True)
        if arguments.picture:
            rows.append(draw(image, truth, mask))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    if rows:
        from PIL import Image

        Image.fromarray(np.concatenate(rows)).save(arguments.picture)
    print(f"peak memory {peak:.2f} GB; * learned from this head")
    return 0


def measure(image, truth, predict):
    """Return one line of the table, and the mask."""
    start = time.perf_counter()
    found = extract_brain(image, predict)
    seconds = time.perf_counter() - start
    mask = np.asarray(found.mask.dataobj) > 0
    lost = np.count_nonzero(truth & ~mask) / np.count_nonzero(truth)
    parts = [
        f"{overlap(mask, truth):.4f}",
        f"{lost:.4f}",
        f"{border_distance(mask, truth, image.header.get_zooms()[:3]):.2f}",
        f"{found.sureness:.3f}",
        f"{seconds:.1f}",
    ]
    parts += [attempt(*slab(image, truth, place), predict) for place in PLACES.values()]
    parts.append(attempt(*turned(image, truth), predict))
    parts.append(attempt(*misheadered(image, truth), predict))
    return "\t".join(parts), mask


def attempt(image, truth, predict) -> str:
    """Dice on a copy, or that nothing was found."""
    try:
        found = extract_brain(image, predict)
    except ScanError:
        return "none"
    return f"{overlap(np.asarray(found.mask.dataobj) > 0, truth):.4f}"


def overlap(a, b) -> float:
    """Dice."""
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def border_distance(a, b, spacing) -> float:
    """Mean distance between the two borders, both ways, mm."""
    # In the box that holds both: distances over a whole head would take gigabytes.
    box = ndimage.find_objects((a | b).view(np.uint8), 1)[0]
    edges = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (a, b)]
    away = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return float((away[1][edges[0]].mean() + away[0][edges[1]].mean()) / 2)


def slab(image, truth, place):
    """Cut 40 mm out along the scan's upright axis."""
    axis = int(np.argmax(np.abs(image.affine[2, :3])))
    step = image.header.get_zooms()[axis]
    count = max(round(SLAB / step), 1)
    levels = np.flatnonzero(truth.any(axis=tuple(k for k in range(3) if k != axis)))
    up = image.affine[2, axis] > 0
    first = int(
        levels[0] + (place if up else 1 - place) * max(levels[-1] + 1 - levels[0] - count, 0)
    )
    cut = [slice(None)] * 3
    cut[axis] = slice(first, first + count)
    return image.slicer[tuple(cut)], truth[tuple(cut)]


def turned(image, truth):
    """Store it with other axes: permuted and flipped."""
    axes, flips = (2, 0, 1), (slice(None, None, -1), slice(None), slice(None, None, -1))
    order = np.zeros((4, 4))
    order[3, 3] = 1
    data = np.asarray(image.dataobj).transpose(axes)
    for new, old in enumerate(axes):
        sign = flips[new].step or 1
        order[old, new] = sign
        order[old, 3] = data.shape[new] - 1 if sign < 0 else 0
    return nib.Nifti1Image(data[flips].copy(), image.affine @ order), truth.transpose(axes)[flips]


def misheadered(image, truth):
    """Return the image with a header that is off by 20 degrees about each axis and by 40 mm."""
    wrong = np.eye(4)
    wrong[:3, :3] = Rotation.from_euler("xyz", (20, -20, 20), degrees=True).as_matrix()
    wrong[:3, 3] = 40
    return nib.Nifti1Image(np.asarray(image.dataobj), wrong @ image.affine), truth


def draw(image, truth, mask):
    """Five sections, 1 mm a pixel, with the reference's outline in blue and ours in orange."""
    from cmbprep.spatial.grids import Grid, resample_to_grid

    canonical = [
        nib.as_closest_canonical(nib.Nifti1Image(np.asarray(each, np.float32), image.affine))
        for each in (image.dataobj, truth, mask)
    ]
    affine = canonical[0].affine
    inside = np.argwhere(np.asarray(canonical[1].dataobj) > 0)
    middle = affine[:3, :3] @ ((inside.min(axis=0) + inside.max(axis=0)) / 2) + affine[:3, 3]
    shape = (200, 200, 180)
    placed = np.eye(4)
    placed[:3, 3] = middle - (np.array(shape) - 1) / 2
    grey, reference, ours = (
        resample_to_grid(np.asarray(each.dataobj), affine, Grid(shape, placed), smooth=False)
        for each in canonical
    )
    grey = np.clip(grey / np.percentile(grey[reference > 0.5], 99.5), 0, 1)
    tiles = []
    for axis, index in ((2, 45), (2, 80), (2, 115), (0, 85), (1, 90)):
        plane = [np.take(each, index, axis=axis) for each in (grey, reference, ours)]
        tile = np.stack([plane[0]] * 3, axis=-1)
        for part, colour in ((plane[1], (0.2, 0.55, 1.0)), (plane[2], (1.0, 0.5, 0.0))):
            solid = part >= 0.5
            tile[solid & ~ndimage.binary_erosion(solid)] = colour
        square = np.zeros((200, 200, 3))
        tile = tile.transpose(1, 0, 2)[::-1]
        square[: tile.shape[0], : tile.shape[1]] = tile
        tiles.append(square)
    return (255 * np.concatenate(tiles, axis=1)).astype(np.uint8)


if __name__ == "__main__":
    raise SystemExit(main())
