"""Time and memory: of a participant, of starting, of the simulator, and of a small network.

    python benchmarks/cost.py participant BIDS_DIR --participant-label s1 --nprocs 2
    python benchmarks/cost.py start-up [--participants 10000] [--repeats 3]
    python benchmarks/cost.py simulator [--protocol NAME]
    python benchmarks/cost.py network small.onnx

``participant`` measures one participant, whole and by step, beside a plain recipe: what one would
write without cmbprep, on the same image and in the same run, antspyx' N4 with its defaults on the
T1w image, and antspyx' SyN at 1 mm to the template. Machines differ and are busy with other
things; the ratio is what to quote.

``start-up`` measures how long cmbprep takes to find the scans of one participant in a large
dataset. It builds a dataset of empty files (each participant: T1w, T2starw, FLAIR, a BOLD run and
their sidecars), and times, in fresh processes, from the start of Python to the units: one
participant in a dataset that holds no other, the same participant in the large dataset, and all
participants of the large dataset. The aim is that the second takes less than 3 s longer than the
first.

``simulator`` simulates one scan of 256 x 256 x 128 voxels and says what each stage cost;
``--protocol NAME`` takes a preset instead. The aim is 60 s and 4 GB for the first on two cores.

``network`` writes a small network to measure with: three convolutions of 3 x 3 x 3 (1 to 16 to 16
to 1 channels) with ReLU between them and a sigmoid at the end, with seeded random weights and no
fixed size. It finds nothing, and costs what such a network costs. Then
``python benchmarks/detection.py measure --detector small.onnx``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmbprep.lab.simulate import scanner, sources, vessels
from cmbprep.lab.simulate.field import plan_geometry
from cmbprep.lab.simulate.head import build_head
from cmbprep.lab.simulate.heads import load_template_head
from cmbprep.lab.simulate.protocols import Protocol, get_protocol
from cmbprep.lab.simulate.truth import tell_truth
from cmbprep.templates import load_template

# --- One participant -----------------------------------------------------------------------------

# Looking at the memory of processes takes time of theirs, where all processors are busy.
SAMPLE_SECONDS = 0.5

RECIPE = """
import sys
import ants

t1w, template = (ants.image_read(path) for path in sys.argv[1:3])
corrected = ants.n4_bias_field_correction(t1w)
ants.registration(template, corrected, type_of_transform="SyN", outprefix=sys.argv[3])
"""


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    peak_gb: float
    """Largest sum of the resident memory of its processes."""
    output: str


def add_participant(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``participant``."""
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--participant-label", required=True)
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--no-recipe", action="store_true", help="leave the plain recipe out")
    parser.set_defaults(run=run_participant)


def run_participant(arguments: argparse.Namespace) -> int:
    """Measure, and print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        ours = measure_program(arguments, Path(folder) / "out")
        again = measure_program(arguments, Path(folder) / "out")
        report("cmbprep", ours)
        for line in ours.output.splitlines():
            if match := re.search(r"\[\d+/\d+\] (.*): done in (\d+) s", line):
                print(f"    {match[2]:>5} s  {match[1]}")
        report("cmbprep again, all reused", again)
        if not arguments.no_recipe:
            plain = measure_recipe(arguments, Path(folder))
            report(f"plain recipe, {arguments.nprocs} threads", plain)
            print(
                f"ratio, cmbprep to plain recipe: wall {ours.seconds / plain.seconds:.2f}, "
                f"processor {ours.cpu_seconds / plain.cpu_seconds:.2f}, "
                f"memory {ours.peak_gb / plain.peak_gb:.2f}"
            )
    return 0


def measure_program(arguments: argparse.Namespace, out: Path) -> Cost:
    """Run the participant level."""
    return measure(
        [
            *(sys.executable, "-m", "cmbprep", str(arguments.bids_dir), str(out), "participant"),
            *("--participant-label", arguments.participant_label),
            *("--nprocs", str(arguments.nprocs)),
        ]
    )


def measure_recipe(arguments: argparse.Namespace, folder: Path) -> Cost:
    """Run N4 and SyN of antspyx with their defaults."""
    label = arguments.participant_label.removeprefix("sub-")
    t1w = sorted((arguments.bids_dir / f"sub-{label}").rglob("*_T1w.nii.gz"))
    if not t1w:
        raise SystemExit(f"sub-{label} has no T1w image for the plain recipe")
    template = load_template()
    return measure(
        [sys.executable, "-c", RECIPE, str(t1w[0]), str(template.t1w), str(folder / "plain")],
        threads=arguments.nprocs,
    )


def measure(command: list[str], *, threads: int | None = None) -> Cost:
    """Run a command; stop here if it fails."""
    environment = dict(os.environ)
    if threads is not None:
        environment["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    before, began = os.times(), time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    output = process.communicate()[0]
    seconds, after = time.perf_counter() - began, os.times()
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}\n{output}")
    cpu = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    return Cost(seconds, cpu, peak[0], output)


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], _tree_gb(process.pid))
        time.sleep(SAMPLE_SECONDS)


def _tree_gb(root: int) -> float:
    """Proportional resident memory of a process and all below it, GB (Linux).

    Pages that forked processes share are divided among them, so the sum is honest.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        if match := re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE):
            total += int(match[1])
    return total / 1024**2


def report(name: str, cost: Cost) -> None:
    """Print what a command took."""
    print(
        f"{name}: {cost.seconds:.0f} s, {cost.cpu_seconds:.0f} s of processor time, "
        f"{cost.peak_gb:.2f} GB at most"
    )


# --- Finding the scans of a large dataset --------------------------------------------------------

SIDECAR = json.dumps({"EchoTime": 0.02, "MagneticFieldStrength": 3})
IMAGES = ("anat/{0}_T1w", "anat/{0}_T2starw", "anat/{0}_FLAIR", "func/{0}_task-rest_bold")

FIND = """
import resource, sys
from pathlib import Path
from cmbprep.bids.units import find_units
units = find_units(Path(sys.argv[1]), participants=sys.argv[2:] or None)
print(len(units), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def build_dataset(root: Path, participants: int) -> Path:
    """Make a dataset of so many participants."""
    root.mkdir()
    description = {"Name": "start-up benchmark", "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "T2starw.json").write_text(json.dumps({"Manufacturer": "none"}))
    for number in range(1, participants + 1):
        subject = f"sub-{number:05}"
        for pattern in IMAGES:
            stem = root / subject / pattern.format(subject)
            stem.parent.mkdir(parents=True, exist_ok=True)
            stem.with_suffix(".nii.gz").touch()
            stem.with_suffix(".json").write_text(SIDECAR)
    return root


def measure_start(root: Path, participants: list[str], repeats: int) -> tuple[float, int, float]:
    """Return the median seconds, the number of units and the peak memory (MB)."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-c", FIND, str(root), *participants],
            check=True,
            capture_output=True,
            text=True,
        )
        seconds.append(time.perf_counter() - start)
    units, megabytes = run.stdout.split()
    return statistics.median(seconds), int(units), float(megabytes)


def add_start_up(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``start-up``."""
    parser.add_argument("--participants", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.set_defaults(run=run_start_up)


def run_start_up(arguments: argparse.Namespace) -> int:
    """Run the benchmark and print its figures."""
    with tempfile.TemporaryDirectory() as folder:
        small = build_dataset(Path(folder) / "small", 1)
        large = build_dataset(Path(folder) / "large", arguments.participants)
        cases = [
            ("one participant, alone in the dataset", small, ["00001"], arguments.repeats),
            (f"one participant of {arguments.participants}", large, ["00001"], arguments.repeats),
            (f"all {arguments.participants} participants", large, [], 1),
        ]
        figures = []
        for title, root, participants, repeats in cases:
            seconds, units, megabytes = measure_start(root, participants, repeats)
            figures.append(seconds)
            print(f"{title:<40} {seconds:7.2f} s {megabytes:7.0f} MB  {units} units", flush=True)
    print(f"{'difference of the first two':<40} {figures[1] - figures[0]:7.2f} s (aim: < 3 s)")
    return 0 if figures[1] - figures[0] < 3 else 1


# --- The simulator -------------------------------------------------------------------------------

LARGE = Protocol(
    name="benchmark",
    source="256 x 256 x 128 voxels over a whole head",
    three_d=True,
    field_strength=3.0,
    echo_times=(0.020,),
    repetition_time=28.0,
    flip_angle=15.0,
    voxel=(0.9, 0.9, 1.2),
    matrix=(256, 256),
    slices=128,
    phase=True,
)


def add_simulator(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``simulator``."""
    parser.add_argument("--protocol", metavar="NAME", help="a preset (default: 256 x 256 x 128)")
    parser.add_argument("--microbleeds", type=int, default=10, metavar="N")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run_simulator)


def run_simulator(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print a table, and JSON with --json."""
    protocol = get_protocol(arguments.protocol) if arguments.protocol else LARGE
    figures = measure_simulator(protocol, arguments.microbleeds)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return 0
    for stage, seconds in figures["seconds"].items():
        print(f"{stage:12s} {seconds['wall']:7.1f} s wall {seconds['cpu']:7.1f} s processor")
    print(f"peak memory  {figures['peak_gb']:7.2f} GB")
    return 0


def measure_simulator(
    protocol: Protocol, microbleeds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Simulate one scan; give the seconds of each stage and the peak memory."""
    seconds: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        seconds[name] = {
            "wall": round(time.perf_counter() - wall, 2),
            "cpu": round(time.process_time() - cpu, 2),
        }

    rng = np.random.default_rng(0)
    with stage("all"):
        with stage("template"):
            template = load_template_head()
        with stage("head"):
            head = build_head(template, rng)
        with stage("sources"):
            places = sources.place_masks(head)
            found = sources.draw_microbleeds(head, places, microbleeds, rng)
            found += sources.draw_mimics(head, places, 70.0, rng)
            tubes = vessels.draw_veins(head, head.to_template.inverse, rng)
            tubes += vessels.draw_arteries(head.to_template.inverse, rng)
        with stage("scan"):
            geometry = plan_geometry(protocol, (0.0, -18.0, 8.0), rng)
            scan = scanner.acquire(head, tubes, found, protocol, geometry, rng)
        with stage("truth"):
            tell_truth(head, found, scan)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1e9 if sys.platform == "darwin" else 1e6
    )
    return {"seconds": seconds, "peak_gb": round(peak, 2)}  # type: ignore[dict-item]


# --- A small network -----------------------------------------------------------------------------

CHANNELS = (1, 16, 16, 1)


def add_network(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``network``."""
    parser.add_argument("path", type=Path, help="ONNX file to write")
    parser.add_argument("--metadata", nargs="*", default=[], metavar="KEY=VALUE")
    parser.set_defaults(run=run_network)


def run_network(arguments: argparse.Namespace) -> int:
    """Write the network."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, constants, last = [], [], "input"
    for number, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
        weights = rng.normal(0, (2 / (27 * before)) ** 0.5, (after, before, 3, 3, 3))
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"w{number}"))
        nodes.append(
            helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1, 1, 1])
        )
        last = f"c{number}"
        if after > 1:
            last = f"r{number}"
            nodes.append(helper.make_node("Relu", [f"c{number}"], [last]))
    # Far below any threshold: what is measured is the network, not what follows it.
    constants.append(numpy_helper.from_array(np.float32(-50), "bias"))
    nodes.append(helper.make_node("Add", [last, "bias"], ["logit"]))
    nodes.append(helper.make_node("Sigmoid", ["logit"], ["output"]))
    axes = [1, 1, "x", "y", "z"]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, axes)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, dict(item.split("=", 1) for item in arguments.metadata))
    onnx.save(model, arguments.path)
    return 0


COMMANDS = {
    "participant": (add_participant, "one participant beside a plain recipe"),
    "start-up": (add_start_up, "finding the scans of a large dataset"),
    "simulator": (add_simulator, "one simulated scan, by stage"),
    "network": (add_network, "write a small network to measure with"),
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
