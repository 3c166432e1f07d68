"""Readers who read made-up scans as they are told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cmbprep.ratings.store import Reader
from cmbprep.review.scans import find_scans
from cmbprep.review.session import ReviewSession


def read_scan(
    root: Path,
    name: str,
    reader: str,
    verdicts: Mapping[str, str],
    *,
    number: int = 1,
    added: Sequence[tuple[float, float, float]] = (),
    acts: Sequence[Mapping[str, object]] = (),
    finish: bool = True,
) -> None:
    """Give verdicts on a scan, add lesions at positions (mm, RAS+), and do other acts."""
    session = ReviewSession(root, Reader(name=reader, round=number), find_scans(root))
    try:
        for key, verdict in verdicts.items():
            session.act(name, {"type": "verdict", "lesion": key, "verdict": verdict})
        for centre in added:
            session.act(name, {"type": "add", "centre_ras": list(centre), "verdict": "definite"})
        for act in acts:
            session.act(name, act)
        if finish:
            session.act(name, {"type": "finish"})
    finally:
        session.close()
