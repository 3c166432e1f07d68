"""The whole way on people nobody has seen, and what is asked of simulated scans beside it.

    python benchmarks/recipe.py run DEST [--detector NAME] [--write-docs]
    python benchmarks/recipe.py cut-scans --model FOLD --first 54 --people 4
    python benchmarks/recipe.py volumes --people 18
    python benchmarks/recipe.py voids

``run`` simulates, processes, evaluates, and makes the table. It runs the commands that a user would
type, shows each, and leaves out what is done: people that DEST holds are kept, and cmbprep itself
computes only what another detector changes. ``--write-docs`` puts the table into the
documentation. All lesions are simulated.

``cut-scans`` looks at bleeds in the first and last slices of a scan that does not show the whole
brain. Simulated people of the role ``train`` are scanned as for a fit, each scan is cut into slabs
of about 30 mm, and each slab is searched as if it were a scan. Give people that the model was not
fitted to. Prints the part of the visible bleeds of 2 mm and more that is found with a
probability, and how many other things are: those within a slice (or 2 mm) of a cut, and the rest.
A bleed is found if the detection nearest to it is at most 5 mm away; one may be that of two bleeds.

``volumes`` compares measured with true volumes of bleeds in simulated training scans. People are
those that detectors are fitted to (seeds of the role ``train``), so that what is set by these
figures has seen nothing of the test. Prints the ratio of volumes by thickness of the slices,
magnitude and processed SWI apart, and by how much the gain of
:mod:`cmbprep.detectors.segmentation` would have to change so that the ratio does not depend on the
thickness.

``voids`` draws 80 deposits as the simulator does, scans each in uniform white matter at 3 T, and
prints the diameters of the visible voids at TE 20 ms and the factors by which their volumes grow
from TE 20 to 40 ms, for the program's own outline and for outlines at fixed losses. The docs' page
on the simulator has its figures.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from cmbprep.config import available_cpus
from cmbprep.detectors.base import DetectorInput
from cmbprep.lab.simulate.deformation import Deformation
from cmbprep.lab.simulate.field import Geometry
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.protocols import Protocol
from cmbprep.lab.simulate.scanner import Effect, acquire
from cmbprep.lab.simulate.sources import Source, draw_microbleed
from cmbprep.lab.simulate.tissue import TISSUES
from cmbprep.lab.simulate.voids import is_visible, outline_void
from cmbprep.lab.training.generation import FAMILIES, Task, training_scans
from cmbprep.lab.training.scans import TrainingScan

PROTOCOLS = ("clinical-2d-1.5t", "clinical-2d-3t", "ukb-swi")
SEED = 9300
PARTICIPANTS = 12
MIN_DIAMETER_MM = 2
MATCH_MM = 5

PROGRAMS = {"cmbprep": "cmbprep", "cmbprep-tools": "cmbprep.lab.cli"}
SOME_FAILED = 1

FIGURES = {
    "sensitivity": "Sensitivity",
    "precision": "Precision",
    "f1": "F1",
    "f1_scan_mean": "F1 of a scan, mean",
    "fp_per_scan": "False positives per scan",
    "fp_per_scan_without_lesions": "False positives per scan without lesions",
    "ece": "Expected calibration error",
    "zone_agreement": "Zone right, of those found",
    "region_agreement": "Region right, of those found",
    "volume_error_median": "Error of the volume, median",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the table is of.

    Parameters
    ----------
    detector, detector_version, threshold
        As the group table tells them.
    participants, seed, protocols
        What was simulated.
    """

    detector: str
    detector_version: str
    threshold: str
    participants: int
    seed: int
    protocols: tuple[str, ...]


def add_run(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``run``."""
    parser.add_argument("dest", type=Path, help="folder of the data, the results and the figures")
    parser.add_argument("--participants", type=int, default=PARTICIPANTS, metavar="N")
    parser.add_argument("--protocol", nargs="+", default=list(PROTOCOLS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--nprocs", type=int, default=available_cpus(), metavar="N")
    parser.add_argument("--detector", help="as of cmbprep (default: cmbprep's own)")
    parser.add_argument("--write-docs", action="store_true", help="write the tables of the docs")
    parser.set_defaults(run=run_run)


def run_run(arguments: argparse.Namespace) -> int:
    """Run the recipe; give the exit status."""
    data, out = arguments.dest / "data", arguments.dest / "out"

    simulate(data, arguments)
    chosen = ("--detector", arguments.detector) if arguments.detector else ()
    status = call("cmbprep", data, out, "participant", *chosen, "--nprocs", arguments.nprocs)
    call("cmbprep", data, out, "group", may_fail=False)
    used = read_run(out / "group_cmb.tsv", arguments)
    evaluation = evaluate(data, out, arguments.dest / f"evaluation-{Path(used.detector).stem}")

    text = make_page(evaluation, used)
    print(f"\n{text}", end="")
    if status == SOME_FAILED:
        print("Some scans failed; nothing was written into the documentation.", file=sys.stderr)
    elif arguments.write_docs:
        from tables import save_tables

        for path in save_tables(text, "recipe"):
            print(f"Written: {path}")
    return status


def call(program: str, *arguments: object, may_fail: bool = True) -> int:
    """Show a command as one would type it, and run it with this interpreter.

    A status of 1 is given back where it is allowed (some scans failed, the others are complete);
    any other failure ends the recipe.
    """
    words = [str(argument) for argument in arguments]
    print(f"$ {shlex.join([program, *words])}", flush=True)
    status = subprocess.run([sys.executable, "-m", PROGRAMS[program], *words], check=False)
    if status.returncode and not (may_fail and status.returncode == SOME_FAILED):
        raise SystemExit(status.returncode)
    return status.returncode


def simulate(data: Path, args: argparse.Namespace) -> None:
    """Simulate the people, unless they are there."""
    readme = data / "README.md"
    if readme.exists():
        found = people_of(readme.read_text(encoding="utf-8"))
        wanted = (args.participants, args.seed, tuple(args.protocol))
        if found != wanted:
            raise SystemExit(f"{data} holds other people: {found}, not {wanted}")
        print(f"# {data} is used again")
        return
    call(
        *("cmbprep-tools", "simulate", data, "--participants", args.participants),
        *("--seed", args.seed, "--protocol", *args.protocol, "--nprocs", args.nprocs),
        may_fail=False,
    )


def people_of(readme: str) -> tuple[int, int, tuple[str, ...]] | None:
    """Read number of people, seed and protocols in the README of a simulated dataset."""
    made = re.search(r"participants (\d+), seed (\d+), protocols:\n((?:\s*- .*)+)", readme)
    if made is None:
        return None
    protocols = re.findall(r"^- ([^:\s]+):", made[3].strip(), re.MULTILINE)
    return int(made[1]), int(made[2]), tuple(protocols)


def read_run(table: Path, args: argparse.Namespace) -> Run:
    """Read which detector made the results; all scans must have the same."""
    with open(table, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    columns = ("detector", "detector_version", "threshold")
    used = {tuple(row[name] for name in columns) for row in rows} - {("n/a",) * len(columns)}
    if len(used) != 1:
        raise SystemExit(f"{table}: not one detector but {sorted(used)}")
    detector, version, threshold = used.pop()
    return Run(
        detector=detector,
        detector_version=version,
        threshold=threshold,
        participants=args.participants,
        seed=args.seed,
        protocols=tuple(args.protocol),
    )


def evaluate(data: Path, out: Path, folder: Path) -> dict[str, Any]:
    """Compare with the truth; give the figures."""
    figures = folder / "evaluation.json"
    call(
        *("cmbprep-tools", "evaluate", out, data / "derivatives" / "truth"),
        *("--match", "centroid", "--distance", MATCH_MM, "--min-diameter", MIN_DIAMETER_MM),
        *("--json", figures, "--out", folder),
        may_fail=False,
    )
    content: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return content


def make_page(evaluation: dict[str, Any], used: Run) -> str:
    """Make the Markdown that the documentation includes.

    Parameters
    ----------
    evaluation
        The JSON of ``cmbprep-tools evaluate``.
    used
        What it is of.
    """
    counts, splits = evaluation["counts"], evaluation["splits"]
    everything = {
        "scans": counts["scans"],
        "lesions": counts["true_lesions"],
        **evaluation["figures"],
    }
    parts = [
        describe(evaluation, used),
        figure_table({"all": everything, **splits.get("protocol", {})}),
        f"What the {counts['false_positives']} false positives lie on:",
        mimic_table(evaluation["false_positives"]),
    ]
    return "\n\n".join(parts) + "\n"


def describe(evaluation: dict[str, Any], used: Run) -> str:
    """Return a paragraph that describes the metrics."""
    version = "" if used.detector_version == "n/a" else f" (version {used.detector_version})"
    draws = evaluation["bootstrap"]["draws"]
    return (
        f"{evaluation['source']['prediction']}, detector `{used.detector}`{version}, probability "
        f"from {used.threshold}; {used.participants} simulated people, seed {used.seed}, protocols "
        f"{', '.join(f'`{name}`' for name in used.protocols)}. Rule: "
        f"`{evaluation['rule']['short']}`, of the true lesions those that are visible. In "
        f"brackets: 95 % intervals, {draws} bootstrap draws of people."
    )


def figure_table(groups: dict[str, dict[str, Any]]) -> str:
    """Make a table with a column for each group of scans."""
    rows: list[list[str]] = [["", *groups]]
    rows.append(["Scans", *(str(group["scans"]) for group in groups.values())])
    rows.append(["True lesions", *(str(group["lesions"]) for group in groups.values())])
    for name, label in FIGURES.items():
        rows.append([label, *(figure(group[name]) for group in groups.values())])
    return markdown(rows)


def figure(entry: dict[str, float | None]) -> str:
    """Show a figure with its interval; ``n/a`` where it is undefined."""
    value, low, high = entry["value"], entry["low"], entry["high"]
    if value is None:
        return "n/a"
    if low is None or high is None:
        return f"{value:.2f}"
    return f"{value:.2f}<br>({low:.2f}–{high:.2f})"


def mimic_table(origins: list[dict[str, Any]]) -> str:
    """Make a table of what caused false positives, the worst first."""
    rows = [["lies on", "false positives", "share", "such mimics in the scans", "of them marked"]]
    for row in sorted(origins, key=lambda row: (-row["false_positives"], row["origin"])):
        if row["false_positives"]:
            counted = ["" if row[n] is None else str(row[n]) for n in ("mimics", "mimics_marked")]
            rows.append(
                [
                    row["origin"].replace("_", " "),
                    str(row["false_positives"]),
                    f"{row['share']:.2f}",
                    *counted,
                ]
            )
    return markdown(rows)


def markdown(rows: list[list[str]]) -> str:
    """Make a Markdown table; the first row is the head."""
    head, *body = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- Bleeds in the first and last slices ---------------------------------------------------------

SLAB_MM = 30.0
CUT_MM = 2.0
FOUND_MM = 5.0
LEAST_VOXELS = 2000
LEVELS = (0.3, 0.5, 0.7, 0.9)

Place = tuple[float, float, float]


class Slab:
    """A part of a scan, and where it was cut."""

    def __init__(
        self, scan: DetectorInput, axis: int, ends: tuple[int, int], brain: tuple[int, int]
    ) -> None:
        start, stop = ends
        part = tuple(slice(start, stop) if k == axis else slice(None) for k in range(3))
        affine = scan.affine.copy()
        affine[:3, 3] += scan.affine[:3, axis] * start
        self.axis, self.length = axis, stop - start
        self.size = float(voxel_sizes(affine)[axis])
        self.cut_below, self.cut_above = start > brain[0], stop < brain[1]
        self.scan = replace(
            scan,
            magnitude=np.ascontiguousarray(scan.magnitude[part]),
            affine=affine,
            brain_mask=np.ascontiguousarray(scan.brain_mask[part]),
            echoes=tuple(echo[part] for echo in scan.echoes),
            phases=tuple(phase[part] for phase in scan.phases),
        )

    def slice_of(self, place: Place) -> float:
        """Position along the axis that was cut, voxels."""
        inverse = np.linalg.inv(self.scan.affine)
        return float((inverse[:3, :3] @ np.asarray(place) + inverse[:3, 3])[self.axis])

    def shows(self, place: Place) -> bool:
        """Whether a place lies in the slab."""
        return -0.5 <= self.slice_of(place) <= self.length - 0.5

    def where(self, place: Place) -> str:
        """Return whether a place is next to a cut."""
        along = self.slice_of(place)
        distances = [along + 0.5] * self.cut_below + [self.length - 0.5 - along] * self.cut_above
        near = any(d * self.size <= max(CUT_MM, self.size) for d in distances)
        return "at a cut" if near else "elsewhere"


def add_cut_scans(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``cut-scans``."""
    parser.add_argument("--model", type=Path, help="folder of another model of `learned`")
    parser.add_argument("--first", type=int, default=160, help="number of the first person")
    parser.add_argument("--people", type=int, default=4)
    parser.set_defaults(run=run_cut_scans)


def run_cut_scans(arguments: argparse.Namespace) -> int:
    """Simulate, cut, search and print."""
    from detection import open_detector

    detector = open_detector("learned", arguments.model, threshold=0.05)
    hits: dict[str, list[float]] = defaultdict(list)
    wrong: dict[str, list[float]] = defaultdict(list)
    for number in range(arguments.first, arguments.first + arguments.people):
        rng = np.random.default_rng([FAMILIES["train"][0], number])
        for scan in training_scans(Task("train", number, Path()), rng):
            for slab in slabs(scan.scan):
                note(scan, slab, detector.detect(slab.scan).lesions, hits, wrong)
    for where in ("at a cut", "elsewhere"):
        found, other = np.array(hits[where]), np.array(wrong[where])
        print(f"{where}: {len(found)} bleeds")
        for level in LEVELS:
            share = float((found >= level).mean())
            print(f"  at {level}: {share:.3f} found, {(other >= level).sum()} other things")
    return 0


def slabs(scan: DetectorInput) -> Iterator[Slab]:
    """Cut a scan across its slices, from the first that shows the brain to the last."""
    sizes = voxel_sizes(scan.affine)
    axis = int(np.argmax(sizes))
    shown = np.flatnonzero(scan.brain_mask.any(axis=tuple({0, 1, 2} - {axis})))
    first, last = int(shown[0]), int(shown[-1]) + 1
    step = max(6, round(SLAB_MM / float(sizes[axis])))
    cuts = list(range(first, last, step))
    if last - cuts[-1] <= step // 2:
        cuts.pop()
    for start, stop in zip(cuts, [*cuts[1:], last], strict=True):
        slab = Slab(scan, axis, (start, stop), (first, last))
        if np.count_nonzero(slab.scan.brain_mask) >= LEAST_VOXELS:
            yield slab


def note(
    scan: TrainingScan,
    slab: Slab,
    lesions: tuple,
    hits: dict[str, list[float]],
    wrong: dict[str, list[float]],
) -> None:
    """Note what is found at bleeds, and what is at nothing that was put in."""
    places = np.array([lesion.centre_ras for lesion in lesions]).reshape(-1, 3)
    explained = np.zeros(len(lesions), bool)
    for spot in scan.spots:
        if not slab.shows(spot.centre):
            continue
        distance = np.linalg.norm(places - np.asarray(spot.centre), axis=1)
        nearest = int(np.argmin(distance)) if len(distance) else -1
        found = nearest >= 0 and distance[nearest] <= FOUND_MM
        if found:
            explained[nearest] = True
        if spot.kind == "microbleed" and spot.diameter >= 2:
            listed = found and lesions[nearest].susceptibility != "diamagnetic"
            hits[slab.where(spot.centre)].append(lesions[nearest].probability if listed else 0.0)
    for lesion, known in zip(lesions, explained, strict=True):
        if not known:
            wrong[slab.where(lesion.centre_ras)].append(lesion.probability)


# --- Volumes of bleeds ---------------------------------------------------------------------------

THICKNESS = (0.0, 1.5, 2.5, 4.0, 5.5, 9.0)
#: A detection is a bleed's if their centres are this near, mm.
NEAR_MM = 2.5


def add_volumes(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``volumes``."""
    parser.add_argument("--people", type=int, default=18)
    parser.set_defaults(run=run_volumes)


def run_volumes(arguments: argparse.Namespace) -> int:
    """Simulate, detect and compare."""
    table = np.array([row for n in range(arguments.people) for row in pairs(n)])
    for processed, title in ((0, "magnitude"), (1, "processed SWI")):
        report(title, *table[table[:, 3] == processed, :3].T)
    return 0


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


# --- Voids of the simulator ----------------------------------------------------------------------

NUMBER = 80
LOSSES = (0.2, 0.3, 0.4, 0.5, 0.6)
VOXELS = ((0.5, 0.5, 2.0), (0.9, 0.9, 3.0))
SIDE_MM = 32


def add_voids(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``voids``."""
    parser.set_defaults(run=run_voids)


def run_voids(_: argparse.Namespace) -> int:
    """Print the figures."""
    for voxel in VOXELS:
        print(f"voxels of {voxel[0]:g} x {voxel[1]:g} x {voxel[2]:g} mm")
        _print_voxel(voxel)
    return 0


def _print_voxel(voxel: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(20)
    spacing = np.array(voxel)
    diameters, grown, sums = [], [], np.zeros(2)
    by_loss: dict[float, list[float]] = {loss: [] for loss in LOSSES}
    for _ in range(NUMBER):
        x, y, z = rng.uniform(-0.5, 0.5, 3)
        bleed = draw_microbleed("cortex", (x, y, z), rng)
        effects = [_effect(bleed, voxel, echo_time) for echo_time in (0.020, 0.040)]
        for loss, factors in by_loss.items():
            short, long = ((effect.loss >= loss).sum() for effect in effects)
            if short:
                factors.append(long / short)
        voids = [
            outline_void(effect.loss, effect.centre_voxel - effect.origin, bleed.reach, spacing)
            for effect in effects
        ]
        if voids[0] is None or not is_visible(voids[0].depth, effects[0].contrast_to_noise):
            continue
        volumes = np.array([void.volume_mm3 for void in voids if void is not None])
        diameters.append(voids[0].diameter_mm)
        grown.append(volumes[1] / volumes[0])
        sums += volumes
    low, middle, high = np.percentile(diameters, (5, 50, 95))
    print(f"  visible: {len(diameters)} of {NUMBER}")
    print(f"  diameter, mm: median {middle:.1f}, 5 to 95 % {low:.1f} to {high:.1f}")
    print(f"  growth of the half-depth volume: mean {np.mean(grown):.2f}, SD {np.std(grown):.2f}")
    print(f"  growth of the summed volumes: {sums[1] / sums[0]:.2f}")
    for loss, factors in by_loss.items():
        print(f"  growth outlined at a loss of {loss:.0%}: mean {np.mean(factors):.2f}")


def _effect(bleed: Source, voxel: tuple[float, float, float], echo_time: float) -> Effect:
    """What a bleed does in uniform white matter without a field of its own."""
    size = np.array(voxel)
    shape = tuple(int(np.ceil(SIDE_MM / s)) for s in voxel)
    protocol = Protocol(
        name="voids",
        source="made for this benchmark",
        three_d=True,
        field_strength=3.0,
        echo_times=(echo_time,),
        repetition_time=40.0,
        flip_angle=15.0,
        voxel=voxel,
        matrix=(shape[0], shape[1]),
        slices=shape[2],
        filtered=False,
    )
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * size
    head = _white_matter()
    scan = acquire(
        head,
        [],
        [bleed],
        protocol,
        Geometry(affine=affine, shape=(shape[0], shape[1], shape[2]), pose=np.eye(4)),
        np.random.default_rng(0),
        background=np.zeros(head.shape, np.float32),
    )
    effect = scan.effects[0]
    assert effect is not None
    return effect


def _white_matter(size: int = 64) -> Head:
    fractions: NDArray[np.uint8] = np.zeros((len(TISSUES), size, size, size), np.uint8)
    fractions[list(TISSUES).index("wm")] = 255
    affine = np.eye(4)
    affine[:3, 3] = -(size - 1) / 2
    grid = np.diag([100.0, 100.0, 100.0, 1.0])
    grid[:3, 3] = -150
    same = Deformation(np.eye(4), np.zeros((3, 4, 4, 4), np.float32), grid)
    iron = np.zeros((size,) * 3, np.float32)
    return Head(affine, fractions, iron, same, np.zeros((3, *iron.shape), np.float32))


COMMANDS = {
    "run": (add_run, "simulate, process, evaluate, and make the table"),
    "cut-scans": (add_cut_scans, "bleeds in the first and last slices"),
    "volumes": (add_volumes, "measured against true volumes"),
    "voids": (add_voids, "sizes and blooming of the voids of the simulator"),
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
