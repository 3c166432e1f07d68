"""Heads that the brain-mask network learns from, kept small: 4 mm, and a distance for a mask.

Two kinds. Simulated heads know the tissue of every voxel, so any contrast can be given to
them. Real heads, images with a brain mask from elsewhere, have the skin, vessels, muscle
and bone that the simulator lacks; their intensities are changed at random, inside and outside
of the brain apart (:mod:`cmbprep.lab.training.brain.contrasts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.brain.network import SPACING

#: First word of the seeds of simulated heads; no other simulation uses it.
SIMULATED_SEED = 460
#: Distances are kept up to this, mm; the head goes on beyond.
FARTHEST = 60.0


@dataclass(frozen=True, eq=False)
class TrainingHead:
    """A head on a 4 mm grid, axes to the right, front and top.

    Attributes
    ----------
    distance
        float32, shape (X, Y, Z): mm to the border of the brain, positive inside.
    fractions
        uint8, shape (tissues, X, Y, Z), of 255, in the order of ``simulate.tissue.TISSUES``,
        of a simulated head; else None.
    image
        float32, shape (X, Y, Z), T1-weighted, about 0 to 1, of a real head; else None.
    """

    distance: NDArray[np.float32]
    fractions: NDArray[np.uint8] | None = None
    image: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if (self.fractions is None) == (self.image is None):
            raise ValueError("a head has either tissue fractions or an image")
        shape = self.image.shape if self.image is not None else self.fractions.shape[1:]  # type: ignore[union-attr]
        if shape != self.distance.shape:
            raise ValueError("the distance is not on the head's grid")


def make_heads(
    folder: Path,
    count: int,
    real: list[tuple[Path, Path]],
    say: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Make heads and keep them as files; those that are there are left as they are.

    Parameters
    ----------
    folder
        Where they go.
    count
        Number of simulated heads.
    real
        Images and their brain masks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"simulated_{number:04d}.npz"
        if not path.exists():
            _save(path, simulated_head(number))
            say(f"head {path.stem}")
        paths.append(path)
    for image, mask in real:
        path = folder / f"real_{image.name.partition('.')[0]}.npz"
        if not path.exists():
            import nibabel as nib

            _save(path, real_head(nib.load(image), nib.load(mask)))
            say(f"head {path.stem}")
        paths.append(path)
    return paths


def load_head(path: Path) -> TrainingHead:
    """Read a head that :func:`make_heads` wrote."""
    with np.load(path) as file:
        distance = file["distance"].astype(np.float32)
        if "image" in file:
            return TrainingHead(distance, image=file["image"].astype(np.float32))
        return TrainingHead(distance, fractions=file["fractions"])


def _save(path: Path, head: TrainingHead) -> None:
    parts: dict[str, NDArray[np.generic]] = {"distance": head.distance.astype(np.float16)}
    if head.image is not None:
        parts["image"] = head.image.astype(np.float16)
    if head.fractions is not None:
        parts["fractions"] = head.fractions
    temporary = path.with_suffix(".part.npz")
    np.savez_compressed(temporary, **parts)  # type: ignore[arg-type]
    temporary.replace(path)


def simulated_head(number: int) -> TrainingHead:
    """Make a head that nobody has."""
    from cmbprep.lab.simulate.anatomy import sample_template
    from cmbprep.lab.simulate.head import build_head
    from cmbprep.lab.simulate.heads import load_template_head

    rng = np.random.default_rng([SIMULATED_SEED, number])
    head = build_head(
        load_template_head(),
        rng,
        age=float(rng.uniform(25, 90)),
        atrophy=float(rng.uniform(0, 1)),
        lesion_load=float(rng.uniform(0, 0.8)),
    )
    template = load_template_head()
    # The template's own border, carried along: fluid of the eyes is brain by tissue alone.
    distance = -sample_template(template.brain_distance, template.affine, head.points)
    distance = np.clip(distance, -FARTHEST, FARTHEST)
    step = int(SPACING)
    even = tuple(slice(0, step * (n // step)) for n in distance.shape)
    return TrainingHead(
        _block_mean(distance[even], step),
        fractions=np.stack(
            [
                np.rint(_block_mean(part[even].astype(np.float32), step)).astype(np.uint8)
                for part in head.fractions
            ]
        ),
    )


def real_head(image: Any, mask: Any) -> TrainingHead:
    """Make a head of an image and its brain mask, which are on one grid.

    Parameters
    ----------
    image, mask : nibabel.spatialimages.SpatialImage
        Whole head; voxels above one half are brain.

    Raises
    ------
    ValueError
        If the two are not on one grid.
    """
    import nibabel as nib

    from cmbprep.brain.bias import clean_intensities
    from cmbprep.brain.network import network_grid
    from cmbprep.spatial.grids import GRID_TOLERANCE, grid_gap, resample_to_grid

    image = nib.squeeze_image(image)
    mask = nib.squeeze_image(mask)
    gap = grid_gap(mask.shape, mask.affine, image.shape, image.affine)
    if gap.voxels > GRID_TOLERANCE:
        raise ValueError(f"the mask is not on the grid of its image: {gap}")
    data = clean_intensities(image)
    brain = np.asarray(mask.dataobj, dtype=np.float32) > 0.5
    grid = network_grid(image.shape, image.affine)
    values = np.maximum(resample_to_grid(data, image.affine, grid), 0)
    level = np.percentile(data[brain], 98)
    distance = signed_distance(brain, image.header.get_zooms()[:3])
    # Beyond the field of view it goes on as it is at the border.
    near = resample_to_grid(distance, image.affine, grid, extend=True)
    return TrainingHead(near, image=np.minimum(values / level, 3.0).astype(np.float32))


def signed_distance(
    brain: NDArray[np.bool_], spacing: float | tuple[float, ...]
) -> NDArray[np.float32]:
    """Distance to the border of a mask, mm, positive inside, bounded."""
    within = ndimage.distance_transform_edt(brain, sampling=spacing)
    without = ndimage.distance_transform_edt(~brain, sampling=spacing)
    # Half a voxel: the border lies between voxels.
    half = float(np.mean(spacing)) / 2
    signed = np.where(brain, within - half, half - without)
    return np.clip(signed, -FARTHEST, FARTHEST).astype(np.float32)


def _block_mean(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    x, y, z = (n // step for n in values.shape)
    return np.asarray(values.reshape(x, step, y, step, z, step).mean(axis=(1, 3, 5)), np.float32)
