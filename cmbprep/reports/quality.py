"""Figures of merit beside their usual range, and how far the counts of a scan can be trusted.

The ranges are declared in ``quality.json`` with their source: limits at which the program itself
flags a scan, or what was measured on this project's scans. A figure without a known range says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from cmbprep.outputs.settings import flatten
from cmbprep.outputs.stages import StageRecord
from cmbprep.reports.results import ScanResult
from cmbprep.reports.text import format_value, quality_title
from cmbprep.zones.tally import Tally

#: Level -> sign that stands before its words, so that no colour is needed to read it.
SIGNS = {"good": "✓", "check": "!", "bad": "✕", "unknown": "–"}
_ROUTES = {"t1w": "Through the T1w image", "template": "Straight to the template"}
_VERDICTS = {"ok": ("good", "sound"), "doubtful": ("check", "doubtful")}
#: Warnings of the stage of detection on single lesions; the others are on the scan.
_ON_LESION = re.compile(r"CMB-\d+")


@dataclass(frozen=True)
class Statement:
    """A figure or a statement with its verdict.

    Attributes
    ----------
    title
        What it is about.
    text
        Value or sentence.
    level
        One of :data:`SIGNS`.
    verdict
        The level in words.
    usual
        Usual range of a value, in words.
    """

    title: str
    text: str
    level: str
    verdict: str
    usual: str = ""

    @property
    def sign(self) -> str:
        """Sign of the level."""
        return SIGNS[self.level]


@cache
def load_ranges() -> dict[str, Any]:
    """Return the declaration of usual ranges and their sources."""
    text = resources.files("cmbprep.reports").joinpath("quality.json").read_text("utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def figures_of(record: StageRecord) -> list[Statement]:
    """Judge each figure of merit that a stage has recorded."""
    recorded = record.block.get("Quality")
    values = flatten(recorded) if isinstance(recorded, Mapping) else {}
    stage = record.files.stage
    return [_judge(stage, key, value) for key, value in values.items() if value is not None]


def _judge(stage: str, key: str, value: Any) -> Statement:
    ranges = load_ranges()["ranges"]
    entry = ranges.get(f"{stage}.{key}") or ranges.get(key) or {}
    title, text = quality_title(key), format_value(value)
    inside = _is_usual(value, entry)
    if inside is None:
        return Statement(title, text, "unknown", "no range", entry.get("none", "not known"))
    seen = f": {entry['low']:g} to {entry['high']:g}" if "one_sided" in entry else ""
    usual = f"{_words(entry)} ({entry['source']}{seen})"
    if inside:
        return Statement(title, text, "good", "usual", usual)
    return Statement(title, text, "check", f"unusual: look at {entry['look']}", usual)


def _is_usual(value: Any, entry: Mapping[str, Any]) -> bool | None:
    """Return whether a value lies in its range; None where no range is known."""
    if "texts" in entry:
        return value in entry["texts"]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not {"low", "high"} & set(entry):
        return None
    only = entry.get("one_sided")
    # Less noise or a smoother field than was measured is no fault.
    above = only == "high" or value >= entry.get("low", value)
    below = only == "low" or value <= entry.get("high", value)
    return bool(above and below)


def _words(entry: Mapping[str, Any]) -> str:
    if "texts" in entry:
        return " or ".join(entry["texts"])
    low, high = entry.get("low"), entry.get("high")
    only = entry.get("one_sided")
    if only is not None:
        return f"{low:g} or more" if only == "low" else f"{high:g} or less"
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"{low:g} or more" if high is None else f"{high:g} or less"


def trust(result: ScanResult, tally: Tally, source: str) -> tuple[Statement, ...]:
    """Return how far the counts of a scan can be trusted, in words.

    Parameters
    ----------
    result
        A scan with a result.
    tally
        Its counts.
    source
        Who found the lesions, from :func:`.source_sentence`.
    """
    read = result.reviewed
    return (
        Statement("Read", source, "good" if read else "check", "read" if read else "automatic"),
        _registration(result),
        _mask(result),
        _acquisition(result),
        _probabilities(result, tally),
    )


def merit(result: ScanResult, *keys: str) -> Any:
    """Return the first of these figures of merit that a stage has recorded."""
    merged: dict[str, Any] = {}
    for record in result.records:
        recorded = record.block.get("Quality")
        merged.update(flatten(recorded) if isinstance(recorded, Mapping) else {})
    return next((merged[key] for key in keys if merged.get(key) is not None), None)


def _registration(result: ScanResult) -> Statement:
    title, route = "Zones", merit(result, "zone_route", "route")
    verdict = merit(result, "zone_verdict", f"{route}_registration_verdict")
    if verdict is None:
        return Statement(title, "The registration was not judged", "unknown", "not known")
    if route == "none" or verdict == "failed":
        text = "The registration to the template failed: zones are not known"
        return Statement(title, text, "bad", "not to be used")
    level, word = _VERDICTS.get(str(verdict), ("unknown", str(verdict)))
    way = _ROUTES.get(str(route), f"Registration: {route}")
    return Statement(title, f"{way}; the registration is {word}", level, word)


def _mask(result: ScanResult) -> Statement:
    names = ("brain_mask_source", "brain_mask_sureness", "brain_mask_agreement")
    source, *values = [merit(result, name) for name in names]
    judged = [
        _judge("preproc", name, value)
        for name, value in zip(names, (source, *values), strict=True)
        if value is not None
    ]
    if source is None:
        return Statement("Brain mask", "Its quality was not recorded", "unknown", "not known")
    words = {"registration": "From the registration", "network": "From the network alone"}
    text = words.get(str(source), str(source).capitalize())
    if values[1] is not None:
        text += f"; two masks agree with a Dice of {values[1]:.2f}"
    doubtful = any(item.level == "check" for item in judged)
    return Statement("Brain mask", text, *(("check", "look at it") if doubtful else _SOUND))


_SOUND = ("good", "sound")


def _acquisition(result: ScanResult) -> Statement:
    warnings = [] if result.detection is None else result.detection.block.get("Warnings", ())
    outside = sum(_ON_LESION.match(str(text)) is None for text in warnings)
    if not outside:
        return Statement("Acquisition", "The detector raised no warning", *_SOUND)
    several = "warning" if outside == 1 else "warnings"
    text = f"{outside} {several} on this scan, under What to check"
    return Statement("Acquisition", text, "check", "outside")


def _probabilities(result: ScanResult, tally: Tally) -> Statement:
    title, counted = "Lesions", tally.counted
    if result.reviewed:
        return Statement(title, "Decided by a person", *_SOUND)
    if not counted:
        return Statement(title, "Nothing reached the threshold", "unknown", "none listed")
    doubtful = sum(item.rating != "definite" for item in counted)
    if not doubtful:
        return Statement(title, f"All {len(counted)} have a high probability", "good", "definite")
    text = f"{doubtful} of {len(counted)} have a probability below that of definite ones"
    return Statement(title, text, "check", "doubtful")


def summarise(statements: Iterable[Statement]) -> Statement:
    """Return the worst level of some statements, and which of them have it."""
    levels = {"bad": "not to be used", "check": "check", "unknown": "not known", "good": "sound"}
    items = list(statements)
    level = min((item.level for item in items), key=list(levels).index, default="unknown")
    titles = ", ".join(item.title for item in items if item.level == level)
    return Statement("Trust", "" if level == "good" else titles, level, levels[level])
