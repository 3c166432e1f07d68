"""The pages of a participant: one for all sessions, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cmbprep.reports.results import SubjectResult, parse_entities


def split_sessions(result: SubjectResult) -> dict[str, SubjectResult]:
    """Divide the results of a participant by session.

    Returns
    -------
    dict
        ``sub-X_ses-Y`` -> what belongs to it; ``sub-X`` for what has no session. A T1w image is
        with every session that has a scan registered to it.
    """
    records = {
        record.files.sidecar: _unit(record.files.sidecar.name) for record in result.anatomies
    }
    units = {scan.unit for scan in result.scans}
    units |= {item.unit for item in result.refused} | set(records.values())
    units |= {_unit(name) for name in result.superseded}
    used = _used_anatomies(result)
    # A T1w image of another session, or of none, makes no page of its own.
    lone = {unit for unit in units if not _has_content(result, unit)}
    found = {
        unit: SubjectResult(
            subject=result.subject,
            scans=tuple(scan for scan in result.scans if scan.unit == unit),
            anatomies=tuple(
                record
                for record in result.anatomies
                if unit in used.get(record.files.sidecar, ())
                or records[record.files.sidecar] == unit
            ),
            refused=tuple(item for item in result.refused if item.unit == unit),
            superseded=tuple(name for name in result.superseded if _unit(name) == unit),
        )
        for unit in sorted(units - lone)
    }
    return found or {f"sub-{result.subject}": result}


def _unit(name: str) -> str:
    entities = parse_entities(name)
    session = f"_ses-{entities['ses']}" if "ses" in entities else ""
    return f"sub-{entities.get('sub', '')}{session}"


def _has_content(result: SubjectResult, unit: str) -> bool:
    return (
        any(scan.unit == unit for scan in result.scans)
        or any(item.unit == unit for item in result.refused)
        or any(_unit(name) == unit for name in result.superseded)
    )


def _used_anatomies(result: SubjectResult) -> Mapping[Path, set[str]]:
    """Return the units whose scans were registered to each T1w image."""
    from cmbprep.ratings.automatic import find_anatomy

    used: dict[Path, set[str]] = {}
    for scan in result.scans:
        if scan.preproc is None:
            continue
        record = find_anatomy(scan.preproc, result.anatomies)
        if record is not None:
            used.setdefault(record.files.sidecar, set()).add(scan.unit)
    return used


def report_units(result: SubjectResult, per: str) -> dict[str, SubjectResult]:
    """Return what each page of a participant holds, by the page's name without its ending.

    Parameters
    ----------
    result
        All results of the participant.
    per
        ``participant`` or ``session``.
    """
    return split_sessions(result) if per == "session" else {f"sub-{result.subject}": result}


def remove_other_pages(root: Path, subject: str, kept: Sequence[str]) -> None:
    """Remove pages of a participant that are of another arrangement, or of a session that left."""
    for path in (root / f"sub-{subject}.html", *root.glob(f"sub-{subject}_ses-*.html")):
        if path.name not in kept and path.is_file():
            path.unlink()
