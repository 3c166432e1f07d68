"""The card of the brain-mask network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmbprep.brain.network import SPACING
from cmbprep.lab.training.brain.heads import SIMULATED_SEED

if TYPE_CHECKING:
    from cmbprep.lab.training.brain.fitting import BrainFitOptions

__all__ = ["brain_card"]


def brain_card(
    sha256: str, simulated: int, real: dict[str, str], options: BrainFitOptions
) -> dict[str, Any]:
    """Make the card.

    Parameters
    ----------
    sha256
        Of the model's file.
    simulated
        Number of simulated heads.
    real
        Names of the real heads, and where they come from.
    options
        Of the fit.
    """
    return {
        "name": "brain",
        "version": "2",
        "licence": "Apache-2.0",
        "sha256": sha256,
        "intended_use": "Research. Brain masks of T1-weighted, T2*-weighted, gradient-echo and "
        "susceptibility-weighted images of human heads, whole or cut; the fluid around the brain "
        "is in them about as in those of HD-BET and deepbet.",
        "limits": "Learned from few real heads, none of them with a disease. The head must be "
        "upright to about 40 degrees by the image's affine. No child was seen.",
        "data": {
            "simulated_heads": simulated,
            "simulated_from": "the packaged template, deformed at random (cmbprep.lab.simulate)",
            "real_heads": real,
            "reference_masks": "mean of the probabilities of HD-BET (Apache-2.0) and deepbet "
            "(MIT), cut at one half"
            if real
            else "none",
            "colours": "drawn anew for each scan (cmbprep.lab.training.brain.contrasts)",
            "seeds": {"heads": SIMULATED_SEED, "fit": options.seed},
        },
        "fit": {"steps": options.steps, "rate": options.rate},
        "spacing_mm": SPACING,
        "input": "roots of intensities, about 0 to 1, and the field of view",
        "output": "log-odds of brain, about the distance to its border in mm",
    }
