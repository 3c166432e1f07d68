"""Zones drawn from a person's own segmentation.

What the segmentation knows is taken from it: gyri, nuclei, cerebellum, brainstem, ventricles,
the extent of white matter. What it does not divide is divided by rules:

- White matter in which the template's classes, carried over, have a gyrus (or the cingulum) lies
  within gyri and belongs to the lobe of the nearest cortex; to the insula within 2 mm of it.
- The internal capsule is white matter that lies between the lentiform nucleus and the caudate
  or thalamus (the two distances add up to 7 mm or less), and white matter near a nucleus where
  the template has it. The external capsule is white matter between putamen and insula, on the
  side of the putamen, and white matter near the putamen where the template has it.
- Corpus callosum and fornix are where the segmentation or the template has them.
- All other white matter is core: deep and periventricular up to the scheme's border from the
  person's own lateral ventricles, and of the nearest lobe beyond.
- The ventral diencephalon is brainstem where the template has brainstem (red nucleus, substantia
  nigra, peduncle), internal capsule where it has that, and else goes to the basal ganglia as
  the hypothalamus does in the atlas.

A voxel of the brain mask without a label takes the class of the nearest tissue, so that every
voxel has a zone. Sides are those of the labels; structures without one take the nearest.
Borders are the segmentation's own and are not smoothed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.spatial.grids import bounding_box
from cmbprep.zones.freesurfer import (
    CORTEX,
    FILLED,
    KINDS,
    LENTIFORM,
    MEDIAL_NUCLEI,
    PUTAMEN,
    VENTRAL_DIENCEPHALON,
    WHITE,
    read_labels,
)
from cmbprep.zones.parcellation import (
    CLASSES,
    LOBES,
    VENTRICLES,
    bombs_regions,
    join_sides,
    mars_regions,
    nearest_label,
)
from cmbprep.zones.schemes import MARS, VENTRICLE_INDEX, Scheme

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

#: With a smaller part of its labels in FreeSurfer's table an image is no such segmentation.
KNOWN_FRACTION = 0.95
#: Largest sum of the distances to two nuclei between them, mm.
BETWEEN_MM = 7.0
#: Farthest from a nucleus at which the template's capsule is believed, mm.
NEAR_NUCLEUS_MM = 8.0
#: Farthest from insular cortex at which white matter is the insula's, mm.
INSULA_MM = 2.0

_MARGIN = 3  # voxels around the brain


@dataclass(frozen=True, eq=False)
class PersonZones:
    """Zones of one person.

    Attributes
    ----------
    labels
        Indices of the scheme, uint8, on the grid of the segmentation.
    unknown
        Label numbers that are not in FreeSurfer's table; their voxels were filled.
    """

    labels: Labels
    unknown: tuple[int, ...]


def person_zones(
    segmentation: NDArray[np.integer], template: Labels, brain: Mask, scheme: Scheme
) -> PersonZones:
    """Draw a scheme's zones from a segmentation of FreeSurfer or FastSurfer.

    Parameters
    ----------
    segmentation
        Numbers of FreeSurfer's table (``aparc+aseg``, ``aseg`` or ``wmparc``) on a grid of
        1 mm, shape (x, y, z).
    template
        Codes of :data:`~.parcellation.CLASSES`, carried over from the template to this grid;
        0 where it has none.
    brain
        Brain mask on this grid; labelled voxels are added to it.
    scheme
        MARS or BOMBS, with any border.

    Returns
    -------
    PersonZones

    Raises
    ------
    ValueError
        If the shapes differ, nothing is labelled, or too many labels are not FreeSurfer's.
    """
    if not segmentation.shape == template.shape == brain.shape or segmentation.ndim != 3:
        raise ValueError("segmentation, template and brain are not on one 3D grid")
    kind, side, unknown = read_labels(segmentation)
    labelled = int(np.count_nonzero(segmentation))
    if not labelled or np.count_nonzero(kind) < KNOWN_FRACTION * labelled:
        named = f", such as {unknown[0]}" if unknown else ""
        raise ValueError(f"its labels are not those of FreeSurfer{named}")
    whole = brain | ((kind > 0) & (kind != _code(FILLED)))
    box = bounding_box(whole, _MARGIN)
    kind, side, whole = kind[box], side[box], whole[box]
    classes = _classes(segmentation[box], kind, template[box], whole)
    ventricle = _among(classes, *VENTRICLES)
    lateral = _among(classes, "lateral ventricle", "thin horn")
    border = scheme.border_mm if scheme.border == MARS.border else MARS.border_mm
    region = mars_regions(classes, whole, lateral, border)
    sides = nearest_label(side, whole & (side == 0), (side > 0) & whole)
    joined = join_sides(region, sides, whole)
    joined[ventricle] = VENTRICLE_INDEX
    if scheme.border != MARS.border:
        grey = whole & ~_among(kind, WHITE)
        region = bombs_regions(joined, grey, scheme.border_mm)
        joined = join_sides(region, sides, whole)
        joined[ventricle] = VENTRICLE_INDEX
    labels = np.zeros(segmentation.shape, np.uint8)
    labels[box] = joined
    return PersonZones(labels, tuple(unknown))


def _code(name: str) -> int:
    return 1 + KINDS.index(name)


def _among(codes: Labels, *names: str) -> Mask:
    return np.isin(codes, [_code(name) for name in names])


def _distance(mask: Mask) -> NDArray[np.floating]:
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~mask))


def _classes(
    segmentation: NDArray[np.integer], kind: Labels, template: Labels, brain: Mask
) -> Labels:
    """Assign a class of the atlas to every voxel of the brain."""
    # Tissue of the person where the template has a ventricle, or nothing: what is next to it.
    known = (template > 0) & ~_among(template, *VENTRICLES)
    template = nearest_label(template, brain & ~known, known)
    classes = np.where(kind <= len(CLASSES), kind, 0).astype(np.uint8)
    _name_cortex(classes, kind, template)
    diencephalon = _among(kind, VENTRAL_DIENCEPHALON)
    classes[diencephalon] = _code("basal ganglia")
    classes[diencephalon & _among(template, "brainstem", "peduncle")] = _code("brainstem")
    classes[diencephalon & _among(template, "internal capsule")] = _code("internal capsule")
    white = _among(kind, WHITE)
    cortex = _among(classes, *LOBES)
    lobe = nearest_label(np.where(cortex, classes, 0).astype(np.uint8), white, cortex)
    insula = _among(classes, "insula")
    core = white & ~_gyral(template)
    classes[white] = lobe[white]
    classes[white & ~core & (_distance(insula) <= INSULA_MM)] = _code("insula")
    classes[core] = _code("core white matter")
    _draw_capsules(classes, segmentation, white, template)
    for name in ("corpus callosum", "fornix"):
        classes[core & _among(template, name)] = _code(name)
    tissue = (classes > 0) & ~_among(classes, *VENTRICLES)
    classes = nearest_label(classes, brain & (classes == 0), tissue)
    classes[~brain] = 0
    return classes


def _gyral(template: Labels) -> Mask:
    """Where the template has gyri, or there is no template at all."""
    return (template == 0) | _among(template, *LOBES, "insula", "cingulum", "cerebellum")


def _name_cortex(classes: Labels, kind: Labels, template: Labels) -> None:
    """Assign cortex without a gyrus to the nearest lobe of the template."""
    bare = _among(kind, CORTEX)
    if bare.any():
        known = _among(template, *LOBES, "insula")
        classes[bare] = nearest_label(np.where(known, template, 0).astype(np.uint8), bare, known)[
            bare
        ]


def _draw_capsules(
    classes: Labels, segmentation: NDArray[np.integer], white: Mask, template: Labels
) -> None:
    """Draw the capsules into white matter, where there are nuclei."""
    nuclei = np.isin(segmentation, (*LENTIFORM, *MEDIAL_NUCLEI))
    if not nuclei.any():
        return
    box = bounding_box(nuclei, int(NEAR_NUCLEUS_MM) + 1)
    inside, white, template, numbers = classes[box], white[box], template[box], segmentation[box]
    lentiform, medial, putamen = (
        _distance(np.isin(numbers, names)) for names in (LENTIFORM, MEDIAL_NUCLEI, PUTAMEN)
    )
    insula = _distance(_among(inside, "insula") & ~white)
    near = white & (np.minimum(lentiform, medial) <= NEAR_NUCLEUS_MM)
    internal = white & (lentiform + medial <= BETWEEN_MM)
    internal |= near & _among(template, "internal capsule", "peduncle", "brainstem")
    external = white & (putamen + insula <= BETWEEN_MM) & (putamen <= insula)
    external |= near & _among(template, "external capsule")
    # Where the two rules meet, the one for the internal capsule has the nearer witnesses.
    external &= ~internal
    inside[internal], inside[external] = _code("internal capsule"), _code("external capsule")
    # White matter of the person where the template has a nucleus: what is next to it.
    lost = near & ~internal & ~external & _among(template, "basal ganglia", "thalamus")
    inside[:] = nearest_label(inside, lost, internal | external)
