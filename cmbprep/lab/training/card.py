"""The card of a model: its numbers, and what a reader must know about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cmbprep.detectors.scan_warnings import known_range
from cmbprep.detectors.views import COLUMNS
from cmbprep.lab.shared import read_data
from cmbprep.lab.training.calibration import CLASSICAL_SHARE, Tuning
from cmbprep.lab.training.generation import data_seeds
from cmbprep.lab.training.mining import FitOptions
from cmbprep.lab.training.samples import BLEED, CALCIFICATION, Labels


def read_summaries(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Read what was written beside samples."""
    return [json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in paths]


def card(
    tuning: Tuning,
    samples: Labels,
    summaries: list[dict[str, Any]],
    backgrounds: Mapping[str, str],
    options: FitOptions,
    classical_sha256: str,
) -> dict[str, Any]:
    """Make the card.

    Parameters
    ----------
    tuning
        Calibration and operating points.
    samples, summaries
        That the network was fitted to, and what is known of their scans.
    backgrounds
        Label of each real background -> where it comes from, and its licence.
    options
        Of the fit.
    classical_sha256
        Of the file of the classical model that it was calibrated with.
    """
    spacing = np.array([summary["spacing"] for summary in summaries])
    blooms = [
        1000 * max(summary["echo_times"]) * summary["field_strength"]
        for summary in summaries
        if summary["echo_times"] and summary["field_strength"]
    ]
    content: dict[str, Any] = read_data("cmbprep.lab.training", "cards.json")["learned"]
    content["data"] |= {
        "scans": len(summaries),
        "bleeds_candidates": int((samples.target == BLEED).sum()),
        "calcification_candidates": int((samples.target == CALCIFICATION).sum()),
        "other_candidates": int((samples.target == 0).sum()),
        "real_backgrounds": dict(backgrounds),
        "seeds": {**data_seeds(), "fit": options.seed},
    }
    content["fit"] |= {
        "networks": options.members,
        "epochs": options.epochs,
        "whole_epochs": options.whole,
        "part_of_nothing": {"whole_epochs": options.easy, "others": options.surprising},
        "bfloat16": options.short,
    }
    return content | {
        "classical": {"share": CLASSICAL_SHARE, "sha256": classical_sha256},
        "known": {
            "spacing_mm": [round(float(spacing.min()), 2), round(float(spacing.max()), 2)],
            "bloom_tesla_ms": [round(min(blooms), 0), round(max(blooms), 0)],
            **known_range([one["character"] for one in summaries if "character" in one]),
        },
        "tuning": tuning.summary,
        "calibration": tuning.lines,
        "prevalence": asdict(tuning.prevalence) if tuning.prevalence else None,
        "operating_points": tuning.points,
        "columns": list(COLUMNS),
    }
