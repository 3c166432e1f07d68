"""Time and memory of the simulator, by stage, for one scan.

``python benchmarks/simulate.py`` simulates one scan of 256 x 256 x 128 voxels and says what
each stage cost; ``--protocol NAME`` takes a preset instead. The aim is 60 s and 4 GB for the
first on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from cmbprep.lab.simulate import scanner, sources, vessels
from cmbprep.lab.simulate.field import plan_geometry
from cmbprep.lab.simulate.head import build_head
from cmbprep.lab.simulate.heads import load_template_head
from cmbprep.lab.simulate.protocols import Protocol, get_protocol
from cmbprep.lab.simulate.truth import tell_truth

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


def main() -> int:
    """Run the benchmark; print a table, and JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", metavar="NAME", help="a preset (default: 256 x 256 x 128)")
    parser.add_argument("--microbleeds", type=int, default=10, metavar="N")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    protocol = get_protocol(args.protocol) if args.protocol else LARGE
    figures = measure(protocol, args.microbleeds)
    if args.json:
        print(json.dumps(figures, indent=2))
        return 0
    for stage, seconds in figures["seconds"].items():
        print(f"{stage:12s} {seconds['wall']:7.1f} s wall {seconds['cpu']:7.1f} s processor")
    print(f"peak memory  {figures['peak_gb']:7.2f} GB")
    return 0


def measure(protocol: Protocol, microbleeds: int) -> dict[str, dict[str, dict[str, float]]]:
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


if __name__ == "__main__":
    sys.exit(main())
