"""From anatomical classes and tissue maps to the zones of the rating scales.

Pure functions on arrays of one 1 mm grid. The packaged atlases are built with them, and a run
draws its zones with them where a border was moved or where a person has a segmentation of
their own (:mod:`cmbprep.zones.person`). Values of the fine labels are those of the
JHU atlas of 189 structures; the lists below say which structure goes to which class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.zones.schemes import BOMBS, MARS, RIGHT_OFFSET, VENTRICLE_INDEX, Scheme

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# Labels of the source: left structures have odd, right ones even numbers up to 170. Cingulate:
# the anterior and dorsal parts go to the frontal lobe, the posterior part to the parietal one.
# Amygdala and hippocampus belong to the temporal lobe. Nuclei and bundles of the basal
# forebrain and the hypothalamus, which the scales do not name, go to the basal ganglia.
_SOURCE: dict[str, tuple[Iterable[int], ...]] = {
    "frontal": (range(1, 23), range(25, 27), range(61, 69)),
    "parietal": (range(23, 25), range(27, 35), range(69, 71)),
    "temporal": (range(35, 51), range(73, 77), range(141, 143), range(184, 190)),
    "occipital": (range(51, 61),),
    "insula": (range(71, 73), range(182, 184)),
    "basal ganglia": (range(77, 83), range(85, 91), range(159, 169)),
    "thalamus": (range(83, 85),),
    "internal capsule": (range(131, 137),),
    "external capsule": (range(137, 139),),
    "corpus callosum": (range(123, 129),),
    "fornix": (range(143, 147),),
    "cingulum": (range(139, 141),),
    # Coronae radiatae, tapetum, long association bundles, thalamic radiation.
    "core white matter": (range(117, 123), range(129, 131), range(147, 159)),
    "brainstem": (range(91, 95), range(97, 103), range(107, 109), range(111, 117)),
    "peduncle": (range(103, 107), range(109, 111)),
    "cerebellum": (range(95, 97),),
    "lateral ventricle": (range(171, 174), range(176, 179)),
    # Occipital and temporal horns, which are too thin to be seen in an average brain.
    "thin horn": ((174, 175, 179, 180),),
    "other ventricle": (range(181, 182),),
}

#: Names of the classes, in the order of their codes from 1.
CLASSES = tuple(_SOURCE)
#: What prevails in a voxel of the template, in the order of the codes from 0.
TISSUES = ("fluid", "grey", "white")
_CODE = {name: code for code, name in enumerate(CLASSES, start=1)}
VENTRICLES = ("lateral ventricle", "thin horn", "other ventricle")
LOBES = ("frontal", "parietal", "temporal", "occipital")

# The cerebellar peduncles are brainstem up to this distance from the pons and medulla.
_PEDUNCLE_MM = 5.0
# Fluid this near to a ventricle of the source belongs to it: the error of the registration.
_VENTRICLE_REACH_MM = 3.0
# Pieces smaller than this (mm3) are no part of a region but noise of its border.
_SMALLEST_PIECE = 150


def classify(fine: NDArray[np.integer]) -> Labels:
    """Return the class of each fine label: codes count from 1 in :data:`CLASSES`."""
    table = np.zeros(256, np.uint8)
    for name, ranges in _SOURCE.items():
        for part in ranges:
            table[list(part)] = _CODE[name]
    return table[fine]


def sides(fine: NDArray[np.integer], x: NDArray[np.floating]) -> Labels:
    """Return 1 (left) or 2 (right) for each labelled voxel, by the side of the structure.

    ``x`` (mm, of the source's own midsagittal plane) decides in labels that span both sides.
    """
    side = np.where(x < 0, 1, 2).astype(np.uint8)
    return np.where(fine > 0, side, 0).astype(np.uint8)


def nearest_label(labels: Labels, where: Mask, sources: Mask | None = None) -> Labels:
    """Fill the voxels in ``where`` with the nearest label (of ``sources``, not 0)."""
    known = labels > 0 if sources is None else sources
    if not where.any() or not known.any():
        return labels
    index = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = labels.copy()
    filled[where] = labels[tuple(axis[where] for axis in index)]
    return filled


def _within(mask: Mask, distance: float) -> Mask:
    return ndimage.distance_transform_edt(~mask) <= distance


def _is(classes: Labels, *names: str) -> Mask:
    return np.isin(classes, [_CODE[name] for name in names])


def _complete(classes: Labels, brain: Mask, csf: Mask) -> tuple[Labels, Mask]:
    """Redraw the ventricles on the template's own fluid and give every other voxel a class."""
    atlas_ventricle = _is(classes, *VENTRICLES)
    ventricle = csf & brain & _within(atlas_ventricle, _VENTRICLE_REACH_MM)
    # Sulcal fluid beside the ventricles belongs to the cortex around it.
    ventricle &= ~_is(classes, *LOBES, "insula", "cerebellum") | atlas_ventricle
    parts, _ = ndimage.label(ventricle)
    sizes = np.bincount(parts.ravel())
    ventricle &= sizes[parts] >= _SMALLEST_PIECE
    lateral = nearest_label(
        np.where(atlas_ventricle, classes, 0).astype(np.uint8), ventricle, atlas_ventricle
    )
    tissue = np.where(atlas_ventricle | ~brain, 0, classes).astype(np.uint8)
    tissue = nearest_label(tissue, brain & (tissue == 0))
    tissue[~brain] = 0
    tissue[ventricle] = lateral[ventricle]
    return tissue, ventricle


def mars_labels(
    classes: Labels, side: Labels, brain: Mask, csf: Mask, border_mm: float = MARS.border_mm
) -> Labels:
    """Draw the regions of MARS.

    Parameters
    ----------
    classes
        Codes of :func:`classify` on the template's grid, shape (x, y, z), 0 where unknown.
    side
        1 left, 2 right, 0 unknown.
    brain, csf
        The template's brain and the fluid in it.
    border_mm
        Core white matter (coronae radiatae, association bundles, thalamic radiation, tapetum)
        nearer than this to a lateral ventricle is deep and periventricular, the rest is
        subcortical and belongs to the nearest lobe. White matter within gyri, with the
        cingulum, is always subcortical.

    Returns
    -------
    ndarray of uint8
        Indices of :data:`cmbprep.zones.schemes.MARS`; 0 outside the brain.
    """
    horns = brain & _is(classes, "thin horn")
    classes, ventricle = _complete(classes, brain, csf)
    lateral = horns | (ventricle & _is(classes, "lateral ventricle", "thin horn"))
    region = mars_regions(classes, brain, lateral, border_mm)
    return _finish(region, side, brain, ventricle, MARS, brain.astype(np.uint8))


def mars_regions(classes: Labels, brain: Mask, lateral: Mask, border_mm: float) -> Labels:
    """Return the MARS region of each voxel, without the side.

    Parameters
    ----------
    classes
        Codes of :data:`CLASSES` on a grid of 1 mm, one for every voxel of the brain.
    brain
        Where regions are wanted.
    lateral
        The lateral ventricles, from which ``border_mm`` is measured.
    border_mm
        As in :func:`mars_labels`.

    Returns
    -------
    ndarray of uint8
        Indices of the left regions of :data:`cmbprep.zones.schemes.MARS`; 0 in the ventricles.
    """
    lobe = nearest_label(classes, brain, _is(classes, *LOBES))
    core = _is(classes, "core white matter")
    deep = (core & _within(lateral, border_mm)) | _is(classes, "fornix")
    to_lobe = (core & ~deep) | _is(classes, "cingulum")
    peduncle = _is(classes, "peduncle")
    near_stem = _within(_is(classes, "brainstem"), _PEDUNCLE_MM)

    region = np.zeros(classes.shape, np.uint8)
    for index, name in enumerate(MARS.region_names, start=1):
        if name in _CODE:
            region[_is(classes, name)] = index
    index_of = {name: index for index, name in enumerate(MARS.region_names, start=1)}
    to_index = np.zeros(len(CLASSES) + 1, np.uint8)
    for name in LOBES:
        to_index[_CODE[name]] = index_of[name]
    region[to_lobe] = to_index[lobe[to_lobe]]
    region[deep] = index_of["deep and periventricular white matter"]
    region[peduncle & near_stem] = index_of["brainstem"]
    region[peduncle & ~near_stem] = index_of["cerebellum"]
    return region


def bombs_labels(mars: Labels, grey: Mask, border_mm: float = BOMBS.border_mm) -> Labels:
    """Draw the regions of BOMBS from those of MARS.

    Parameters
    ----------
    mars
        Result of :func:`mars_labels`.
    grey
        Where grey matter, or fluid of the sulci, prevails.
    border_mm
        White matter of the lobes nearer than this to cortex belongs to the grey-white junction.

    Returns
    -------
    ndarray of uint8
        Indices of :data:`cmbprep.zones.schemes.BOMBS`.
    """
    side = np.select([mars == VENTRICLE_INDEX, mars > RIGHT_OFFSET, mars > 0], [0, 2, 1])
    region = bombs_regions(mars, grey, border_mm)
    # Neither smoothing nor islands may move a voxel to another zone or side.
    zones = [None, *dict.fromkeys(BOMBS.zone_of(name) for name in BOMBS.region_names)]
    zone = np.array([0] + [zones.index(BOMBS.zone_of(name)) for name in BOMBS.region_names])
    groups = (zone[region] + 10 * side).astype(np.uint8)
    return _finish(region, side.astype(np.uint8), mars > 0, mars == VENTRICLE_INDEX, BOMBS, groups)


def bombs_regions(mars: Labels, grey: Mask, border_mm: float) -> Labels:
    """Return the BOMBS region of each voxel, without the side; see :func:`bombs_labels`."""
    name_of = {0: "", **{i: r.name for i, r in MARS.by_index.items()}}
    names = np.array([name_of.get(value, "") for value in range(256)])[mars]
    lobar = np.isin(names, MARS.region_names[:5])
    junction = lobar & _within(lobar & grey, border_mm)
    simple = {
        "corpus callosum": "subcortical white matter",
        "deep and periventricular white matter": "subcortical white matter",
        "internal capsule": "internal and external capsule",
        "external capsule": "internal and external capsule",
    }
    region = np.zeros(mars.shape, np.uint8)
    for index, name in enumerate(BOMBS.region_names, start=1):
        takes = [old for old in MARS.region_names if simple.get(old, old) == name]
        region[np.isin(names, takes)] = index
    region[lobar & ~junction] = 1 + BOMBS.region_names.index("subcortical white matter")
    region[junction] = 1 + BOMBS.region_names.index("cortex and grey-white junction")
    return region


@dataclass(frozen=True, eq=False)
class Parcellation:
    """The template's classes, sides and tissues: all that an atlas is drawn from.

    Attributes
    ----------
    classes
        Codes of :data:`CLASSES`, 0 where unknown, shape (x, y, z).
    side
        1 left, 2 right, 0 unknown.
    tissue
        Codes of :data:`TISSUES`: what prevails in the voxel.

    Raises
    ------
    ValueError
        If the shapes differ or a code is out of range.
    """

    classes: Labels
    side: Labels
    tissue: Labels

    def __post_init__(self) -> None:
        parts = (self.classes, self.side, self.tissue)
        if len({part.shape for part in parts}) != 1:
            raise ValueError("classes, sides and tissues are not on one grid")
        for part, count in zip(parts, _COUNTS, strict=True):
            if part.size and int(part.max()) >= count:
                raise ValueError(f"a code is {int(part.max())}, which is not below {count}")

    def pack(self) -> Labels:
        """Return all three as one label image."""
        packed = self.classes + _COUNTS[0] * (self.side + _COUNTS[1] * self.tissue)
        return np.asarray(packed, np.uint8)

    @classmethod
    def unpack(cls, packed: NDArray[np.integer]) -> Parcellation:
        """Read what :meth:`pack` has made."""
        rest, classes = np.divmod(packed, _COUNTS[0])
        tissue, side = np.divmod(rest, _COUNTS[1])
        parts = (np.asarray(part, np.uint8) for part in (classes, side, tissue))
        return cls(*parts)


#: How many values classes, sides and tissues have.
_COUNTS = (len(CLASSES) + 1, 3, len(TISSUES))


def draw_atlas(
    template: Parcellation, brain: Mask, scheme: Scheme, mars: Labels | None = None
) -> Labels:
    """Draw a scheme's atlas with the border that the scheme asks for.

    With the default border the result is the packaged atlas.

    Parameters
    ----------
    template
        The packaged parcellation.
    brain
        Brain mask of the template, on the same grid.
    scheme
        MARS or BOMBS, with any border.
    mars
        The MARS atlas, which BOMBS is drawn from; drawn with its default border if not given.
    """
    if scheme.border == MARS.border or mars is None:
        border = scheme.border_mm if scheme.border == MARS.border else MARS.border_mm
        fluid = (template.tissue == TISSUES.index("fluid")) & brain
        mars = mars_labels(template.classes, template.side, brain, fluid, border)
    if scheme.border == MARS.border:
        return mars
    grey = (template.tissue != TISSUES.index("white")) & brain
    return bombs_labels(mars, grey, scheme.border_mm)


def _finish(
    region: Labels, side: Labels, brain: Mask, ventricle: Mask, scheme: Scheme, groups: Labels
) -> Labels:
    """Join regions with sides, smooth borders, and give islands to what surrounds them.

    ``groups`` are codes that no voxel may leave, so that two schemes agree on their zones.
    """
    tissue = brain & ~ventricle
    side = nearest_label(side, tissue & (side == 0))
    labels = join_sides(region, side, tissue)
    result = np.zeros(labels.shape, np.uint8)
    for group in np.unique(groups[tissue]):
        inside = tissue & (groups == group)
        part = _smooth(np.where(inside, labels, 0).astype(np.uint8), scheme)
        result[inside] = _without_islands(part, inside, scheme)[inside]
    result[ventricle] = VENTRICLE_INDEX
    return result


def join_sides(region: Labels, side: Labels, where: Mask) -> Labels:
    """Return labels of a scheme from its left regions and the sides; 0 elsewhere."""
    labels = np.where(side == 2, region + RIGHT_OFFSET, region).astype(np.uint8)
    labels[~where] = 0
    return labels


def _smooth(labels: Labels, scheme: Scheme) -> Labels:
    """Smooth labels: each labelled voxel takes the main label around it (Gaussian, 0.8 mm)."""
    best = np.zeros(labels.shape, np.float32)
    result = labels.copy()
    boxes = ndimage.find_objects(labels)
    for value in scheme.by_index:
        box = boxes[value - 1] if value <= len(boxes) else None
        if box is None:
            continue
        box = tuple(slice(max(part.start - 4, 0), part.stop + 4) for part in box)
        share = ndimage.gaussian_filter((labels[box] == value).astype(np.float32), 0.8)
        wins = (share > best[box]) & (labels[box] > 0)
        best[box][wins] = share[wins]
        result[box][wins] = value
    return result


def _without_islands(labels: Labels, inside: Mask, scheme: Scheme) -> Labels:
    """Assign pieces below the smallest size to the nearest label; regions keep their largest."""
    for _ in range(3):  # what an island is given to can make a new one, rarely
        islands = np.zeros(labels.shape, bool)
        for value in scheme.by_index:
            parts, count = ndimage.label(labels == value)
            if count > 1:
                sizes = np.bincount(parts.ravel())
                sizes[0] = _SMALLEST_PIECE
                sizes[1 + np.argmax(sizes[1:])] = _SMALLEST_PIECE
                islands |= sizes[parts] < _SMALLEST_PIECE
        if not islands.any():
            break
        labels = nearest_label(np.where(islands, 0, labels).astype(np.uint8), islands & inside)
    return labels
