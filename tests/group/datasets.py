"""Tables of raw datasets for tests, and rows of scans without any file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmbprep.group.rows import Row
from cmbprep.reports.results import ScanResult, parse_entities


def write_dataset(
    root: Path,
    *,
    participants: str = "",
    sessions: Mapping[str, str] | None = None,
    scans: Mapping[tuple[str, str], str] | None = None,
    dictionaries: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write tables of a raw dataset: of sessions by participant, of scans by session."""
    files = {"participants.tsv": participants} if participants else {}
    for subject, text in (sessions or {}).items():
        files[f"sub-{subject}/sub-{subject}_sessions.tsv"] = text
    for (subject, session), text in (scans or {}).items():
        folder = f"sub-{subject}/ses-{session}" if session else f"sub-{subject}"
        files[f"{folder}/{folder.replace('/', '_')}_scans.tsv"] = text
    files |= {name: json.dumps(content) for name, content in (dictionaries or {}).items()}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def make_row(name: str, status: str = "failed", *sources: str) -> Row:
    """Make the row of a scan, or of a file that was refused."""
    entities = parse_entities(name)
    stem, _, suffix = name.rpartition("_")
    scan = ScanResult(
        name=name,
        src=stem,
        suffix=suffix,
        unit=f"sub-{entities['sub']}",
        error={"message": "it broke"} if status == "failed" else None,
        withdrawn="gone" if status == "withdrawn" else None,
        sources=sources or (f"{name}.nii.gz",),
    )
    return Row(
        subject=entities["sub"],
        name=name,
        entities=entities,
        suffix=suffix,
        status=status,
        reason="why",
        scan=None if status == "refused" else scan,
    )
