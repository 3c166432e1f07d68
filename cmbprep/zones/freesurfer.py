"""What the label numbers of FreeSurfer's volumes mean for the zones.

Numbers are those of FreeSurfer's colour table, as ``aseg``, ``aparc+aseg`` and ``wmparc`` use
them (Fischl B et al., Whole brain segmentation, Neuron 2002;33:341-355), and FastSurfer after
it. Gyri are those of Desikan RS et al., NeuroImage 2006;31:968-980, which FastSurfer's DKT
protocol shares; the lobes that they make are those of its table 1, with the anterior half of
the cingulate counted as frontal and the posterior half as parietal, as in our template atlas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.zones.parcellation import CLASSES

__all__ = [
    "CORTEX",
    "FILLED",
    "KINDS",
    "LABELS",
    "LENTIFORM",
    "MEDIAL_NUCLEI",
    "PUTAMEN",
    "VENTRAL_DIENCEPHALON",
    "WHITE",
    "read_labels",
]

LEFT, RIGHT, NO_SIDE = 1, 2, 0

#: Cerebral white matter, which the zones divide further.
WHITE = "white matter"
#: Cerebral cortex without a gyrus (``aseg`` alone).
CORTEX = "cortex"
#: Hypothalamus, red nucleus, substantia nigra and what lies between, in one label.
VENTRAL_DIENCEPHALON = "ventral diencephalon"
#: No structure of the scales: takes the class of what is around it.
FILLED = "filled"
#: The classes of the atlas and four more kinds of label, in the order of their codes from 1.
KINDS = (*CLASSES, WHITE, CORTEX, VENTRAL_DIENCEPHALON, FILLED)

_GYRI = {
    # Offsets to 1000 (left) and 2000 (right).
    "frontal": (2, 3, 12, 14, 17, 18, 19, 20, 24, 26, 27, 28, 32),
    "parietal": (8, 10, 22, 23, 25, 29, 31),
    "temporal": (1, 6, 7, 9, 15, 16, 30, 33, 34),
    "occipital": (5, 11, 13, 21),
    "insula": (35,),
    "corpus callosum": (4,),
    FILLED: (0,),
}

_PAIRS: dict[str, tuple[tuple[int, int], ...]] = {
    # Left and right number. White matter: as such, and its hypointensities.
    WHITE: ((2, 41), (78, 79), (5001, 5002)),
    CORTEX: ((3, 42),),
    "lateral ventricle": ((4, 43), (5, 44), (31, 63)),  # the last pair: choroid plexus
    "cerebellum": ((6, 45), (7, 46), (8, 47)),
    "thalamus": ((9, 48), (10, 49)),
    # Caudate, putamen, pallidum, accumbens; basal forebrain, hypothalamus.
    "basal ganglia": ((11, 50), (12, 51), (13, 52), (26, 58), (865, 866), (801, 802)),
    "temporal": ((17, 53), (18, 54), (96, 97)),  # hippocampus, amygdala
    VENTRAL_DIENCEPHALON: ((28, 60),),
    "brainstem": ((27, 59),),  # substantia nigra
    "external capsule": ((138, 139),),  # claustrum
    "insula": ((19, 55),),
    # Vessels, and hypointensities outside white matter.
    FILLED: ((30, 62), (81, 82)),
}

_MIDLINE: dict[str, tuple[int, ...]] = {
    WHITE: (77,),
    "other ventricle": (14, 15, 72),
    # The whole, midbrain, pons, medulla, superior cerebellar peduncle.
    "brainstem": (16, 170, 173, 174, 175, 178),
    "basal ganglia": (85,),  # optic chiasm
    "corpus callosum": (192, 251, 252, 253, 254, 255),
    "fornix": (250,),
    FILLED: (24, 80, 165, 257, 258, 259),  # fluid, skull and soft tissue beside the brain
}

#: Left and right numbers of the putamen, of putamen and pallidum, and of caudate and thalamus. The
#: internal capsule lies between the last two, the external one between the first and the insula.
PUTAMEN = (12, 51)
LENTIFORM = (*PUTAMEN, 13, 52)
MEDIAL_NUCLEI = (9, 48, 10, 49, 11, 50)

#: Labels of the parcellated cerebellum (vermis and lobules), of FreeSurfer and FastSurfer.
_CEREBELLUM = range(601, 629)


@dataclass(frozen=True)
class Structure:
    """What a label number stands for: a kind of :data:`KINDS`, and 0, 1 (left) or 2 (right)."""

    kind: str
    side: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.side not in (NO_SIDE, LEFT, RIGHT):
            raise ValueError(f"{self.kind!r} on side {self.side} is no structure")


def _table() -> dict[int, Structure]:
    rows = [(number, "cerebellum", NO_SIDE) for number in _CEREBELLUM]
    rows += [(number, kind, NO_SIDE) for kind, all_ in _MIDLINE.items() for number in all_]
    for side in (LEFT, RIGHT):
        rows += [(pair[side - 1], kind, side) for kind, pairs in _PAIRS.items() for pair in pairs]
        for lobe, gyri in _GYRI.items():
            white = lobe if lobe == "corpus callosum" else WHITE
            rows += [(1000 * side + gyrus, lobe, side) for gyrus in gyri]
            # wmparc names the white matter under each gyrus by 3000 and 4000.
            rows += [(1000 * side + 2000 + gyrus, white, side) for gyrus in gyri]
    table = {number: Structure(kind, side) for number, kind, side in rows}
    if len(table) != len(rows):
        raise ValueError("a label stands for two structures")
    return table


#: Label number -> structure.
LABELS = _table()


def read_labels(
    labels: NDArray[np.integer],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[int]]:
    """Look the labels of an image up.

    Parameters
    ----------
    labels
        Numbers of FreeSurfer's table, any shape; 0 where there is nothing.

    Returns
    -------
    kind : ndarray of uint8
        Codes of :data:`KINDS`, from 1; 0 where the label is 0 or not known.
    side : ndarray of uint8
        1 left, 2 right, 0 where the label has no side.
    unknown : list of int
        Numbers that are not in the table.
    """
    numbers, where = np.unique(labels, return_inverse=True)
    kinds = np.zeros(len(numbers), np.uint8)
    sides = np.zeros(len(numbers), np.uint8)
    unknown = []
    for at, number in enumerate(numbers.tolist()):
        structure = LABELS.get(int(number))
        if structure is not None:
            kinds[at] = 1 + KINDS.index(structure.kind)
            sides[at] = structure.side
        elif number != 0:
            unknown.append(int(number))
    where = where.reshape(np.shape(labels))
    return kinds[where], sides[where], unknown
