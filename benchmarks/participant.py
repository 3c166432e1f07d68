"""Time and memory of one participant, whole and by step, beside a plain recipe.

The plain recipe is what one would write without cmbprep, on the same image and in the
same run: antspyx' N4 with its defaults on the T1w image, and antspyx' SyN at 1 mm to the
template. Machines differ and are busy with other things; the ratio is what to quote.

    python benchmarks/participant.py BIDS_DIR --participant-label s1 --nprocs 2
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cmbprep.templates import load_template

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


def main() -> int:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--participant-label", required=True)
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--no-recipe", action="store_true", help="leave the plain recipe out")
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    sys.exit(main())
