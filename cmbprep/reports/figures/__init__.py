"""Figures of the participant's report, as SVG."""

from cmbprep.reports.figures.images import (
    bias_figure,
    mask_figure,
    registration_figure,
    zones_figure,
)
from cmbprep.reports.figures.lesions import lesion_figure, overview_figure

__all__ = [
    "bias_figure",
    "lesion_figure",
    "mask_figure",
    "overview_figure",
    "registration_figure",
    "zones_figure",
]
