"""The table of follow-ups: one row per pair of visits of a participant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cmbprep.files.tsv import listing
from cmbprep.followup.pair import FollowUp, ScanPair, read_pair
from cmbprep.followup.scan import FollowedScan
from cmbprep.group.dictionary import RATED, describe
from cmbprep.group.followup import UNKNOWN, VisitOrder, plan_pairs
from cmbprep.group.notes import Note
from cmbprep.group.tables import Table
from cmbprep.lesions import ZONES
from cmbprep.reports.followup import followed_scans
from cmbprep.reports.results import SubjectResult
from cmbprep.zones.burden import BURDEN_SCALES

YEAR_DAYS = 365.25
#: Status of a lesion -> how names of columns have it.
STATUSES = {
    "new": "new",
    "persistent": "persistent",
    "gone": "gone",
    "not assessable": "not_assessable",
}
#: Scale of the number of new lesions -> how names of columns have it.
NEW_SCALES = {"rdes291": "rdes291_new", "aria": "aria_h_new"}
#: Covered by the interval of a rate.
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparedVisits:
    """A pair of visits of a participant with what came of it.

    Attributes
    ----------
    subject
        Label of the participant.
    sessions
        Labels of the first and the second session; None where there is no second one to name.
    comparison
        Level of the column ``comparison``.
    pair
        The two scans; None where a visit has no result.
    found
        The follow-up; None where there is none.
    reason
        Why there is none.
    days
        Between the visits; None where dates are not known.
    """

    subject: str
    sessions: tuple[str, str | None]
    comparison: str
    pair: ScanPair | None = None
    found: FollowUp | None = None
    reason: str | None = None
    days: float | None = None

    @classmethod
    def of(
        cls,
        pair: ScanPair,
        comparison: str,
        found: FollowUp | None,
        *,
        reason: str | None = None,
        days: float | None = None,
    ) -> ComparedVisits:
        """Return two visits that both have a result."""
        return cls(
            subject=str(pair.first.detection.files.names.subject),
            sessions=(pair.first.session, pair.second.session),
            comparison=comparison,
            pair=pair,
            found=found,
            reason=reason,
            days=days,
        )

    @property
    def years(self) -> float | None:
        """Time between the visits."""
        return None if self.days is None else self.days / YEAR_DAYS

    @property
    def status(self) -> str:
        """Level of the column ``status``."""
        if self.pair is None:
            return "no_result"
        if self.found is None:
            return "not_computed"
        return "registration_failed" if self.found.failed else "complete"

    @property
    def reaches_the_last_visit(self) -> bool:
        """Whether the baseline is compared with the last visit that has a result."""
        return self.pair is not None and self.comparison in ("baseline_to_last", "both")


def compare_visits(
    root: Path,
    subjects: Iterable[SubjectResult],
    orders: Mapping[str, VisitOrder],
    days: Mapping[str, float | None],
    lost: Mapping[str, str] = MappingProxyType({}),
) -> list[ComparedVisits]:
    """Read the follow-ups of all participants with several visits.

    Parameters
    ----------
    root
        The output dataset.
    subjects
        Results of the participants.
    orders
        Participant -> order of the visits.
    days
        Name of a scan -> days since the baseline.
    lost
        Participant -> why the follow-up could not be computed.

    Returns
    -------
    list of ComparedVisits
        Of each participant, the pairs of visits with a result, and then the visits without one,
        each beside the visit before it.
    """
    found: list[ComparedVisits] = []
    for subject in subjects:
        order = orders.get(subject.subject, UNKNOWN)
        pairs = plan_pairs(root, subject, order)
        why = lost.get(subject.subject, "there is no follow-up of these visits")
        for pair, comparison in zip(pairs, order.comparisons(pairs), strict=True):
            read = read_pair(pair)
            found.append(
                ComparedVisits.of(
                    pair,
                    comparison,
                    read,
                    reason=why if read is None else None,
                    days=_days_between(pair, days),
                )
            )
        found += _without_result(subject, order, days)
    return found


def _days_between(pair: ScanPair, days: Mapping[str, float | None]) -> float | None:
    start, end = (days.get(scan.name) for scan in (pair.first, pair.second))
    return None if start is None or end is None or not pair.ordered else end - start


def _without_result(
    subject: SubjectResult, order: VisitOrder, days: Mapping[str, float | None]
) -> Iterator[ComparedVisits]:
    """Yield the visits without a result, each beside the one before it (the first: after it)."""
    reasons: dict[str, list[str]] = {}
    times: dict[str | None, float | None] = {}
    for scan in subject.scans:
        session = scan.entities.get("ses")
        if session is not None and scan.status != "withdrawn":
            times[session] = days.get(scan.name)
            text = f"{scan.name}: {scan.reason or 'its image cannot be read'}"
            reasons.setdefault(session, []).append(text)
    done = {scan.session for scan in followed_scans(subject)}
    sessions = [*(order.sessions or sorted(reasons))]
    beside: dict[tuple[str, str | None], list[str]] = {}
    for number, session in enumerate(sessions):
        if session in done or session not in reasons:
            continue
        if number:
            names: tuple[str, str | None] = (sessions[number - 1], session)
        else:
            names = (session, sessions[1] if len(sessions) > 1 else None)
        beside.setdefault(names, []).append(
            f"no result of ses-{session} ({listing(reasons[session], 3)})"
        )
    known = order.sessions is not None
    for names, texts in beside.items():
        start, end = (times.get(name) for name in names)
        yield ComparedVisits(
            subject=subject.subject,
            sessions=names,
            comparison="next" if known else "order_unknown",
            reason="; ".join(texts),
            days=end - start if known and start is not None and end is not None else None,
        )


def poisson_interval(count: int, exposure: float) -> tuple[float, float]:
    """Return the exact interval of a rate (Garwood F, Biometrika 1936;28:437-442).

    Parameters
    ----------
    count
        Events.
    exposure
        Time at risk; the interval is per unit of it.

    Raises
    ------
    ValueError
        If the count is negative or the exposure not positive.
    """
    from scipy.stats import chi2

    if count < 0 or not exposure > 0:
        raise ValueError(f"{count} events in {exposure} have no rate")
    tail = (1 - CONFIDENCE) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    high = chi2.ppf(1 - tail, 2 * (count + 1)) / 2
    return float(low) / exposure, float(high) / exposure


def followup_table(visits: Iterable[ComparedVisits]) -> Table:
    """Make the table of follow-ups."""
    return Table(describe("followup"), tuple(_values(one) for one in visits))


def _values(one: ComparedVisits) -> dict[str, Any]:
    found = one.found
    line: dict[str, Any] = {
        "participant_id": f"sub-{one.subject}",
        "comparison": one.comparison,
        "status": one.status,
        "reason": one.reason,
        "days_between": one.days,
        "years_between": one.years,
    }
    for visit, session in zip(("first", "second"), one.sessions, strict=True):
        line[f"session_{visit}"] = None if session is None else f"ses-{session}"
    if one.pair is not None:
        line |= _of_scans(one.pair)
    if found is None:
        return line
    if found.failed:
        line["reason"] = "; ".join(map(str, found.registration.get("Reasons", ())))
    quality = found.registration
    return {
        **line,
        **_counts(found),
        **_rates(found, one.years),
        "registration": quality.get("Verdict"),
        "registration_route": quality.get("Route"),
        "registration_gap_mm": quality.get("Gap"),
        "registration_error_mm": None if found.failed else quality.get("ErrorToReckonWith"),
        "protocol_changed": found.protocol_changed,
        "settings_changed": found.settings_changed,
        "limits": "; ".join(found.limits) or None,
    }


def _of_scans(pair: ScanPair) -> dict[str, Any]:
    line: dict[str, Any] = {}
    for visit, scan in (("first", pair.first), ("second", pair.second)):
        line |= {
            f"scan_{visit}": scan.name,
            f"source_{visit}": scan.source,
            f"reader_{visit}": scan.readers,
        }
    return line | {f"coverage_{zone}": _smaller(zone, pair.first, pair.second) for zone in ZONES}


def _smaller(zone: str, first: FollowedScan, second: FollowedScan) -> float | None:
    """Return the smaller part of a zone that two scans show; None where one is not known."""
    one, other = (scan.coverage.get(zone) for scan in (first, second))
    return None if one is None or other is None else min(one, other)


def _counts(found: FollowUp) -> dict[str, int | None]:
    line = {}
    for rating, definite in RATED.items():
        for status, name in STATUSES.items():
            column = f"n_{name}_{rating}"
            line[column] = found.count(status, definite=definite)
            for zone in ZONES:
                line[f"{column}_{zone}"] = found.count(status, definite=definite, zone=zone)
            unknown = found.count(status, definite=definite, zone="unknown")
            line[f"{column}_zone_unknown"] = unknown
        line[f"n_listed_new_{rating}"] = found.count_listed("new", definite=definite)
        line[f"n_one_visit_{rating}"] = found.count("one visit", definite=definite)
        for visit, name in enumerate(("first", "second")):
            number = found.count_at(visit, "not assessable", definite=definite)
            line[f"n_not_assessable_{name}_{rating}"] = number
        line[f"n_below_threshold_{rating}"] = found.count_below(definite=definite)
    return line


def _rates(found: FollowUp, years: float | None) -> dict[str, Any]:
    """Return the rate of new lesions with its interval, and their classes."""
    line: dict[str, Any] = {}
    for rating, definite in RATED.items():
        count = found.count("new", definite=definite)
        if count is None:
            continue
        for scale, name in NEW_SCALES.items():
            line[f"{name}_{rating}"] = BURDEN_SCALES[scale].classify(count)
        if years is not None and years > 0:
            low, high = poisson_interval(count, years)
            line |= {
                f"new_{rating}_per_year": count / years,
                f"new_{rating}_per_year_low": low,
                f"new_{rating}_per_year_high": high,
            }
    return line


#: Columns of this table that the table of participants has, of the baseline and the last visit.
_OF_PERSON = tuple(
    column
    for rating in RATED
    for column in (
        f"n_new_{rating}",
        *(f"n_new_{rating}_{zone}" for zone in ZONES),
        *(f"n_{name}_{rating}" for name in STATUSES.values() if name != "new"),
        f"new_{rating}_per_year",
        *(f"{name}_{rating}" for name in NEW_SCALES.values()),
    )
)


def participant_columns(visits: Iterable[ComparedVisits]) -> dict[str, dict[str, Any]]:
    """Return the columns of the table of participants that tell of the follow-up.

    They compare the baseline with the last visit that has a result.

    Returns
    -------
    dict
        Participant -> column -> value. A participant with one visit is left out.
    """
    of_subject: dict[str, list[ComparedVisits]] = {}
    for one in visits:
        of_subject.setdefault(one.subject, []).append(one)
    return {subject: _of_person(own) for subject, own in of_subject.items()}


def _of_person(visits: Sequence[ComparedVisits]) -> dict[str, Any]:
    missing = [one.reason for one in visits if one.pair is None and one.reason]
    ends = next((one for one in visits if one.reaches_the_last_visit), None)
    if ends is None:
        unordered = any(
            one.comparison == "order_unknown" and one.pair is not None for one in visits
        )
        what = ["the order of the visits is not known"] if unordered else []
        return {
            "follow_up_status": "order_unknown" if unordered else "no_result",
            "follow_up_reason": "; ".join((*what, *missing)) or None,
        }
    line = _values(ends)
    reasons = [str(line["reason"])] if line["reason"] else []
    return {
        "follow_up_status": ends.status,
        "follow_up_reason": "; ".join((*reasons, *missing)) or None,
        "follow_up_baseline_scan": line["scan_first"],
        "last_session": line["session_second"],
        "last_scan": line["scan_second"],
        "follow_up_years": ends.years,
        "follow_up_protocol_changed": line.get("protocol_changed"),
        "follow_up_settings_changed": line.get("settings_changed"),
        "follow_up_limits": line.get("limits"),
        **{name: line.get(name) for name in _OF_PERSON},
    }


def changed_followups(visits: Iterable[ComparedVisits]) -> tuple[str, ...]:
    """Return a sentence on tables of follow-ups that a person has changed."""
    found = [one.pair.table.name for one in visits if one.found and one.found.edited and one.pair]
    if not found:
        return ()
    what = (
        "1 table of a follow-up was"
        if len(found) == 1
        else (f"{len(found)} tables of follow-ups were")
    )
    told = f"{what} changed after the program wrote it"
    return (Note(f"{told}: {listing(found)}", told),)
