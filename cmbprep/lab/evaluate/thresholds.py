"""Floors: what a figure must reach for the evaluation to count as passed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cmbprep.errors import UsageError
from cmbprep.lab.evaluate.evaluation import WHOLE, Evaluation
from cmbprep.lab.evaluate.metrics import FIGURES

_BY_NAME = {figure.name: figure for figure in FIGURES}


@dataclass(frozen=True)
class Floor:
    """A limit for one figure, of all scans or of one group of a split."""

    figure: str
    limit: float
    split: str = WHOLE
    group: str = WHOLE

    @property
    def name(self) -> str:
        """As a person writes it."""
        return self.figure if self.split == WHOLE else f"{self.figure}@{self.split}:{self.group}"


@dataclass(frozen=True)
class Outcome:
    """Whether a floor holds. ``sign`` is >= for figures of which more is better, else <=."""

    floor: Floor
    value: float | None
    sign: str
    holds: bool


def parse_floor(text: str) -> Floor:
    """Read ``FIGURE=VALUE`` or ``FIGURE@SPLIT:GROUP=VALUE``.

    Examples
    --------
    >>> parse_floor("sensitivity@zone:deep=0.8")
    Floor(figure='sensitivity', limit=0.8, split='zone', group='deep')

    Raises
    ------
    UsageError
        If it has another form, or there is no such figure, or neither more nor less of it
        is better.
    """
    # The last "=", for groups such as ">=10 mm" have their own.
    left, _, number = text.rpartition("=")
    name, at, where = left.partition("@")
    split, colon, group = where.partition(":")
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not name or not math.isfinite(limit) or (at and not (split and colon and group)):
        raise UsageError(
            f"the floor {text!r} is not FIGURE=VALUE or FIGURE@SPLIT:GROUP=VALUE",
            hint="write for instance f1=0.8 or sensitivity@zone:deep=0.8",
        )
    if name not in _BY_NAME or _BY_NAME[name].better == "neither":
        usable = ", ".join(figure.name for figure in FIGURES if figure.better != "neither")
        raise UsageError(f"no floor can be set for {name!r}", hint=f"choose one of {usable}")
    return Floor(name, limit, split, group) if at else Floor(name, limit)


def check_floors(evaluation: Evaluation, floors: list[Floor]) -> list[Outcome]:
    """Compare the figures, not their intervals, with the floors.

    Where less is better the value given is the largest allowed. A figure that is undefined
    does not hold.

    Raises
    ------
    UsageError
        If a floor names a split or group that is not there.
    """
    outcomes = []
    for floor in floors:
        row = evaluation.row(floor.figure, floor.split, floor.group)
        if row is None:
            there = sorted({f"{r.split}:{r.group}" for r in evaluation.rows if r.split != WHOLE})
            raise UsageError(
                f"there is no {floor.name}", hint=f"the groups are {', '.join(there) or 'none'}"
            )
        sign = ">=" if _BY_NAME[floor.figure].better == "higher" else "<="
        value = row.value
        if value is None:
            holds = False
        elif sign == ">=":
            holds = value >= floor.limit - 1e-12
        else:
            holds = value <= floor.limit + 1e-12
        outcomes.append(Outcome(floor, value, sign, holds))
    return outcomes
