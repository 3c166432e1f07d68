"""How well and how fast microbleeds are found, and the backgrounds for it.

    python benchmarks/detection.py measure [--backgrounds TABLE]
    python benchmarks/detection.py backgrounds OUTPUT_DIR TABLE --participant-label s1 niivue

``measure`` measures wall time, processor time and peak memory on two synthetic scans, each in a
fresh process. With ``--backgrounds TABLE`` it also implants bleeds into the backgrounds whose role
is ``report``, with seeds that no fit uses, and prints the part of the visible ones that is found
at given numbers of false positives per scan, by background, by size, and by how far they stand out
from the tissue around them. All lesions are simulated; a detection matches a bleed within 5 mm,
one to one, as ``cmbprep-tools evaluate`` matches.

``backgrounds`` makes the table of backgrounds from results of cmbprep. Each scan becomes one row
with the role ``report``: leave out participants that a fit has seen, and those with microbleeds of
their own. The table (TSV, one row a background) has the columns

``name``, ``image``, ``mask``
    A name that begins with the person and a hyphen, and files relative to the table: a
    bias-corrected magnitude and its brain mask.
``role``
    ``report`` for those that are used.
``power``
    The image is raised to this power. 1 for GRE; a T1-weighted image to the power 0.4 has
    about the contrast of a T1-weighted (short TR) SWI: dark fluid, little grey against white.
``thickness``
    Slices are averaged to this thickness in mm; 0 leaves them.
``exclude``
    May be empty: a label image of what is there already and is not to count, neither as a
    bleed nor as a false positive (a simulated head's own bleeds and calcifications).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cmbprep.lab.evaluate.matching import Mark
    from cmbprep.lab.evaluate.scoring import ScanResult
import csv
import os
from functools import cached_property

from scipy import ndimage

from cmbprep.detectors.candidates import relative_intensity
from cmbprep.lab.simulate.implant import Implanted, draw_deposits, implant, plausible_places
from cmbprep.outputs.stages import find_records

RATES = (0.5, 1.0, 2.0, 4.0, 8.0)
SIZES_MM = ((2.0, 3.0), (3.0, 4.0), (4.0, 6.0), (6.0, 12.0))
MATCH_MM = 5.0
MIN_DIAMETER_MM = 2.0
#: Bootstrap samples of copies for the intervals.
DRAWS = 2000
GRIDS = (((256, 256, 40), (0.9, 0.9, 3.0)), ((512, 512, 96), (0.5, 0.5, 1.5)))

#: How far a bleed's darkest voxel stands out from the tissue around it, standard deviations.
STANDING_OUT = ((0.0, 2.0), (2.0, 3.0), (3.0, 5.0), (5.0, np.inf))
#: The tissue around a bleed, mm from its middle.
AROUND_MM = 12.0


@dataclass(frozen=True)
class Bleed:
    """One bleed that counts."""

    diameter: float
    """Of its void, mm."""
    probability: float
    """It was found with; 0 if it was not."""
    out: float
    """How far it stands out, see :data:`STANDING_OUT`."""


def add_measure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``measure``."""
    parser.add_argument("--backgrounds", type=Path, help="table of backgrounds (TSV)")
    parser.add_argument("--detector", default="classical")
    parser.add_argument("--model", type=Path, help="folder of other models")
    parser.add_argument("--seeds", type=int, default=3, help="scans a background")
    parser.add_argument("--skip-speed", action="store_true")
    parser.add_argument("--phase", action="store_true", help="measure the speed with phase, too")
    parser.add_argument("--one-grid", type=int, help=argparse.SUPPRESS)
    parser.set_defaults(run=run_measure)


def run_measure(arguments: argparse.Namespace) -> int:
    """Measure what the arguments ask for, and print it."""
    if arguments.one_grid is not None:
        grid = GRIDS[arguments.one_grid]
        print(json.dumps(_time_one(arguments.detector, *grid, phase=arguments.phase)))
        return 0
    if not arguments.skip_speed:
        _print_speed(arguments.detector, phase=False)
        if arguments.phase:
            _print_speed(arguments.detector, phase=True)
    if arguments.backgrounds:
        _print_froc(arguments.detector, arguments.model, arguments.backgrounds, arguments.seeds)
    return 0


def _print_speed(detector: str, *, phase: bool) -> None:
    print(f"{'with' if phase else 'without'} phase")
    print("grid           voxel mm       wall s  cpu s  peak GB")
    for number, (shape, spacing) in enumerate(GRIDS):
        command = [
            sys.executable,
            __file__,
            "measure",
            "--detector",
            detector,
            "--one-grid",
            str(number),
        ]
        command += ["--phase"] if phase else []
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        wall, cpu, peak = json.loads(answer.stdout.splitlines()[-1])
        size, voxel = "x".join(map(str, shape)), "x".join(map(str, spacing))
        print(f"{size:14s} {voxel:14s} {wall:6.1f} {cpu:6.1f} {peak:8.2f}")


def _time_one(
    detector: str, shape: tuple[int, ...], spacing: tuple[float, ...], *, phase: bool
) -> tuple[float, float, float]:
    """Wall s, processor s and peak GB of one detection on a noisy, textured ellipsoid.

    Its phase, if it has one, goes through many turns and has noise, too.
    """
    import resource

    from scipy import ndimage

    from cmbprep.detectors import DetectorInput, get_detector

    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 2.0)
    image = 100 + 8 * image / image.std() + 4 * rng.standard_normal(shape, dtype=np.float32)
    half = [n * s / 2 for n, s in zip(shape, spacing, strict=True)]
    axes = [
        ((np.arange(n) + 0.5) * s - h) / min(r, h)
        for n, s, h, r in zip(shape, spacing, half, (70.0, 85.0, 65.0), strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    angle = 9 * x + 6 * y * y - 7 * z * y + 0.1 * rng.standard_normal(shape, dtype=np.float32)
    scan = DetectorInput(
        magnitude=image.astype(np.float32),
        affine=np.diag([*spacing, 1.0]),
        brain_mask=x**2 + y**2 + z**2 < 1,
        sequence="T2starw" if phase else "swi",
        field_strength=3.0,
        echo_times=(0.02,),
        phases=(angle.astype(np.float32),) if phase else (),
    )
    del angle
    chosen = get_detector(detector)
    wall, cpu = time.perf_counter(), time.process_time()
    chosen.detect(scan)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return time.perf_counter() - wall, time.process_time() - cpu, peak


def open_detector(name: str, model: Path | None, threshold: float | None = None) -> Any:
    """Return a detector by its name, with the shipped model or with that of a folder."""
    from cmbprep.detectors import get_detector
    from cmbprep.detectors.classical import ClassicalDetector
    from cmbprep.detectors.learned import LearnedDetector

    if model is None:
        return get_detector(name, threshold=threshold)
    kind = {"classical": ClassicalDetector, "learned": LearnedDetector}[name]
    return kind(threshold, folder=model)


def _print_froc(detector: str, model: Path | None, table: Path, seeds: int) -> None:
    chosen = open_detector(detector, model, threshold=0.01)
    possible = open_detector(detector, model).parameters["threshold"]
    definite = chosen.parameters["definite"]
    results: dict[str, list[ScanResult]] = defaultdict(list)
    bleeds: list[Bleed] = []
    for background in load_backgrounds(table, role="report"):
        for seed in REPORT_SEEDS[:seeds]:
            scan = implanted_scan(background, seed)
            found = search(chosen, background, scan.image)
            result = score(scan.lesions, found, scan=f"{background.name}-{seed}")
            results[background.name].append(result)
            out = {each.index: standing_out(background, each) for each in scan.lesions}
            bleeds += [
                Bleed(bleed.diameter_mm or 0.0, chance, out[bleed.index])
                for bleed, chance in rated(result)
            ]
    everything = [result for each in results.values() for result in each]
    head = " ".join(f"@{rate:<16g}" for rate in RATES)
    print("\nsensitivity (95 % interval of copies) at false positives per scan; simulated lesions")
    print(f"{'':26s}{head}  n")
    for name, own in results.items():
        _print_curve(name, own)
    _print_curve("all", everything)
    pooled = np.array([chance for result in everything for _, chance in mistaken(result)])
    for low, high in SIZES_MM:
        own_bleeds = [bleed for bleed in bleeds if low <= bleed.diameter < high]
        _print_group(f"void {low:g}-{high:g} mm", own_bleeds, pooled, len(everything))
    for low, high in STANDING_OUT:
        own_bleeds = [bleed for bleed in bleeds if low <= bleed.out < high]
        _print_group(f"stands out {low:g}-{high:g} SD", own_bleeds, pooled, len(everything))
    for name, point in (("possible", possible), ("definite", definite)):
        sensitivity = np.mean([bleed.probability >= point for bleed in bleeds])
        rate = np.count_nonzero(pooled >= point) / len(everything)
        print(
            f"{name} ({point}): sensitivity {sensitivity:.2f}, {rate:.2f} false positives per scan"
        )
    errors = [
        hit.volume_difference
        for result in everything
        for hit in result.hits
        if hit.volume_difference is not None and (hit.predicted.probability or 0) >= 0.15
    ]
    print(f"median error of volume of matched bleeds: {np.median(np.abs(errors)):.2f}")


def standing_out(background: Any, lesion: Any) -> float:
    """How many standard deviations of the tissue around it a bleed's loss of signal is.

    The tissue is what the background shows within :data:`AROUND_MM`, in the brain: sulci, veins and
    noise make its spread (1.48 times the median deviation). ``visible`` only asks whether it
    shows against the noise.
    """
    spacing = voxel_sizes(background.affine)
    inverse = np.linalg.inv(background.affine)
    centre = inverse[:3, :3] @ np.asarray(lesion.centre_ras) + inverse[:3, 3]
    low = np.maximum(np.floor(centre - AROUND_MM / spacing), 0).astype(int)
    high = np.ceil(centre + AROUND_MM / spacing).astype(int) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    values, mask = background.image[box], background.mask[box]
    points = np.indices(values.shape).reshape(3, -1).T + low
    near = np.linalg.norm((points - centre) * spacing, axis=1) <= AROUND_MM
    tissue = values.ravel()[near & mask.ravel()]
    level = float(np.median(tissue))
    spread = 1.4826 * float(np.median(np.abs(tissue - level)))
    return float(lesion.loss * level / spread) if spread > 0 else float("inf")


def search(detector: Any, background: Any, image: NDArray[np.float32]) -> tuple:
    """Return the lesions in a background with bleeds, without field strength and echo time."""
    from cmbprep.detectors import DetectorInput

    scan = DetectorInput(
        magnitude=image,
        affine=background.affine,
        brain_mask=background.mask,
        sequence="T2starw",
    )
    return tuple(detector.detect(scan).lesions)


def score(truth: tuple, found: tuple, *, scan: str) -> ScanResult:
    """Match bleeds and detections as ``cmbprep-tools evaluate`` does.

    Bleeds that cannot be seen, or whose void is smaller than 2 mm, are neither missed nor, if
    something is found there, a false positive.
    """
    from cmbprep.lab.evaluate.matching import LesionSet, Mark, Rule
    from cmbprep.lab.evaluate.scoring import score_scan

    bleeds = tuple(
        Mark(
            index=one.index,
            centre=one.centre_ras,
            volume_mm3=one.void_volume_mm3,
            diameter_mm=one.void_diameter_mm,
            visible=one.visible,
        )
        for one in truth
    )
    marks = tuple(
        Mark(
            index=number,
            centre=one.centre_ras,
            volume_mm3=one.volume_mm3,
            probability=one.probability,
        )
        for number, one in enumerate(found, start=1)
    )
    rule = Rule(distance_mm=MATCH_MM, min_diameter_mm=MIN_DIAMETER_MM)
    # Every copy is a draw of bleeds of its own: intervals are over copies of a background.
    return score_scan(
        LesionSet(marks=bleeds), LesionSet(marks=marks), rule, scan=scan, subject=scan
    )


def rated(result: ScanResult) -> list[tuple[Mark, float]]:
    """Return each bleed that counts and its probability; 0 if it was not found."""
    found = [(hit.truth, hit.predicted.probability or 0.0) for hit in result.hits]
    return found + [(bleed, 0.0) for bleed in result.misses]


def mistaken(result: ScanResult) -> list[tuple[Mark, float]]:
    """Return the false positives and their probabilities."""
    return [(one.predicted, one.predicted.probability or 0.0) for one in result.false_positives]


def _print_curve(name: str, results: Sequence[ScanResult]) -> None:
    """Print the sensitivities with intervals: matched again at every threshold."""
    from cmbprep.lab.evaluate.curves import pool_steps, sensitivity_at
    from cmbprep.ratings.statistics import percentile_interval, subject_weights

    curve = pool_steps([result.steps for result in results if result.steps is not None])
    lesions = np.array([result.truth_count for result in results], float)
    levels = np.array(RATES)
    whole = sensitivity_at(curve, lesions, np.ones((1, len(results))), levels)[0]
    weights = subject_weights([result.subject for result in results], DRAWS, 0)
    drawn = sensitivity_at(curve, lesions, weights, levels)
    cells = []
    for column, value in enumerate(whole):
        interval = percentile_interval(drawn[:, column])
        low, high = interval or (np.nan, np.nan)
        cells.append(f"{value:5.2f} ({low:.2f}-{high:.2f})")
    print(f"{name:26s}{' '.join(cells)}  {int(lesions.sum())}")


def _print_group(
    name: str, bleeds: Sequence[Bleed], false: NDArray[np.float64], scans: int
) -> None:
    """Print the part of some of the bleeds that all copies' false positives leave."""
    if not bleeds:
        return
    ordered = np.sort(false)[::-1]
    probability = np.array([bleed.probability for bleed in bleeds])
    cells = []
    for rate in RATES:
        place = int(rate * scans)
        level = ordered[place] if place < len(ordered) else 0.0
        cells.append(f"{np.mean(probability > level):5.2f}{'':12s}")
    print(f"{name:26s}{' '.join(cells)}  {len(bleeds)}")


# --- Scans with implanted bleeds -----------------------------------------------------------------

REPORT_SEEDS = range(9000, 9006)
#: Bleeds implanted into one scan, as far as there is room.
BLEEDS = 16
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
    spacing = voxel_sizes(affine)
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
    spacing = voxel_sizes(affine)
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


# --- The table of backgrounds --------------------------------------------------------------------

COLUMNS = ("name", "image", "mask", "role", "power", "thickness", "weight", "exclude")


def add_backgrounds(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``backgrounds``."""
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--participant-label", nargs="+", required=True)
    parser.set_defaults(run=run_backgrounds)


def run_backgrounds(arguments: argparse.Namespace) -> int:
    """Write the table."""
    with open(arguments.table, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for label in arguments.participant_label:
            records = find_records(
                arguments.output_dir, "preproc", subject=label.removeprefix("sub-")
            )
            if not records:
                raise SystemExit(f"there are no results of {label} in {arguments.output_dir}")
            for record in records:
                image, mask = (
                    os.path.relpath(record.files.path(key), arguments.table.parent)
                    for key in ("preproc", "brain_mask")
                )
                names = record.files.names
                name = f"{names.subject}-{names.src}_{names.suffix}"
                writer.writerow([name, image, mask, "report", 1, 0, 1, ""])
    return 0


COMMANDS = {
    "measure": (add_measure, "time, memory, and sensitivity at rates of false positives"),
    "backgrounds": (add_backgrounds, "make the table of backgrounds from results of cmbprep"),
}


def main() -> int:
    """Run a sub-command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (add, text) in COMMANDS.items():
        add(commands.add_parser(name, help=text, description=text))
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
