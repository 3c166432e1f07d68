"""Frequency maps as the group page shows them: slices, an outline, and a map to move through.

The page holds the template and the numbers of people at voxels of about 2 mm, for all people and
for those of each site and pattern; its script draws them (``group_map.js``).
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbprep.group.figures import frequency_figure
from cmbprep.group.page_data import pack
from cmbprep.group.prevalence import GROUPINGS, RATINGS
from cmbprep.group.standard_space import coarser, glass_brain, template_background
from cmbprep.reports.figures.guarded import attempt, draw_all

if TYPE_CHECKING:
    from cmbprep.group.cohort import Cohort
    from cmbprep.group.frequency import FrequencyMap, Vote

#: Most groups of one kind that have a map of their own in the page: the largest ones.
MAX_GROUPS = 8
#: Lesions on the outline of a brain; more cover one another.
MAX_POINTS = 3000
#: Patterns of people without a microbleed, or without a known pattern.
_EMPTY = ("", "none", "n/a")
#: Grey levels of the template in the page; levels above them are colours of the map.
GREY_LEVELS = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class MapView:
    """What the page shows of the maps of one template.

    Attributes
    ----------
    template, files
        Its name, and the names of the files.
    people, partly
        People who vote, and those of whom a part of the brain was seen.
    hottest
        Rating -> most people with a microbleed at one voxel.
    figures, missing
        Name -> drawn figure, and why one could not be drawn.
    voxels, counts, lesions
        Packed: the template, and per choice the people with a microbleed and those seen; the
        lesions with a place, by scan.
    choices
        The choices of people as JSON: kind, label, number of people, key of their counts, and the
        rating that they are shown for (empty for every one).
    left_out
        Groups that are too small to have a map here.
    """

    template: str
    files: tuple[str, ...]
    people: int
    partly: int
    hottest: dict[str, int]
    figures: dict[str, Any]
    missing: dict[str, str]
    voxels: str = ""
    choices: Any = ""
    counts: Sequence[Mapping[str, Any]] = ()
    lesions: str = ""
    left_out: int = 0


def map_views(cohort: Cohort) -> list[MapView]:
    """Prepare the maps of a cohort for its page."""
    return [_view(cohort, item) for item in cohort.maps]


def _view(cohort: Cohort, item: FrequencyMap) -> MapView:
    from markupsafe import Markup

    people = {rating: item.people(definite=rating == "definite") for rating in RATINGS}
    background = template_background(item.template, item.shape, item.affine)
    figures: dict[str, Callable[[], str]] = {}
    for rating, counted in people.items():
        if counted.any():
            share = item.share(definite=rating == "definite")
            figures[f"sections {rating}"] = partial(
                _sections, rating, share, item.affine, background
            )
    points = _points(cohort, item)
    if 0 < len(points) <= MAX_POINTS and item.template.startswith("MNI152"):
        figures["glass"] = partial(glass_brain, points)
    # Figures made here, their text escaped by the canvas.
    drawn, missing = draw_all(figures, lambda _, svg: Markup(svg))  # noqa: S704
    groups, left_out = _groups(cohort, item)
    interactive, why = attempt("viewer", partial(_interactive, cohort, item, groups, background))
    if why is not None:
        missing["viewer"] = why
    return MapView(
        template=item.template,
        files=tuple(path.name for path in item.files),
        people=len(item.votes),
        partly=sum(vote.seen is not None for vote in item.votes),
        hottest={rating: int(counted.max(initial=0)) for rating, counted in people.items()},
        figures=drawn,
        missing=missing,
        **(interactive or {}),
        left_out=left_out,
    )


def _sections(
    rating: str,
    share: NDArray[np.float32],
    affine: NDArray[np.float64],
    background: NDArray[np.float32] | None,
) -> str:
    """Draw slices; two figures with equal pictures must not have equal ids in one page."""
    text = frequency_figure(share, affine, background)
    return re.sub(r'(\bid="|href="#)', rf"\g<1>{rating}-", text)


class _Choice(NamedTuple):
    """People of a map, and the rating that it shows them for; empty for every one."""

    kind: str
    label: str
    votes: Sequence[Vote]
    rating: str = ""


def _groups(cohort: Cohort, item: FrequencyMap) -> tuple[list[_Choice], int]:
    """Return the choices of people, and how many groups have no map here.

    A pattern is that of the microbleeds that are shown.
    """
    values = {scan["scan"]: scan for scan in cohort.people}
    found = [_Choice("", "all people", item.votes)]
    left_out = 0
    readers: list[tuple[str, str, Callable[[Mapping[str, Any]], str]]] = [
        ("site", "", GROUPINGS[0].label),
        *(("pattern", rating, partial(_pattern, rating=rating)) for rating in RATINGS),
    ]
    for kind, rating, read in readers:
        labels = {name: read(scan) for name, scan in values.items()}
        sizes = Counter(labels[v.scan] for v in item.votes if labels.get(v.scan, "") not in _EMPTY)
        kept = sorted(sizes, key=lambda label: (-sizes[label], label))[:MAX_GROUPS]
        left_out += len(sizes) - len(kept)
        if len(sizes) > 1:
            found += [
                _Choice(kind, label, [v for v in item.votes if labels.get(v.scan) == label], rating)
                for label in sorted(kept)
            ]
    return found, left_out


def _pattern(scan: Mapping[str, Any], *, rating: str) -> str:
    return str(scan.get(f"pattern_{rating}") or "n/a")


def _interactive(
    cohort: Cohort,
    item: FrequencyMap,
    groups: Sequence[_Choice],
    background: NDArray[np.float32] | None,
) -> dict[str, Any]:
    """Pack the template and the numbers of people at coarse voxels, cut to what is shown."""
    from markupsafe import Markup

    from cmbprep.reports.packing import Packed, PageGrid

    ground = np.zeros(item.shape, np.float32) if background is None else background
    image, times = coarser(ground, item.affine, np.mean)
    grid = PageGrid.of(image)
    levels = np.asarray(image.dataobj, np.float32)
    top = float(np.quantile(levels, 0.999)) or 1.0
    grey = np.rint((levels / top).clip(0, 1) * (GREY_LEVELS - 1)).astype(np.uint8)
    header = grid.header("uint8") | {"window": [0, 255]}
    voxels = Packed(header, grid.order.apply(grey).tobytes(order="F")).embedded()
    to_coarse = _Coarse(item.shape, tuple(int(n) for n in times), grid)
    packed = []
    for number, (kind, label, votes, only) in enumerate(groups):
        entry: dict[str, Any] = {"kind": kind, "label": label, "people": len(votes), "rating": only}
        partly = [vote for vote in votes if vote.seen is not None]
        entry["whole"] = len(votes) - len(partly)
        entry["seen"] = to_coarse.seen(item, votes) if partly else ""
        for rating in (only,) if only else RATINGS:
            entry[rating] = to_coarse.people(votes, definite=rating == "definite")
        entry["key"] = f"map-{item.template}-{number}"
        packed.append(entry)
    lesions = _marks(cohort, item, np.asarray(np.linalg.inv(grid.affine), np.float64))
    kept = ("kind", "label", "people", "whole", "key", "rating")
    choices = json.dumps([{name: entry[name] for name in kept} for entry in packed])
    return {
        "voxels": voxels,
        # No text of the choices can end the element that holds them.
        "choices": Markup(choices.replace("<", "\\u003c")),  # noqa: S704
        "counts": packed,
        "lesions": pack(lesions),
    }


class _Coarse:
    """Counts people at coarse voxels, in the page's order of axes."""

    def __init__(self, shape: tuple[int, int, int], times: tuple[int, ...], grid: Any) -> None:
        self.shape, self.times, self.grid = shape, times, grid
        self._known: dict[tuple[str, bool], NDArray[np.intp]] = {}

    def people(self, votes: Sequence[Vote], *, definite: bool) -> str:
        total = np.zeros(int(np.prod(self.grid.own_shape)), dtype=np.uint16)
        for vote in votes:
            total[self._voxels(vote, definite)] += 1
        return self._text(total.reshape(self.grid.own_shape))

    def _voxels(self, vote: Vote, definite: bool) -> NDArray[np.intp]:
        """Return the coarse voxels of a person, computed once for all groups."""
        key = (vote.scan, definite)
        if key not in self._known:
            inside = vote.inside[vote.definite] if definite else vote.inside
            at = np.unravel_index(inside, self.shape, order="F")
            blocks = tuple(i // n for i, n in zip(at, self.times, strict=True))
            # One vote per person, however many fine voxels lie in a coarse one.
            self._known[key] = np.unique(np.ravel_multi_index(blocks, self.grid.own_shape))
        return self._known[key]

    def seen(self, item: FrequencyMap, votes: Sequence[Vote]) -> str:
        fine = item.seen(votes)
        # A coarse voxel was seen by as many people as its best fine one.
        return self._text(np.asarray(coarser(fine, item.affine, np.max)[0].dataobj, np.uint16))

    def _text(self, counts: NDArray[np.uint16]) -> str:
        content = self.grid.order.apply(counts).astype("<u2").tobytes(order="F")
        return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")


def _points(cohort: Cohort, item: FrequencyMap) -> list[Mapping[str, Any]]:
    """Return the microbleeds with a place of the people who vote."""
    voting = {vote.scan for vote in item.votes}
    return [
        lesion
        for lesion in cohort.tables["lesions"].values
        if lesion["scan"] in voting and lesion.get("counted") and lesion.get("x_mni") is not None
    ]


def _marks(cohort: Cohort, item: FrequencyMap, to_voxel: NDArray[np.float64]) -> dict[str, Any]:
    """Return the lesions for the search: place, radius and rating, by scan."""
    found: dict[str, list[list[float]]] = {}
    for lesion in _points(cohort, item):
        point = np.array([lesion["x_mni"], lesion["y_mni"], lesion["z_mni"], 1.0])
        i, j, k = (round(float(n), 1) for n in (to_voxel @ point)[:3])
        radius = round(max(1.0, float(lesion["diameter_mm"]) / 2), 1)
        definite = int(lesion.get("rating") == "definite")
        found.setdefault(lesion["scan"], []).append([i, j, k, radius, definite])
    return found
