"""Pictures in standard space, drawn by nilearn: a glass brain, and a map to move through.

nilearn brings matplotlib and pandas, whose import takes seconds; both functions import it when
they are called.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from cmbprep.lesions import Lesion
from cmbprep.reports.colours import HEAT_STOPS, ZONE_COLOURS
from cmbprep.reports.figures.sections import as_float

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

#: Voxel size of the map to move through, mm: finer ones make the page larger than it may be.
VIEWER_SPACING = 2.0
#: Width of the glass brain, inches, and its resolution, pixels per inch.
GLASS_SIZE, GLASS_DPI = (12.0, 3.2), 150
VIEWER_STYLE = (
    "body{margin:0;background:#000;color:#c9d1d9;font:13px sans-serif}"
    "input{accent-color:#79c0ff}p{margin:6px 0 6px 10px}"
)
GROUND, UNKNOWN_COLOUR = "#0d1117", "#8b949e"


def glass_brain(lesions: Sequence[Lesion]) -> str:
    """Mark lesions on the outline of a brain: left half, from behind, right half, from above.

    Parameters
    ----------
    lesions
        Lesions with coordinates in MNI152 space. Those in the midline are shown with both halves.

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
                    (item.x_mni, item.y_mni, item.z_mni)
                    for item in lesions
                    if (item.zone, item.rating) == (zone, rating)
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


def frequency_viewer(
    frequency: NDArray, affine: ArrayLike, background: NDArray | None = None
) -> str:
    """Make a page with a frequency map in three planes, which a click moves through.

    Parameters
    ----------
    frequency : array of shape (i, j, k)
        Fractions, 0 to 1; a voxel that is brought to a coarser grid keeps the highest.
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm.
    background : array of shape (i, j, k) or None
        Template on the same grid.

    Returns
    -------
    str
        A page of its own that loads nothing, to be embedded in a frame; the colour bar is in
        per cent.
    """
    from nilearn.plotting import view_img

    percent = 100 * np.clip(np.nan_to_num(as_float(frequency)), 0, 1)
    overlay = _coarser(percent, affine, np.max)
    ground: Any = False
    if background is not None:
        ground = _coarser(np.clip(as_float(background), 0, None), affine, np.mean)
    view = view_img(
        overlay,
        bg_img=ground,
        cmap=_heat(),
        symmetric_cmap=False,
        vmin=0,
        vmax=float(percent.max()) or 1.0,
        threshold=1e-6,
        black_bg=True,
        dim=0,
        resampling_interpolation="nearest",
        cut_coords=_peak(overlay),
        width_view=900,
        title=None,
    )
    # The page links to an icon on a server, and its ids are drawn at random.
    text = re.sub(r"<link\b[^>]*>", "", str(view.get_standalone()))
    text = re.sub(r"-[0-9a-f]{32}\b", "-frequency", text)
    return text.replace("</head>", f"<style>{VIEWER_STYLE}</style></head>", 1)


def _coarser(
    data: NDArray[np.float32], affine: ArrayLike, combine: Callable[..., NDArray]
) -> nib.Nifti1Image:
    """Combine blocks of voxels to voxels of about :data:`VIEWER_SPACING`."""
    sizes = nib.affines.voxel_sizes(np.asarray(affine))
    times = np.maximum(np.round(VIEWER_SPACING / sizes), 1).astype(int)
    padded = np.pad(data, [(0, -size % n) for size, n in zip(data.shape, times, strict=True)])
    blocks = padded.reshape(np.stack([padded.shape // times, times], axis=1).ravel())
    # The middle of the first block, in voxels.
    shift = nib.affines.from_matvec(np.diag(times), (times - 1) / 2)
    return nib.Nifti1Image(combine(blocks, axis=(1, 3, 5)), np.asarray(affine) @ shift)


def _peak(image: nib.Nifti1Image) -> tuple[float, ...]:
    """Return the place of the highest value, mm."""
    data = np.asarray(image.dataobj)
    voxel = np.unravel_index(int(data.argmax()), data.shape)
    return tuple(map(float, nib.affines.apply_affine(image.affine, voxel)))


def _heat() -> Colormap:
    """Return the colours of the map; a step is widest where frequencies are low."""
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    colours = LinearSegmentedColormap.from_list("heat", HEAT_STOPS)
    return ListedColormap(colours(np.sqrt(np.linspace(0, 1, 256))), name="frequency")
