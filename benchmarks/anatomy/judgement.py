"""Registrations of simulated people in every contrast: their errors, and their verdicts.

Every scan is registered without a T1w image. The result is then moved by known errors, as a
registration that went wrong would be, and judged again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from cases import REPORTED_SEEDS, TUNING_SEEDS, motion, probes
from numpy.typing import NDArray
from scans import CONTRASTS, LaidScan, laid_scan
from zones import compare

Row = dict[str, Any]
#: Degrees about each axis and mm along it.
ERRORS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "5 mm to the side": ((0, 0, 0), (5, 0, 0)),
    "5 mm up": ((0, 0, 0), (0, 0, 5)),
    "10 mm to the side": ((0, 0, 0), (10, 0, 0)),
    "10 mm forwards": ((0, 0, 0), (0, 10, 0)),
    "10 mm up": ((0, 0, 0), (0, 0, 10)),
    "12 degrees, nodding": ((12, 0, 0), (0, 0, 0)),
    "12 degrees, tilted": ((0, 12, 0), (0, 0, 0)),
    "12 degrees, turned": ((0, 0, 12), (0, 0, 0)),
}
#: The simulator makes larger brains than any person has: these are left out, ml.
LARGEST_ML = 2200.0
COLUMNS = (
    "contrast",
    "n",
    "median error, mm",
    "95 % within, mm",
    "zone",
    "region",
    "zone without boundary",
    "fits where it lies",
    "good: doubtful",
    "good: failed",
    "over 5 mm noticed",
    "over 8 mm noticed",
)
#: Median error in the brain up to which a registration is a good one, and from which it must be
#: noticed, mm.
GOOD_MM, BAD_MM = 5.0, 8.0


def judgement(arguments: argparse.Namespace) -> str:
    """Register, move, judge; give the table."""
    seeds = (TUNING_SEEDS if arguments.tuning else REPORTED_SEEDS)[: arguments.people]
    rows: list[Row] = []
    for seed in seeds[arguments.skip :]:
        for name in CONTRASTS:
            if arguments.only and arguments.only not in name:
                continue
            rows += _scan_rows(seed, name, arguments.cache)
            if rows:
                print(rows[-len(ERRORS) - 1], file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows), encoding="utf-8")
    return format_table(rows)


def _scan_rows(seed: int, name: str, cache: Path) -> list[Row]:
    from cmbprep.brain.bias import correct_bias
    from cmbprep.registration.evidence import BrainParts
    from cmbprep.registration.fit import SPACING, _coarse_head
    from cmbprep.registration.quality import FAINT_EVIDENCE, NO_EVIDENCE
    from cmbprep.registration.scan import register_scan
    from cmbprep.spatial.transforms import LinearMap, compose_on_grid, map_points
    from cmbprep.templates import load_template

    template = load_template()
    head, mask = nib.load(template.t1w), nib.load(template.brain_mask)
    scan = laid_scan(seed, name, cache)
    if scan.brain_ml > LARGEST_ML:
        print(f"{seed}: no person's brain measures {scan.brain_ml:.0f} ml", file=sys.stderr)
        return []
    image = correct_bias(scan.image).image
    start = time.perf_counter()
    placed = register_scan(image, None, head, mask)
    found = placed.direct
    assert found is not None
    seconds = time.perf_counter() - start
    seen = _in_view(scan)
    truth = scan.in_template[seen]
    laid = map_points(scan.points[seen], (found.to_template,))
    row: Row = {"person": seed, "contrast": name, "seconds": round(seconds, 1)}
    errors = np.linalg.norm(laid - truth, axis=1)
    rows = [
        {
            **row,
            "error": "none",
            "median": round(float(np.median(errors)), 2),
            "most": round(float(np.percentile(errors, 95)), 2),
            "agreeing": found.quality.agreeing,
            "verdict": found.quality.verdict,
            "why": "; ".join(found.quality.reasons),
            **_placed(scan, seed, placed),
        }
    ]
    reference = _coarse_head(head, mask, SPACING)
    parts, shown = BrainParts(reference), _coarse_head(image, None, SPACING)
    for title, (degrees, shift) in ERRORS.items():
        moved = LinearMap(motion(degrees, shift, reference.brain_centre))
        to_image = compose_on_grid((moved, found.to_image), parts.grid)
        evidence = parts.evidence(shown, to_image)
        off = map_points(laid, (moved.inverse(),)) - truth
        agreeing = None if evidence is None else evidence.agreeing
        level = 0.0 if agreeing is None else agreeing
        rows.append(
            {
                **row,
                "error": title,
                "median": round(float(np.median(np.linalg.norm(off, axis=1))), 2),
                "agreeing": agreeing,
                "verdict": "failed"
                if level < NO_EVIDENCE
                else "doubtful"
                if level < FAINT_EVIDENCE
                else "ok",
            }
        )
    return rows


def _in_view(scan: LaidScan) -> NDArray[np.bool_]:
    """Which points of the brain lie in the field of view."""
    voxels = nib.affines.apply_affine(np.linalg.inv(scan.image.affine), scan.points)
    inside = (voxels > -0.5) & (voxels < np.array(scan.image.shape) - 0.5)
    return np.asarray(inside.all(axis=1))


def _placed(scan: LaidScan, seed: int, placed: Any) -> Row:
    """How many probes there are, and how many come to the right zone and region.

    ``clear`` are those that are not flagged to lie near a border.
    """
    compared = list(compare(scan, probes(scan, seed), placed, placed.chain()))
    clear = [row for row in compared if not row["boundary"]]
    return {
        "probes": len(compared),
        **{key: sum(bool(row[key]) for row in compared) for key in ("zone", "region")},
        "clear": len(clear),
        "clear_zone": sum(bool(row["zone"]) for row in clear),
    }


def format_table(rows: list[Row]) -> str:
    """Return the Markdown table of all contrasts."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"| {' | '.join('---' for _ in COLUMNS)} |"]
    for name in [*dict.fromkeys(row["contrast"] for row in rows), None]:
        group = [row for row in rows if name in (None, row["contrast"])]
        own = [row for row in group if row["error"] == "none"]
        good = [row for row in own if row["median"] <= GOOD_MM]
        levels = [row["agreeing"] for row in good if row["agreeing"] is not None]
        lines.append(
            f"| {name or '**all**'} | {len(own)} | {np.median([r['median'] for r in own]):.1f} | "
            f"{np.median([r['most'] for r in own]):.1f} | "
            f"{_part(own, 'zone')} | {_part(own, 'region')} | "
            f"{_part(own, 'clear_zone', 'clear')} | "
            f"{min(levels, default=0):.2f} to {max(levels, default=0):.2f} | "
            + " | ".join(
                f"{sum(row['verdict'] == verdict for row in good)} of {len(good)}"
                for verdict in ("doubtful", "failed")
            )
            + " | "
            + " | ".join(_noticed(group, bound) for bound in (GOOD_MM, BAD_MM))
            + " |"
        )
    people = len({row["person"] for row in rows})
    return "\n".join(lines) + f"\n\n{people} simulated people.\n"


def _part(rows: list[Row], key: str, of: str = "probes") -> str:
    return f"{sum(row[key] for row in rows) / max(sum(row[of] for row in rows), 1):.3f}"


def _noticed(rows: list[Row], bound: float) -> str:
    off = [row for row in rows if row["median"] > bound]
    return f"{sum(row['verdict'] != 'ok' for row in off)} of {len(off)}"
