"""JSON as text: repair of what is nearly JSON, and values that strict JSON can hold."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

#: Deepest nesting of a JSON file; BIDS metadata needs fewer than ten levels.
MAX_DEPTH = 100

#: The pieces of a JSON text that a repair may touch, and strings, which none may touch.
_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<comma>,)(?=\s*[}\]])"
    r"|(?P<special>[-+]?1\.#[A-Za-z]+\d*)"
    r"|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))"
    r"|(?P<word>[-+]?[A-Za-z_]\w*)",
    re.DOTALL,
)
#: Begins a number that a double may not hold; without a match, all are below 1e299.
_EXTREME = re.compile(r"[0-9](?:[eE]\+?[0-9]{3,}(?:[\s,\]}]|$)|[0-9]{199})")
#: What MATLAB, R, Python and printf write for numbers that are none, and for constants.
_WORDS: Mapping[str, str] = {
    "nan": "NaN",
    "inf": "NaN",
    "infinity": "NaN",
    "true": "true",
    "false": "false",
    "none": "null",
    "null": "null",
}


def parse_json(text: str, duplicates: list[str], *, strict: bool = True) -> tuple[Any, bool]:
    """Parse a JSON text; values that are not finite doubles become NaN.

    Parameters
    ----------
    text
        The JSON text.
    duplicates
        Receives the keys that an object has twice; the last value counts.
    strict
        Whether line ends and tabs inside strings must be escaped.

    Returns
    -------
    content
        What the text holds.
    safe
        Whether :func:`replace_unsafe` has nothing to replace in it, as in nearly all files.
    """
    odd: list[str] = []
    extreme = _EXTREME.search(text) is not None

    def merged(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen and key not in duplicates:
                    duplicates.append(key)
                seen.add(key)
        return content

    def number(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else not_finite(text)

    def integer(text: str) -> int | float:
        # Above 308 digits no double holds it, and from 4300 on Python refuses to read it.
        return int(text) if len(text) < 300 or math.isfinite(float(text)) else not_finite(text)

    def not_finite(text: str) -> float:
        odd.append(text)
        return math.nan

    content = json.loads(
        text,
        strict=strict,
        object_pairs_hook=merged,
        # Looking at each number takes longer than all the rest.
        parse_int=integer if extreme else None,
        parse_float=number if extreme else None,
        parse_constant=not_finite,
    )
    return content, not odd and "\\ud" not in text and "\\uD" not in text


def repair_json(text: str) -> tuple[str, list[str]]:
    """Correct what is wrong in a JSON text, outside its strings; name the kinds of fault.

    Commas before a closing bracket, constants and numbers as other languages print them. What
    remains wrong is left as it is.
    """
    kinds: dict[str, None] = {}

    def replaced(match: re.Match[str]) -> str:
        token, new = match.group(), match.group()
        note = token
        if match.lastgroup == "comma":
            new, note = "", "comma before a closing bracket"
        elif match.lastgroup == "special":  # as older C libraries print NaN and infinity
            new = "NaN"
        elif match.lastgroup == "word":
            new = _WORDS.get(token.lower().lstrip("+-"), token)
            if token.lstrip("-") in ("NaN", "Infinity"):  # which Python reads
                return new
        elif match.lastgroup == "number":
            new = _plain_number(token)
            note = f"number {token}" if len(token) < 30 else "number"
        if new != token:
            kinds[note] = None
        return new

    return _TOKEN.sub(replaced, text), list(kinds)


def _plain_number(token: str) -> str:
    """Write a number such as +.5 or 007 or 5. as JSON wants it."""
    match = re.fullmatch(r"([-+]?)(\d*)\.?(\d*)([eE][-+]?\d+)?", token)
    assert match is not None
    sign, whole, fraction, exponent = match.groups()
    number = whole.lstrip("0") or "0"
    return f"{sign.strip('+')}{number}{f'.{fraction}' if fraction else ''}{exponent or ''}"


def count_levels(value: Any) -> int:
    """Count the levels of objects and lists, without recursion; stop beyond the deepest."""
    depth, level = 0, [value] if isinstance(value, dict | list) else []
    while level and depth <= MAX_DEPTH:
        depth += 1
        children = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]
        level = [child for child in children if isinstance(child, dict | list)]
    return depth


def json_safe(value: Any) -> tuple[Any, list[str]]:
    """Replace what strict JSON in UTF-8 cannot hold.

    Parameters
    ----------
    value
        Nested mappings, sequences, texts and numbers.

    Returns
    -------
    clean
        The same with None for numbers that are not finite or beyond double precision and
        for what lies deeper than a hundred levels; lone surrogates in texts and keys are
        replaced by U+FFFD.
    dropped
        Where something was replaced, as ``key.key[position]``.

    Examples
    --------
    >>> json_safe({"a": [1, float("nan")], "b": "text"})
    ({'a': [1, None], 'b': 'text'}, ['a[1]'])
    """
    clean, faults = replace_unsafe(value)
    return clean, [key for key, _ in faults]


def replace_unsafe(value: Any) -> tuple[Any, list[tuple[str, str]]]:
    """Replace what strict JSON cannot hold; return where, and whether a number or a text."""
    faults: list[tuple[str, str]] = []

    def text(item: str, where: str) -> str:
        clean = valid_text(item)
        if clean != item:
            faults.append((where, "text"))
        return clean

    def visit(item: Any, where: str, depth: int) -> Any:
        if isinstance(item, str):
            return text(item, where)
        # Comparisons with NaN are false.
        wrong = isinstance(item, int | float) and not abs(item) <= sys.float_info.max
        nested = isinstance(item, Mapping | list | tuple)
        if wrong or (nested and depth > MAX_DEPTH):
            faults.append((where, "number"))
            return None
        if isinstance(item, Mapping):
            clean = {}
            for key, child in item.items():
                name = valid_text(str(key))
                inside = f"{where}.{name}" if where else name
                written = text(key, inside) if isinstance(key, str) else key
                clean[written] = visit(child, inside, depth + 1)
            return clean
        if nested:
            return [visit(child, f"{where}[{i}]", depth + 1) for i, child in enumerate(item)]
        return item

    return visit(value, "", 1), faults


def valid_text(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text
