"""How long cmbprep takes to find the scans of one participant in a large dataset.

Builds a dataset of empty files (each participant: T1w, T2starw, FLAIR, a BOLD run and their
sidecars), and times, in fresh processes, from the start of Python to the units:

- one participant in a dataset that holds no other,
- the same participant in the large dataset,
- all participants of the large dataset.

The aim is that the second takes less than 3 s longer than the first.

Run: ``python benchmarks/startup.py [--participants 10000] [--repeats 3]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDECAR = json.dumps({"EchoTime": 0.02, "MagneticFieldStrength": 3})
IMAGES = ("anat/{0}_T1w", "anat/{0}_T2starw", "anat/{0}_FLAIR", "func/{0}_task-rest_bold")

FIND = """
import resource, sys
from pathlib import Path
from cmbprep.bids.units import find_units
units = find_units(Path(sys.argv[1]), participants=sys.argv[2:] or None)
print(len(units), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def build(root: Path, participants: int) -> Path:
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


def measure(root: Path, participants: list[str], repeats: int) -> tuple[float, int, float]:
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


def main() -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small = build(Path(folder) / "small", 1)
        large = build(Path(folder) / "large", options.participants)
        cases = [
            ("one participant, alone in the dataset", small, ["00001"], options.repeats),
            (f"one participant of {options.participants}", large, ["00001"], options.repeats),
            (f"all {options.participants} participants", large, [], 1),
        ]
        figures = []
        for title, root, participants, repeats in cases:
            seconds, units, megabytes = measure(root, participants, repeats)
            figures.append(seconds)
            print(f"{title:<40} {seconds:7.2f} s {megabytes:7.0f} MB  {units} units", flush=True)
    print(f"{'difference of the first two':<40} {figures[1] - figures[0]:7.2f} s (aim: < 3 s)")
    return 0 if figures[1] - figures[0] < 3 else 1


if __name__ == "__main__":
    sys.exit(main())
