"""Coefficients without a finite estimate, because a group has no events, or only events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cmbprep.group.models.design import Design


def separated_columns(
    y: NDArray[np.float64], x: NDArray[np.float64], *, binary: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find coefficients that have no finite estimate.

    A direction exists along which the likelihood rises without end: it separates the persons with
    events from others without a single exception (Konis 2007; Correia, Guimarães and Zylkin 2019).
    The largest such direction is found by linear programming.

    Parameters
    ----------
    y : array of shape (n,)
        The outcome: 1 and 0, or counts.
    x : array of shape (n, p)
        The columns.
    binary
        Whether the outcome is yes or no: then a group with only events is separated too.

    Returns
    -------
    columns : array of shape (p,), bool
        The coefficients that are not finite.
    rows : array of shape (n,), bool
        The persons that such a direction explains perfectly; all others determine the finite
        coefficients.
    """
    from scipy.optimize import linprog

    scale = np.abs(x).max(axis=0)
    signed = x / np.where(scale > 0, scale, 1.0)
    if binary:
        signed = signed * np.where(y > 0, 1.0, -1.0)[:, None]
        equal, least = np.empty((0, x.shape[1])), signed
    else:
        equal, least = signed[y > 0], -signed[y == 0]
    found = linprog(
        -least.sum(axis=0),
        A_ub=-least,
        b_ub=np.zeros(len(least)),
        A_eq=equal if len(equal) else None,
        b_eq=np.zeros(len(equal)) if len(equal) else None,
        bounds=(-1.0, 1.0),
        method="highs",
    )
    none = np.zeros(x.shape[1], dtype=bool), np.zeros(len(y), dtype=bool)
    if found.status != 0 or -found.fun < 1e-7:
        return none
    direction = np.where(np.abs(found.x) > 1e-7, found.x, 0.0)
    return direction != 0.0, np.abs(signed @ direction) > 1e-7


def without_separation(design: Design) -> tuple[Design, tuple[str, ...]]:
    """Leave out the persons that a separating direction explains perfectly.

    What is left has the same likelihood as the whole in the limit, so the coefficients that have a
    finite estimate are those of the whole model. Among the persons who are left, the other columns
    depend on each other, and one is left out for each direction. Those that stay hold the space
    of the model: if nobody of the reference level has an event, the differences between the other
    levels are still estimated, only not from the reference. So they are no estimates of their own.

    Returns
    -------
    design
        What can be estimated; :attr:`.Design.separated` has the columns without an estimate.
    columns
        The columns without a finite estimate.
    """
    lost: tuple[str, ...] = ()
    for _ in range(design.x.shape[1] + 1):
        outcomes = [(design.y, True)] if design.kind == "logit" else [(design.y, False)]
        if design.kind == "hurdle":
            outcomes.append(((design.y > 0).astype(float), True))
        if design.kind == "ordinal":
            outcomes = []
        for y, binary in outcomes:
            columns, rows = separated_columns(y, design.x.to_numpy(float), binary=binary)
            if columns.any():
                names = tuple(design.x.columns)
                lost += tuple(name for name, found in zip(names, columns, strict=True) if found)
                design = design.take(~rows)
                lost += tuple(name for name in names if name not in design.x)
                break
        else:
            break
        if not len(design.y) or not design.x.shape[1]:
            break
    lost = tuple(dict.fromkeys(lost))
    return replace(design, separated=frozenset(lost)), lost
