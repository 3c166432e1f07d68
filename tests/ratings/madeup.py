"""Output datasets with a small made-up scan whose every lesion is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cmbprep.lesions import Lesion, format_lesions
from cmbprep.outputs.dataset import write_ignored
from cmbprep.outputs.files import file_digest, write_image, write_json, write_text
from cmbprep.outputs.names import Names, output_stem
from cmbprep.outputs.sidecars import closing_sidecar, image_sidecar
from cmbprep.outputs.stages import StageFiles, place_and_size, sidecar_path
from cmbprep.ratings.automatic import Automatic
from cmbprep.review.scans import find_scans
from cmbprep.spatial.transforms import DisplacementMap, write_transform
from cmbprep.zones.schemes import MARS, format_regions

TEMPLATE = "MNI152NLin2009cAsym"
SHAPE = (40, 48, 24)
#: Stored left to right flipped and slices first to back: neither axis order nor signs are RAS.
AFFINE = np.array([[-1.0, 0, 0, 20], [0, 0, 2, -24], [0, 1, 0, -24], [0, 0, 0, 1]])
#: Dark spots: voxel of the centre, listed as a lesion or not.
SPOTS = {
    "L1": (12, 24, 12),
    "L2": (28, 24, 12),
    "L3": (20, 34, 8),
    "C4": (20, 14, 16),
    "C5": (12, 34, 14),
}
#: A spot that the detector has missed.
MISSED = (28, 14, 10)
Voxel = tuple[int, int, int]
SHIFT = (1.0, -2.0, 3.0)


def ras(voxel: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (AFFINE @ [*voxel, 1])[:3]
    return float(x), float(y), float(z)


def spot(voxel: Sequence[int], radius: float = 2.0) -> np.ndarray:
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    steps = (np.indices(SHAPE).reshape(3, -1).T - voxel) * spacing
    return (np.linalg.norm(steps, axis=1) <= radius).reshape(SHAPE)


def brain() -> np.ndarray:
    steps = (np.indices(SHAPE).reshape(3, -1).T - [19.5, 23.5, 11.5]) / [17, 21, 10]
    return (np.linalg.norm(steps, axis=1) <= 1).reshape(SHAPE)


def scan_image(dark: Sequence[Voxel] = (*SPOTS.values(), MISSED)) -> np.ndarray:
    rng = np.random.default_rng(3)
    image = np.where(brain(), 100, 5) + rng.normal(0, 1, SHAPE)
    for voxel in dark:
        image[spot(voxel)] = 30 + rng.normal(0, 1, int(spot(voxel).sum()))
    return np.clip(image, 0, None).astype(np.float32)


def atlas() -> np.ndarray:
    """Left and right of the middle: frontal and thalamus, split at the 24th voxel."""
    i, j, _ = np.indices(SHAPE)
    # The first axis runs from right to left.
    side = np.where(i < 20, 100, 0)
    return np.where(brain(), np.where(j < 24, 1, 7) + side, 0).astype(np.uint8)


def make_dataset(root: Path, scans: Sequence[str] = ("sub-01_T2starw",), **changes: Any) -> Path:
    """Write finished stages of scans; the changes are those of :func:`add_scan`."""
    root.mkdir(parents=True, exist_ok=True)
    write_ignored(root)
    write_json(
        root / "dataset_description.json",
        {
            "Name": "Made up",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "cmbprep"}],
        },
    )
    write_text(root / "atlas-MARS_dseg.tsv", format_regions(MARS))
    for name in scans:
        add_scan(root, name, **changes)
    return root


def add_scan(
    root: Path,
    name: str,
    *,
    listed: int = 3,
    fingerprint: str = "f1",
    spots: Mapping[str, Voxel] = SPOTS,
    missed: Sequence[Voxel] = (MISSED,),
) -> None:
    """Write a scan whose first ``listed`` spots are lesions and the others candidates."""
    stem, _, suffix = name.rpartition("_")
    entities = dict(part.split("-") for part in stem.split("_"))
    names = Names(
        subject=entities["sub"],
        session=entities.get("ses"),
        src=output_stem(entities, suffix),
        suffix=suffix,
        template=TEMPLATE,
        reference=TEMPLATE,
        target=TEMPLATE,
        scheme="MARS",
    )
    preproc, lesions = StageFiles(root, "preproc", names), StageFiles(root, "lesions", names)
    image = nib.Nifti1Image(scan_image((*spots.values(), *missed)), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    write_image(preproc.path("preproc"), image)
    save(preproc.path("brain_mask"), brain().astype(np.uint8))
    # A file holds the map of points from the space named after to-.
    for key, sign in (("from_target", 1), ("to_target", -1)):
        field = np.broadcast_to(np.float32(SHIFT) * np.float32(sign), (4, 4, 4, 3))
        moved = DisplacementMap(field, np.diag([20.0, 20, 20, 1]))
        write_transform(moved, preproc.path(key))
    close(preproc, name, fingerprint, {"route": "template"})
    write_lesions(lesions, listed, spots)
    rows = rows_of(listed, spots)
    content = {
        "Coverage": {"lobar": 1.0, "deep": 1.0, "infratentorial": 1.0},
        "Labels": [row.index for row in rows],
        "LabelImage": file_digest(lesions.path("dseg")),
        "Lesions": {str(row.index): place_and_size(row) for row in rows},
    }
    quality = {"zone_route": "template", "zone_verdict": "ok", "zone_tolerance_mm": 2.0}
    close(lesions, name, fingerprint, quality, content, optional=("candidates",))


def rows_of(listed: int, spots: Mapping[str, Voxel] = SPOTS) -> list[Lesion]:
    rows = []
    for index, voxel in enumerate(list(spots.values())[:listed], start=1):
        x, y, z = ras(voxel)
        deep = voxel[1] >= 24
        rows.append(
            Lesion(
                index=index,
                name=f"CMB-{index:03d}",
                x=x,
                y=y,
                z=z,
                x_mni=x + SHIFT[0],
                y_mni=y + SHIFT[1],
                z_mni=z + SHIFT[2],
                volume_mm3=33.5,
                diameter_mm=4.0,
                probability=0.9,
                rating="definite" if index < 3 else "possible",
                zone="deep" if deep else "lobar",
                region="thalamus" if deep else "frontal",
                hemisphere="right" if voxel[0] < 20 else "left",
                region_fraction=1.0,
                boundary_distance_mm=5.0,
                boundary=False,
                contrast=0.7,
            )
        )
    return rows


def write_lesions(files: StageFiles, listed: int, spots: Mapping[str, Voxel]) -> None:
    labels = np.zeros(SHAPE, np.int16)
    for index, voxel in enumerate(list(spots.values())[:listed], start=1):
        labels[spot(voxel)] = index
    save(files.path("dseg"), labels)
    save(files.path("mask"), (labels > 0).astype(np.uint8))
    save(files.path("probseg"), np.where(labels > 0, 0.9, 0).astype(np.float32))
    save(files.path("atlas"), atlas())
    save(files.path("template_mask"), (labels > 0).astype(np.uint8))
    write_text(files.path("table"), format_lesions(rows_of(listed, spots)))
    lines = ["index\tname\tx\ty\tz\tlesion\tprobability\tradius"]
    for row, voxel in enumerate(spots.values(), start=1):
        x, y, z = ras(voxel)
        lesion = row if row <= listed else 0
        lines.append(f"{row}\tcandidate-{row:03d}\t{x}\t{y}\t{z}\t{lesion}\t0.5\t0.6931")
    write_text(files.path("candidates"), "\n".join(lines) + "\n")


def save(path: Path, data: np.ndarray) -> None:
    write_image(path, nib.Nifti1Image(data, AFFINE))


def close(
    files: StageFiles,
    name: str,
    fingerprint: str,
    quality: dict[str, Any],
    content: dict[str, Any] | None = None,
    optional: Sequence[str] = (),
) -> None:
    keys = (*files.keys, *optional)
    for key in keys:
        sidecar = image_sidecar(files, key, ["bids::made-up"])
        if sidecar is not None:
            write_json(sidecar_path(files.path(key)), sidecar)
    sizes = {key: files.path(key).stat().st_size for key in keys}
    block = closing_sidecar(
        files,
        fingerprint=fingerprint,
        sources=[],
        parameters={},
        quality=quality,
        warnings=[],
        optional=optional,
        content={"Files": sizes, **(content or {})},
    )
    block["Cmbprep"]["Scan"] = name
    write_json(files.sidecar, {**block, "MagneticFieldStrength": 3.0, "EchoTime": 0.02})


def automatic(root: Path, name: str = "sub-01_T2starw") -> Automatic:
    return find_scans(root)[name].automatic
