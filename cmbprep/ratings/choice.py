"""Whose reviews count where scans were read by a person."""

from __future__ import annotations

from dataclasses import dataclass

from cmbprep.config import CONSENSUS, Settings
from cmbprep.errors import UsageError
from cmbprep.ratings.store import Reader


@dataclass(frozen=True, kw_only=True)
class ReaderChoice:
    """Whose reviews count.

    Attributes
    ----------
    reader
        Name of the only reader; None for all.
    rule
        How several readers are put together, one of :data:`.CONSENSUS`.
    automatic
        Whether no review counts.

    Raises
    ------
    UsageError
        If the name cannot be that of a reader, or the rule is none.
    """

    reader: str | None = None
    rule: str | None = None
    automatic: bool = False

    def __post_init__(self) -> None:
        if self.reader is not None:
            Reader(name=self.reader)
        if self.rule is not None and self.rule not in CONSENSUS:
            raise UsageError(
                f"there is no rule {self.rule!r}", hint=f"choose one of {', '.join(CONSENSUS)}"
            )

    @classmethod
    def of(cls, settings: Settings) -> ReaderChoice:
        """Return what the options of a run have chosen."""
        return cls(reader=settings.reader, rule=settings.consensus, automatic=settings.automatic)

    @property
    def decided(self) -> bool:
        """Whether it says what to do with several readers."""
        return self.automatic or self.reader is not None or self.rule is not None
