"""From regions to lesions: sizes."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.detectors.assembly import OperatingPoints, assemble
from cmbprep.detectors.base import DetectorInput
from cmbprep.detectors.segmentation import ball_diameter, measure_region, void_volume

SPACING = np.array([1.0, 1.0, 4.0])


@pytest.mark.parametrize(("level", "dark"), [(20.0, True), (100.0, False), (180.0, False)])
def test_only_a_void_loses_what_slices_add(level: float, dark: bool) -> None:
    image = np.full((21, 21, 7), 100.0, np.float32)
    voxels = np.array([9, 9, 3]) + np.argwhere(np.ones((3, 3, 1), bool))
    image[tuple(voxels.T)] = level
    mask = np.ones(image.shape, bool)
    affine = np.diag([*SPACING, 1.0])
    scan = DetectorInput(magnitude=image, affine=affine, brain_mask=mask, sequence="T2starw")
    region = measure_region(image, mask, affine, voxels)
    found = assemble(scan, [region], [0.9], OperatingPoints(0.5, 0.9))
    (lesion,) = found.lesions
    expected = void_volume(region.volume_mm3, 4.0) if dark else len(voxels) * SPACING.prod()
    assert lesion.volume_mm3 == pytest.approx(expected)
    assert lesion.diameter_mm == pytest.approx(ball_diameter(lesion.volume_mm3))
    assert (lesion.contrast > 0) == dark
