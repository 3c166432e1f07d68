"""One person's head: tissues, skull, air and iron, and its exact way to the template.

A head is made from a template head (tissue probabilities and a T1-weighted image) by a
random smooth deformation, random sharpening of the probabilities into folded cortex,
ventricles and sulci widened by atrophy, white-matter lesions, and a skull with air
cavities. It lives on its own grid of 1 mm in *head coordinates*: millimetres, RAS+, close
to those of the template. :meth:`Head.to_template` is the exact map from head coordinates to
the template's, so that the zone of any point is known, not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.simulate.deformation import Chain, Deformation, TemplateHead, Volume, _apply
from cmbprep.lab.simulate.tissue import (
    AIR_SUSCEPTIBILITY,
    IRON_TO_CHI,
    TISSUES,
    iron_content,
    iron_to_r2star,
)


@dataclass(frozen=True)
class Head:
    """One person's head on its own grid, of 1 mm unless it was asked for.

    Attributes
    ----------
    affine
        4x4, voxel -> head mm.
    fractions
        uint8, shape (tissues, X, Y, Z), in the order of ``tissue.TISSUES``; 255 is all of
        the voxel. What the tissues leave is air.
    iron
        Iron beyond that of cortex, mg per 100 g, shape (X, Y, Z).
    to_template
        Head mm -> template mm.
    points
        float32, shape (3, X, Y, Z): template mm of each voxel.
    """

    affine: NDArray[np.float64]
    fractions: NDArray[np.uint8]
    iron: Volume
    to_template: Deformation | Chain
    points: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the head's grid."""
        x, y, z = self.iron.shape
        return (x, y, z)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def fraction(self, tissue: str) -> Volume:
        """Volume fraction of one tissue, 0..1."""
        return self.fractions[list(TISSUES).index(tissue)] * np.float32(1 / 255)

    def mix(self, values: dict[str, float]) -> Volume:
        """Average a property over the tissues in each voxel; air counts as zero."""
        total = np.zeros(self.shape, np.float32)
        for index, name in enumerate(TISSUES):
            if values[name]:
                total += self.fractions[index] * np.float32(values[name] / 255)
        return total

    def brain_mask(self) -> NDArray[np.bool_]:
        """Where brain tissue and fluid make up most of the voxel."""
        names = list(TISSUES)
        inside = [names.index(name) for name in ("csf", "gm", "wm", "wmh")]
        return np.asarray(self.fractions[inside].sum(axis=0, dtype=np.uint16) > 127)

    def r2star(self, field_strength: float) -> Volume:
        """R2* in 1/s without what macroscopic fields add."""
        rate = self.mix({name: t.r2star_at(field_strength) for name, t in TISSUES.items()})
        rate += self.iron * np.float32(iron_to_r2star(field_strength))
        return rate

    def chi(self) -> Volume:
        """Susceptibility in ppm relative to water; that of air outside the tissues."""
        chi = self.mix({name: t.chi - AIR_SUSCEPTIBILITY for name, t in TISSUES.items()})
        chi += np.float32(AIR_SUSCEPTIBILITY)
        chi += self.iron * np.float32(IRON_TO_CHI)
        return chi


def build_head(
    template: TemplateHead,
    rng: np.random.Generator,
    *,
    age: float = 70.0,
    atrophy: float = 0.3,
    lesion_load: float = 0.3,
    rim: float = 0.0,
    spacing: float = 1.0,
) -> Head:
    """Make a head that nobody has.

    Parameters
    ----------
    template
        Where it starts from.
    rng
        Source of randomness; the same state gives the same head.
    age
        Years; decides the iron of the deep nuclei.
    atrophy
        0 none .. 1 severe: widens ventricles and sulci.
    lesion_load
        0 none .. 1 severe: white-matter lesions.
    rim
        mm of fluid between brain and skull, in addition to the usual 0.5 to 1.5 mm.
    spacing
        Of the head's grid, mm; a coarser one is cheaper, and blurs sulci.
    """
    from cmbprep.lab.simulate import anatomy

    deformation = random_deformation(template, rng, atrophy)
    points, shape, affine = anatomy.head_grid(template, deformation, spacing)
    distance, depth = (
        anatomy.sample_template(image, template.affine, points)
        for image in (template.brain_distance, template.depth)
    )
    fractions = anatomy.brain_fractions(template, points, distance, rng, atrophy, spacing)
    anatomy.add_white_matter_lesions(fractions, affine, rng, lesion_load)
    to_template: Deformation | Chain = deformation
    if template.to_template is not None:
        to_template = Chain(deformation, template.to_template)
        points = anatomy.map_volume(template.to_template, points)
    anatomy.add_skull_and_scalp(fractions, points, distance, depth, rng, rim, spacing)
    iron = anatomy.iron_map(fractions, points, shape, lambda name: iron_content(name, age))
    packed = np.round(np.clip(fractions, 0, 1) * 255).astype(np.uint8)
    return Head(affine=affine, fractions=packed, iron=iron, to_template=to_template, points=points)


def random_deformation(
    template: TemplateHead, rng: np.random.Generator, atrophy: float
) -> Deformation:
    """Draw a smooth invertible map from head to template coordinates."""
    from scipy import ndimage

    step = 6.0
    low = template.affine[:3, 3] - 12
    high = _apply(template.affine, np.asarray([template.gm.shape]))[0] + 12
    shape = tuple(int(np.ceil((b - a) / step)) + 1 for a, b in zip(low, high, strict=True))
    grid = np.diag([step, step, step, 1.0])
    grid[:3, 3] = low
    field = np.zeros((3, *shape), np.float32)
    for width, amplitude in ((30.0, 3.0), (11.0, 1.3)):
        for axis in range(3):
            noise = ndimage.gaussian_filter(rng.standard_normal(shape), width / step, mode="wrap")
            field[axis] += (noise * amplitude / noise.std()).astype(np.float32)
    field += _ventricle_push(grid, shape, atrophy)
    scale = 1 + rng.normal(0, 0.03) + rng.normal(0, 0.02, 3)
    matrix = np.diag([*(1 / scale), 1.0])
    matrix[:3, :3] += np.triu(rng.normal(0, 0.01, (3, 3)), 1)
    return Deformation(matrix=matrix, displacement=field, grid=grid)


def _ventricle_push(
    grid: NDArray[np.float64], shape: tuple[int, ...], atrophy: float
) -> NDArray[np.float32]:
    """Displacement that makes the lateral ventricles wider: towards their axes."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    points = np.tensordot(grid[:3, :3], index, 1) + grid[:3, 3].reshape(3, 1, 1, 1)
    push = np.zeros((3, *shape), np.float32)
    for side in (-1, 1):
        centre = np.array([side * 14.0, -8.0, 16.0]).reshape(3, 1, 1, 1)
        offset = points - centre
        reach = (offset / np.array([13.0, 34.0, 14.0]).reshape(3, 1, 1, 1)) ** 2
        push -= (0.35 * atrophy * offset * np.exp(-reach.sum(axis=0))).astype(np.float32)
    return push
