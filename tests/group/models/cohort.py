"""Made-up tables of participants, with effects that are built in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

#: What is built into the counts, on the log scale.
EFFECTS = {"age": 0.04, "hypertension": 0.5, "C(site)[T.B]": 0.4, "C(site)[T.C]": -0.4}


def burden(count: float) -> str | None:
    """Return the class of the scale ``count`` as the group tables write it."""
    if np.isnan(count):
        return None
    return "0" if count < 1 else "1" if count < 2 else "2to4" if count < 5 else "5ormore"


def make_cohort(
    n: int = 90, *, seed: int = 1, alpha: float = 1.0, constant: float = 0.6, **columns: Any
) -> pd.DataFrame:
    """Make a table of three sites; ``columns`` are added or replaced."""
    random = np.random.default_rng(seed)
    site = np.resize(["A", "B", "C"], n)
    age = random.normal(72.0, 8.0, n)
    hypertension = (random.random(n) < 0.5).astype(float)
    mean = np.exp(
        constant
        + EFFECTS["age"] * (age - 72.0)
        + EFFECTS["hypertension"] * hypertension
        + EFFECTS["C(site)[T.B]"] * (site == "B")
        + EFFECTS["C(site)[T.C]"] * (site == "C")
    )
    count = random.poisson(mean * (random.gamma(1 / alpha, alpha, n) if alpha else 1.0))
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{number:03d}" for number in range(1, n + 1)],
            "status": "complete",
            "site": site,
            "age": age,
            "hypertension": hypertension,
            "source": "automatic",
            "MagneticFieldStrength": 3.0,
            "EchoTime": 0.02,
            "sequence": "GRE",
            "n_definite": count.astype(float),
            "pattern_definite": np.where(
                count == 0, "none", np.resize(["mixed", "strictly lobar", "undetermined"], n)
            ),
            "cerebellar_definite": np.where(random.random(n) < 0.4, "true", "false"),
        }
    )
    table["burden_count_definite"] = table["n_definite"].map(burden)
    return table.assign(**columns)
