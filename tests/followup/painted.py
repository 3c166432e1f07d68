"""Images of a made-up brain with dark balls where a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmbprep.followup.spots import BrainImage
from cmbprep.followup.status import VisitLesions
from cmbprep.lesions import Lesion
from tests.followup.madeup import acquisition
from tests.registration import headphantom

TISSUE, RADIUS = 100.0, 32.0
#: Centre (mm, in the head), diameter (mm) and part of the signal that is lost.
Ball = tuple[Any, float, float]


def grid(spacing=(1.0, 1.0, 2.0), *, codes="RAS", degrees=(0, 0, 0), shift=(0.0, 0.0, 0.0)):
    """Shape and affine of a grid around the head; ``shift`` is in voxels."""
    size = np.abs(np.linalg.inv(headphantom.grid_affine((1, 1, 1), (1, 1, 1), codes=codes))[:3, :3])
    own = size @ np.asarray(spacing)
    shape = tuple(2 * np.ceil((RADIUS + 12) / own).astype(int) + 1)
    affine = headphantom.grid_affine(shape, own, codes=codes, degrees=degrees)
    affine[:3, 3] += affine[:3, :3] @ np.asarray(shift)
    return shape, affine


def paint(shape, affine, balls: Sequence[Ball] = (), *, pose=None, noise=1.0, seed=0):
    """Image and brain mask of a round brain; ``pose`` takes points of the head to the scanner."""
    pose = np.eye(4) if pose is None else pose
    points = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    at_home = (points - pose[:3, 3]) @ pose[:3, :3]
    brain = (np.linalg.norm(at_home, axis=1) <= RADIUS).reshape(shape)
    loss = np.zeros(len(points))
    steps = (np.indices((5, 5, 5)).reshape(3, -1).T + 0.5) / 5 - 0.5
    parts = steps @ affine[:3, :3].T @ pose[:3, :3]
    reach = np.linalg.norm(affine[:3, :3], axis=0).sum()
    for centre, diameter, depth in balls:
        away = np.linalg.norm(at_home - np.asarray(centre, float), axis=1)
        near = np.flatnonzero(away < diameter / 2 + reach)
        # A voxel shows the part of it that the ball fills.
        inner = at_home[near][:, None] + parts[None] - np.asarray(centre, float)
        filled = (np.linalg.norm(inner, axis=2) <= diameter / 2).mean(axis=1)
        loss[near] = np.maximum(loss[near], depth * filled)
    image = TISSUE * (1 - loss.reshape(shape))
    image = image + np.random.default_rng(seed).normal(scale=noise, size=shape)
    return np.where(brain, image, 0).astype(np.float32), brain


def brain_image(balls: Sequence[Ball] = (), *, noise=1.0, seed=0, pose=None, **where) -> BrainImage:
    shape, affine = grid(**where)
    image, brain = paint(shape, affine, balls, noise=noise, seed=seed, pose=pose)
    return BrainImage.of(image, brain, affine)


def seen_visit(
    *lesions: Lesion,
    balls: Sequence[Ball] = (),
    candidates=(),
    pose=None,
    seed=0,
    acquired=None,
    scale=1.0,
    **where,
) -> VisitLesions:
    """A visit with its image."""
    shape, affine = grid(**where)
    image, brain = paint(shape, affine, balls, pose=pose, seed=seed)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return VisitLesions(
        lesions=lesions,
        candidates=candidates,
        brain=brain,
        affine=affine,
        acquisition=acquired or acquisition(spacing_mm=tuple(map(float, spacing))),
        image=image * np.float32(scale),
    )
