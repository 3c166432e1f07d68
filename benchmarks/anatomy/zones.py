"""Zones, regions and sides of probes in simulated people, against the simulator's own."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
from cases import (
    REPORTED_SEEDS,
    TUNING_SEEDS,
    TruePerson,
    probes,
    simulated_person,
)

Row = dict[str, Any]

#: Where 957 rated bleeds of five cohorts lay (see docs/simulator.md), by zone.
SHARES = {"lobar": 0.745, "deep": 0.133, "infratentorial": 0.122}
ROUTES = ("t1w", "template")


def zones(arguments: argparse.Namespace) -> str:
    """Measure agreement; give the table."""
    seeds = (TUNING_SEEDS if arguments.tuning else REPORTED_SEEDS)[
        arguments.skip : arguments.people
    ]
    rows: list[Row] = []
    for seed in seeds:
        person = simulated_person(seed, arguments.cache)
        rows += _person_rows(person)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows), encoding="utf-8")
    return format_table(rows, len(seeds))


def _person_rows(person: TruePerson) -> Iterator[Row]:
    from cmbprep.brain.bias import correct_bias
    from cmbprep.brain.refine import refine_brain_mask
    from cmbprep.registration.scan import AnatomicalImage, register_head, register_scan
    from cmbprep.spatial.transforms import map_points
    from cmbprep.templates import load_template

    template = load_template()
    reference, mask = nib.load(template.t1w), nib.load(template.brain_mask)
    start = time.perf_counter()
    t1w = correct_bias(person.t1w).image
    found = register_head(t1w, reference, mask, same_contrast=True)
    anatomy = AnatomicalImage(
        image=t1w,
        brain_mask=refine_brain_mask(t1w, found.brain_prior),
        verdict=found.quality.verdict,
    )
    seconds = time.perf_counter() - start
    error = _errors(map_points(person.t1w_points, (found.to_template,)), person.t1w_in_template)
    print(f"{person.seed} T1w {_numbers(error)} {seconds:.0f} s {found.quality}", file=sys.stderr)
    for name, scan in person.scans.items():
        corrected = correct_bias(scan.image).image
        for given in (anatomy, None):
            start = time.perf_counter()
            placed = register_scan(corrected, given, reference, mask)
            seconds = time.perf_counter() - start
            chain = placed.chain(found.to_template)
            error = (
                _errors(map_points(scan.points, chain), scan.in_template)
                if chain
                else np.array([np.inf])
            )
            case = f"{name}, {'with' if given else 'without'} T1w"
            print(
                f"{person.seed} {case}: {placed.route} {_numbers(error)} {seconds:.0f} s "
                f"{placed.quality}",
                file=sys.stderr,
                flush=True,
            )
            common = {
                "person": person.seed,
                "case": case,
                "route": placed.route,
                "verdict": placed.quality.verdict,
                "median_mm": float(np.median(error)),
                "p95_mm": float(np.percentile(error, 95)),
                "seconds": seconds,
            }
            for kind, labels in (("probe", probes(scan, person.seed)), ("bleed", scan.bleeds)):
                for row in compare(scan, labels, placed, chain):
                    yield {**common, "kind": kind, **row}


def _errors(found: Any, truth: Any) -> Any:
    return np.linalg.norm(found - truth, axis=1)


def _numbers(error: Any) -> str:
    return f"median {np.median(error):.2f} p95 {np.percentile(error, 95):.2f} mm"


def compare(scan: Any, labels: Any, placed: Any, chain: Any) -> Iterator[Row]:
    """Compare each label's place with its true one."""
    from cmbprep.spatial.grids import Grid
    from cmbprep.spatial.propagate import carry_atlas
    from cmbprep.templates import load_template
    from cmbprep.zones.assign import assign_zones
    from cmbprep.zones.schemes import MARS

    affine = scan.image.affine
    grid = Grid(labels.shape, affine)
    truth = assign_zones(labels, affine, scan.zones, MARS)
    if chain:
        path = load_template().atlas("mars")
        assert path is not None
        atlas = carry_atlas(nib.load(path), np.asarray(placed.brain_mask.dataobj) > 0, grid, chain)
    else:
        atlas = np.zeros(labels.shape, np.uint8)
    found = assign_zones(labels, affine, atlas, MARS, tolerance_mm=placed.tolerance_mm)
    for true, one in zip(truth, found, strict=True):
        if true.zone is None:
            continue
        yield {
            "true_zone": true.zone,
            "zone": one.zone == true.zone,
            "given": one.zone is not None,
            "region": one.region == true.region,
            "side": None
            if true.hemisphere == "midline" or one.hemisphere in (None, "midline")
            else one.hemisphere == true.hemisphere,
            "distance": one.boundary_distance_mm,
            "boundary": one.boundary,
        }


def format_table(rows: list[Row], people: int) -> str:
    """Return the Markdown table of all cases."""
    lines = [
        "| case | error, mm: median, 95 % | zone | zone, weighted | region | side | boundary | "  # noqa: ISC004
        "zone without boundary | bleeds: zone |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in sorted({row["case"] for row in rows}):
        group = [row for row in rows if row["case"] == case]
        probe = [row for row in group if row["kind"] == "probe"]
        bleed = [row for row in group if row["kind"] == "bleed"]
        people_ = {row["person"]: row for row in group}.values()
        sides = [row for row in probe if row["side"] is not None]
        clear = [row for row in probe if not row["boundary"]]
        flagged = 1 - len(clear) / len(probe)
        lines.append(
            f"| {case} | {np.mean([p['median_mm'] for p in people_]):.2f}, "
            f"{np.mean([p['p95_mm'] for p in people_]):.2f} | {share(probe, 'zone')} | "
            f"{_weighted(probe):.3f} | {share(probe, 'region')} | {share(sides, 'side')} | "
            f"{flagged:.2f} | {share(clear, 'zone')} | {share(bleed, 'zone')} |"
        )
    return "\n".join(lines) + f"\n\n{people} simulated people.\n"


def share(rows: list[Row], key: str) -> str:
    """Return a share with its 95 % interval (bootstrap over people, 2000 draws)."""
    if not rows:
        return "n/a"
    people = sorted({row["person"] for row in rows})
    hits = np.array([sum(bool(r[key]) for r in rows if r["person"] == p) for p in people])
    totals = np.array([sum(r["person"] == p for r in rows) for p in people])
    mean = hits.sum() / totals.sum()
    if len(people) < 3:
        return f"{mean:.3f}"
    draws = np.random.default_rng(0).integers(len(people), size=(2000, len(people)))
    values = hits[draws].sum(axis=1) / totals[draws].sum(axis=1)
    low, high = np.percentile(values, (2.5, 97.5))
    return f"{mean:.3f} ({low:.3f}-{high:.3f})"


def _weighted(rows: list[Row]) -> float:
    """Agreement where zones weigh as they do among rated bleeds."""
    return sum(
        weight * float(np.mean([r["zone"] for r in rows if r["true_zone"] == zone]))
        for zone, weight in SHARES.items()
    )
