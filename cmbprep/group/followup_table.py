"""The table of follow-ups: one row per pair of visits of a participant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cmbprep.followup.pair import FollowUp, ScanPair, read_pair
from cmbprep.group.dictionary import RATED, describe
from cmbprep.group.followup import UNKNOWN, VisitOrder, plan_pairs
from cmbprep.group.tables import Table
from cmbprep.lesions import ZONES
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
    pair
        The two scans.
    comparison
        Level of the column ``comparison``.
    found
        The follow-up; None where there is none.
    reason
        Why there is none.
    days
        Between the visits; None where dates are not known.
    """

    pair: ScanPair
    comparison: str
    found: FollowUp | None
    reason: str | None = None
    days: float | None = None

    @property
    def years(self) -> float | None:
        """Time between the visits."""
        return None if self.days is None else self.days / YEAR_DAYS


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
    """
    found = []
    for subject in subjects:
        order = orders.get(subject.subject, UNKNOWN)
        pairs = plan_pairs(root, subject, order)
        for pair, comparison in zip(pairs, order.comparisons(pairs), strict=True):
            read = read_pair(pair)
            reason = lost.get(subject.subject, "there is no follow-up of these visits")
            start, end = days.get(pair.first.name), days.get(pair.second.name)
            found.append(
                ComparedVisits(
                    pair=pair,
                    comparison=comparison,
                    found=read,
                    reason=reason if read is None else None,
                    days=None if start is None or end is None or not pair.ordered else end - start,
                )
            )
    return found


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
    dictionary = describe("followup")
    for column, entry in dictionary.items():
        scale = BURDEN_SCALES.get(str(entry.get("Levels")))
        if scale is not None:
            entry["Levels"] = {key: f"{text}." for key, text in scale.titles.items()}
            entry["Description"] = f"{entry['Description']} {scale.source}"
        assert isinstance(entry.get("Levels", {}), Mapping), column
    return Table(dictionary, tuple(_values(one) for one in visits))


def _values(one: ComparedVisits) -> dict[str, Any]:
    pair, found = one.pair, one.found
    line: dict[str, Any] = {
        "participant_id": f"sub-{pair.first.detection.files.names.subject}",
        "comparison": one.comparison,
        "status": _status(found),
        "reason": one.reason,
        "days_between": one.days,
        "years_between": one.years,
    }
    for visit, scan in (("first", pair.first), ("second", pair.second)):
        line |= {
            f"session_{visit}": f"ses-{scan.session}",
            f"scan_{visit}": scan.name,
            f"source_{visit}": scan.source,
            f"reader_{visit}": scan.readers,
        }
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
        "limits": "; ".join(found.limits) or None,
    }


def _status(found: FollowUp | None) -> str:
    if found is None:
        return "not_computed"
    return "registration_failed" if found.failed else "complete"


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
        line[f"n_below_threshold_{rating}"] = (
            None
            if found.failed
            else sum(
                lesion.below_threshold and (not definite or lesion.rating == "definite")
                for lesion in found.lesions
            )
        )
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


def participant_columns(visits: Sequence[ComparedVisits]) -> dict[str, dict[str, Any]]:
    """Return the columns of the table of participants that tell of the follow-up.

    They compare the baseline with the last visit.

    Returns
    -------
    dict
        Participant -> column -> value. A participant without that comparison is left out.
    """
    columns = {}
    for one in visits:
        if one.comparison not in ("baseline_to_last", "both"):
            continue
        line = _values(one)
        own = ("n_new_definite", "n_new_any", "n_gone_any", "n_persistent_any")
        columns[one.pair.first.detection.files.names.subject] = {
            "last_session": line["session_second"],
            "last_scan": line["scan_second"],
            "follow_up_years": one.years,
            **{name: line.get(name) for name in (*own, "n_not_assessable_any")},
            "new_any_per_year": line.get("new_any_per_year"),
            "aria_new_class": line.get("aria_h_new_any"),
        }
    return columns
