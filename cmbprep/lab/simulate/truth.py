"""What is true about a simulated scan: masks, labels and tables of what was put in.

Masks, sizes and visibility of compact sources follow :mod:`cmbprep.lab.simulate.voids`. Position
and size of what can be seen are those of its void, not of its deposit; of what cannot be
seen, which has no mask, they are the deposit's. Sources that cannot be seen are listed with
the mimics and say ``visible`` false: nobody can be asked to find them, and finding one is no
mistake either. After the compact mimics come those that reach through the brain
(:mod:`cmbprep.lab.simulate.structures`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.shared import read_data
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.scanner import Acquisition, Effect
from cmbprep.lab.simulate.sources import Source
from cmbprep.lab.simulate.structures import Structure
from cmbprep.lab.simulate.voids import Void, is_visible, outline_void
from cmbprep.lesions import COLUMNS, MISSING, Lesion, format_lesions

#: Columns beside those of the lesion table, with their data dictionary.
TRUTH_COLUMNS: dict[str, dict[str, object]] = read_data("cmbprep.lab.simulate", "columns.json")[
    "truth"
]


@dataclass(frozen=True)
class _Found:
    source: Source
    effect: Effect | None
    number: int  # the same at every visit of the person
    void: Void | None  # None if it cannot be seen; its voxels are those of the image


@dataclass(frozen=True)
class Truth:
    """The truth about one scan.

    Attributes
    ----------
    microbleeds, others
        Label images: visible microbleeds; mimics (labels of rows without a mask are absent).
    microbleed_table, other_table
        Text of the TSV files that describe them.
    zones
        The atlas's labels on the scan's grid, or ``None`` without an atlas.
    """

    microbleeds: NDArray[np.uint8]
    others: NDArray[np.uint8]
    microbleed_table: str
    other_table: str
    zones: NDArray[np.uint8] | None


def tell_truth(
    head: Head,
    sources: Sequence[Source],
    acquisition: Acquisition,
    *,
    with_zones: bool = True,
    numbers: Sequence[int] | None = None,
) -> Truth:
    """Make label images and tables from what the sources did to an image.

    Parameters
    ----------
    head, sources
        What was scanned.
    acquisition
        What came of it.
    with_zones
        Whether to carry the atlas to the scan; without, the tables name no zones.
    numbers
        Number of each source in this person; in their order if None.
    """
    found = [
        _Found(source, effect, number, _void(source, effect, acquisition))
        for source, effect, number in zip(
            sources, acquisition.effects, numbers or range(1, len(sources) + 1), strict=True
        )
    ]
    bleeds = [f for f in found if f.source.kind == "microbleed" and f.void]
    others = [f for f in found if not (f.source.kind == "microbleed" and f.void)]
    shape = acquisition.geometry.shape
    bleed_labels, bleeds = _labels(bleeds, shape)
    other_labels, others = _labels(others, shape)
    zones = zone_labels(head, acquisition) if with_zones else None
    affine = acquisition.geometry.affine
    bleed_rows = _source_rows(head, bleeds, acquisition, "microbleed")
    bleed_rows = add_zones(bleed_rows, bleed_labels, affine, zones)
    other_rows = _source_rows(head, others, acquisition, "mimic")
    other_rows = add_zones(other_rows, other_labels, affine, zones)
    for structure in acquisition.structures:
        free = structure.voxels[other_labels[tuple(structure.voxels.T)] == 0]
        if len(free):
            index = len(other_rows) + 1
            other_labels[tuple(free.T)] = index
            other_rows.append(_structure_row(head, structure, free, index, acquisition))
    return Truth(
        microbleeds=bleed_labels,
        others=other_labels,
        microbleed_table=join_tables(bleed_rows),
        other_table=join_tables(other_rows),
        zones=zones,
    )


def _void(source: Source, effect: Effect | None, acquisition: Acquisition) -> Void | None:
    """The void of a source in voxels of the image; None if it cannot be seen."""
    if effect is None:
        return None
    spacing = np.linalg.norm(acquisition.geometry.affine[:3, :3], axis=0)
    origin = np.asarray(effect.origin)
    void = outline_void(effect.loss, effect.centre_voxel - origin, source.reach, spacing)
    if void is None or not is_visible(void.depth, effect.contrast_to_noise):
        return None
    return replace(void, voxels=void.voxels + origin, centre=void.centre + origin)


def _labels(
    found: list[_Found], shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], list[_Found]]:
    """Paint masks; of two that overlap, the first drawn keeps the voxels.

    What another one has swallowed whole is dropped from the list.
    """
    labels = np.zeros(shape, np.uint8)
    kept: list[_Found] = []
    for one in found:
        if one.void is None:
            kept.append(one)
            continue
        free = one.void.voxels[labels[tuple(one.void.voxels.T)] == 0]
        if not len(free):
            continue
        kept.append(one)
        labels[tuple(free.T)] = len(kept)
    return labels, kept


def zone_labels(head: Head, acquisition: Acquisition) -> NDArray[np.uint8] | None:
    """Carry the packaged MARS atlas to the scan's grid by the head's own exact map."""
    import nibabel as nib

    from cmbprep.templates import load_template

    path = load_template().atlas("mars")
    if path is None:
        return None
    atlas = nib.as_closest_canonical(nib.load(path))
    values = np.asarray(atlas.dataobj).astype(np.uint8)
    geometry = acquisition.geometry
    to_head = np.linalg.inv(geometry.head_to_voxel)
    to_voxel = np.linalg.inv(atlas.affine)
    labels = np.zeros(geometry.shape, np.uint8)
    plane = np.stack(
        np.meshgrid(*(np.arange(n) for n in geometry.shape[:2]), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    for k in range(geometry.shape[2]):
        points = np.column_stack([plane, np.full(len(plane), k)])
        points = head.to_template(points @ to_head[:3, :3].T + to_head[:3, 3])
        index = np.round(points @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
        inside = np.all((index >= 0) & (index < values.shape), axis=1)
        plane_labels = np.zeros(len(plane), np.uint8)
        plane_labels[inside] = values[tuple(index[inside].T)]
        labels[:, :, k] = plane_labels.reshape(geometry.shape[:2])
    return labels


#: A row of the lesion table, and what the truth's own columns say of it.
Row = tuple[Lesion, dict[str, str]]

_PLACE = ("x", "y", "z", "x_mni", "y_mni", "z_mni")


def truth_row(
    name: str,
    index: int,
    place: Iterable[float],
    volume: float,
    chi: float | None,
    *,
    contrast: float | None = None,
    deposit: float | None = None,
    cnr: float | None = None,
    site: str,
    number: int | None = None,
    **words: str,
) -> Row:
    """Describe one thing that was put into a scan.

    Parameters
    ----------
    name, index
        Start of its name, and its number.
    place
        x, y and z in scanner coordinates and then those in the template, mm.
    volume, deposit
        Of the void, or of the deposit where nothing is seen; and of the deposit, mm^3.
    chi
        Mean susceptibility, ppm; None where it has none of its own.
    contrast, cnr
        Largest relative loss of signal, and largest drop by the noise.
    site, words
        The column ``place``, and the other columns that are text.
    number
        The same at every visit of the person; None where it has none.
    """
    sign = "unknown" if chi is None else "paramagnetic" if chi > 0 else "diamagnetic"
    where: dict[str, Any] = dict(zip(_PLACE, map(float, place), strict=True))
    lesion = Lesion(
        index=index,
        name=f"{name}-{index:03d}",
        **where,
        volume_mm3=volume,
        diameter_mm=float(np.cbrt(6 * volume / np.pi)),
        contrast=contrast,
        susceptibility=sign,
    )
    numbers = {
        "susceptibility_ppm": MISSING if chi is None else f"{chi:.3f}",
        "deposit_mm3": MISSING if deposit is None else f"{deposit:.2f}",
        "contrast_to_noise": MISSING if cnr is None else f"{cnr:.1f}",
    }
    same = MISSING if number is None else str(number)
    return lesion, {"place": site, **numbers, **words, "person_index": same}


def add_zones(
    rows: list[Row],
    labels: NDArray[np.uint8],
    affine: NDArray[np.float64],
    zones: NDArray[np.uint8] | None,
) -> list[Row]:
    """Add the zones of the labels to their rows, by an atlas on the same grid if there is one."""
    from cmbprep.zones.assign import assign_zones
    from cmbprep.zones.schemes import MARS

    if zones is None or not rows:
        return rows
    found = {one.label: one.columns() for one in assign_zones(labels, affine, zones, MARS)}
    return [(replace(lesion, **found.get(lesion.index, {})), more) for lesion, more in rows]


def _place(head: Head, point: NDArray[np.float64], acquisition: Acquisition) -> tuple[float, ...]:
    """Scanner and template coordinates, mm, of a point in head mm."""
    pose = acquisition.geometry.pose
    return (*(pose[:3, :3] @ point + pose[:3, 3]), *head.to_template(point[None])[0])


def _in_head(voxel: NDArray[np.floating], acquisition: Acquisition) -> NDArray[np.float64]:
    back = np.linalg.inv(acquisition.geometry.head_to_voxel)
    return np.asarray(back[:3, :3] @ voxel + back[:3, 3])


def _source_rows(head: Head, found: list[_Found], scan: Acquisition, name: str) -> list[Row]:
    rows = []
    for index, one in enumerate(found, start=1):
        source, void, effect = one.source, one.void, one.effect
        if void is not None:
            point, volume, contrast = _in_head(void.centre, scan), void.volume_mm3, void.depth
        else:
            point, volume = np.asarray(source.centre), source.volume
            contrast = 0.0 if effect is None else float(np.clip(effect.loss.max(), 0, 1))
        row = truth_row(
            name,
            index,
            _place(head, point, scan),
            volume,
            source.chi,
            contrast=contrast,
            deposit=source.volume,
            cnr=None if effect is None else effect.contrast_to_noise,
            kind=source.kind,
            extent="compact",
            site=source.place,
            number=one.number,
            visible="false" if void is None else "true",
        )
        rows.append(row)
    return rows


def _structure_row(
    head: Head,
    structure: Structure,
    voxels: NDArray[np.intp],
    index: int,
    acquisition: Acquisition,
) -> Row:
    affine = acquisition.geometry.affine
    points = voxels @ affine[:3, :3].T
    nearest = voxels[np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1))]
    place = _place(head, _in_head(nearest, acquisition), acquisition)
    volume = len(voxels) * float(np.abs(np.linalg.det(affine[:3, :3])))
    return truth_row(
        "mimic",
        index,
        place,
        volume,
        structure.chi,
        site=structure.place,
        kind=structure.kind,
        extent="extended",
        visible="true",
    )


def join_tables(rows: list[Row]) -> str:
    """Append the truth's own columns to the lesion table."""
    table = csv.reader(io.StringIO(format_lesions([row for row, _ in rows])), delimiter="\t")
    next(table)
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow([*COLUMNS, *TRUTH_COLUMNS])
    for cells, (_, more) in zip(table, rows, strict=True):
        writer.writerow([*cells, *(more[name] for name in TRUTH_COLUMNS)])
    return out.getvalue()
