"""The work list: one row per scan, and which scans are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmbprep.errors import UsageError
from cmbprep.ratings.acts import Act
from cmbprep.ratings.consensus import disagree, find_reviews
from cmbprep.ratings.replay import replay
from cmbprep.review.scans import ReviewScan


def row(
    scan: ReviewScan,
    acts: Sequence[Act],
    *,
    blinded: bool,
    disagreement: bool | None = None,
    damaged: bool = False,
) -> dict[str, Any]:
    """Return the row of a scan in the work list.

    Parameters
    ----------
    scan
        The scan.
    acts
        Of this reader and round.
    blinded
        Leave out what the detector has rated.
    disagreement
        Whether readers disagree on the scan; None where this is unknown or hidden.
    damaged
        Whether the log of this reader and round is damaged, so that its acts are not used.
    """
    automatic, result = scan.automatic, scan.result
    stale = automatic.is_stale(acts)
    # Acts on other lesions tell nothing about those that are there.
    state = replay(() if automatic.has_other_lesions(acts) else acts, automatic.by_key)
    ratings = [
        lesion.rating for lesion in automatic.lesions if lesion.susceptibility != "diamagnetic"
    ]
    status = "done" if state.finished and not stale else "partly" if acts or damaged else "unread"
    hidden = None
    names = automatic.detection.files.names
    return {
        "id": scan.id,
        "participant": f"sub-{names.subject}",
        "session": f"ses-{names.session}" if names.session else None,
        "name": scan.id,
        "status": status,
        "n_definite": hidden if blinded else ratings.count("definite"),
        "n_possible": hidden if blinded else ratings.count("possible"),
        "n_candidates": hidden if blinded else len(automatic.candidates),
        "n_reviewed": sum(not item.open for item in state.items.values() if item.reviewed_at),
        "n_lesions": len(state.positive),
        "flags": [*result.doubts, *(["the review is damaged"] if damaged else [])],
        "protocol": _protocol(scan),
        "stale": stale,
        "disagreement": hidden if blinded else disagreement,
    }


def _protocol(scan: ReviewScan) -> dict[str, Any]:
    metadata = scan.result.metadata
    size = scan.result.voxel_size
    return {
        "sequence": scan.automatic.detection.block.get("Sequence", scan.result.suffix),
        "field_T": _number(metadata.get("MagneticFieldStrength")),
        "te_s": _number(metadata.get("EchoTime")),
        "slice_mm": round(max(size), 2) if size else None,
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def choose(
    scans: Mapping[str, ReviewScan],
    *,
    names: Sequence[str] = (),
    list_file: Path | None = None,
    sample: int | None = None,
    seed: int = 0,
    disagreements: bool = False,
) -> dict[str, ReviewScan]:
    """Choose the scans of a session.

    Parameters
    ----------
    scans
        All scans, by name.
    names
        Names of scans, or of participants or sessions as ``sub-01`` or ``sub-01_ses-a``.
    list_file
        A file with one such name a line.
    sample
        Number of scans drawn at random from these.
    seed
        Of the random numbers.
    disagreements
        Keep only scans on which readers disagree.

    Raises
    ------
    UsageError
        If a name is not known, or the sample is larger than what there is.
    """
    wanted = [*names, *(_read_list(list_file) if list_file else ())]
    chosen = dict(scans)
    if wanted:
        chosen = {}
        for name in wanted:
            found = {key: scan for key, scan in scans.items() if f"{key}_".startswith(f"{name}_")}
            if not found:
                raise UsageError(
                    f"there is no scan with a result of the name {name[:100]!r}",
                    hint="give names as sub-01, sub-01_ses-a or sub-01_T2starw",
                )
            chosen |= found
    if disagreements:
        chosen = {
            name: scan for name, scan in chosen.items() if disagree(find_reviews(scan.automatic))
        }
    if sample is not None:
        if not 1 <= sample <= len(chosen):
            raise UsageError(
                f"a sample of {sample} cannot be drawn from {len(chosen)} scans",
                hint="give a number from 1 to the number of scans",
            )
        drawn = set(sorted(chosen, key=lambda name: (_hash(f"{seed}:{name}"), name))[:sample])
        chosen = {name: scan for name, scan in chosen.items() if name in drawn}
    return chosen


def _hash(text: str) -> int:
    """Hash a text (FNV-1a, 32 bit), as the page does: both draw the same sample."""
    value = 0x811C9DC5
    for byte in text.encode("utf-8"):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def _read_list(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list cannot be read ({error})", path=path) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
