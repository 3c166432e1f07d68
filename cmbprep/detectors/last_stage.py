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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

__all__ = ["KIND", "LastStage", "SiteModel", "read_site_model"]

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
        """Give what is written to the file."""
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
