"""A small calibrated logistic model whose every term can be looked at.

Each feature is scaled, clipped and bent by hinges, so that its effect is piecewise linear;
the effects add up to the log-odds. The model is a JSON file of a few kilobytes that can be
read by eye, and needs numpy only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

__all__ = ["AdditiveModel", "fit_additive_model"]

# Where the piecewise linear effects may bend, in scaled units.
HINGES = (-1.0, 0.0, 1.0)
_CLIP = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class AdditiveModel:
    """Log-odds as a sum of piecewise linear effects.

    Parameters
    ----------
    features
        Names of the columns that it takes.
    centre, scale
        (k,) by which the columns are scaled.
    weights
        (k, 1 + number of hinges): slope and changes of slope of each effect.
    intercept
        Log-odds at the centre.
    """

    features: tuple[str, ...]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: float

    def __post_init__(self) -> None:
        k = len(self.features)
        if self.centre.shape != (k,) or self.scale.shape != (k,):
            raise ValueError("centre and scale need one value for each feature")
        if self.weights.shape != (k, 1 + len(HINGES)):
            raise ValueError(f"weights need {1 + len(HINGES)} columns and a row for each feature")
        if not (self.scale > 0).all():
            raise ValueError("scales must be positive")

    def log_odds(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of each row of an (n, k) table of features."""
        basis = _basis(table, self.centre, self.scale)
        return np.asarray(basis @ self.weights.ravel() + self.intercept)

    def probability(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of each row of an (n, k) table of features."""
        return np.asarray(special.expit(self.log_odds(table)))

    def to_json(self) -> dict[str, object]:
        """Plain values; six digits are enough for any probability that is shown."""
        return {
            "hinges": list(HINGES),
            "intercept": round(self.intercept, 6),
            "effects": {
                name: {
                    "centre": float(f"{c:.6g}"),
                    "scale": float(f"{s:.6g}"),
                    "weights": [float(f"{w:.6g}") for w in row],
                }
                for name, c, s, row in zip(
                    self.features, self.centre, self.scale, self.weights, strict=True
                )
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> AdditiveModel:
        """Read what :meth:`to_json` gave."""
        if tuple(values["hinges"]) != HINGES:  # type: ignore[arg-type]
            raise ValueError("the model was made with other hinges")
        effects = json.loads(json.dumps(values["effects"]))
        return cls(
            features=tuple(effects),
            centre=np.array([e["centre"] for e in effects.values()], float),
            scale=np.array([e["scale"] for e in effects.values()], float),
            weights=np.array([e["weights"] for e in effects.values()], float),
            intercept=float(values["intercept"]),  # type: ignore[arg-type]
        )


def _basis(
    table: NDArray[np.float64], centre: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n, k * (1 + hinges)) piecewise linear basis, feature by feature."""
    z = np.clip((np.asarray(table, float) - centre) / scale, -_CLIP, _CLIP)
    parts = [z, *(np.maximum(z - hinge, 0) for hinge in HINGES)]
    return np.stack(parts, axis=2).reshape(len(z), z.shape[1] * len(parts))


def fit_additive_model(
    table: NDArray[np.float64],
    target: NDArray[np.floating],
    weight: NDArray[np.floating],
    features: Sequence[str],
    *,
    ridge: float = 1.0,
) -> AdditiveModel:
    """Fit by penalised maximum likelihood.

    Parameters
    ----------
    table
        (n, k) features.
    target
        (n,) 0 or 1.
    weight
        (n,) weight of each row; they carry the prevalence that the probability refers to.
    features
        k names.
    ridge
        Weight of the squared coefficients against the log-likelihood.
    """
    table = np.asarray(table, float)
    middle = np.median(table, axis=0)
    spread = np.subtract(*np.percentile(table, [90, 10], axis=0)) / 2.56
    scale = np.where(spread > 1e-6, spread, 1.0)
    basis = _basis(table, middle, scale)
    target = np.asarray(target, float)

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = basis @ w[1:] + w[0]
        # log(1 + exp(odds)) - target * odds, without overflow
        value = weight @ (np.logaddexp(0, odds) - target * odds)
        error = weight * (special.expit(odds) - target)
        gradient = np.concatenate([[error.sum()], basis.T @ error + ridge * w[1:]])
        return float(value + 0.5 * ridge * w[1:] @ w[1:]), gradient

    start = np.zeros(1 + basis.shape[1])
    result = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 800})
    return AdditiveModel(
        features=tuple(features),
        centre=middle,
        scale=scale,
        weights=result.x[1:].reshape(len(features), -1),
        intercept=float(result.x[0]),
    )
