"""Pictures of what is missed, and of what is wrongly marked, in real scans with implanted bleeds.

    python benchmarks/detection_pictures.py backgrounds.tsv PICTURE.png --model FOLD

Backgrounds, seeds and matching are those of ``benchmarks/detection.py``. False positives are the
places of a background that get the highest probabilities, those in several of its copies taken as
one and shown without the bleeds that were put in. Misses are the widest voids with a probability
below that of one false positive a scan. Each is shown in the three planes of its voxels, 36 mm
wide.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detection import mistaken, open_detector, rated, score, search
from implanted import REPORT_SEEDS, Background, implanted_scan, load_backgrounds
from numpy.typing import NDArray

#: Half of the width of what is shown, mm, and the size of a pixel of it.
HALF_MM = 18.0
PIXEL_MM = 0.5
#: False positives of different copies that are as near as this are one, mm.
SAME_MM = 5.0


@dataclass(frozen=True)
class Shown:
    """A place in a scan and what to write above it."""

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    centre: NDArray[np.float64]
    level: float
    text: str


@dataclass(frozen=True)
class _Miss:
    diameter: float
    probability: float
    centre: NDArray[np.float64]
    image: NDArray[np.float32]


def main() -> int:
    """Draw what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="table of backgrounds (TSV)")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--detector", default="learned")
    parser.add_argument("--model", type=Path, help="folder of another model of `learned`")
    parser.add_argument("--seeds", type=int, default=6, help="copies of a background")
    parser.add_argument("--each", type=int, default=6, help="of each kind and background")
    arguments = parser.parse_args()
    detector = open_detector(arguments.detector, arguments.model, threshold=0.01)
    rows: list[tuple[str, list[Shown]]] = []
    for background in load_backgrounds(arguments.table, role="report"):
        wrong, missed = look(background, detector, arguments.seeds, arguments.each)
        rows += [(f"{background.name}: false positives", wrong)]
        rows += [(f"{background.name}: missed", missed)]
    draw(rows, arguments.each, arguments.picture)
    return 0


def look(
    background: Background, detector: Any, seeds: int, each: int
) -> tuple[list[Shown], list[Shown]]:
    """Find the worst false positives and misses of a background."""
    false: list[tuple[float, NDArray[np.float64]]] = []
    bleeds: list[_Miss] = []
    for seed in REPORT_SEEDS[:seeds]:
        scan = implanted_scan(background, seed)
        found = search(detector, background, scan.image)
        result = score(scan.lesions, found, scan=f"{background.name}-{seed}")
        bleeds += [
            _Miss(mark.diameter_mm or 0.0, chance, np.asarray(mark.centre), scan.image)
            for mark, chance in rated(result)
        ]
        false += [(chance, np.asarray(mark.centre)) for mark, chance in mistaken(result)]
    false.sort(key=lambda one: -one[0])
    level = false[seeds][0] if len(false) > seeds else 0.0
    bright = float(np.percentile(background.image[background.mask], 99.5))
    places = gather(false)[:each]
    lost = sorted((b for b in bleeds if b.probability <= level), key=lambda b: -b.diameter)[:each]

    def show(image: NDArray[np.float32], centre: NDArray[np.float64], text: str) -> Shown:
        return Shown(image, background.affine, centre, bright, text)

    marks = [
        show(background.image, centre, f"{chance:.2f}, in {count} of {seeds}")
        for chance, count, centre in places
    ]
    misses = [show(b.image, b.centre, f"{b.diameter:.1f} mm, {b.probability:.2f}") for b in lost]
    missed = sum(b.probability <= level for b in bleeds)
    print(
        f"{background.name}: {missed} of {len(bleeds)} missed at one false positive a scan "
        f"({level:.2f})"
    )
    return marks, misses


def gather(
    marks: Sequence[tuple[float, NDArray[np.float64]]],
) -> list[tuple[float, int, NDArray[np.float64]]]:
    """Join marks of one place, the most probable first: probability, how many, centre (mm)."""
    joined: list[tuple[float, int, NDArray[np.float64]]] = []
    for chance, centre in sorted(marks, key=lambda one: -one[0]):
        for number, (highest, count, place) in enumerate(joined):
            if np.linalg.norm(place - centre) <= SAME_MM:
                joined[number] = (highest, count + 1, place)
                break
        else:
            joined.append((chance, 1, centre))
    return joined


def section(shown: Shown, axis: int) -> NDArray[np.float32]:
    """Cut a square out of the plane across a voxel axis, pixels as the voxels are."""
    from nibabel.affines import voxel_sizes
    from scipy import ndimage

    spacing = voxel_sizes(shown.affine)
    voxel = np.linalg.solve(shown.affine[:3, :3], shown.centre - shown.affine[:3, 3])
    steps = np.arange(-HALF_MM, HALF_MM + PIXEL_MM / 2, PIXEL_MM)
    first, second = (k for k in range(3) if k != axis)
    points = np.empty((3, len(steps), len(steps)))
    points[axis] = np.round(voxel[axis])
    points[first] = voxel[first] + (steps / spacing[first])[:, None]
    points[second] = voxel[second] + (steps / spacing[second])[None, :]
    cut = ndimage.map_coordinates(shown.image, points, order=0, mode="constant")
    return np.asarray(cut.T[::-1], np.float32)


def draw(rows: Sequence[tuple[str, list[Shown]]], each: int, path: Path) -> None:
    """Write the picture: one row of places for each entry."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines = 1 + max(shown.text.count("\n") for _, places in rows for shown in places)
    size = (3.3 * each, (1.35 + 0.2 * lines) * len(rows))
    figure, axes = plt.subplots(len(rows), each, figsize=size, squeeze=False, dpi=80)
    for line, (title, places) in zip(axes, rows, strict=True):
        line[0].set_title(title, loc="left", fontsize=9, pad=3 + 11 * lines, fontweight="bold")
        for cell in line:
            cell.axis("off")
        for cell, shown in zip(line, places, strict=False):
            planes = [section(shown, axis) for axis in (2, 1, 0)]
            gap = np.full((planes[0].shape[0], 3), shown.level, np.float32)
            strip = np.hstack([planes[0], gap, planes[1], gap, planes[2]])
            cell.imshow(strip, cmap="gray", vmin=0, vmax=shown.level, interpolation="nearest")
            cell.text(1, -2, shown.text, fontsize=8, va="bottom")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
