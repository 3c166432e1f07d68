"""How bright tissues are in real and in simulated scans: ``python benchmarks/contrast.py``.

Prints the median (and quartiles) of each tissue, relative to the median of the brain, after
correction of the intensity bias.

    python benchmarks/contrast.py real BIDS RESULTS   real scans and cmbprep's results of them
    python benchmarks/contrast.py simulated [--protocols NAME ...] [--seeds N ...]

Tissues of a real scan come from its T1w image, or from the template by the registration in
RESULTS; a voxel counts if 0.85 of it is of one tissue. A scan without a usable registration
(``--by-mask``) gets a brain mask by its own intensities (the dark skull parts brain and scalp), and
the template by an affine map of masks; ventricles are then the dark or bright voxels within the
template's. Fat is the brighter part of the rim of the head; in simulated heads, what is mostly fat.
It is relative to the outer 10 mm of the brain, without bias correction. Shading is the bias field
at 5 mm below the surface of the brain, divided by that at 35 mm and deeper.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from cmbprep.brain.bias import correct_bias, head_mask, otsu_threshold
from cmbprep.lab.simulate.anatomy import NUCLEI
from cmbprep.lab.simulate.heads import load_template_head, signed_depth, tissue_memberships
from cmbprep.spatial.grids import Grid, respaced_grid, working_grid
from cmbprep.spatial.transforms import LinearMap, PointMap, apply_transforms, read_transform

Mask = NDArray[np.bool_]
PURE, FATTY = 0.85, 0.6
TISSUES = ("gm", "wm", "csf", "pallidum", "fat")


def main() -> int:
    """Measure what the arguments ask for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    real = commands.add_parser("real")
    real.add_argument("bids", type=Path)
    real.add_argument("results", type=Path)
    real.add_argument("--by-mask", nargs="*", default=[], metavar="LABEL")
    made = commands.add_parser("simulated")
    made.add_argument("--protocols", nargs="+", default=["swi-3t-flat", "epi-3t", "gre-field-3t"])
    made.add_argument("--seeds", nargs="+", type=int, default=[9800])
    arguments = parser.parse_args()
    print("| scan | " + " | ".join(TISSUES) + " | shading |\n|---|" + "---|" * 6)
    if arguments.command == "simulated":
        for name in arguments.protocols:
            for seed in arguments.seeds:
                _print(f"`{name}` {seed}", *simulated(name, seed))
        return 0
    for path in sorted(arguments.bids.glob("sub-*/anat/*_T2starw.nii.gz")):
        label = path.name.split("_")[0].removeprefix("sub-")
        image = nib.load(path)
        image = nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine)
        if label in arguments.by_mask:
            brain, masks = by_mask(image)
        else:
            folder = arguments.results / f"sub-{label}" / "anat"
            if not (folder / f"sub-{label}_desc-preproc_T2starw.nii.gz").exists():
                continue
            brain, masks = by_registration(image, folder, f"sub-{label}")
        _print(label, *measure(image, brain, masks))
    return 0


def _print(name: str, figures: dict[str, NDArray[np.float64] | None], shading: float) -> None:
    cells = []
    for tissue in TISSUES:
        values = figures.get(tissue)
        cells.append(
            "n/a" if values is None else f"{values[1]:.2f} ({values[0]:.2f}–{values[2]:.2f})"
        )
    print(f"| {name} | " + " | ".join(cells) + f" | {shading:.2f} |", flush=True)


def measure(
    image: nib.Nifti1Image, brain: Mask, masks: dict[str, Mask]
) -> tuple[dict[str, NDArray[np.float64] | None], float]:
    """Quartiles of each tissue relative to the brain's median, and the shading."""
    mask = nib.Nifti1Image(brain.astype(np.uint8), image.affine)
    corrected = correct_bias(image, mask)
    data = np.asarray(corrected.image.dataobj)
    raw = np.asarray(image.dataobj)
    level = float(np.median(data[brain]))
    found: dict[str, NDArray[np.float64] | None] = {}
    for tissue in TISSUES[:-1]:
        values = data[masks[tissue]]
        found[tissue] = np.percentile(values, (25, 50, 75)) / level if len(values) > 10 else None
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    head = head_mask(raw, spacing)
    outside = ndimage.distance_transform_edt(~brain, sampling=spacing)
    rim = head & (outside > 4) & (outside < 20) & _above(brain, image.affine)
    values = raw[rim]
    fat = values[values >= otsu_threshold(values)] if len(values) > 50 else values[:0]
    if "fat" in masks:
        fat = raw[masks["fat"] & _above(brain, image.affine)]
    if len(fat) > 25:
        # Near the coil all is brighter: the fat is held against the brain's outer part.
        inside = ndimage.distance_transform_edt(brain, sampling=spacing)
        outer = brain & (inside < 10) & _above(brain, image.affine)
        found["fat"] = np.percentile(fat, (25, 50, 75)) / float(np.median(raw[outer]))
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    field = np.asarray(corrected.field.dataobj)
    ring, deep = field[brain & (depth > 3) & (depth < 7)], field[brain & (depth > 35)]
    return found, float(np.median(ring) / np.median(deep))


def _above(brain: Mask, affine: NDArray[np.float64]) -> Mask:
    """Upper half of the brain's height: where the rim of the head is scalp, not face or neck."""
    up = int(np.argmax(np.abs(affine[2, :3])))
    levels = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {up})))
    cut = int(np.percentile(levels, 50))
    index = np.arange(brain.shape[up]).reshape([-1 if a == up else 1 for a in range(3)])
    return np.broadcast_to(index >= cut if affine[2, up] > 0 else index <= cut, brain.shape)


def _tissues(
    grid: Grid, parts: dict[str, nib.Nifti1Image], chain: list[PointMap]
) -> dict[str, NDArray[np.float32]]:
    """Part of each voxel that each tissue fills: the mean over samples of at most 1.2 mm."""
    factors = np.ceil(grid.spacing / 1.2).astype(int)
    fine = respaced_grid(grid.shape, grid.affine, grid.spacing / factors)
    shape = tuple(x for pair in zip(grid.shape, factors, strict=True) for x in pair)
    return {
        name: np.asarray(apply_transforms(part, fine, chain).dataobj).reshape(shape).mean((1, 3, 5))
        for name, part in parts.items()
    }


def _template_parts() -> dict[str, nib.Nifti1Image]:
    head = load_template_head()
    brain = np.clip(0.5 - head.brain_distance, 0, 1)
    csf = np.clip(brain - head.gm - head.wm, 0, 1)
    csf[head.brain_distance > -18] = 0  # ventricles: sulci are too thin
    parts = {"gm": head.gm, "wm": head.wm, "csf": csf, "brain": brain}
    centre, axes = NUCLEI["pallidum"]
    x, y, z = np.meshgrid(
        *[np.arange(n) + head.affine[a, 3] for a, n in enumerate(csf.shape)], indexing="ij"
    )
    axes = [0.8 * a for a in axes]
    parts["pallidum"] = (
        ((np.abs(x) - centre[0]) / axes[0]) ** 2
        + ((y - centre[1]) / axes[1]) ** 2
        + ((z - centre[2]) / axes[2]) ** 2
        < 1
    ).astype(np.float32)
    return {k: nib.Nifti1Image(np.asarray(v, np.float32), head.affine) for k, v in parts.items()}


def by_registration(
    image: nib.Nifti1Image, folder: Path, stem: str
) -> tuple[Mask, dict[str, Mask]]:
    """Tissues by the T1w image, or by the template where there is none."""
    from cmbprep.config import DEFAULT_TEMPLATE as REFERENCE

    grid = Grid(image.shape, image.affine)
    brain = np.asarray(nib.load(folder / f"{stem}_desc-brain_mask.nii.gz").dataobj) > 0
    parts = _template_parts()
    t1w = folder / f"{stem}_desc-preproc_T1w.nii.gz"
    if not t1w.exists():
        back = folder / f"{stem}_from-{REFERENCE}_to-T2starw_mode-image_xfm.nii.gz"
        return brain, _pure(_tissues(grid, parts, [read_transform(back)]), brain)
    to_t1w = read_transform(folder / f"{stem}_from-T1w_to-T2starw_mode-image_xfm.txt")
    to_template = read_transform(folder / f"{stem}_from-{REFERENCE}_to-T1w_mode-image_xfm.nii.gz")
    anatomy: Any = nib.as_closest_canonical(nib.load(t1w))
    inner: Any = nib.as_closest_canonical(nib.load(folder / f"{stem}_desc-brainT1w_mask.nii.gz"))
    values, mask = np.asarray(anatomy.dataobj, np.float32), np.asarray(inner.dataobj) > 0
    depth = signed_depth(mask, anatomy.affine)
    gm, wm = tissue_memberships(values, mask, depth)
    csf = np.where(mask & (depth > 14), np.clip(1 - gm - wm, 0, 1), 0).astype(np.float32)
    own = {n: nib.Nifti1Image(v, anatomy.affine) for n, v in (("gm", gm), ("wm", wm), ("csf", csf))}
    found = _tissues(grid, own, [to_t1w])
    found |= _tissues(grid, {"pallidum": parts["pallidum"]}, [to_t1w, to_template])
    return brain, _pure(found, brain)


def _pure(parts: dict[str, NDArray[np.float32]], brain: Mask) -> dict[str, Mask]:
    return {name: (part >= PURE) & brain for name, part in parts.items() if name != "brain"}


def by_mask(image: nib.Nifti1Image) -> tuple[Mask, dict[str, Mask]]:
    """Tissues by an affine map of the template's brain mask to that of the image."""
    affine = image.affine
    brain = brain_by_skull(image)
    parts = _template_parts()
    map_ = _mask_to_mask(brain, affine, parts["brain"])
    grid = Grid(image.shape, affine)
    found = _tissues(grid, parts, [map_])
    masks = _pure(found, brain)
    # The ventricles of one person and of the template differ: the image decides.
    corrected = correct_bias(image, nib.Nifti1Image(brain.astype(np.uint8), affine))
    values = np.asarray(corrected.image.dataobj)
    level = np.median(values[brain])
    near = brain & (ndimage.maximum_filter(found["csf"], 3) > 0.5)
    far = np.abs(values / level - 1) > 0.12
    ventricle = ndimage.binary_erosion(near & far, np.ones((3, 3, 1)))
    masks["csf"] = ventricle if ventricle.sum() > 10 else near & far
    for tissue in ("gm", "wm"):
        masks[tissue] &= ~ndimage.binary_dilation(masks["csf"])
    return brain, masks


def simulated(name: str, seed: int) -> tuple[dict[str, NDArray[np.float64] | None], float]:
    """Figures of one simulated person without microbleeds: what ``measure`` returns."""
    from cmbprep.lab.simulate import scanner, vessels
    from cmbprep.lab.simulate.field import plan_geometry
    from cmbprep.lab.simulate.head import build_head
    from cmbprep.lab.simulate.protocols import get_protocol
    from cmbprep.lab.simulate.variants import brain_on_scan
    from cmbprep.phase.swi import swi

    rng = np.random.default_rng([seed, 6])
    head = build_head(load_template_head(), rng, age=50, atrophy=0.3, lesion_load=0.1)
    tubes = vessels.draw_veins(head, head.to_template.inverse, rng)
    protocol = get_protocol(name)
    centre = head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    geometry = plan_geometry(protocol, centre, rng)
    scan = scanner.acquire(head, tubes, [], protocol, geometry, rng, with_structures=False)
    shown = np.abs(scan.echoes[-1])
    if protocol.suffix == "swi":
        shown = swi(scan.echoes[-1], phase_sign=protocol.phase_sign)
    parts = {tissue: head.fraction(tissue) for tissue in ("gm", "wm", "csf", "fat")}
    parts["csf"][ndimage.distance_transform_edt(head.brain_mask()) < 18] = 0
    parts["pallidum"] = (head.iron > 12).astype(np.float32)
    to_head = LinearMap(np.linalg.inv(geometry.pose))
    own = {n: nib.Nifti1Image(np.asarray(v, np.float32), head.affine) for n, v in parts.items()}
    found = _tissues(Grid(geometry.shape, geometry.affine), own, [to_head])
    brain = brain_on_scan(head, geometry)
    masks = _pure(found, brain) | {"fat": found["fat"] > FATTY}
    return measure(nib.Nifti1Image(shown, geometry.affine), brain, masks)


def brain_by_skull(image: nib.Nifti1Image) -> Mask:
    """The largest part of the head that the dark skull parts from the scalp."""
    affine = image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    data = np.asarray(correct_bias(image).image.dataobj)
    head = head_mask(data, spacing)
    bright = ndimage.binary_fill_holes((data > 0.55 * np.median(data[head])) & head)
    core = ndimage.distance_transform_edt(bright, sampling=spacing) > 9
    labels, _ = ndimage.label(core)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    far = ndimage.distance_transform_edt(labels != np.argmax(sizes), sampling=spacing)
    brain = ndimage.binary_closing((far <= 9) & bright, iterations=2)
    for k in range(brain.shape[2]):
        brain[:, :, k] = ndimage.binary_fill_holes(brain[:, :, k])
    return np.asarray(brain)


def _mask_to_mask(brain: Mask, affine: NDArray[np.float64], template: Any) -> LinearMap:
    """Affine map of points of the scan to those of the template, by overlap of brain masks."""
    grid = working_grid(brain.shape, affine, 4.0)
    soft = nib.Nifti1Image(ndimage.gaussian_filter(brain.astype(np.float32), 1), affine)
    wanted = np.asarray(apply_transforms(soft, grid, []).dataobj)
    blurred = ndimage.gaussian_filter(np.asarray(template.dataobj), 3)
    inverse = np.linalg.inv(template.affine)
    points = grid.points()
    middle = points[wanted.ravel() > 0.5].mean(axis=0)

    def matrix(p: NDArray[np.float64]) -> NDArray[np.float64]:
        turn = LinearMap(np.eye(4)).matrix.copy()
        from scipy.spatial.transform import Rotation

        turn[:3, :3] = (
            np.diag(np.exp(p[6:9] / 100))
            @ Rotation.from_euler("xyz", p[3:6], degrees=True).as_matrix()
        )
        turn[:3, 3] = np.add(p[:3], (0, -18, 8)) - turn[:3, :3] @ middle
        return turn

    def cost(p: NDArray[np.float64]) -> float:
        m = inverse @ matrix(p)
        at = points @ m[:3, :3].T + m[:3, 3]
        values = ndimage.map_coordinates(blurred, at.T, order=1)
        # Below the lowest slice, and where dropout has taken brain, nothing is known.
        return float(((values - wanted.ravel()) ** 2).mean())

    found = optimize.minimize(cost, np.zeros(9), method="Powell", options={"xtol": 0.05})
    return LinearMap(matrix(found.x))


if __name__ == "__main__":
    sys.exit(main())
