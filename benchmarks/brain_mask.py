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

from cmbprep.algorithms.brain_extraction import extract_brain
from cmbprep.brain_model import load_brain_model
from cmbprep.errors import ScanError

#: Thickness of the slabs, mm, and where they lie between the brain's lowest and highest slice.
SLAB = 40.0
PLACES = {"low": 0.0, "middle": 0.5, "high": 1.0}


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("references", type=Path)
    parser.add_argument("--names", nargs="+", help="only these")
    parser.add_argument("--write-masks", type=Path, help="folder for the masks of whole scans")
    parser.add_argument("--model", type=Path, help="folder of another brain.onnx and its card")
    arguments = parser.parse_args()
    model = load_brain_model(arguments.model)
    known = model.card["data"]["real_heads"]
    print("scan\tdice\tlost\tborder_mm\tsureness\tseconds\tlow\tmiddle\thigh\tturned\tmisheadered")
    for path in sorted(arguments.references.glob("*_image.nii.gz")):
        name = path.name.removesuffix("_image.nii.gz")
        if arguments.names and name not in arguments.names:
            continue
        image = nib.load(path)
        truth = np.asarray(nib.load(path.with_name(f"{name}_mask.nii.gz")).dataobj) > 0
        line = measure(image, truth, model.predict, arguments.write_masks, name)
        print(f"{name}{'*' if name in known else ''}\t{line}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"peak memory {peak:.2f} GB; * learned from this head")
    return 0


def measure(image, truth, predict, folder, name) -> str:
    """Give one line of the table."""
    start = time.perf_counter()
    found = extract_brain(image, predict)
    seconds = time.perf_counter() - start
    mask = np.asarray(found.mask.dataobj) > 0
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(found.mask, folder / f"{name}_mask.nii.gz")
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
    return "\t".join(parts)


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
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
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
    """Give it a header that is off by 20 degrees about each axis and by 40 mm."""
    wrong = np.eye(4)
    wrong[:3, :3] = Rotation.from_euler("xyz", (20, -20, 20), degrees=True).as_matrix()
    wrong[:3, 3] = 40
    return nib.Nifti1Image(np.asarray(image.dataobj), wrong @ image.affine), truth


if __name__ == "__main__":
    raise SystemExit(main())
