"""Lay out a public set of rated microbleeds as BIDS, with its truth as derivatives.

    python lay_out.py valdo  SOURCE DEST
    python lay_out.py dou    SOURCE DEST [--index-base 0|1]
    python lay_out.py momeni SOURCE DEST [--index-base 0|1]

SOURCE is the folder as it was unpacked (see datasets.md), DEST a new folder. It needs
numpy, nibabel and scipy, and openpyxl for the .xlsx of the Momeni set.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

VALDO_COHORTS = {"1": "SABRE", "2": "RSS", "3": "ALFA"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=("valdo", "dou", "momeni"))
    parser.add_argument("source", type=Path)
    parser.add_argument("dest", type=Path)
    parser.add_argument(
        "--index-base",
        type=int,
        choices=(0, 1),
        default=1,
        help="number of the first voxel in the coordinates of dou and momeni (default: 1)",
    )
    args = parser.parse_args(arguments)
    if args.dest.exists() and any(args.dest.iterdir()):
        parser.error(f"{args.dest} is not empty")
    truth = args.dest / "derivatives" / "truth"
    describe(args.dest, f"{args.set}, laid out for cmbprep", "raw")
    describe(truth, f"{args.set}: rated microbleeds", "derivative")
    if args.set == "valdo":
        sites = lay_out_valdo(args.source, args.dest, truth)
    else:
        scans = dou_scans(args.source) if args.set == "dou" else momeni_scans(args.source)
        sites = lay_out_points(scans, args.dest, truth, args.index_base)
    if not sites:
        parser.error(f"no scan of the {args.set} set is in {args.source}")
    write_rows(
        args.dest / "participants.tsv",
        [("participant_id", "site"), *((f"sub-{k}", sites[k]) for k in sorted(sites))],
    )
    sys.stdout.write(f"{len(sites)} participants in {args.dest}\n")
    return 0


def lay_out_valdo(source: Path, dest: Path, truth: Path) -> dict[str, str]:
    """Copy the images and masks of VALDO task 2; give the cohort of each participant."""
    sites = {}
    for mask in sorted(source.rglob("sub-*_space-T2S_CMB.nii.gz")):
        name = mask.name.split("_")[0]
        for ours, theirs in (("T2starw", "T2S"), ("T1w", "T1"), ("T2w", "T2")):
            image = mask.with_name(f"{name}_space-T2S_desc-masked_{theirs}.nii.gz")
            if image.exists():
                save(image, dest / name / "anat" / f"{name}_{ours}.nii.gz")
        target = truth / name / "anat" / f"{name}_label-CMB_mask.nii.gz"
        save(mask, target, mask=True)
        sites[name.removeprefix("sub-")] = VALDO_COHORTS.get(name[4], "n/a")
    return sites


def dou_scans(source: Path) -> list[tuple[str, Path, np.ndarray]]:
    """Return name, image and voxel coordinates of each scan of the Dou set."""
    from scipy.io import loadmat

    scans = []
    for image in sorted([*source.glob("nii/*.nii"), *source.glob("nii/*.nii.gz")]):
        stem = image.name.split(".")[0]
        points = loadmat(source / "ground_truth" / f"{stem}.mat")["cen"]
        scans.append((f"sub-{clean(stem)}", image, np.asarray(points, float).reshape(-1, 3)))
    return scans


def momeni_scans(source: Path) -> list[tuple[str, Path, np.ndarray]]:
    """Return name, image and voxel coordinates of each scan of the Momeni set (real bleeds)."""
    top = next(iter(sorted(source.rglob("rCMB_DefiniteSubject"))), source).parent
    points = read_points(top)
    scans = []
    for image in sorted(top.glob("rCMB_DefiniteSubject/*.nii.gz")):
        if image.name not in points:
            sys.stderr.write(f"{image.name} has no row in the table of locations: left out\n")
            continue
        scans.append((momeni_name(image), image, points[image.name]))
    without = sorted(top.glob("NoCMBSubject/*.nii.gz"))
    return scans + [(momeni_name(image), image, np.empty((0, 3))) for image in without]


def momeni_name(image: Path) -> str:
    """Name a scan: the first part of the file name is the person, the second the visit."""
    parts = [clean(part) for part in image.name.split(".")[0].split("_")]
    return f"sub-{parts[0]}" + (f"_ses-{parts[1]}" if len(parts) > 1 else "")


def read_points(top: Path) -> dict[str, np.ndarray]:
    """Read the table of locations: a file name, then x, y, z of one bleed after the other."""
    table = top / "rCMBInformationInfo.csv"
    if table.exists():
        with open(table, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream))
    else:
        import openpyxl

        book = openpyxl.load_workbook(table.with_suffix(".xlsx"), read_only=True, data_only=True)
        rows = [list(row) for row in book.active.iter_rows(values_only=True)]
    points = {}
    for row in rows:
        if row and str(row[0]).endswith(".nii.gz"):
            numbers = [float(cell) for cell in row[1:] if is_number(cell)]
            if len(numbers) % 3:
                raise SystemExit(f"{table.stem}, {row[0]}: coordinates do not come in threes")
            points[str(row[0])] = np.array(numbers).reshape(-1, 3)
    return points


def is_number(cell: object) -> bool:
    """Whether a cell holds a finite number."""
    try:
        return bool(np.isfinite(float(str(cell))))
    except ValueError:
        return False


def lay_out_points(
    scans: list[tuple[str, Path, np.ndarray]], dest: Path, truth: Path, base: int
) -> dict[str, str]:
    """Copy images, and write each scan's points as a lesion table in scanner coordinates."""
    sites = {}
    darkness: list[tuple[float, float]] = []
    for name, path, points in scans:
        folder = Path(*re.findall(r"(?:sub|ses)-[^_]+", name)) / "anat"
        target = dest / folder / f"{name}_swi.nii.gz"
        if target.exists():
            raise SystemExit(f"two images would be called {target.name}")
        image = save(path, target)
        darkness += [dark(image, points - first) for first in (0, 1) if len(points)]
        voxels = points - base
        inside = np.all((voxels >= 0) & (voxels <= np.array(image.shape[:3]) - 1), axis=1)
        if not inside.all():
            raise SystemExit(f"{path.name}: a point lies outside the image; try --index-base")
        rows: list[tuple[object, ...]] = [("index", "name", "x", "y", "z")]
        world = nib.affines.apply_affine(image.affine, voxels)
        for number, (x, y, z) in enumerate(np.atleast_2d(world) if len(voxels) else [], start=1):
            rows.append((number, f"cmb{number:03d}", f"{x:.2f}", f"{y:.2f}", f"{z:.2f}"))
        write_rows(truth / folder / f"{name}_seg-CMB_dseg.tsv", rows)
        sites[name.split("_")[0].removeprefix("sub-")] = "n/a"
    if darkness:
        zero, one = np.mean(darkness[::2]), np.mean(darkness[1::2])
        sys.stdout.write(
            "How much darker the image is at the points than around them, in standard "
            f"deviations: {zero:.2f} counting from 0, {one:.2f} counting from 1; taken: {base}\n"
        )
    return sites


def dark(image: nib.Nifti1Image, voxels: np.ndarray) -> float:
    """Return how much darker the image is at voxels than 13 voxels around, in their spread."""
    data, values = np.asanyarray(image.dataobj), []
    for voxel in np.rint(voxels).astype(int):
        low, high = np.maximum(voxel - 6, 0), np.minimum(voxel + 7, data.shape[:3])
        if np.any(voxel < 0) or np.any(voxel >= data.shape[:3]):
            continue
        near = data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        near = near[near > 0]
        if near.size and near.std() > 0:
            values.append((near.mean() - data[tuple(voxel)]) / near.std())
    return float(np.mean(values)) if values else 0.0


def save(source: Path, target: Path, *, mask: bool = False) -> nib.Nifti1Image:
    """Copy an image, compressed, with 0 for values that are not finite."""
    image = nib.load(source)
    data = np.asanyarray(image.dataobj)
    target.parent.mkdir(parents=True, exist_ok=True)
    finite = data.dtype.kind != "f" or np.isfinite(data).all()
    if finite and not mask and source.name.endswith(".nii.gz"):
        shutil.copyfile(source, target)
        return image
    data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    copy = nib.Nifti1Image((data > 0).astype(np.uint8) if mask else data, image.affine)
    copy.header.set_xyzt_units("mm")
    nib.save(copy, target)
    return copy


def describe(folder: Path, name: str, kind: str) -> None:
    """Write dataset_description.json."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": kind}
    if kind == "derivative":
        content["GeneratedBy"] = [{"Name": "lay_out.py"}]
    (folder / "dataset_description.json").write_text(json.dumps(content, indent=2) + "\n")


def write_rows(path: Path, rows: list[tuple[object, ...]]) -> None:
    """Write a tab-separated table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))


def clean(text: str) -> str:
    """Leave only what a BIDS label may have."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


if __name__ == "__main__":
    sys.exit(main())
