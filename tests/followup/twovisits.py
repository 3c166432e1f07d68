"""An output dataset with two or more visits of a participant, whose lesions are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cmbprep.files.tsv import format_tsv
from cmbprep.followup.registration import HeadScan, VisitRegistration
from cmbprep.lesions import Lesion, format_lesions
from cmbprep.outputs.files import file_digest, read_json, write_image, write_json, write_text
from cmbprep.outputs.stages import BLOCK
from cmbprep.reports.results import SubjectResult, collect_results
from cmbprep.spatial.transforms import LinearMap
from tests.registration import headphantom
from tests.reports.outputtree import Tree

SHAPE, SPACING = (40, 48, 36), (4.0, 4.0, 4.0)
#: Size of the voids of lesions: standard deviation, mm.
VOID_MM = 3.0
#: Where the head is at each visit.
POSES = {
    "a": LinearMap(np.eye(4)),
    "b": LinearMap(headphantom.rigid((5, -3, 8), (4, -6, 3))),
    "c": LinearMap(headphantom.rigid((-4, 2, 1), (-3, 5, 2))),
}


def add_visit(
    tree: Tree,
    session: str,
    lesions: Sequence[Lesion],
    *,
    candidates: Sequence[tuple[Any, float]] = (),
    acquisition: dict[str, Any] | None = None,
    name: str | None = None,
    unlisted: Sequence[Any] = (),
    **recorded: Any,
) -> None:
    """Add the scan of a visit; places are those of its own scan.

    ``unlisted`` are places that are dark in the image, and that the detector has not weighed;
    ``recorded`` is what else the run has recorded of the scan (:meth:`.Tree.add`).
    """
    pose = POSES[session]
    name = name or f"sub-1_ses-{session}_T2starw"
    scanner = {"Manufacturer": "Maker", "ManufacturersModelName": "One"}
    detection = tree.add(name, lesions, acquisition={**scanner, **(acquisition or {})}, **recorded)
    preproc = detection.sidecar.with_name(f"{detection.names.src}_desc-preproc_T2starw.json")
    affine = headphantom.grid_affine(SHAPE, SPACING, centre=pose.matrix[:3, 3])
    image = headphantom.head(SHAPE, affine, contrast="T2starw", pose=pose.matrix)
    # A ball of brain is enough.
    points = np.indices(SHAPE).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    at_home = pose.inverse()(points)
    brain = (np.linalg.norm(at_home, axis=1) <= 55).reshape(SHAPE)
    # The lesions are dark in the image.
    loss = np.zeros(len(points))
    for centre in (*(lesion.centre for lesion in lesions), *unlisted):
        away = np.linalg.norm(points - centre, axis=1)
        loss = np.maximum(loss, 0.8 * np.exp(-0.5 * (away / VOID_MM) ** 2))
    values = np.asarray(image.dataobj) * (1 - loss.reshape(SHAPE))
    image = nib.Nifti1Image(values.astype(np.float32), affine)
    write_image(preproc.with_suffix(".nii.gz"), image)
    mask = nib.Nifti1Image(brain.astype(np.uint8), affine)
    write_image(preproc.with_name(f"{detection.names.src}_desc-brain_mask.nii.gz"), mask)
    labels = np.zeros(SHAPE, np.int16)
    for lesion in lesions:
        voxel = np.linalg.inv(affine) @ (*lesion.centre, 1.0)
        labels[tuple(np.round(voxel[:3]).astype(int))] = lesion.index
    write_image(detection.path("dseg"), nib.Nifti1Image(labels, affine))
    write_text(detection.path("table"), format_lesions(lesions))
    rows = [
        [str(n), *(f"{v:.4f}" for v in centre), "0", f"{chance:.4f}", "0.4"]
        for n, (centre, chance) in enumerate(candidates, 1)
    ]
    columns = ("index", "x", "y", "z", "lesion", "probability", "radius")
    write_text(detection.path("candidates"), format_tsv(columns, rows))
    record = read_json(detection.sidecar)
    record[BLOCK]["LabelImage"] = file_digest(detection.path("dseg"))
    record[BLOCK]["Optional"] = ["candidates"]
    write_json(detection.sidecar, record)


def result(root: Path) -> SubjectResult:
    """What the output dataset holds of the participant."""
    (found,) = collect_results(root, subject="1")
    return found


def register_by_truth(first: HeadScan, second: HeadScan) -> VisitRegistration:
    """Stand in for the registration: the poses are known."""
    poses = []
    for head in (first, second):
        # The grid lies around the head, so that its middle tells the pose.
        middle = head.image.affine @ (*((np.array(head.image.shape) - 1) / 2), 1)
        near = min(POSES, key=lambda s: float(np.linalg.norm(POSES[s].matrix[:3, 3] - middle[:3])))
        poses.append(POSES[near].matrix)
    matrix = poses[1] @ np.linalg.inv(poses[0])
    return VisitRegistration(to_second=LinearMap(matrix), gap_mm=0.4, similarity=1.2, overlap=1.0)


def at(session: str, point: Any) -> Any:
    """Return a point of the head in the scanner at a visit."""
    return POSES[session](np.array([point], float))[0]
