"""Draw the MARS atlas on the template, for the documentation.

Run ``python -m cmbprep.lab.atlas.picture FILE.png``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmbprep.templates import load_template
from cmbprep.zones.schemes import MARS

# Axis and position (mm) of each slice.
_SLICES = [(2, z) for z in (-40, -22, -6, 6, 16, 28)] + [
    (1, 18),
    (1, -12),
    (1, -40),
    (1, -66),
    (0, -38),
    (0, 6),
]
_CROP = ((10, 184), (16, 218), (4, 172))
_OPACITY = 0.55


def draw(path: Path) -> None:
    """Write the picture: twelve slices and the colours' names; the left side is on the left."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch
    from PIL import Image

    template = load_template()
    atlas = template.atlas("mars")
    assert atlas is not None
    head, labels = (nib.Nifti1Image.from_filename(p) for p in (template.t1w, atlas))
    colours = np.zeros((256, 4))
    for region in MARS.regions:
        colours[region.index] = (*to_rgb(region.colour), _OPACITY)
    figure, axes = plt.subplots(2, 6, figsize=(13, 5.6), dpi=80, facecolor="white")
    for ax, (axis, position) in zip(axes.ravel(), _SLICES, strict=True):
        where = round(position - head.affine[axis, 3])
        ax.imshow(_cut(head, axis, where), origin="lower", cmap="gray", vmin=0, vmax=235)
        ax.imshow(colours[_cut(labels, axis, where)], origin="lower", interpolation="nearest")
        ax.set_title(f"{'xyz'[axis]} = {position} mm", fontsize=9)
        ax.axis("off")
    patches = [
        Patch(facecolor=region.colour, edgecolor="0.4", label=region.name)
        for region in MARS.regions
        if region.hemisphere != "right"
    ]
    figure.legend(handles=patches, loc="lower center", ncol=5, fontsize=9, frameon=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.95, bottom=0.15, wspace=0.03, hspace=0.08)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    plt.close(figure)
    # A palette of 256 colours is enough and makes a third of the file.
    Image.fromarray(pixels).quantize(256, method=Image.Quantize.MAXCOVERAGE).save(
        path, optimize=True
    )


def _cut(image: nib.Nifti1Image, axis: int, where: int) -> NDArray[np.integer]:
    part: list[slice | int] = [slice(*limits) for limits in _CROP]
    part[axis] = where
    return np.asarray(np.asanyarray(image.dataobj)[tuple(part)].T)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
