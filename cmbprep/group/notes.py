"""Notes on many participants, files or scans: one sentence per reason, with a few names.

A note knows its sentence without names, for outputs that must not identify anybody.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Self

from cmbprep.files.text import shorten
from cmbprep.files.tsv import listing

#: Longest name in a sentence; a cell of a table may be of any length.
LONGEST = 100


class Note(str):
    """A sentence, and the same sentence without what could identify a person.

    Parameters
    ----------
    text
        The sentence.
    public
        The sentence with counts instead of names, values of cells and messages of errors; the
        sentence itself if None.
    """

    __slots__ = ("public",)
    public: str

    def __new__(cls, text: str, public: str | None = None) -> Self:
        """Make a note."""
        note = super().__new__(cls, text)
        note.public = str(text) if public is None else public
        return note


def public_text(note: str) -> str:
    """Return a note without names; a plain text is a sentence that has none."""
    return note.public if isinstance(note, Note) else note


class Notes:
    """Reasons and whom they concern, gathered and written as sentences."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}
        self._public: dict[str, str] = {}

    def add(self, sentence: str, name: str, public: str | None = None) -> None:
        """Add a name to a reason.

        Parameters
        ----------
        sentence
            The place of the names in it is written ``{}``.
        name
            A label, or the name of a scan or file, with what is said of it after a colon.
        public
            The sentence for outputs that must not identify anybody, if it is another one.
        """
        self._found.setdefault(sentence, []).append(name)
        if public is not None:
            self._public[sentence] = public

    def sentences(self, limit: int = 3) -> tuple[str, ...]:
        """Return a sentence per reason, in the order in which the reasons came up."""
        return tuple(
            Note(
                sentence.replace("{}", _listed(names, limit)),
                self._public.get(sentence, sentence).replace("{}", count_names(names)),
            )
            for sentence, names in self._found.items()
        )


def _listed(names: Iterable[str], limit: int) -> str:
    return listing((shorten(name, LONGEST) for name in dict.fromkeys(names)), limit)


def count_names(names: Iterable[str]) -> str:
    """Return how many names there are, and of what.

    Examples
    --------
    >>> count_names(["sub-1", "sub-2: 1/2/2003"]), count_names(["sub-1_ses-a"])
    ('2 participants', '1 session')
    """
    counted = Counter(_kind(name) for name in dict.fromkeys(names))
    return " and ".join(f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in counted.items())


def _kind(name: str) -> str:
    if re.match(r"sub-[^_:\s]+(?::|$)", name):
        return "participant"
    if re.match(r"sub-[^_:\s]+_ses-[^_:\s]+(?::|$)", name):
        return "session"
    return "file" if name.endswith((".tsv", ".json")) else "scan"
