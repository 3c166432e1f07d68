"""How well iron and calcium are distinguished: ``python benchmarks/susceptibility.py``.

Simulates people with microbleeds and calcifications, scans each with several protocols, and
prints for each protocol how the visible ones are called, whether the sign of the phase was
found, and what it cost. Everything is simulated; masks are the true ones. Every second scan
has its phase turned round, as scanners of the other convention give it.

``--fit`` prints the weights of a logistic regression for
``cmbprep.phase.susceptibility.PER_T`` and ``PER_CHI`` instead; the shipped ones were
fitted with ``--seeds 9100 9101 9102 9103 9104``, and the figures in the documentation come
from ``--seeds 9150 9151 9152 9153 9154``. ``--cost`` measures time and memory alone.

``--sign N`` measures the sign of the phase alone, on N other people with a falx and a tentorium
and with veins of 0.5 to 1.2 times the usual radii, each scanned with one of four coarse
protocols; seeds 9700 to 9715 were used to set it up, and the figures in the documentation are of
9900 to 10099. Every second scan has its phase turned round.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from held_out import scan_person
from numpy.typing import NDArray
from scipy import ndimage, optimize

from cmbprep.lab.simulate.protocols import Protocol
from cmbprep.spatial.grids import bounding_box, largest_piece

PROTOCOLS = ("ukb-swi", "swi-3t", "gre3d-3t", "clinical-2d-3t", "clinical-2d-1.5t")
SEEDS = tuple(range(9150, 9155))
GRIDS = (((256, 256, 40), (0.9, 0.9, 3.0)), ((512, 512, 96), (0.45, 0.45, 1.5)))


def main() -> int:
    """Measure what the arguments ask for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--cache", type=Path, help="folder to keep simulated scans in")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--sign", type=int, metavar="N", help="people to find the sign of")
    parser.add_argument("--first", type=int, default=9900, help="seed of the first of them")
    parser.add_argument("--one-grid", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_grid is not None:
        _cost_of_one(*GRIDS[arguments.one_grid])
    elif arguments.sign:
        _print_signs(range(arguments.first, arguments.first + arguments.sign), arguments.cache)
    elif arguments.cost:
        for number in range(len(GRIDS)):
            subprocess.run([sys.executable, __file__, "--one-grid", str(number)], check=True)
    else:
        rows = list(_judged(arguments.protocols, arguments.seeds, arguments.cache))
        _print_fit(rows) if arguments.fit else _print_table(rows)
    return 0


Row = dict[str, Any]


def _judged(protocols: list[str], seeds: list[int], cache: Path | None) -> Iterator[Row]:
    """Judge every visible lesion of every scan."""
    from cmbprep.detectors import DetectorInput
    from cmbprep.detectors.susceptibility import judge, phase_maps

    for number, (seed, name) in enumerate((s, p) for s in seeds for p in protocols):
        scan = _scan(name, seed, cache)
        turned = number % 2 == 1
        echoes = np.conj(scan["echoes"]) if turned else scan["echoes"]
        given = DetectorInput(
            magnitude=np.abs(echoes[-1]).astype(np.float32),
            affine=scan["affine"],
            brain_mask=scan["brain"],
            sequence="T2starw",
            field_strength=float(scan["field"]),
            echo_times=tuple(map(float, scan["te"])),
            echoes=tuple(np.abs(e).astype(np.float32) for e in echoes),
            phases=tuple(np.angle(e).astype(np.float32) for e in echoes),
        )
        labels, kinds = _labels(scan)
        start = time.perf_counter()
        maps = phase_maps(given)
        assert maps is not None
        seconds = time.perf_counter() - start
        true_sign = int(scan["sign"]) * (-1 if turned else 1)
        sources, _ = judge(given, labels)
        scan_row = {"protocol": name, "sign": maps.sign.sign, "true_sign": true_sign}
        yield {**scan_row, "kind": "scan", "seconds": seconds}
        for index, source in sources.items():
            yield {**scan_row, "kind": kinds[index], "source": source}


def _scan(name: str, seed: int, cache: Path | None) -> dict[str, NDArray[Any]]:
    """Simulate a scan, or take it from the cache."""
    path = None if cache is None else cache / f"{name}-{seed}.npz"
    if path is None or not path.exists():
        (made,) = scan_person(seed, [name])
        if path is None:
            return made
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **made)
    with np.load(path) as stored:
        return dict(stored)


def _labels(scan: dict[str, NDArray[Any]]) -> tuple[NDArray[np.int32], dict[int, str]]:
    """Return a label image of bleeds and parts of calcifications, and the kind of each label.

    A bleed is the largest connected part of its mask; of a calcification all parts are
    taken that have at least three tenths of its largest part's size.
    """
    labels = np.zeros(scan["bleeds"].shape, np.int32)
    kinds: dict[int, str] = {}
    for image, table in (("bleeds", "bt"), ("others", "ot")):
        rows = csv.DictReader(io.StringIO(str(scan[table])), delimiter="\t")
        for index, row in enumerate(rows, start=1):
            if row["visible"] != "true" or row["kind"] not in ("microbleed", "calcification"):
                continue
            parts, count = ndimage.label(scan[image] == index, np.ones((3, 3, 3)))
            sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
            least = 1.0 if row["kind"] == "microbleed" else 0.3
            for part in np.flatnonzero(sizes >= least * sizes.max(initial=0)) + 1:
                kinds[len(kinds) + 1] = row["kind"]
                labels[parts == part] = len(kinds)
    return labels, kinds


def _print_table(rows: list[Row]) -> None:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["protocol"]].append(row)
        groups["all"].append(row)
    print(
        "protocol          scans  sign right/wrong/none  calcifications: n dia para unknown"
        "   bleeds: n dia para unknown   s a scan"
    )
    for name, group in groups.items():
        scans = [row for row in group if row["kind"] == "scan"]
        right = sum(row["sign"] == row["true_sign"] for row in scans)
        none = sum(row["sign"] is None for row in scans)
        seconds = np.mean([row["seconds"] for row in scans])
        parts = []
        for kind in ("calcification", "microbleed"):
            calls = [row["source"].susceptibility for row in group if row["kind"] == kind]
            total = max(len(calls), 1)
            shares = [calls.count(c) / total for c in ("diamagnetic", "paramagnetic", "unknown")]
            parts.append(f"{len(calls):4d} " + " ".join(f"{share:.3f}" for share in shares))
        print(
            f"{name:17s} {len(scans):5d}  {right:5d}/{len(scans) - right - none}/{none}"
            f"                {parts[0]}     {parts[1]}   {seconds:5.1f}"
        )


def _print_fit(rows: list[Row]) -> None:
    """Fit both weights; a sign that was not found is no lesion's fault."""
    lesions = [row for row in rows if row["kind"] != "scan" and row["sign"] is not None]
    iron = np.array([1 if row["kind"] == "microbleed" else -1 for row in lesions])
    features = np.array(
        [
            (math.asinh(row["source"].t_value / 2), math.asinh(row["source"].chi / 0.05))
            for row in lesions
        ]
    )
    weight = np.where(iron > 0, 1 / np.sum(iron > 0), 1 / np.sum(iron < 0))

    def loss(point: NDArray[np.float64]) -> float:
        terms = weight * np.logaddexp(0, -iron * (features @ point))
        return float(terms.sum() + 0.002 * (point @ point))

    print("PER_T, PER_CHI =", np.round(optimize.minimize(loss, np.zeros(2)).x, 2))


def _sign_protocols() -> dict[str, Protocol]:
    """Coarse protocols, as the head's grid of 2 mm allows."""
    from cmbprep.lab.simulate.protocols import get_protocol

    thin, thick = get_protocol("gre3d-3t"), get_protocol("clinical-2d-3t")
    weak = get_protocol("clinical-2d-1.5t")
    te = {"echo_times": (0.02,)}
    return {
        "thin": replace(thin, voxel=(1.5, 1.5, 1.5), matrix=(128, 148), slices=96, **te),
        "swi": replace(thin, voxel=(1.0, 1.0, 2.0), matrix=(184, 216), slices=70, **te),
        "thick": replace(thick, voxel=(1.1, 1.1, 4.0), matrix=(168, 200), slices=34),
        "thick15": replace(weak, voxel=(1.2, 1.2, 5.0), matrix=(152, 184), slices=25),
    }


def _sign_scan(seed: int, protocol: Protocol) -> dict[str, NDArray[Any]]:
    """Scan a person with falx and tentorium, and cut the scan to the brain."""
    from cmbprep.lab.simulate import scanner, vessels
    from cmbprep.lab.simulate.dura import draw_dura
    from cmbprep.lab.simulate.field import plan_geometry
    from cmbprep.lab.simulate.head import build_head
    from cmbprep.lab.simulate.heads import load_template_head
    from cmbprep.lab.simulate.variants import brain_on_scan, scale_veins

    rng = np.random.default_rng([seed, 7])
    head = build_head(
        load_template_head(),
        rng,
        age=float(np.clip(rng.normal(68, 12), 30, 92)),
        atrophy=float(rng.uniform(0, 0.7)),
        lesion_load=0.2,
        spacing=2.0,
    )
    tubes = vessels.draw_veins(head, head.to_template.inverse, rng)
    tubes = scale_veins(tubes, float(rng.uniform(0.5, 1.2)))
    dura = draw_dura(head.to_template.inverse, rng)
    centre = head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    geometry = plan_geometry(protocol, centre, rng)
    scan = scanner.acquire(
        head, tubes, [], protocol, geometry, rng, with_structures=False, sheets=dura
    )
    brain = brain_on_scan(head, geometry)
    box = bounding_box(brain)
    affine = geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    echo = scan.echoes[-1][box]
    return {
        "mag": np.abs(echo).astype(np.float16),
        "phase": np.angle(echo).astype(np.float16),
        "brain": brain[box],
        "affine": affine,
        "te": np.array(protocol.echo_times[-1]),
        "field": np.array(protocol.field_strength),
        "sign": np.array(protocol.phase_sign),
    }


def _print_signs(seeds: range, cache: Path | None) -> None:
    """Find the sign of each person's phase, and count."""
    from cmbprep.detectors import DetectorInput
    from cmbprep.detectors.susceptibility import phase_maps

    protocols = _sign_protocols()
    rows: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        name = list(protocols)[seed % len(protocols)]
        path = None if cache is None else cache / f"{name}-{seed}.npz"
        if path is not None and path.exists():
            with np.load(path) as stored:
                scan = dict(stored)
        else:
            scan = _sign_scan(seed, protocols[name])
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path, **scan)
        turned = -1 if seed // len(protocols) % 2 else 1
        # The fluid of the eyes counts as brain in the simulator.
        brain = largest_piece(ndimage.binary_opening(scan["brain"], iterations=2))
        given = DetectorInput(
            magnitude=scan["mag"].astype(np.float32),
            affine=scan["affine"],
            brain_mask=brain,
            sequence="T2starw",
            field_strength=float(scan["field"]),
            echo_times=(float(scan["te"]),),
            phases=(turned * scan["phase"].astype(np.float32),),
        )
        maps = phase_maps(given)
        assert maps is not None
        true = int(scan["sign"]) * turned
        rows[name].append(maps.sign.confidence * true)
        print(
            f"{name} {seed}: {maps.sign.confidence * true:.1f} "
            f"(veins {maps.sign.veins * true:.1f}, base {maps.sign.base * true:.1f})",
            flush=True,
        )
    rows["all"] = [value for values in list(rows.values()) for value in values]
    print("| protocol | people | right | unknown | wrong | confidence: median | least |")
    for name, values in rows.items():
        found = np.array(values)
        print(
            f"| {name} | {len(found)} | {(found >= 3).sum()} | {(np.abs(found) < 3).sum()} | "
            f"{(found <= -3).sum()} | {np.median(found):.1f} | {found.min():.1f} |"
        )


def _cost_of_one(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    """Time and memory of the maps of one scan whose brain is an ellipsoid of 1.4 l."""
    from cmbprep.detectors import DetectorInput
    from cmbprep.detectors.susceptibility import phase_maps

    rng = np.random.default_rng(0)
    axes = [
        ((np.arange(n) - n / 2) * s / half).astype(np.float32)
        for n, s, half in zip(shape, spacing, (68.0, 83.0, 60.0), strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    brain = x**2 + y**2 + z**2 < 1
    angle = 9 * x + 6 * y * y - 7 * z * y + 0.1 * rng.standard_normal(shape, dtype=np.float32)
    magnitude = 1 + 0.05 * rng.standard_normal(shape, dtype=np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = time.perf_counter(), time.process_time()
    phase_maps(
        DetectorInput(
            magnitude=magnitude,
            affine=np.diag([*spacing, 1.0]),
            brain_mask=brain,
            sequence="T2starw",
            field_strength=3.0,
            echo_times=(0.02,),
            phases=(angle,),
        )
    )
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = "x".join(map(str, shape))
    print(
        f"{size}: {seconds:.1f} s, processor {busy:.1f} s, "
        f"peak {peak / 1e6:.2f} GB ({before / 1e6:.2f} GB before)"
    )


if __name__ == "__main__":
    sys.exit(main())
