"""Measured against true volumes of bleeds in simulated training scans.

    python benchmarks/lesion_volume.py --people 18

People are those that detectors are fitted to (seeds of the role ``train``), so that what is set by
these figures has seen nothing of the test. Prints the ratio of volumes by thickness of the slices,
magnitude and processed SWI apart, and by how much the gain of :mod:`cmbprep.detectors.segmentation`
would have to change so that the ratio does not depend on the thickness.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

THICKNESS = (0.0, 1.5, 2.5, 4.0, 5.5, 9.0)
#: A detection is a bleed's if their centres are this near, mm.
NEAR_MM = 2.5


def main() -> None:
    """Simulate, detect and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=18)
    arguments = parser.parse_args()
    table = np.array([row for n in range(arguments.people) for row in pairs(n)])
    for processed, title in ((0, "magnitude"), (1, "processed SWI")):
        report(title, *table[table[:, 3] == processed, :3].T)


def report(
    title: str,
    slice_mm: NDArray[np.float64],
    measured: NDArray[np.float64],
    true: NDArray[np.float64],
) -> None:
    """Print what was found of one kind of image."""
    print(f"{title}: {len(true)} bleeds", end="")
    if not len(true):
        print()
        return
    print(
        f", median ratio {np.median(measured / true):.2f}, median error {error(measured, true):.2f}"
    )
    for low, high in pairwise(THICKNESS):
        rows = (slice_mm >= low) & (slice_mm < high)
        if rows.any():
            print(
                f"slices of {low:g} to {high:g} mm: {rows.sum()} bleeds, median ratio "
                f"{np.median(measured[rows] / true[rows]):.2f}, median error "
                f"{error(measured[rows], true[rows]):.2f}"
            )
    print(f"gain that is left: {remaining_gain(slice_mm, measured, true):.3f}")


def pairs(number: int) -> Iterator[tuple[float, float, float, float]]:
    """Return slice thickness (mm), measured and true volume (mm^3), and whether it is SWI.

    One for each bleed of one person.
    """
    from cmbprep.detectors.learned import LearnedDetector
    from cmbprep.lab.training.generation import FAMILIES, Task, training_scans

    detector = LearnedDetector()
    rng = np.random.default_rng([FAMILIES["train"][0], number])
    for scan in training_scans(Task("train", number, Path()), rng):
        bleeds = [s for s in scan.spots if s.kind == "microbleed" and s.diameter >= 2]
        centres = np.array([spot.centre for spot in bleeds]).reshape(-1, 3)
        for lesion in detector.detect(scan.scan).lesions:
            distance = np.linalg.norm(centres - lesion.centre_ras, axis=1)
            if bleeds and distance.min() < NEAR_MM:
                diameter = bleeds[int(np.argmin(distance))].diameter
                true = np.pi / 6 * diameter**3
                processed = float(scan.scan.sequence == "swi")
                yield float(scan.scan.spacing.max()), lesion.volume_mm3, true, processed


def error(measured: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Median relative error."""
    return float(np.median(np.abs(measured / true - 1)))


def remaining_gain(
    slice_mm: NDArray[np.float64], measured: NDArray[np.float64], true: NDArray[np.float64]
) -> float:
    """Fit the gain by least absolute error of the log ratio."""
    part = slice_mm / np.cbrt(6 * measured / np.pi)
    tried = np.arange(-0.3, 0.5, 0.001)
    errors = [np.abs(np.log(measured / true) - gain * part).mean() for gain in tried]
    return float(tried[int(np.argmin(errors))])


if __name__ == "__main__":
    main()
