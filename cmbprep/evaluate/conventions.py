"""How things were counted, in sentences that stand in every output."""

from __future__ import annotations

from .collect import Request
from .evaluation import Options

__all__ = ["conventions"]


def conventions(request: Request, options: Options) -> tuple[str, ...]:
    """Give the rules of an evaluation, the matching rule first."""
    rule = request.rule
    sentences = [rule.text]
    if rule.count_invisible:
        sentences.append("Truth lesions flagged as not visible count like the others.")
    else:
        sentences.append(
            "Truth lesions flagged as not visible are no misses, and predictions that may be "
            "matched to one of them and to no free visible lesion are no false positives."
        )
    if rule.min_diameter_mm:
        sentences.append(
            f"Truth lesions of less than {rule.min_diameter_mm:g} mm across are left out in the "
            "same way: no misses, and what may be matched to one of them is no false positive."
        )
    sentences.append(_selection(request))
    sentences.append(
        "Figures are pooled over scans (micro-average) unless their name says otherwise; a ratio "
        "without anything below the line is undefined (n/a) and holds no floor. Scans without "
        "true lesions take part in all pooled figures; false positives in them are also given "
        "apart."
    )
    if request.missing == "misses":
        sentences.append(
            "A scan with truth but without prediction counts as one in which nothing was found; "
            "a scan with prediction but without truth is listed and does not count."
        )
    else:
        sentences.append(
            "A scan with truth but without prediction, or the other way round, is listed and "
            "does not count."
        )
    edges = ", ".join(f"{edge:g}" for edge in options.size_edges_mm)
    sentences.append(
        f"By size (diameter of the sphere of the same volume; classes begin at {edges} mm) and "
        "by zone, hits and misses belong to the class of the true lesion, false positives to "
        "that of the predicted one."
    )
    sentences.append(
        "Curves: the predictions at or above each threshold are matched afresh; probabilities "
        "are taken to three decimals. They end at the least probable lesion that the prediction "
        "lists. The reliability curve and the expected calibration error use "
        f"{options.n_bins} bins of equal width over 0..1."
    )
    sentences.append(
        "A false positive lies on a mimic if they have voxels in common or its centre is at most "
        f"{request.mimic_distance_mm:g} mm from the mimic (of several, on the one with most "
        "voxels in common, else on the nearest); failing that, it is a second mark if "
        "it may be matched to a lesion that another prediction has. Structures that reach through "
        "the brain, such as veins, are not counted among the mimics that were marked."
    )
    if options.n_draws:
        sentences.append(
            f"Intervals: 95 %, percentile bootstrap over subjects, {options.n_draws} draws, seed "
            f"{options.seed}; none where there is one subject or where the figure is undefined "
            "in half of the draws."
        )
    return tuple(sentences)


def _selection(request: Request) -> str:
    parts = []
    if request.threshold is not None:
        parts.append(f"have a probability of at least {request.threshold:g} (or none)")
    if request.rating == "definite":
        parts.append("are not rated possible")
    if not request.count_diamagnetic:
        parts.append("are not called diamagnetic by the detector itself")
    count = (
        f"Predictions count that {' and '.join(parts)}. " if parts else "All predictions count. "
    )
    if request.threshold is None:
        count += "Bare probability maps are cut at 0.5. "
    return count + (
        "The probability of a lesion is its row's, or the largest within it of a probability map."
    )
