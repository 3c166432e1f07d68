"""A scan and itself, turned, shifted and laid on another lattice: nothing is new."""

import nibabel as nib
import numpy as np

from benchmarks.followup import MOVES, moved_scan
from cmbprep.followup.registration import HeadScan, register_visits
from cmbprep.followup.status import VisitLesions, follow_lesions
from cmbprep.spatial.transforms import map_points
from tests.followup.madeup import acquisition, lesion
from tests.registration import headphantom

SHAPE, SPACING = (44, 52, 36), (4.0, 4.0, 5.0)
PLACES = ((20, 0, 0), (-15, 20, 10), (0, -30, 10), (10, 25, -10), (-20, -5, -15), (25, -10, 20))


def head(image, mask, affine):
    outline = nib.Nifti1Image(mask.astype(np.uint8), affine)
    return HeadScan(image=nib.Nifti1Image(image, affine), brain_mask=outline)


def visit(points, mask, affine):
    """Lesions at points, each known to the nearest voxel only."""
    voxels = np.round((points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T)
    centres = voxels @ affine[:3, :3].T + affine[:3, 3]
    return VisitLesions(
        lesions=tuple(lesion(n, centre) for n, centre in enumerate(centres, start=1)),
        candidates=(),
        brain=mask,
        affine=affine,
        acquisition=acquisition(spacing_mm=SPACING),
    )


def test_every_lesion_is_found_again():
    affine = headphantom.grid_affine(SHAPE, SPACING)
    image = np.asarray(headphantom.head(SHAPE, affine, contrast="T2starw").dataobj, np.float32)
    mask = np.asarray(headphantom.brain(SHAPE, affine).dataobj) > 0
    moved, its_mask, its_affine, truth = moved_scan(image, mask, affine, MOVES[1])
    found = register_visits(head(image, mask, affine), head(moved, its_mask, its_affine))
    points = headphantom.brain_points()
    off = map_points(points, (found.to_second,)) - map_points(points, (truth,))
    assert np.linalg.norm(off, axis=1).max() < 1.5
    places = np.array(PLACES, float)
    fates = follow_lesions(
        visit(places, mask, affine),
        visit(truth(places), its_mask, its_affine),
        found.to_second,
        found.error_mm,
    )
    assert [fate.status for fate in fates] == ["persistent"] * len(PLACES)
    assert all(fate.first.index == fate.second.index for fate in fates)
