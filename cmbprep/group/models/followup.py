"""Warnings on models of a follow-up: what changed between the visits, and time that is left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmbprep.files.tsv import listing
from cmbprep.group.models.design import Design
from cmbprep.group.models.formula import COUNTS, ModelRequest, shown_expression

if TYPE_CHECKING:
    import pandas as pd

#: Years from the baseline to the last visit.
TIME = "follow_up_years"
PROTOCOL_CHANGED = "follow_up_protocol_changed"
SETTINGS_CHANGED = "follow_up_settings_changed"
LIMITS = "follow_up_limits"
#: How often each limit is named, in a warning.
MAX_LIMITS = 3

_COUNTED = re.compile(
    r"n_(?P<fate>new|gone|persistent|not_assessable)_(definite|any)"
    r"(_(lobar|deep|infratentorial|zone_unknown))?"
)
_OTHER = re.compile(r"new_(definite|any)_per_year|(aria_h|rdes291)_new_(definite|any)")


def is_followup(column: str) -> bool:
    """Return whether a column of the table of participants compares two visits."""
    return bool(_COUNTED.fullmatch(column) or _OTHER.fullmatch(column))


def warn_of_followup(table: pd.DataFrame, design: Design, request: ModelRequest) -> Iterator[str]:
    """Yield what makes an outcome that compares two visits uncertain.

    Parameters
    ----------
    table
        The table of participants. Columns on the follow-up that it lacks give no warning.
    design, request
        The model; nothing is said of one whose outcome is of a single visit.
    """
    outcome = request.outcome.column
    if not is_followup(outcome):
        return
    rows = table[table["participant_id"].isin(set(design.people))]
    yield from _warn_of_changes(rows, request)
    match = _COUNTED.fullmatch(outcome)
    if match is None or match["fate"] in ("new", "gone"):
        yield from _warn_of_time(rows, design, request)


def _warn_of_changes(rows: pd.DataFrame, request: ModelRequest) -> Iterator[str]:
    """Yield in how many participants protocol or settings changed between the visits."""
    changes = (
        (PROTOCOL_CHANGED, "the protocol", "a scan can show microbleeds that the other cannot"),
        (
            SETTINGS_CHANGED,
            "reader, detector, threshold or version",
            "counts that were made differently differ without any new microbleed",
        ),
    )
    told = [False] * len(rows)
    for column, what, why in changes:
        if column not in rows:
            continue
        changed = rows[column].map(lambda value: str(value).lower() == "true").to_numpy(bool)
        told = changed | told
        number = int(changed.sum())
        if not number or column in request.columns:
            continue
        start = (
            f"in {number} of {len(rows)} participants {what} changed between the visits"
            f"{_commonest(rows[changed])}: {why}"
        )
        if number == len(rows):
            yield f"{start}; no model can tell these from new or gone microbleeds"
        else:
            yield (
                f"{start}; leave these participants out, fit them apart with --strata {column}, or "
                f"add the term {column}"
            )
    if LIMITS in rows:
        other = rows[~(told | rows[LIMITS].isna().to_numpy(bool))]
        if len(other):
            yield (
                f"the follow-up of {len(other)} of {len(rows)} participants has limits"
                f"{_commonest(other)}; the column {LIMITS} names them"
            )


def _commonest(rows: pd.DataFrame) -> str:
    """Return the commonest limits of some participants with their numbers, in brackets."""
    if LIMITS not in rows:
        return ""
    found = Counter(part for text in rows[LIMITS].dropna() for part in str(text).split("; "))
    most = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    named = listing((f"{text}: {number}" for text, number in most), MAX_LIMITS)
    return f" ({named})" if most else ""


def _warn_of_time(rows: pd.DataFrame, design: Design, request: ModelRequest) -> Iterator[str]:
    """Yield where the time between the visits is not in the model as it should be."""
    if TIME not in rows or request.outcome.column.endswith("_per_year"):
        return
    counted = design.kind in COUNTS
    own = [text for text in request.offsets if re.search(rf"\b{TIME}\b", text)]
    if own and counted and not any("log" in text for text in own):
        yield (
            f"the offset {listing(map(shown_expression, own))} is not a logarithm; write "
            f"offset(log({TIME})), so that counts grow in proportion to the time"
        )
    if own or (not counted and TIME in request.columns):
        return
    known = rows[TIME].dropna()
    if not len(known):
        yield (
            "the time between the visits is not known of any participant, so that new microbleeds "
            "of long and short follow-ups are compared as if they were alike"
        )
        return
    low, high = f"{known.min():.3g}", f"{known.max():.3g}"
    span = f"{low} years" if low == high else f"{low} to {high} years"
    if counted:
        yield (
            f"the follow-up took {span}, and the model has no offset of it; add "
            f"+ offset(log({TIME})) to the terms, so that the ratios are of rates per year"
        )
    elif low != high:
        yield (
            f"the follow-up took {span}, and the time is not in the model; add the term log({TIME})"
        )
