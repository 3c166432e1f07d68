"""Outcomes as they would be if each lesion of the detector were real with its probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cmbprep.group.models.detection import Redraw
from cmbprep.group.rows import Row
from cmbprep.group.tables import columns_of_lesions, scan_table

if TYPE_CHECKING:
    import pandas as pd


def is_drawn(outcome: str) -> bool:
    """Return whether an outcome is computed from the lesions of one scan, so that it is drawn."""
    return outcome in columns_of_lesions()


def is_of_detector(column: str) -> bool:
    """Return whether a column has the detector's own numbers, where readers have read too."""
    return "_automatic_" in column


def make_redraw(
    table: pd.DataFrame, rows: Mapping[str, Row], outcomes: Sequence[str]
) -> Redraw | None:
    """Return a function that draws the outcomes of automatic results.

    Each lesion that the detector lists is kept with its probability, independently of the others,
    and the counts, patterns and classes are made again from what is left. Results of readers stay
    as they are, but for the detector's own numbers beside them (``n_automatic_…``).

    Parameters
    ----------
    table
        One row per participant.
    rows
        Participant, with ``sub-`` -> the scan that the participant's row is about.
    outcomes
        Columns to draw. Those that are not computed from the lesions of one scan, such as new
        microbleeds or a covariate, stay as they are.

    Returns
    -------
    callable or None
        None where no lesion is in doubt, or no outcome is computed from lesions.
    """
    own = [name for name in outcomes if name in table.columns and is_drawn(name)]
    doubted = {person: row for person, row in rows.items() if _is_in_doubt(row, own)}
    if not doubted:
        return None
    index = dict(zip(table["participant_id"], table.index, strict=True))

    def redraw(random: np.random.Generator) -> pd.DataFrame:
        drawn = table.assign(**{name: table[name].astype(object) for name in own})
        made = scan_table([_redrawn(row, random) for row in doubted.values()]).values
        for (person, row), values in zip(doubted.items(), made, strict=True):
            for name in own:
                place = index[person]
                # A count that is not known, as of a zone outside the scan, stays so.
                if _is_of_detector(row, name) and _is_known(table.at[place, name]):
                    drawn.at[place, name] = values[name]
        return drawn.assign(**{name: drawn[name].infer_objects() for name in own})

    return redraw


def _is_of_detector(row: Row, column: str) -> bool:
    """Return whether a column of a scan is made of the detector's lesions."""
    return row.scan is not None and (not row.scan.reviewed or is_of_detector(column))


def _is_in_doubt(row: Row, outcomes: Sequence[str]) -> bool:
    if row.scan is None or row.tally is None:
        return False
    lesions = row.scan.automatic_lesions
    return any(_is_of_detector(row, name) for name in outcomes) and any(
        lesion.probability is not None and lesion.probability < 1.0 for lesion in lesions
    )


def _redrawn(row: Row, random: np.random.Generator) -> Row:
    """Return a scan with those of the detector's lesions that are real in one draw."""
    assert row.scan is not None
    kept = tuple(
        lesion
        for lesion in row.scan.automatic_lesions
        if lesion.probability is None or random.random() < lesion.probability
    )
    return replace(row, scan=replace(row.scan, lesions=kept, reading=None))


def _is_known(value: object) -> bool:
    return value is not None and value == value  # not a number is unequal to itself
