"""Who counted the microbleeds of a model, and by which rule, in words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cmbprep.files.tsv import listing
from cmbprep.group.models.design import Design
from cmbprep.group.models.doubt import is_drawn, is_of_detector
from cmbprep.group.models.followup import is_followup
from cmbprep.group.models.formula import ModelRequest
from cmbprep.zones.burden import PATTERN_RULES

if TYPE_CHECKING:
    import pandas as pd


def describe_sources(table: pd.DataFrame, design: Design, request: ModelRequest) -> str:
    """Return sentences on who counted and on the rule of the pattern; empty without such columns.

    Parameters
    ----------
    table
        The table of participants.
    design, request
        The model; nothing is said where neither its outcome nor its terms are made of lesions.
    """
    used = (request.outcome.column, *request.columns)
    rows = table[table["participant_id"].isin(set(design.people))]
    sentences = [_counted(rows, used), _rule(rows, used)]
    return " ".join(sentence for sentence in sentences if sentence)


def _counted(rows: pd.DataFrame, used: tuple[str, ...]) -> str:
    counted = [name for name in used if is_drawn(name) or is_followup(name)]
    if not counted or "source" not in rows:
        return ""
    if all(map(is_of_detector, counted)):
        automatic, reviewed = rows, rows[:0]
    else:
        automatic = rows[rows["source"] == "automatic"]
        reviewed = rows[rows["source"] == "reviewed"]
    people = "by people, who have read the whole scan"
    start = "Microbleeds were counted"
    if any(map(is_followup, counted)):
        start = "At the baseline, microbleeds were counted"
    if not len(automatic) and not len(reviewed):
        return ""
    if not len(automatic):
        return f"{start} {people}."
    detector = f"automatically ({_detectors(automatic)})"
    if not len(reviewed):
        return f"{start} {detector}."
    n = len(reviewed), len(automatic)
    return f"{start} {people}, in {n[0]} participants, and {detector} in {n[1]}."


def _detectors(rows: pd.DataFrame) -> str:
    """Return the detectors of some participants with version and threshold."""
    columns = (
        ("detector", "detector {}"),
        ("detector_version", "version {}"),
        ("threshold", "threshold {}"),
    )
    found = Counter(
        ", ".join(
            text.format(_word(line[name]))
            for name, text in columns
            if name in rows and line[name] is not None and line[name] == line[name]
        )
        or "detector not known"
        for line in rows.to_dict("records")
    )
    if len(found) == 1:
        return next(iter(found))
    return listing((f"{text}: {number}" for text, number in sorted(found.items())), len(found))


def _rule(rows: pd.DataFrame, used: tuple[str, ...]) -> str:
    """Return by which rule patterns were made; empty where no column is a pattern."""
    pattern = any(name.startswith("pattern_") and is_drawn(name) for name in used)
    if not pattern or "pattern_rule" not in rows:
        return ""
    rules = sorted(set(rows["pattern_rule"].dropna()))
    named = (f"Patterns follow the rule {rule}: {_lower(PATTERN_RULES[rule])}" for rule in rules)
    return " ".join(named)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
