"""Registrations of simulated people in every contrast: their errors, and their verdicts.

Every scan is registered without and with a T1w image. The results are then moved by known errors,
as registrations that went wrong would be, and judged again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from cases import REPORTED_SEEDS, TUNING_SEEDS, motion, probes
from numpy.typing import NDArray
from scans import CONTRASTS, LaidScan, LaidT1w, laid_scan, laid_t1w
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
WAYS = {"template": "Without a T1w image:", "t1w": "With a T1w image:"}
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
    """Register, move, judge; give the tables."""
    seeds = TUNING_SEEDS if arguments.tuning else REPORTED_SEEDS
    path: Path | None = arguments.json
    rows: list[Row] = []
    for given in [*([path] if path and path.exists() else []), *arguments.also]:
        rows += json.loads(given.read_text(encoding="utf-8"))
    done = {(row["person"], row["contrast"], row["way"]) for row in rows}
    for seed in seeds[arguments.skip : arguments.people]:
        for name in contrasts_of(seed - seeds[0], arguments.contrasts):
            ways = [way for way in WAYS if (seed, name, way) not in done]
            if not ways or (arguments.only and arguments.only not in name):
                continue
            found = _scan_rows(seed, name, arguments.cache, ways)
            rows += found
            for row in found:
                if row["error"] == "none":
                    print(row, file=sys.stderr, flush=True)
            if path:
                path.write_text(json.dumps(rows), encoding="utf-8")
    return "\n".join(
        f"{title}\n\n{format_table([row for row in rows if row['way'] == way])}"
        for way, title in WAYS.items()
    )


def contrasts_of(person: int, count: int | None) -> list[str]:
    """Choose the contrasts in which a person is scanned: all, or some of them in turn."""
    names = list(CONTRASTS)
    if count is None:
        return names
    return [names[(person + 4 * turn) % len(names)] for turn in range(count)]


def _scan_rows(seed: int, name: str, cache: Path, ways: Sequence[str]) -> list[Row]:
    from cmbprep.brain.bias import correct_bias
    from cmbprep.registration.scan import register_scan
    from cmbprep.templates import load_template

    template = load_template()
    head, mask = nib.load(template.t1w), nib.load(template.brain_mask)
    scan = laid_scan(seed, name, cache)
    if scan.brain_ml > LARGEST_ML:
        print(f"{seed}: no person's brain measures {scan.brain_ml:.0f} ml", file=sys.stderr)
        return []
    image = correct_bias(scan.image).image
    common: Row = {"person": seed, "contrast": name}
    rows: list[Row] = []
    if "template" in ways:
        placed = register_scan(image, None, head, mask)
        assert placed.direct is not None
        row = {**common, "way": "template"}
        rows += _judged(scan, seed, placed, placed.direct.to_template, row)
        rows += _moved_from_template(scan, image, placed.direct, (head, mask), row)
    if "t1w" in ways:
        anatomy, to_template = _anatomy(laid_t1w(seed, name, cache), head, mask)
        placed = register_scan(image, anatomy, head, mask)
        row = {**common, "way": "t1w"}
        rows += _judged(scan, seed, placed, to_template, row)
        rows += _moved_from_t1w(scan, image, anatomy, placed, to_template, row)
    return rows


def _anatomy(t1w: LaidT1w, head: Any, mask: Any) -> tuple[Any, Any]:
    from cmbprep.brain.bias import correct_bias
    from cmbprep.brain.refine import refine_brain_mask
    from cmbprep.registration.scan import AnatomicalImage, register_head

    image = correct_bias(t1w.image).image
    found = register_head(image, head, mask, same_contrast=True)
    brain = refine_brain_mask(image, found.brain_prior)
    verdict = found.quality.verdict
    return AnatomicalImage(image=image, brain_mask=brain, verdict=verdict), found.to_template


def _judged(scan: LaidScan, seed: int, placed: Any, to_template: Any, row: Row) -> list[Row]:
    """Tell the errors of a registration, and its verdict."""
    from cmbprep.spatial.transforms import map_points

    chain = placed.chain(to_template)
    seen = _in_view(scan)
    median, most = float("inf"), float("inf")
    if chain:
        off = map_points(scan.points[seen], chain) - scan.in_template[seen]
        errors = np.linalg.norm(off, axis=1)
        median, most = (float(np.percentile(errors, part)) for part in (50, 95))
    return [
        {
            **row,
            "error": "none",
            "route": placed.route,
            "median": round(median, 2),
            "most": round(most, 2),
            "agreeing": placed.quality.agreeing,
            "verdict": placed.quality.verdict,
            "why": "; ".join(placed.quality.reasons),
            **_placed(scan, seed, placed, chain),
        }
    ]


def _moved_from_template(
    scan: LaidScan, image: Any, found: Any, template: tuple[Any, Any], row: Row
) -> list[Row]:
    """Move a registration to the template, and judge it by the parts of the brain alone."""
    from cmbprep.registration.evidence import BrainParts
    from cmbprep.registration.fit import SPACING, _coarse_head
    from cmbprep.registration.quality import FAINT_EVIDENCE, NO_EVIDENCE
    from cmbprep.spatial.transforms import LinearMap, compose_on_grid, map_points

    reference, shown = _coarse_head(*template, SPACING), _coarse_head(image, None, SPACING)
    parts = BrainParts(reference)
    seen = _in_view(scan)
    laid, rows = map_points(scan.points[seen], (found.to_template,)), []
    for title, (degrees, shift) in ERRORS.items():
        moved = LinearMap(motion(degrees, shift, reference.brain_centre))
        to_image = compose_on_grid((moved, found.to_image), parts.grid)
        off = map_points(laid, (moved.inverse(),)) - scan.in_template[seen]
        judged = _verdict(off, parts.evidence(shown, to_image), (NO_EVIDENCE, FAINT_EVIDENCE))
        rows.append({**row, "error": title, **judged})
    return rows


def _moved_from_t1w(
    scan: LaidScan, image: Any, anatomy: Any, placed: Any, to_template: Any, row: Row
) -> list[Row]:
    """The same for a registration to the T1w image; it must have been used."""
    from cmbprep.registration.evidence import BrainParts
    from cmbprep.registration.fit import SPACING, _coarse_head
    from cmbprep.registration.quality import FAINT_EVIDENCE_RIGID, NO_EVIDENCE_RIGID
    from cmbprep.spatial.transforms import LinearMap, map_points

    if placed.route != "t1w":
        return []
    reference = _coarse_head(anatomy.image, anatomy.brain_mask, SPACING)
    parts, shown = BrainParts(reference), _coarse_head(image, None, SPACING)
    seen = _in_view(scan)
    to_reference, rows = placed.rigid.to_reference, []
    for title, (degrees, shift) in ERRORS.items():
        moved = LinearMap(motion(degrees, shift, reference.brain_centre))
        chain = (to_reference, moved.inverse(), to_template)
        to_image = LinearMap(to_reference.inverse().matrix @ moved.matrix)
        off = map_points(scan.points[seen], chain) - scan.in_template[seen]
        evidence = parts.evidence(shown, to_image)
        judged = _verdict(off, evidence, (NO_EVIDENCE_RIGID, FAINT_EVIDENCE_RIGID))
        rows.append({**row, "error": title, **judged})
    return rows


def _verdict(off: NDArray[np.float64], evidence: Any, bounds: tuple[float, float]) -> Row:
    """Judge a registration by the parts of the brain; ``off`` are its errors, mm, (n, 3)."""
    agreeing = None if evidence is None else evidence.agreeing
    level = agreeing or 0.0
    verdict = "failed" if level < bounds[0] else "doubtful" if level < bounds[1] else "ok"
    median = round(float(np.median(np.linalg.norm(off, axis=1))), 2)
    return {"median": median, "agreeing": agreeing, "verdict": verdict}


def _in_view(scan: LaidScan) -> NDArray[np.bool_]:
    """Which points of the brain lie in the field of view."""
    voxels = nib.affines.apply_affine(np.linalg.inv(scan.image.affine), scan.points)
    inside = (voxels > -0.5) & (voxels < np.array(scan.image.shape) - 0.5)
    return np.asarray(inside.all(axis=1))


def _placed(scan: LaidScan, seed: int, placed: Any, chain: Any) -> Row:
    """How many probes there are, and how many come to the right zone and region.

    ``clear`` are those that are not flagged to lie near a border.
    """
    compared = list(compare(scan, probes(scan, seed), placed, chain))
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
