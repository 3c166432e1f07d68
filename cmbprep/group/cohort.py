"""Everything that the page of a cohort is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from cmbprep.group.prevalence import people

if TYPE_CHECKING:
    from cmbprep.group.agreement_tables import Agreement
    from cmbprep.group.followup_page import FollowUpSection
    from cmbprep.group.frequency import FrequencyMap
    from cmbprep.group.rows import Row
    from cmbprep.group.tables import Table


class Absent(NamedTuple):
    """A person without a scan, and why."""

    participant: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The results of a cohort.

    Parameters
    ----------
    root
        The output dataset, for links to reports that are there.
    rows
        The scans, in the order of the table of scans; empty where only tables are known.
    tables
        ``cmb`` (the scans), ``quality``, ``lesions`` and ``participants``.
    maps
        Frequency maps, one per template.
    notes
        What could not be done, in sentences.
    models
        Fitted models: ``title``, ``columns`` and ``rows`` of the table, ``warnings``,
        ``methods`` and ``figure`` (SVG).
    followup
        Rates of new microbleeds, and the table of pairs of visits.
    agreement
        Agreement of the readers; None where no scan was read to the end.
    private
        Whether to leave out the links to the reports.
    """

    root: Path
    rows: Sequence[Row] = ()
    tables: Mapping[str, Table]
    maps: Sequence[FrequencyMap] = ()
    notes: Sequence[str] = ()
    models: Sequence[Any] = ()
    followup: FollowUpSection | None = None
    agreement: Agreement | None = None
    private: bool = False

    @property
    def scans(self) -> tuple[dict[str, Any], ...]:
        """Rows of the table of scans."""
        return self.tables["cmb"].values

    @cached_property
    def people(self) -> list[Mapping[str, Any]]:
        """One row of the table of scans per person with a result."""
        return people(self.scans)

    @cached_property
    def absent(self) -> list[Absent]:
        """People of the table of participants without any scan."""
        table = self.tables.get("participants")
        seen = {item["participant_id"] for item in self.scans if counts_as_scan(item)}
        return [
            Absent(item["participant_id"], str(item.get("reason") or "no reason given"))
            for item in (table.values if table else ())
            if item["participant_id"] not in seen
        ]

    @cached_property
    def left_out(self) -> dict[str, list[str]]:
        """People with scans who are in no statistic, by the reason."""
        scans = [item for item in self.scans if counts_as_scan(item)]
        known = {item["participant_id"] for item in self.people}
        based = {item["participant_id"] for item in scans if item.get("is_baseline") is True}
        rest = sorted({item["participant_id"] for item in scans} - known)
        reasons = {
            "the primary scan of the baseline visit has no result": [p for p in rest if p in based],
            "it is not known which visit is the baseline": [p for p in rest if p not in based],
        }
        return {reason: names for reason, names in reasons.items() if names}

    @cached_property
    def _files(self) -> frozenset[str]:
        if self.private:
            return frozenset()
        return frozenset(path.name for path in self.root.glob("sub-*.html"))

    def report(self, values: Mapping[str, Any]) -> str | None:
        """Return the address of a scan's report: of its session, or of its participant."""
        person, session = values["participant_id"], values.get("session_id")
        names = [f"{person}_{session}.html"] if session else []
        return next(
            (quote(name) for name in (*names, f"{person}.html") if name in self._files), None
        )


def counts_as_scan(values: Mapping[str, Any]) -> bool:
    """Return whether a row of the table of scans is a scan: neither refused nor withdrawn."""
    return values["status"] not in ("refused", "withdrawn")
