"""Fits the model of the classical detector, which is also the first look of the learned one.

It learns from the same samples as the network, from their features alone, and is calibrated
on the same people that were left out (:mod:`cmbprep.lab.training.calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.detectors.classical import fit_additive_model
from cmbprep.detectors.features import FEATURES
from cmbprep.lab.shared import read_data
from cmbprep.lab.training.calibration import NATURAL_BLEEDS, tune
from cmbprep.lab.training.generation import data_seeds
from cmbprep.lab.training.samples import BLEED, Labels

#: Penalty of the fit.
RIDGE = 3.0


def fit_first_look(
    samples: Labels, tuning: Labels, scans: int, missed: int, subjects: Sequence[str]
) -> dict[str, Any]:
    """Fit, calibrate, and give the content of the model's file.

    Parameters
    ----------
    samples, tuning
        To fit to, and to calibrate on.
    scans, missed
        Of the tuning samples: how many scans, and visible bleeds without a candidate.
    subjects
        Of the real backgrounds among the samples.
    """
    target = (samples.target == BLEED).astype(float)
    table = samples.table[:, : len(FEATURES)].astype(float)
    model = fit_additive_model(table, target, _weights(samples), FEATURES, ridge=RIDGE)
    odds = model.log_odds(tuning.table[:, : len(FEATURES)].astype(float))
    # As if it were a network that has no opinion on calcium.
    logits = np.column_stack([np.zeros(len(odds)), odds, np.full(len(odds), -50.0)])
    found = tune(logits, tuning, scans, missed, adaptive=False)
    line = found.lines["microbleed"]
    model = replace(
        model,
        weights=model.weights * line["slope"],
        intercept=model.intercept * line["slope"] + line["offset"],
    )
    content: dict[str, Any] = read_data("cmbprep.lab.training", "cards.json")["classical"]
    content["data"] |= {
        "candidates": len(samples),
        "bleeds_candidates": int(target.sum()),
        "real_backgrounds": list(subjects),
        "seeds": data_seeds(),
    }
    content["probability"] = content["probability"].format(bleeds=NATURAL_BLEEDS)
    return content | {
        "tuning": found.summary,
        "operating_points": found.points,
        "model": model.to_json(),
    }


def _weights(samples: Labels) -> NDArray[np.float64]:
    """Weight of each candidate: the bleeds of a scan together count as many as people have."""
    weight = np.ones(len(samples))
    for scan in np.unique(samples.scan):
        own = (samples.scan == scan) & (samples.target == BLEED)
        if own.any():
            weight[own] = NATURAL_BLEEDS / own.sum()
    return weight
