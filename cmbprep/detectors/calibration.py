"""The last stage of the learned detector: from the network's opinion to a probability.

The packaged stage is a straight line in log-odds (Platt 1999). A site's own stage
(``cmbprep-tools train --ratings``) also weighs what is measured of a candidate, so that it can
learn what this scanner's false positives look like. The network itself stays as it is.

References
----------
Platt J. Advances in Large Margin Classifiers. MIT Press 1999:61-74.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import spatial, special

from cmbprep.errors import UsageError

#: What the file of a site's model says it is.
KIND = "cmbprep last stage"
# A column counts at most as many standard deviations from its mean.
_MOST = 4.0


@dataclass(frozen=True)
class LastStage:
    """log-odds of a microbleed: ``offset + slope * odds + weights . scaled columns``.

    Attributes
    ----------
    slope, offset
        Of the network's log-odds.
    columns
        Names of the columns that have a weight; may be empty.
    centre, scale, weights
        One for each column; a column is scaled to ``(value - centre) / scale``, within 4.
    """

    slope: float
    offset: float
    columns: tuple[str, ...] = ()
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.columns, self.centre, self.scale, self.weights)}
        if len(lengths) != 1:
            raise ValueError("columns, centres, scales and weights do not belong together")
        numbers = [self.slope, self.offset, *self.centre, *self.scale, *self.weights]
        if not np.isfinite(numbers).all() or min(self.scale, default=1.0) <= 0:
            raise ValueError("the last stage holds values that cannot be used")

    def scaled(self, table: NDArray[np.floating], names: tuple[str, ...]) -> NDArray[np.float64]:
        """Columns (n, len(columns)) of a table with the given names, scaled."""
        index = [names.index(name) for name in self.columns]
        values = np.asarray(table, float)[:, index]
        return np.clip((values - np.array(self.centre)) / np.array(self.scale), -_MOST, _MOST)

    def log_odds(
        self, odds: NDArray[np.floating], table: NDArray[np.floating], names: tuple[str, ...]
    ) -> NDArray[np.float64]:
        """Log-odds (n,) of candidates.

        Parameters
        ----------
        odds
            (n,) log-odds before it.
        table, names
            (n, len(names)) description of the candidates.
        """
        found = self.slope * np.asarray(odds, float) + self.offset
        if self.columns:
            found = found + self.scaled(table, names) @ np.array(self.weights)
        return np.asarray(found)


@dataclass(frozen=True)
class SiteModel:
    """A site's own last stage, and the network that it belongs to."""

    network_sha256: str
    stage: LastStage
    card: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return what is written to the file."""
        stage = asdict(self.stage)
        return {"kind": KIND, "network_sha256": self.network_sha256, **self.card, "stage": stage}


def read_site_model(path: Path) -> SiteModel:
    """Read the file that ``cmbprep-tools train --ratings`` has written.

    Raises
    ------
    UsageError
        If it is not there or is no such file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["kind"] != KIND:
            raise ValueError(f"its kind is {values['kind']!r}")
        stage = dict(values.pop("stage"))
        for name in ("columns", "centre", "scale", "weights"):
            stage[name] = tuple(stage[name])
        kept = {k: v for k, v in values.items() if k not in ("kind", "network_sha256")}
        return SiteModel(str(values["network_sha256"]), LastStage(**stage), kept)
    except OSError as error:
        raise UsageError(
            f"the model {path.name} cannot be read: {error.strerror}",
            hint="give --detector the file that cmbprep-tools train --ratings has written",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path.name} is not a model that cmbprep-tools train --ratings has written: {error}",
            hint="give --detector such a file, the name of a detector, or a network (.onnx)",
        ) from error


# --- How many microbleeds a scan holds changes what each candidate most likely is ----------------
#
# Most people have none or a few microbleeds; some have dozens, and in them a doubtful spot most
# likely is one more. A detector that is calibrated for the average person is too sure of itself
# in the former and not sure enough in the latter. So the expected number is estimated from the
# scan itself, as priors of classes are estimated from unlabelled data (Saerens 2002), pulled
# towards the average person.
#
# References
# ----------
# Saerens M, Latinne P, Decaestecker C. Neural Comput 2002;14:21-41.


#: Candidates nearer to each other than this are one thing, mm.
NEAR_MM = 4.0
_ROUNDS = 200


@dataclass(frozen=True)
class Prevalence:
    """Number of microbleeds that a scan is expected to hold.

    Attributes
    ----------
    expected
        Of the average person: what log-odds without a shift refer to.
    strength
        How strongly a scan is pulled towards it: as if so many microbleeds, at the average
        rate, had been seen before.
    """

    expected: float
    strength: float

    def __post_init__(self) -> None:
        if not (self.expected > 0 and self.strength > 0):
            raise ValueError("the expected number and its strength must be positive")

    def shift(self, log_odds: NDArray[np.floating]) -> float:
        """What to add to the log-odds (n,) of a scan's candidates, one for each thing.

        It is the logarithm of the scan's rate over the average one. The rate is the mean of a
        gamma distribution around the average, given the number of microbleeds that the
        candidates are worth at this rate.
        """
        odds = np.asarray(log_odds, float)
        shift = 0.0
        for _ in range(_ROUNDS):
            worth = float(special.expit(odds + shift).sum())
            new = math.log((self.strength + worth) / (self.strength + self.expected))
            if abs(new - shift) < 1e-6:
                break
            shift = new
        # Rounding keeps noise of the last bits out of the tables.
        return round(shift, 4)


def one_a_place(
    points_mm: NDArray[np.floating], log_odds: NDArray[np.floating]
) -> NDArray[np.int_]:
    """Index of the most probable candidate of each group of near ones.

    Parameters
    ----------
    points_mm
        (n, 3) positions.
    log_odds
        (n,); equal ones are taken in the order given.
    """
    if not len(points_mm):
        return np.zeros(0, int)
    tree = spatial.cKDTree(points_mm)
    free = np.ones(len(points_mm), bool)
    kept = []
    for index in np.argsort(-np.asarray(log_odds), kind="stable"):
        if free[index]:
            kept.append(int(index))
            free[tree.query_ball_point(points_mm[index], NEAR_MM)] = False
    return np.array(sorted(kept))
