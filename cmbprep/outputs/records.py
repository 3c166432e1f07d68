"""Records of runs under ``logs/``, which the reports read: what was found, and what failed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cmbprep.bids.model import Scan, Unit
from cmbprep.errors import CmbprepError
from cmbprep.outputs.files import read_json, write_json
from cmbprep.outputs.stages import find_records

if TYPE_CHECKING:
    from cmbprep.plan import ScanPlan

#: Records of a unit or of a scan that failed: participant, session, anything else.
_RECORD_NAME = re.compile(
    r"sub-(?P<sub>[A-Za-z0-9+]+)(?:_ses-(?P<ses>[A-Za-z0-9+]+))?_(?:.*_)?(?:inputs|error)\.json$"
)


@dataclass(frozen=True)
class Surroundings:
    """What a run knows of the dataset besides the scans that it has selected.

    Parameters
    ----------
    raw
        The raw dataset.
    filtered
        Whether a filter narrows the selection: a scan that is not selected may then still be
        in the dataset.
    origin
        What the dataset is known by (:func:`cmbprep.outputs.dataset.dataset_origin`).
    same_before
        Whether results whose record names no dataset are of this one.
    """

    raw: Path
    filtered: bool = False
    origin: str = ""
    same_before: bool = True

    def owns(self, entry: Mapping[str, Any]) -> bool:
        """Return whether the results of an earlier run were made from this dataset."""
        made_from = entry.get("dataset")
        return self.same_before if made_from is None else made_from == self.origin


@dataclass(frozen=True)
class Recorded:
    """What recording a unit has changed.

    Parameters
    ----------
    news
        Sentences on results that count no more, each once over the runs.
    foreign
        Scans with results that were made from another dataset, and are kept.
    """

    news: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


def write_inputs(
    root: Path,
    unit: Unit,
    plans: Sequence[ScanPlan],
    surroundings: Surroundings,
    *,
    warnings: Mapping[str, Sequence[str]] = MappingProxyType({}),
    dry_run: bool = False,
) -> Recorded:
    """Record what was found for a unit, so that reports and tables need no raw data.

    The record names the sidecars and fingerprints that the results of each scan must have.
    Scans of earlier runs stay in it while their sources are in the dataset, if a filter
    narrows this run or they cannot be read; else they are listed as withdrawn, and their
    results count no more.

    Parameters
    ----------
    root
        The output dataset.
    unit
        What was found.
    plans
        The plans of the unit's scans.
    surroundings
        Where to look for the sources of other scans.
    warnings
        Name of a scan -> what is amiss with its input; what the scan says of itself without.
    dry_run
        Whether to say only what would be recorded.
    """
    selected = [_scan_entry(plan, root, surroundings, warnings) for plan in plans]
    older = _older_scans(root, unit)
    for entry in selected:
        older.pop(str(entry["name"]), None)
    refused = {_within(item.path, surroundings.raw): item.reason for item in unit.refused}
    withdrawn, kept, news, foreign = [], [], [], []
    for name, entry in sorted(older.items()):
        has_results = entry.pop("records", False)
        reason = None
        if surroundings.owns(entry):
            reason = _why_withdrawn(entry, refused, surroundings, unread=unit.unread)
        elif "withdrawn" in entry:
            reason = str(entry.get("reason"))
        else:
            foreign.append(name)
        if reason is None:
            kept.append({**entry, "selected": False})
            continue
        if not has_results:
            continue  # nothing is left of it
        withdrawn.append({"name": name, "reason": reason})
        if "withdrawn" not in entry:
            news.append(f"{name}: {reason}; its earlier results count no more")
    if not dry_run:
        content = {
            "unit": unit.label,
            "scans": [*selected, *kept],
            "withdrawn": withdrawn,
            "refused": [
                {
                    "path": _within(item.path, surroundings.raw),
                    "reason": item.reason,
                    "hint": item.hint,
                }
                for item in unit.refused
            ],
            "anatomy": None if unit.anatomy is None else {"name": unit.anatomy.path.name},
        }
        write_json(_inputs_path(root, unit.label), content)
    return Recorded(tuple(news), tuple(foreign))


def recorded_units(root: Path) -> list[tuple[str, str | None]]:
    """List participant and session of each unit that earlier runs have recorded, sorted."""
    named = map(_RECORD_NAME.match, (p.name for p in (root / "logs").glob("sub-*") if p.is_file()))
    found = {(match["sub"], match["ses"]) for match in named if match is not None}
    names = (record.files.names for record in find_records(root, "lesions"))
    found |= {(one.subject, one.session) for one in names}
    return sorted(found, key=lambda unit: (unit[0], unit[1] or ""))


def _inputs_path(root: Path, label: str) -> Path:
    return root / "logs" / f"{label}_inputs.json"


def _scan_entry(
    plan: ScanPlan,
    root: Path,
    surroundings: Surroundings,
    warnings: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    scan = plan.scan
    return {
        "name": scan.name,
        "dataset": surroundings.origin,
        "files": [path.name for path in scan.files],
        "sources": [_within(path, surroundings.raw) for path in scan.files],
        "warnings": list(warnings.get(scan.name, scan.warnings)),
        "stages": {
            stage.files.stage: {
                "sidecar": stage.files.sidecar.relative_to(root).as_posix(),
                "fingerprint": stage.fingerprint,
            }
            for stage in plan.stages
        },
    }


def _within(path: Path, folder: Path) -> str:
    """Name a file by its path in the dataset."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _older_scans(root: Path, unit: Unit) -> dict[str, dict[str, Any]]:
    """Gather the scans that earlier runs have recorded for a unit, or left results of.

    Returns
    -------
    dict
        Name of the scan -> its entry in the record, with ``records``: whether there are
        results; ``withdrawn``: whether they count no more.
    """
    found: dict[str, dict[str, Any]] = {}
    for stage in ("preproc", "lesions"):
        for record in find_records(root, stage, subject=unit.subject, session=unit.session):
            names = record.files.names
            if names.session != unit.session:
                continue
            name = record.block.get("Scan", f"{names.src}_{names.suffix}")
            start = {"name": name, "files": [], "sources": [], "records": True}
            entry = found.setdefault(name, start)
            entry["sources"] += [
                uri.removeprefix("bids:raw:")
                for uri in record.metadata.get("Sources", ())
                if uri.startswith("bids:raw:")
            ]
    try:
        content = read_json(_inputs_path(root, unit.label))
    except CmbprepError:
        return found
    for entry in entries_of(content, "scans"):
        name = str(entry["name"])
        found[name] = {**found.get(name, {}), **entry}
    for entry in entries_of(content, "withdrawn"):
        # Where nothing is left of a withdrawn scan, there is nothing to say of it.
        if entry["name"] in found:
            found[str(entry["name"])].update({**entry, "withdrawn": True})
    return found


def entries_of(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Read a list of a record, without entries that are damaged."""
    entries = content.get(key)
    usable = entries if isinstance(entries, list) else []
    return [item for item in usable if isinstance(item, dict) and isinstance(item.get("name"), str)]


def _why_withdrawn(
    entry: Mapping[str, Any],
    refused: Mapping[str, str],
    surroundings: Surroundings,
    *,
    unread: bool,
) -> str | None:
    """Return why an earlier scan counts no more; None if it may still be in the dataset."""
    # Once withdrawn, results stay so until a run selects the scan again.
    before = str(entry.get("reason")) if "withdrawn" in entry else None
    if unread:
        return before
    listed = entry.get("sources")
    sources = [str(path) for path in listed] if isinstance(listed, list) else []
    for path in sources:
        if path in refused:
            return f"{path} is refused now ({refused[path]})"
    there = {path: _is_in(surroundings.raw, path) for path in sources}
    gone = [path for path, found in there.items() if found is False]
    if gone or not sources:
        return f"its source is no longer in the dataset ({', '.join(gone) or 'unknown'})"
    if surroundings.filtered or None in there.values():
        return before
    return "the dataset no longer gives this scan"


def _is_in(raw: Path, name: str) -> bool | None:
    """Return whether the dataset has a file; None if that cannot be seen.

    A link is in the dataset also where its content is not. What a folder holds that is a
    broken link, or that cannot be read, is not known.
    """
    place = raw
    for part in Path(name).parts:
        place /= part
        try:
            place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None if place.parent.is_symlink() and not place.parent.exists() else False
        except OSError:
            return None
    return True


def error_path(root: Path, scan: Scan) -> Path:
    """Return the place of a scan's error record."""
    return root / "logs" / f"{scan.name}_error.json"


def write_error(root: Path, scan: Scan, *, step: str, message: str, traceback: str) -> Path:
    """Record why a scan failed; its report shows it."""
    return write_json(
        error_path(root, scan),
        {"scan": scan.name, "step": step, "message": message, "traceback": traceback},
    )


def clear_error(root: Path, scan: Scan) -> None:
    """Forget the failure of a scan that has succeeded since."""
    error_path(root, scan).unlink(missing_ok=True)
