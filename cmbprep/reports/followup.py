"""Follow-up in the report: the visits that were compared, and what is shown of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbprep.followup.pair import FollowUp
from cmbprep.followup.scan import FollowedScan
from cmbprep.followup.status import AS_DARK_AROUND, DARK
from cmbprep.reports.page import link_to
from cmbprep.reports.results import ScanResult, SubjectResult
from cmbprep.reports.text import sentence
from cmbprep.spatial.transforms import LinearMap, read_transform

if TYPE_CHECKING:
    from cmbprep.followup.table import FollowedLesion

#: Lesions whose place is drawn, of one pair of visits.
DRAWN = 24
#: Width of the surroundings that are drawn, mm.
FIELD_OF_VIEW_MM = 36.0


def followed_scan(result: ScanResult, subject: SubjectResult) -> FollowedScan | None:
    """Return a scan for a follow-up; None without a session or a result."""
    from cmbprep.ratings.automatic import find_anatomy

    session, voxel = result.entities.get("ses"), result.voxel_size
    if result.status != "complete" or session is None or voxel is None:
        return None
    assert result.preproc is not None and result.detection is not None
    return FollowedScan(
        name=result.name,
        session=session,
        preproc=result.preproc,
        detection=result.detection,
        anatomy=find_anatomy(result.preproc, subject.anatomies),
        lesions=result.lesions,
        reading=result.reading,
        voxel_mm=voxel,
        coverage=result.coverage,
        unseen=result.unseen,
    )


def followed_scans(subject: SubjectResult) -> list[FollowedScan]:
    """Return the scans of a participant that a follow-up can be made of."""
    return [found for scan in subject.scans if (found := followed_scan(scan, subject))]


def followup_views(
    root: Path, found: Sequence[FollowUp], sessions: Container[str | None]
) -> list[dict[str, Any]]:
    """Return what the page shows of each pair of visits.

    Parameters
    ----------
    root
        The output dataset.
    found
        The follow-ups of the participant (:func:`.find_pairs`).
    sessions
        Labels of the sessions of the page: a pair is on the page of its later visit.
    """
    shown = [item for item in found if item.pair.second.session in sessions]
    return [_pair_view(root, item, f"followup-{n}") for n, item in enumerate(shown, 1)]


def _pair_view(root: Path, found: FollowUp, anchor: str) -> dict[str, Any]:
    pair = found.pair
    apart = [lesion for lesion in found.lesions if lesion.status in ("new", "gone", "one visit")]
    # What the images alone decide is shown, too.
    apart += [lesion for lesion in found.lesions if lesion.reason in (DARK, AS_DARK_AROUND)]
    quality = found.registration
    return {
        "anchor": anchor,
        "found": found,
        "title": f"ses-{pair.first.session} and ses-{pair.second.session}",
        "first": pair.first.name,
        "second": pair.second.name,
        "ordered": pair.ordered,
        "counts": _counts(found),
        "reasons": Counter(
            one.reason for one in found.lesions if one.status == "not assessable"
        ).most_common(),
        "below": sum(one.below_threshold for one in found.lesions),
        "limits": [sentence(text) for text in found.limits],
        "registration": {
            "verdict": quality.get("Verdict", "n/a"),
            "reasons": [sentence(str(text)) for text in quality.get("Reasons", ())],
            "gap": quality.get("Gap"),
            "error": quality.get("ErrorToReckonWith"),
            "route": quality.get("Route"),
        },
        "figures": _figures(found, apart[:DRAWN]),
        "not_drawn": len(apart[DRAWN:]),
        "files": [(path.name, link_to(path, root)) for path in (pair.table, pair.transform)],
    }


def _counts(found: FollowUp) -> list[tuple[str, int | None, int | None]]:
    """Return status, definite and all lesions."""
    statuses = ["persistent", *(("new", "gone") if found.pair.ordered else ("one visit",))]
    statuses.append("not assessable")
    return [(name, found.count(name, definite=True), found.count(name)) for name in statuses]


def _figures(found: FollowUp, lesions: Sequence[FollowedLesion]) -> list[dict[str, Any]]:
    """Draw the places of lesions at both visits; the text says why a figure is missing."""
    if not lesions:
        return []
    from markupsafe import Markup

    from cmbprep.reports.figures.guarded import draw_all, once

    images = once(lambda: _Images(found))
    jobs = {str(one.index): partial(_draw, images, one) for one in lesions}
    # Figures made here, their text escaped by the canvas.
    drawn, missing = draw_all(jobs, lambda _, svg: Markup(svg))  # noqa: S704
    return [
        {
            "lesion": one,
            "title": _describe(one),
            "figure": drawn.get(str(one.index)),
            "missing": missing.get(str(one.index), ""),
        }
        for one in lesions
    ]


def _describe(lesion: FollowedLesion) -> str:
    """Return the heading of a lesion.

    Examples
    --------
    >>> from cmbprep.followup.table import FollowedLesion
    >>> nowhere = (None, None)
    >>> _describe(
    ...     FollowedLesion(
    ...         index=2,
    ...         status="new",
    ...         reason="no candidate there",
    ...         rating="definite",
    ...         zone="lobar",
    ...         region=None,
    ...         indices=(None, 4),
    ...         centres=nowhere,
    ...         probabilities=nowhere,
    ...         volumes_mm3=nowhere,
    ...         distance_mm=None,
    ...     )
    ... )
    '2 · new · definite · lobar · lesion 4 of the second visit · no candidate there'
    """
    listed = [
        f"lesion {index} of the {visit} visit"
        for index, visit in zip(lesion.indices, ("first", "second"), strict=True)
        if index is not None
    ]
    parts = (lesion.status, lesion.rating or "not rated", lesion.zone or "zone not known")
    return " · ".join((str(lesion.index), *parts, *listed, lesion.reason))


class _Images:
    """The two scans of a follow-up with their lesions, and the map between them."""

    def __init__(self, found: FollowUp) -> None:
        import nibabel as nib

        pair = found.pair
        self.pair = pair
        self.scans = [
            nib.Nifti1Image.from_filename(scan.preproc.files.path("preproc"))
            for scan in (pair.first, pair.second)
        ]
        self.labels = [
            nib.Nifti1Image.from_filename(pair.image(scan)) for scan in (pair.first, pair.second)
        ]
        transform = read_transform(pair.transform)
        assert isinstance(transform, LinearMap)
        self.to_second = transform if pair.first is pair.by_name[0] else transform.inverse()


def _draw(images: Callable[[], _Images], lesion: FollowedLesion) -> str:
    """Cut the surroundings out of the visit that lists the lesion, and resample the other one."""
    import numpy as np

    from cmbprep.reports.figures.visits import Surroundings, visits_figure
    from cmbprep.spatial.grids import Grid, crop_grid
    from cmbprep.spatial.transforms import apply_transforms

    read = images()
    own = 0 if lesion.indices[1] is None else 1
    image, centre = read.scans[own], lesion.centres[own]
    assert centre is not None
    grid = Grid(image.shape, image.affine)
    half = FIELD_OF_VIEW_MM / 2 / grid.spacing
    voxel = (np.linalg.inv(grid.affine) @ (*centre, 1.0))[:3]
    low = np.clip(np.floor(voxel - half).astype(int), 0, np.array(grid.shape) - 1)
    high = np.clip(np.ceil(voxel + half).astype(int) + 1, low + 1, grid.shape)
    part = crop_grid(grid, low, high - low)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    to_other = read.to_second if own == 0 else read.to_second.inverse()
    other = apply_transforms(read.scans[1 - own], part, (to_other,), fill=float("nan"))
    marked = np.asarray(read.labels[own].dataobj[box]) == lesion.index
    shown = [
        (np.asarray(image.dataobj[box], dtype=np.float32), marked),
        (np.asarray(other.dataobj), None),
    ]
    headings = [f"ses-{scan.session}" for scan in (read.pair.first, read.pair.second)]
    visits = [
        Surroundings(heading=heading, image=values, lesion=outline)
        for heading, (values, outline) in zip(
            headings, shown[:: 1 if own == 0 else -1], strict=True
        )
    ]
    return visits_figure(visits, part.affine, centre, f"Lesion {_describe(lesion)}")
