"""What the label numbers of FreeSurfer's volumes mean for the zones.

Numbers are those of FreeSurfer's colour table, as ``aseg``, ``aparc+aseg`` and ``wmparc`` use
them (Fischl B et al., Whole brain segmentation, Neuron 2002;33:341-355), and FastSurfer after
it. Gyri are those of Desikan RS et al., NeuroImage 2006;31:968-980, which FastSurfer's DKT
protocol shares; the lobes that they make are those of its table 1, with the anterior half of
the cingulate counted as frontal and the posterior half as parietal, as in our template atlas.
``wmparc`` names the white matter under each gyrus by 3000 and 4000; the vermis and the lobules of a
parcellated cerebellum are 601 to 628. The table is ``cmbprep/data/freesurfer.tsv``.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from cmbprep.zones.parcellation import CLASSES

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

#: Left and right numbers of the putamen, of putamen and pallidum, and of caudate and thalamus. The
#: internal capsule lies between the last two, the external one between the first and the insula.
PUTAMEN = (12, 51)
LENTIFORM = (*PUTAMEN, 13, 52)
MEDIAL_NUCLEI = (9, 48, 10, 49, 11, 50)


@dataclass(frozen=True)
class Structure:
    """What a label number stands for: a kind of :data:`KINDS`, and 0, 1 (left) or 2 (right)."""

    kind: str
    side: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.side not in (NO_SIDE, LEFT, RIGHT):
            raise ValueError(f"{self.kind!r} on side {self.side} is no structure")


def _table() -> dict[int, Structure]:
    text = resources.files("cmbprep.data").joinpath("freesurfer.tsv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    sides = {"left": LEFT, "right": RIGHT, "n/a": NO_SIDE}
    table = {int(row["index"]): Structure(row["class"], sides[row["hemisphere"]]) for row in rows}
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
