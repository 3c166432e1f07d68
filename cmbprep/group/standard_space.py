"""Pictures in standard space: a glass brain, drawn by nilearn, and voxels for a map.

nilearn brings matplotlib and pandas, whose import takes seconds; it is imported when it draws.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from cmbprep.reports.colours import ZONE_COLOURS

logger = logging.getLogger("cmbprep")

#: Voxel size of the map to move through, mm: finer ones make the page larger than it may be.
VIEWER_SPACING = 2.0
#: Width of the glass brain, inches, and its resolution, pixels per inch.
GLASS_SIZE, GLASS_DPI = (12.0, 3.2), 150
GROUND, UNKNOWN_COLOUR = "#0d1117", "#8b949e"


def glass_brain(lesions: Sequence[Mapping[str, Any]]) -> str:
    """Mark lesions on the outline of a brain: left half, from behind, right half, from above.

    Parameters
    ----------
    lesions
        Rows of the table of lesions with coordinates in MNI152 space. Those in the midline are
        shown with both halves.

    Returns
    -------
    str
        An ``<img>`` element that holds the picture. The person's left is at the left.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from nilearn.plotting import plot_glass_brain

    stream = io.BytesIO()
    with mpl.rc_context({"font.family": "sans-serif"}):
        # A figure of its own, which pyplot does not keep.
        figure = Figure(figsize=GLASS_SIZE)
        display = plot_glass_brain(
            None, display_mode="lyrz", figure=figure, black_bg=True, colorbar=False, alpha=0.6
        )
        for zone in (*ZONE_COLOURS, None):
            colour = ZONE_COLOURS.get(zone or "", UNKNOWN_COLOUR)
            for rating in ("definite", "possible", None):
                points = [
                    (item["x_mni"], item["y_mni"], item["z_mni"])
                    for item in lesions
                    if (item["zone"], item["rating"]) == (zone, rating)
                ]
                fill = colour if rating == "definite" else "none"
                if points:
                    display.add_markers(
                        points, fill, 16, edgecolors=colour, linewidths=1.0, alpha=0.7
                    )
        figure.savefig(stream, dpi=GLASS_DPI, facecolor=GROUND, metadata={"Software": None})
    code = base64.b64encode(stream.getvalue()).decode()
    text = "Microbleeds on the outline of a brain: left half, from behind, right half, from above."
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(text, code)


def template_background(
    template: str, shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> NDArray[np.float32] | None:
    """Bring a template onto the grid of a map; None where it is not available offline."""
    from cmbprep.spatial.grids import Grid, resample_to_grid, same_grid
    from cmbprep.templates import load_template

    try:
        image = nib.Nifti1Image.from_filename(load_template(template, offline=True).t1w)
        data = np.asarray(image.dataobj, np.float32)
        if same_grid(data.shape, image.affine, shape, affine):
            return data
        return resample_to_grid(data, image.affine, Grid(shape, affine))
    # Whatever a damaged template makes the readers raise: the map is shown without it.
    except Exception:
        logger.debug("the template %s cannot be shown", template, exc_info=True)
        return None


def coarser(
    data: NDArray, affine: ArrayLike, combine: Callable[..., NDArray]
) -> tuple[nib.Nifti1Image, NDArray[np.integer]]:
    """Combine blocks of voxels to voxels of about :data:`VIEWER_SPACING`.

    Returns
    -------
    image
        The coarse image.
    times
        Voxels of the fine image on each side of a coarse one, (3,).
    """
    sizes = nib.affines.voxel_sizes(np.asarray(affine))
    times = np.maximum(np.round(VIEWER_SPACING / sizes), 1).astype(int)
    padded = np.pad(data, [(0, -size % n) for size, n in zip(data.shape, times, strict=True)])
    blocks = padded.reshape(np.stack([padded.shape // times, times], axis=1).ravel())
    # The middle of the first block, in voxels.
    shift = nib.affines.from_matvec(np.diag(times.astype(float)), (times - 1) / 2)
    combined = np.asarray(combine(blocks, axis=(1, 3, 5)), np.float32)
    return nib.Nifti1Image(combined, np.asarray(affine) @ shift), times
