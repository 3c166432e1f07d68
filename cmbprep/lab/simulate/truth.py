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
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.scanner import Acquisition, Effect
from cmbprep.lab.simulate.sources import Source
from cmbprep.lab.simulate.structures import Structure
from cmbprep.lab.simulate.voids import MASK_LOSS, VISIBLE_CNR, Void, is_visible, outline_void
from cmbprep.lesions import COLUMNS, Lesion, format_lesions

__all__ = ["TRUTH_COLUMNS", "Truth", "join_tables", "tell_truth"]

#: Columns beside those of the lesion table, with their data dictionary.
TRUTH_COLUMNS: dict[str, dict[str, object]] = {
    "kind": {
        "Description": "What was put in.",
        "Levels": {
            "microbleed": "A microbleed.",
            "calcification": "Grains of calcium; diamagnetic.",
            "cavernoma": "A cluster of caverns of old blood.",
            "haemorrhagic_infarct": "A patch of cortex with petechial bleeding.",
            "postoperative_rim": "Old blood around a cavity that surgery has left.",
            "vein": "All veins of a place.",
            "flow_void": "All arteries that flow makes dark.",
            "dropout": "Where the head's own field takes away half of the signal or more.",
            "iron_rich_nucleus": "All nuclei that are rich in iron.",
        },
    },
    "extent": {
        "Description": "Whether the row is one thing with a place and a size.",
        "Levels": {
            "compact": "It is.",
            "extended": "It is all that there is of a structure: x, y, z is its voxel nearest "
            "to its centre of mass, and the volume that of its voxels.",
        },
    },
    "place": {"Description": "The place that the simulator drew it for."},
    "susceptibility_ppm": {
        "Description": "Mean susceptibility of the deposit against the tissue around.",
        "Units": "ppm",
    },
    "deposit_mm3": {
        "Description": "Volume of the deposit itself; the dark region is larger.",
        "Units": "mm^3",
    },
    "contrast_to_noise": {
        "Description": "Largest drop of the noise-free magnitude, by the noise of the image."
    },
    "visible": {
        "Description": f"Whether the drop is at least {VISIBLE_CNR:g} times the noise and "
        f"{MASK_LOSS:g} of the signal in some voxel.",
        "Levels": {"true": "It can be seen.", "false": "It cannot be seen on this scan."},
    },
}


@dataclass(frozen=True)
class _Found:
    source: Source
    effect: Effect | None
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
    head: Head, sources: Sequence[Source], acquisition: Acquisition, *, with_zones: bool = True
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
    """
    found = [
        _Found(source, effect, _void(source, effect, acquisition))
        for source, effect in zip(sources, acquisition.effects, strict=True)
    ]
    bleeds = [f for f in found if f.source.kind == "microbleed" and f.void]
    others = [f for f in found if not (f.source.kind == "microbleed" and f.void)]
    shape = acquisition.geometry.shape
    bleed_labels, bleeds = _labels(bleeds, shape)
    other_labels, others = _labels(others, shape)
    zones = zone_labels(head, acquisition) if with_zones else None
    bleed_rows = _rows(head, bleeds, bleed_labels, acquisition, zones, "microbleed")
    other_rows = _rows(head, others, other_labels, acquisition, zones, "mimic")
    for structure in acquisition.structures:
        free = structure.voxels[other_labels[tuple(structure.voxels.T)] == 0]
        if len(free):
            index = len(other_rows) + 1
            other_labels[tuple(free.T)] = index
            other_rows.append(_structure_row(head, structure, free, index, acquisition))
    return Truth(
        microbleeds=bleed_labels,
        others=other_labels,
        microbleed_table=join_tables(*_columns(bleed_rows)),
        other_table=join_tables(*_columns(other_rows)),
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


_Row = tuple[Lesion, dict[str, str]]


def _columns(rows: list[_Row]) -> tuple[list[Lesion], list[dict[str, str]]]:
    return [lesion for lesion, _ in rows], [more for _, more in rows]


def _rows(
    head: Head,
    found: list[_Found],
    labels: NDArray[np.uint8],
    acquisition: Acquisition,
    zones: NDArray[np.uint8] | None,
    stem: str,
) -> list[_Row]:
    from cmbprep.zones.assign import assign_zones
    from cmbprep.zones.schemes import MARS

    places = {}
    if zones is not None and len(found):
        assigned = assign_zones(labels, acquisition.geometry.affine, zones, MARS)
        places = {one.label: one for one in assigned}
    rows = []
    for index, one in enumerate(found, start=1):
        lesion, more = _source_row(head, one, index, acquisition, f"{stem}-{index:03d}")
        zone = places.get(index)
        if zone is not None:
            lesion = replace(lesion, **zone.columns())
        rows.append((lesion, more))
    return rows


def _position(
    head: Head, point: NDArray[np.float64], acquisition: Acquisition
) -> tuple[float, float, float, float, float, float]:
    """Scanner and template coordinates, mm, of a point in head mm."""
    pose = acquisition.geometry.pose
    x, y, z = map(float, pose[:3, :3] @ point + pose[:3, 3])
    x_mni, y_mni, z_mni = map(float, head.to_template(point[None])[0])
    return (x, y, z, x_mni, y_mni, z_mni)


def _in_head(voxel: NDArray[np.floating], acquisition: Acquisition) -> NDArray[np.float64]:
    back = np.linalg.inv(acquisition.geometry.head_to_voxel)
    return np.asarray(back[:3, :3] @ voxel + back[:3, 3])


def _source_row(head: Head, one: _Found, index: int, acquisition: Acquisition, name: str) -> _Row:
    source, void, effect = one.source, one.void, one.effect
    if void is not None:
        point, volume, contrast = _in_head(void.centre, acquisition), void.volume_mm3, void.depth
    else:
        point, volume = np.asarray(source.centre), source.volume
        contrast = 0.0 if effect is None else float(np.clip(effect.loss.max(), 0, 1))
    x, y, z, x_mni, y_mni, z_mni = _position(head, point, acquisition)
    lesion = Lesion(
        index=index,
        name=name,
        x=x,
        y=y,
        z=z,
        x_mni=x_mni,
        y_mni=y_mni,
        z_mni=z_mni,
        volume_mm3=volume,
        diameter_mm=float(np.cbrt(6 * volume / np.pi)),
        contrast=contrast,
        susceptibility="paramagnetic" if source.chi > 0 else "diamagnetic",
    )
    more = {
        "kind": source.kind,
        "extent": "compact",
        "place": source.place,
        "susceptibility_ppm": f"{source.chi:.3f}",
        "deposit_mm3": f"{source.volume:.2f}",
        "contrast_to_noise": "n/a" if effect is None else f"{effect.contrast_to_noise:.1f}",
        "visible": "false" if void is None else "true",
    }
    return lesion, more


def _structure_row(
    head: Head,
    structure: Structure,
    voxels: NDArray[np.intp],
    index: int,
    acquisition: Acquisition,
) -> _Row:
    affine = acquisition.geometry.affine
    points = voxels @ affine[:3, :3].T
    nearest = voxels[np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1))]
    volume = len(voxels) * float(np.abs(np.linalg.det(affine[:3, :3])))
    x, y, z, x_mni, y_mni, z_mni = _position(head, _in_head(nearest, acquisition), acquisition)
    lesion = Lesion(
        index=index,
        name=f"mimic-{index:03d}",
        x=x,
        y=y,
        z=z,
        x_mni=x_mni,
        y_mni=y_mni,
        z_mni=z_mni,
        volume_mm3=volume,
        diameter_mm=float(np.cbrt(6 * volume / np.pi)),
        susceptibility="unknown" if structure.chi is None else "paramagnetic",
    )
    more = {
        "kind": structure.kind,
        "extent": "extended",
        "place": structure.place,
        "susceptibility_ppm": "n/a" if structure.chi is None else f"{structure.chi:.3f}",
        "deposit_mm3": "n/a",
        "contrast_to_noise": "n/a",
        "visible": "true",
    }
    return lesion, more


def join_tables(lesions: list[Lesion], extra: list[dict[str, str]]) -> str:
    """Append the truth's own columns to the lesion table."""
    rows = list(csv.reader(io.StringIO(format_lesions(lesions)), delimiter="\t"))
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow([*COLUMNS, *TRUTH_COLUMNS])
    for row, more in zip(rows[1:], extra, strict=True):
        writer.writerow([*row, *(more[name] for name in TRUTH_COLUMNS)])
    return out.getvalue()
