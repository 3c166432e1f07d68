"""What is true about a simulated scan: masks, labels and tables of what was put in.

A microbleed counts as *visible* where it takes away at least :data:`MASK_LOSS` of the
noise-free signal in some voxel and its contrast is at least :data:`VISIBLE_CNR` times the
noise. Its mask is where the loss is that large, connected to it. What is put in and cannot
be seen is listed with the mimics and says ``visible`` false: nobody can be asked to find
it, and finding it is no mistake either.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..lesions import COLUMNS, Lesion, format_lesions
from .head import Head
from .scanner import Acquisition, Effect
from .sources import Source

__all__ = ["MASK_LOSS", "TRUTH_COLUMNS", "VISIBLE_CNR", "Truth", "join_tables", "tell_truth"]

#: Relative loss of the noise-free signal from which a voxel belongs to a lesion's mask.
MASK_LOSS = 0.2
#: Contrast-to-noise ratio from which a source is visible.
VISIBLE_CNR = 5.0

#: Columns beside those of the lesion table, with their data dictionary.
TRUTH_COLUMNS: dict[str, dict[str, object]] = {
    "kind": {
        "Description": "What was put in.",
        "Levels": {
            "microbleed": "A microbleed.",
            "calcification": "Grains of calcium; diamagnetic.",
            "cavernoma": "A cluster of caverns of old blood.",
            "haemorrhagic_infarct": "A patch of cortex with petechial bleeding.",
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
    voxels: NDArray[np.intp]  # (N, 3), of the mask; empty if invisible


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


def tell_truth(head: Head, sources: Sequence[Source], acquisition: Acquisition) -> Truth:
    """Make label images and tables from what the sources did to an image."""
    found = [
        _Found(source, effect, _mask_voxels(source, effect, acquisition))
        for source, effect in zip(sources, acquisition.effects, strict=True)
    ]
    bleeds = [f for f in found if f.source.kind == "microbleed" and len(f.voxels)]
    others = [f for f in found if not (f.source.kind == "microbleed" and len(f.voxels))]
    shape = acquisition.geometry.shape
    bleed_labels, bleeds = _labels(bleeds, shape)
    other_labels, others = _labels(others, shape)
    zones = zone_labels(head, acquisition)
    return Truth(
        microbleeds=bleed_labels,
        others=other_labels,
        microbleed_table=_table(head, bleeds, bleed_labels, acquisition, zones, "microbleed"),
        other_table=_table(head, others, other_labels, acquisition, zones, "mimic"),
        zones=zones,
    )


def _mask_voxels(
    source: Source, effect: Effect | None, acquisition: Acquisition
) -> NDArray[np.intp]:
    """Voxels that a source darkened, connected to it; none if it cannot be seen."""
    from scipy import ndimage

    if effect is None or effect.contrast_to_noise < VISIBLE_CNR:
        return np.zeros((0, 3), np.intp)
    dark = effect.loss >= MASK_LOSS
    labels, count = ndimage.label(dark, np.ones((3, 3, 3)))
    if count == 0:
        return np.zeros((0, 3), np.intp)
    spacing = np.linalg.norm(acquisition.geometry.affine[:3, :3], axis=0)
    voxels = np.argwhere(dark)
    distance = np.linalg.norm((voxels + effect.origin - effect.centre_voxel) * spacing, axis=1)
    near = labels[tuple(voxels[distance <= source.reach + float(spacing.max())].T)]
    if near.size == 0:
        return np.zeros((0, 3), np.intp)
    kept = np.argwhere(np.isin(labels, np.unique(near)))
    return np.asarray(kept + np.asarray(effect.origin), dtype=np.intp)


def _labels(
    found: list[_Found], shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], list[_Found]]:
    """Paint masks; of two that overlap, the first drawn keeps the voxels.

    A microbleed whose mask another one has swallowed whole is dropped from the list.
    """
    labels = np.zeros(shape, np.uint8)
    kept: list[_Found] = []
    for one in found:
        if not len(one.voxels):
            kept.append(one)
            continue
        free = one.voxels[labels[tuple(one.voxels.T)] == 0]
        if not len(free):
            continue
        kept.append(_Found(one.source, one.effect, free))
        labels[tuple(free.T)] = len(kept)
    return labels, kept


def zone_labels(head: Head, acquisition: Acquisition) -> NDArray[np.uint8] | None:
    """Carry the packaged MARS atlas to the scan's grid by the head's own exact map."""
    import nibabel as nib

    from ..templates import load_template

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


def _table(
    head: Head,
    found: list[_Found],
    labels: NDArray[np.uint8],
    acquisition: Acquisition,
    zones: NDArray[np.uint8] | None,
    stem: str,
) -> str:
    from ..algorithms.zones import assign_zones
    from ..zones import MARS

    geometry = acquisition.geometry
    places = {}
    if zones is not None and len(found):
        assigned = assign_zones(labels, geometry.affine, zones, MARS)
        places = {one.label: one for one in assigned}
    lesions, extra = [], []
    for index, one in enumerate(found, start=1):
        zone = places.get(index)
        lesion, row = _row(head, one, index, acquisition, f"{stem}-{index:03d}")
        if zone is not None:
            lesion.update(
                zone=zone.zone,
                region=zone.region,
                hemisphere=zone.hemisphere,
                region_fraction=zone.region_fraction,
                boundary_distance_mm=zone.boundary_distance_mm,
                boundary=zone.boundary,
            )
        lesions.append(Lesion(**lesion))  # type: ignore[arg-type]
        extra.append(row)
    return join_tables(lesions, extra)


def _row(
    head: Head, one: _Found, index: int, acquisition: Acquisition, name: str
) -> tuple[dict[str, object], dict[str, str]]:
    geometry, source = acquisition.geometry, one.source
    centre = geometry.pose[:3, :3] @ np.asarray(source.centre) + geometry.pose[:3, 3]
    template = head.to_template(np.asarray([source.centre]))[0]
    visible = len(one.voxels) > 0
    cell = float(np.abs(np.linalg.det(geometry.affine[:3, :3])))
    volume = len(one.voxels) * cell if visible else source.volume
    contrast = 0.0 if one.effect is None else float(np.clip(one.effect.loss.max(), 0, 1))
    lesion: dict[str, object] = {
        "index": index,
        "name": name,
        **dict(zip(("x", "y", "z"), map(float, centre), strict=True)),
        **dict(zip(("x_mni", "y_mni", "z_mni"), map(float, template), strict=True)),
        "volume_mm3": volume,
        "diameter_mm": float(np.cbrt(6 * volume / np.pi)),
        "contrast": contrast,
        "susceptibility": "paramagnetic" if source.chi > 0 else "diamagnetic",
    }
    row = {
        "kind": source.kind,
        "place": source.place,
        "susceptibility_ppm": f"{source.chi:.3f}",
        "deposit_mm3": f"{source.volume:.2f}",
        "contrast_to_noise": "n/a" if one.effect is None else f"{one.effect.contrast_to_noise:.1f}",
        "visible": "true" if visible else "false",
    }
    return lesion, row


def join_tables(lesions: list[Lesion], extra: list[dict[str, str]]) -> str:
    """Append the truth's own columns to the lesion table."""
    rows = list(csv.reader(io.StringIO(format_lesions(lesions)), delimiter="\t"))
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow([*COLUMNS, *TRUTH_COLUMNS])
    for row, more in zip(rows[1:], extra, strict=True):
        writer.writerow([*row, *(more[name] for name in TRUTH_COLUMNS)])
    return out.getvalue()
