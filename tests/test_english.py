"""Habits that make texts hard to read stay out of docstrings, messages and documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted((REPOSITORY / "cmbprep").rglob("*.py"))
TEXTS = [
    *sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if "_build" not in path.parts),
    REPOSITORY / "README.md",
    REPOSITORY / "cmbprep" / "reports" / "spec.json",
]

#: What to avoid -> what to write.
AVOID = {
    r"\b(?:is|are|be|was|were) had\b": "is computed, is available",
    r"\b(?:to be|can be|cannot be) had\b": "available, unavailable",
    r"\bturns? away\b": "reject",
    r"\bin vain\b": "false positives",
    r"\bthe innocent\b": "all pending jobs",
    r"\bwhat is none\b": "files that are not scans",
    r"\bnothing if nothing is\b": "empty if",
    r"\bpositives a scan\b": "false positives per scan",
    r"\bone (?:row|column|line|file|reason) a (?:scan|lesion|region)\b": "one ... per ...",
    r"\bhas a say\b": "contributes",
    r"\bsureness of\b": "edge confidence",
    r"\b(?:is|are|was|were|be) told (?:from|of|by)\b": "distinguished from, reported, decided by",
}
#: First words of a docstring that say less than return, compute, read, write or build.
WEAK = ("Give", "Gives", "Tell", "Tells", "Say", "Says")


def found(text: str) -> list[str]:
    """Return the habits in a text, each with what to write instead."""
    text = re.sub(r"\s+", " ", text)
    return [
        f"{match[0]!r}: write {instead!r}"
        for pattern, instead in AVOID.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string of a module; an f-string's constant parts, joined."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "text",
    [
        "How it is had\nfrom a row.",
        "Templates that cannot be had",
        "False positives a scan",
        "one row a lesion",
        "iron is told from calcium",
        "What was found in vain",
    ],
)
def test_a_habit_is_found(text: str) -> None:
    assert found(text)


def test_plain_text_passes() -> None:
    assert found("One row per scan; it has had no result, and we told the user.") == []


def test_strings_of_modules_are_plain() -> None:
    problems = [
        f"{path.relative_to(REPOSITORY)}:{line}: {problem}"
        for path in MODULES
        for line, text in strings(path)
        for problem in found(text)
    ]
    assert problems == []


def test_pages_are_plain() -> None:
    problems = [
        f"{path.relative_to(REPOSITORY)}: {problem}"
        for path in TEXTS
        for problem in found(path.read_text("utf-8"))
    ]
    assert problems == []


def test_docstrings_begin_with_a_plain_verb() -> None:
    weak = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                words = (ast.get_docstring(node) or "").split(maxsplit=1)
                if words and words[0] in WEAK:
                    weak.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {words[0]}")
    assert weak == []
