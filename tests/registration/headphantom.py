"""A small head of ellipsoids, without symmetry, whose parts and poses are known."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

#: Centre (mm), half axes (mm), T1w-like and T2*-like intensity; later parts paint over earlier.
PARTS = (
    ((0, 0, 0), (80, 98, 88), 90, 15),  # scalp
    ((0, 0, 2), (74, 92, 82), 8, 4),  # skull
    ((0, -2, 4), (68, 84, 70), 70, 80),  # brain
    ((0, 0, 6), (58, 72, 58), 100, 65),  # white matter
    ((-12, 6, 10), (7, 26, 9), 15, 120),  # left ventricle
    ((12, 4, 10), (7, 22, 9), 15, 120),  # right ventricle
    ((-26, 8, 2), (9, 18, 9), 75, 40),  # left nuclei
    ((27, 6, 0), (8, 15, 10), 75, 40),  # right nuclei
    ((-20, -50, -40), (24, 20, 16), 60, 75),  # cerebellum, left
    ((22, -48, -40), (24, 20, 15), 60, 75),  # cerebellum, right
    ((0, -22, -40), (11, 12, 32), 95, 60),  # brainstem
    ((38, 40, 25), (8, 9, 10), 20, 100),  # a cavity on the right
    ((-44, -38, 30), (7, 11, 6), 30, 95),  # a sulcus on the left
    ((30, 88, -30), (13, 12, 12), 30, 60),  # right eye
    ((-30, 88, -30), (13, 12, 12), 30, 60),  # left eye
)
BRAIN = (2, 8, 9, 10)


def _points(shape, affine):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def grid_affine(shape, spacing, *, centre=(0, 0, 0), codes="RAS", degrees=(0, 0, 0)):
    """Affine of a lattice about ``centre``: axes by their codes, then turned."""
    flips = nib.orientations.axcodes2ornt(tuple(codes))
    axes = np.zeros((3, 3))
    for voxel_axis, (world_axis, sign) in enumerate(flips):
        axes[int(world_axis), voxel_axis] = sign
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ axes
    affine[:3, :3] *= spacing
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def _folds(points):
    """Texture of about the scale of gyri, -1 to 1, fixed to the head."""
    rng = np.random.default_rng(7)
    texture = np.zeros(points.shape[:-1])
    for _ in range(12):
        texture += np.sin(points @ rng.normal(scale=0.16, size=3) + rng.uniform(0, 6.28))
    return np.clip(texture / 4, -1, 1)


def head(shape, affine, *, contrast="T1w", pose=None, seed=0, noise=1.0):
    """Head image on a grid; ``pose`` (4x4) takes points of the head to the scanner."""
    pose = np.eye(4) if pose is None else pose
    world = _points(shape, affine)
    inverse = np.linalg.inv(pose)
    points = world @ inverse[:3, :3].T + inverse[:3, 3]
    data = np.zeros(shape)
    column = 2 if contrast == "T1w" else 3
    for part in PARTS:
        distance = np.sum(((points - part[0]) / np.array(part[1])) ** 2, axis=-1)
        data[distance <= 1] = part[column]
    data *= 1 + 0.25 * _folds(points)
    data = ndimage.gaussian_filter(data, 1.5 / nib.affines.voxel_sizes(affine))
    data += np.random.default_rng(seed).normal(scale=noise, size=shape)
    return nib.Nifti1Image(np.maximum(data, 0).astype(np.float32), affine)


def brain(shape, affine, *, pose=None):
    """Brain mask of the head, uint8."""
    pose = np.eye(4) if pose is None else pose
    inverse = np.linalg.inv(pose)
    points = _points(shape, affine) @ inverse[:3, :3].T + inverse[:3, 3]
    mask = np.zeros(shape, dtype=bool)
    for number in BRAIN:
        centre, half = PARTS[number][:2]
        mask |= np.sum(((points - centre) / np.array(half)) ** 2, axis=-1) <= 1
    return nib.Nifti1Image(mask.astype(np.uint8), affine)


def rigid(degrees, shift):
    """Rigid pose from angles about x, y, z and a shift in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def brain_points(step=12.0):
    """Points of the brain, mm, to measure errors at."""
    axes = [np.arange(-96, 97, step)] * 3
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    centre, half = PARTS[2][:2]
    return points[np.sum(((points - centre) / np.array(half)) ** 2, axis=-1) <= 0.9]


def dice(a, b):
    """Overlap of two masks."""
    a, b = np.asarray(a) > 0, np.asarray(b) > 0
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))
