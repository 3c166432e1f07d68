"""Which of two brain masks is the brain: the one that registration carried, or the network's.

The two know different things and fail differently: the carried mask is a brain by its shape, in
the wrong place if the registration went wrong; the network looks at this image alone and may
take something else for brain. Where the registration is good, its mask is the better one
(``docs/validation/brain_mask.md``), and the network's checks it; where it is not, the network's
takes its place, with a warning, unless that is doubtful, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from cmbprep.brain.network import BrainExtraction
from cmbprep.errors import ScanError

#: Volumes that the brain of a grown person has with the fluid around it, ml.
SMALLEST, LARGEST = 800.0, 2300.0
#: From this part of its surface on the border of the field of view, a mask may be of any size.
CUT = 0.02
#: Edge confidence below which the border of the network's mask is doubtful. For its training
#: heads (whole, with wrong headers and cut) the Dice with the reference was 0.94 or more above this
#: and 0.87 to 0.98 below (docs/validation/brain_mask.md).
UNSURE = 0.692
#: Dice below which the two masks are not of the same brain.
DISAGREEMENT = 0.9


@dataclass(frozen=True, eq=False)
class MaskChoice:
    """The brain mask, and why it is this one.

    Attributes
    ----------
    mask
        uint8, 0 and 1, on the image's own grid.
    source
        ``network`` or ``registration``.
    agreement
        Dice of the two masks, 0 to 1; None if there is one only.
    warnings
        What a person should know.
    """

    mask: nib.Nifti1Image
    source: str
    agreement: float | None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.source not in ("network", "registration"):
            raise ValueError(f"a mask comes from network or registration, not {self.source!r}")


def dice(a: SpatialImage, b: SpatialImage) -> float:
    """Overlap of two masks on one grid: twice the common part over the sum; 0 if both are empty."""
    one, other = np.asarray(a.dataobj) > 0, np.asarray(b.dataobj) > 0
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return float(2 * np.count_nonzero(one & other) / total) if total else 0.0


def doubts(found: BrainExtraction) -> tuple[str, ...]:
    """Return why the network's mask is implausible; empty if the mask is plausible."""
    reasons = []
    if found.volume_ml > LARGEST:
        reasons.append(f"it holds {found.volume_ml:.0f} ml, more than a brain")
    if found.volume_ml < SMALLEST and found.cut_fraction < CUT:
        reasons.append(
            f"it holds {found.volume_ml:.0f} ml, less than a brain that is wholly in the image"
        )
    if found.sureness < UNSURE:
        reasons.append(f"its edge confidence is low ({found.sureness:.2f} of 1)")
    return tuple(reasons)


def choose_brain_mask(
    found: BrainExtraction | None,
    carried: Callable[[], nib.Nifti1Image],
    *,
    verdict: str,
) -> MaskChoice:
    """Choose between the network's mask and the one that a registration carried.

    1. The carried mask, if the registration is not doubtful. A network's mask that is plausible
       (:func:`doubts`) and disagrees is reported.
    2. The carried mask, if the registration is doubtful and the network's mask, too.
    3. Else the network's, if there is one, with what is doubtful about it.
    4. Else the carried one.

    Parameters
    ----------
    found
        Of the network; None if it found no brain.
    carried
        Gives the carried mask, on the same grid; a ScanError means that there is none.
    verdict
        Of the registration: ``ok``, ``doubtful`` or ``failed``.

    Raises
    ------
    ScanError
        If there is neither.
    """
    agreement = None
    try:
        other = carried()
        if found is None:
            why = "the brain was not found in the image itself; its mask is the registration's"
            return MaskChoice(other, "registration", None, (why,))
        agreement = dice(found.mask, other)
        doubtful = doubts(found)
        if verdict == "ok":
            why = (
                "the brain found in the image and the one carried by registration overlap by "
                f"{agreement:.2f} (Dice) only: look at mask and registration"
            )
            told = (why,) if agreement < DISAGREEMENT and not doubtful else ()
            return MaskChoice(other, "registration", agreement, told)
        if verdict == "doubtful" and doubtful:
            why = (
                "the registration is doubtful, and so is the brain found in the image itself: "
                f"{'; '.join(doubtful)}; the brain mask is the registration's"
            )
            return MaskChoice(other, "registration", agreement, (why,))
        why = "the registration is not sound; the brain mask is the network's"
    except ScanError:
        if found is None:
            raise
        why = "the brain mask of the registration lies outside the image"
    said = (f"the brain found in the image is doubtful: {reason}" for reason in doubts(found))
    return MaskChoice(found.mask, "network", agreement, (why, *said))
