"""Notes on many participants, files or scans: one sentence per reason, with a few names."""

from __future__ import annotations

from collections.abc import Iterable

from cmbprep.files.text import shorten
from cmbprep.files.tsv import listing

#: Longest name in a sentence; a cell of a table may be of any length.
LONGEST = 100


class Notes:
    """Reasons and whom they concern, gathered and written as sentences."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, sentence: str, name: str) -> None:
        """Add a name to a reason; the place of the names in the sentence is written ``{}``."""
        self._found.setdefault(sentence, []).append(name)

    def sentences(self, limit: int = 3) -> tuple[str, ...]:
        """Return a sentence per reason, in the order in which the reasons came up."""
        return tuple(
            sentence.replace("{}", _counted(names, limit))
            for sentence, names in self._found.items()
        )


def _counted(names: Iterable[str], limit: int) -> str:
    return listing((shorten(name, LONGEST) for name in dict.fromkeys(names)), limit)
