"""Which scan of the truth is which scan of the prediction."""

from __future__ import annotations

from dataclasses import dataclass

from .files import ScanFiles, without_parts

__all__ = ["Pairing", "pair_scans"]


@dataclass(frozen=True)
class Pairing:
    """Pairs, and scans of either side without a partner; each in the order of their names.

    ``pairs`` holds (truth, prediction, how): ``how`` is "same entities", "named source" or
    "shared entities". A truth may stand for several predictions, not the other way round.
    """

    pairs: tuple[tuple[ScanFiles, ScanFiles, str], ...]
    truth_only: tuple[ScanFiles, ...]
    predicted_only: tuple[ScanFiles, ...]


def pair_scans(truth: list[ScanFiles], predicted: list[ScanFiles]) -> Pairing:
    """Pair scans by their entities.

    First scans with the same entities. Then every prediction made from a scan that a truth's
    sidecar names under ``Sources``: one truth may stand for several images of one acquisition
    (``sub-01_acq-T2starw`` and ``sub-01_acq-swi``). Of the rest, two are a pair if they have
    the same subject, no entity that both have differs, and neither fits any other of the rest:
    so a truth named ``sub-01`` finds ``sub-01_acq-swi`` where there is one only.
    """
    by_key = {scan.key: scan for scan in predicted}
    pairs = [(scan, by_key[scan.key], "same entities") for scan in truth if scan.key in by_key]
    done = {scan.key for scan, _, _ in pairs}
    left_predicted = [scan for scan in predicted if scan.key not in done]
    for scan in truth:
        named = [other for other in left_predicted if _made_from(other, scan)]
        pairs += [(scan, other, "named source") for other in named]
        left_predicted = [other for other in left_predicted if other not in named]
    done |= {scan.key for scan, _, _ in pairs}
    left_truth = [scan for scan in truth if scan.key not in done]
    fits = {
        scan.key: [other for other in left_predicted if _agree(scan, other)] for scan in left_truth
    }
    for scan in left_truth:
        candidates = fits[scan.key]
        if len(candidates) == 1:
            rivals = [other for other in left_truth if candidates[0] in fits[other.key]]
            if len(rivals) == 1:
                pairs.append((scan, candidates[0], "shared entities"))
    used_truth = {id(scan) for scan, _, _ in pairs}
    used_predicted = {id(scan) for _, scan, _ in pairs}
    return Pairing(
        tuple(sorted(pairs, key=lambda pair: (pair[0].name, pair[1].name))),
        tuple(scan for scan in truth if id(scan) not in used_truth),
        tuple(scan for scan in predicted if id(scan) not in used_predicted),
    )


def _made_from(predicted: ScanFiles, truth: ScanFiles) -> bool:
    """Whether the truth names the scan of a prediction.

    Images that differ in their suffix alone are told apart by the suffix: cmbprep puts it
    into the entity ``acq``, other programs into ``mod``.
    """
    modality = predicted.entities.get("mod")
    key = without_parts(predicted.entities)
    for source, suffix in truth.sources:
        entities = dict(source)
        entities["acq"] = entities.get("acq", "") + suffix
        if key == without_parts(entities) or (key == source and modality in (None, suffix)):
            return True
    return False


def _agree(one: ScanFiles, other: ScanFiles) -> bool:
    a, b = one.entities, other.entities
    return a["sub"] == b["sub"] and all(a[name] == b[name] for name in a.keys() & b.keys())
