"""Values and sentences for the pages: numbers as text, the methods paragraph, references."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from cmbprep.outputs.settings import flatten
from cmbprep.outputs.stages import StageRecord


def plain(name: str) -> str:
    """Make an identifier readable: ``basal_ganglia`` -> ``basal ganglia``."""
    return name.replace("_", " ").strip()


def region_title(hemisphere: str | None, region: str | None, zone: str | None) -> str:
    """Name a place: side, region, and its zone in brackets.

    Examples
    --------
    >>> region_title("left", "basal_ganglia", "deep")
    'left basal ganglia (deep)'
    >>> region_title(None, None, None)
    'region unknown'
    """
    if region is None and zone is None:
        return "region unknown"
    side = hemisphere if hemisphere in ("left", "right") else None
    words = [word for word in (side, plain(region) if region else None) if word]
    if zone and zone != region:
        words.append(f"({plain(zone)})" if words else plain(zone))
    return " ".join(words)


@cache
def load_spec() -> dict[str, Any]:
    """Return the declaration of the report's sections, columns and sentences."""
    text = resources.files("cmbprep.reports").joinpath("spec.json").read_text(encoding="utf-8")
    spec: dict[str, Any] = json.loads(text)
    return spec


@cache
def load_bibliography() -> dict[str, dict[str, str]]:
    """Return the entries of the bibliography by key: ``text``, and ``doi`` where it has one."""
    path = resources.files("cmbprep.data").joinpath("bibliography.json")
    return {entry["key"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}


def format_value(value: Any, *, decimals: int | None = None) -> str:
    """Write a value of a sidecar or table for people; ``n/a`` for one that is missing.

    Examples
    --------
    >>> format_value(0.123456), format_value(True), format_value([1.0, 2.5]), format_value(None)
    ('0.123', 'yes', '1, 2.5', 'n/a')
    """
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if decimals is not None:
            return f"{value + 0.0:.{decimals}f}".replace("-", "−")
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(str(key))} {format_value(item)}" for key, item in value.items())
    return str(value)


def format_probability(value: float | None, decimals: int = 2) -> str:
    """Write a probability, which is never shown as certain: rounding makes no 1 of 0.997.

    Examples
    --------
    >>> format_probability(0.93), format_probability(0.997), format_probability(0.004)
    ('0.93', '>0.99', '<0.01')
    """
    if value is None:
        return "n/a"
    step = 10.0**-decimals
    text = f"{value:.{decimals}f}"
    if float(text) >= 1:
        return f">{1 - step:.{decimals}f}"
    return text if float(text) > 0 else f"<{step:.{decimals}f}"


def quantity(metadata: Mapping[str, Any], entry: Mapping[str, Any]) -> str | None:
    """Write an acquisition parameter with its unit; None where it is missing."""
    value = metadata.get(entry["key"])
    if value is None or value == "":
        return None
    if "factor" in entry and isinstance(value, int | float):
        value = value * entry["factor"]
    unit = entry.get("unit", "")
    gap = "" if unit == "°" else " "
    return f"{format_value(value)}{gap}{unit}".strip()


def quality_title(key: str) -> str:
    """Name a figure of merit; one that the specification does not know keeps its own name."""
    spec = load_spec()
    known: dict[str, str] = spec["quality"]
    if key in known:
        return known[key]
    target, _, figure = key.partition("_registration_")
    to, words = (spec[f"registration_{part}"] for part in ("targets", "quality"))
    if target in to and figure in words:
        return f"{to[target]}: {words[figure]}"
    stem, _, unit = key.rpartition("_")
    title = (
        f"{plain(stem)} ({unit})"
        if stem and unit in ("mm", "ml", "mm3", "deg", "s")
        else plain(key)
    )
    return title[:1].upper() + title[1:]


def sentence(text: str) -> str:
    """Begin a message with a capital and end it without a stop.

    Examples
    --------
    >>> sentence("the registration is doubtful.")
    'The registration is doubtful'
    """
    return (text[:1].upper() + text[1:]).rstrip(".")


class MethodsText(NamedTuple):
    """What was done, in sentences that end in numbers, and the references so numbered."""

    sentences: tuple[str, ...]
    references: tuple[dict[str, str], ...]


def methods_text(records: Sequence[StageRecord]) -> MethodsText:
    """Return which steps ran, from the records of the stages.

    A sentence of the specification appears when a stage that it belongs to ran with the
    parameters, or came out with the figures of merit, that it asks for; one that needs a value
    nobody recorded is left out.
    """
    bibliography = load_bibliography()
    numbers: dict[str, int] = {}
    sentences = []
    contexts = [(record.files.stage, _context(record)) for record in records]
    for entry in load_spec()["methods"]:
        texts = dict.fromkeys(_fill(entry, contexts))
        if not texts:
            continue
        cited = [key for key in entry.get("cite", ()) if key in bibliography]
        marks = [numbers.setdefault(key, len(numbers) + 1) for key in cited]
        tail = f" [{', '.join(map(str, sorted(marks)))}]" if marks else ""
        sentences += [f"{text.rstrip('.')}{tail}." for text in texts]
    return MethodsText(tuple(sentences), tuple(bibliography[key] for key in numbers))


def _context(record: StageRecord) -> dict[str, Any]:
    names = record.files.names
    return {
        "version": record.block.get("Version", "n/a"),
        **_echoes(record.block.get("EchoTimes") or ()),
        **{item.name: getattr(names, item.name) for item in fields(names)},
        **flatten(record.block.get("Quality", {})),
        **flatten(record.block.get("Parameters", {})),
    }


def _echoes(times: Sequence[float | None]) -> dict[str, Any]:
    """Return how the image of a scan was made from its echoes, if it has several."""
    from cmbprep.bids.images import ECHO_TIME_FLOOR, select_echoes

    if len(times) < 2:
        return {}
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return {"echoes": len(times), "echoes_untimed": len(times)}
    used = [f"{1000 * known[index]:.3g}" for index in select_echoes(times)]
    values: dict[str, Any] = {"echoes": len(times), "echo_floor_ms": 1000 * ECHO_TIME_FLOOR}
    if len(used) == 1:
        return {**values, "echo_taken_ms": used[0]}
    averaged = f"{', '.join(used[:-1])} and {used[-1]}"
    return {**values, "echoes_averaged": len(used), "echoes_averaged_ms": averaged}


def _fill(
    entry: Mapping[str, Any], contexts: Iterable[tuple[str, Mapping[str, Any]]]
) -> Iterable[str]:
    for stage, context in contexts:
        if not entry.get("always") and entry["stage"] != stage:
            continue
        if any(not _same(context.get(k), v) for k, v in entry.get("when", {}).items()):
            continue
        if any(_same(context.get(k), v) for k, v in entry.get("unless", {}).items()):
            continue
        try:
            yield entry["text"].format(**{k: v for k, v in context.items() if v is not None})
        except (KeyError, ValueError, TypeError):
            # A value that is missing, or is none: the sentence would say nothing.
            continue


def _same(value: Any, wanted: str) -> bool:
    return str(value).lower() == wanted.lower()
