"""Time and memory of the review's server on a large scan.

Makes an output dataset with one scan (512 x 512 x 96 voxels as a rule) and many candidates, starts
``cmbprep-tools review`` on it, and asks it for what a reader's browser asks for: the work list,
the scan, its image and labels, verdicts, an added lesion, and the end of the reading. Prints the
seconds of each answer and the server's peak memory.

The aim is that the scan and its image are there in less than 2 s, and memory stays below 1 GB.

Run: ``python benchmarks/review.py [--shape 512 512 96] [--candidates 300] [--keep DIR]``
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from cmbprep.lesions import Lesion, format_lesions
from cmbprep.outputs.files import file_digest, write_image, write_json, write_text
from cmbprep.outputs.names import Names
from cmbprep.outputs.sidecars import closing_sidecar
from cmbprep.outputs.stages import StageFiles, place_and_size
from cmbprep.spatial.transforms import DisplacementMap, write_transform

REFERENCE = "MNI152NLin2009cAsym"
SCAN = "sub-01_T2starw"
#: Part of the candidates that are listed as lesions.
LISTED = 0.2


def main() -> None:
    """Make the dataset, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 96))
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--keep", type=Path, help="where raw/ and out/ are made, and kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = (arguments.keep or Path(folder)) / "out"
        if not root.exists():
            build(root, tuple(arguments.shape), arguments.candidates)
        measure(root)


def build(root: Path, shape: tuple[int, int, int], candidates: int) -> None:
    """Make an output dataset with one scan and so many candidates."""
    rng = np.random.default_rng(1)
    size = np.array([220.0, 220.0, 150.0])
    affine = np.diag([*(size / shape), 1.0])
    affine[:3, 3] = -size / 2
    names = Names(
        subject="01",
        session=None,
        src="sub-01",
        suffix="T2starw",
        template=REFERENCE,
        reference=REFERENCE,
        target=REFERENCE,
        scheme="MARS",
    )
    preproc, lesions = (StageFiles(root, stage, names) for stage in ("preproc", "lesions"))
    axes = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    brain = sum((axis / 0.8) ** 2 for axis in axes) <= 1
    atlas = np.where(brain, np.where(axes[0] < 0, 1, 101) + 6 * (axes[1] > 0), 0).astype(np.uint8)
    image = np.where(brain, np.float32(100), np.float32(5))
    image += rng.standard_normal(shape, np.float32)
    labels = np.zeros(shape, np.int16)
    inside = np.argwhere(ndimage.binary_erosion(brain, iterations=8))
    centres = apart(rng.permutation(inside), candidates, size / shape)
    rows = []
    for index, centre in enumerate(centres, start=1):
        box = tuple(slice(c - 5, c + 6) for c in centre)
        steps = (np.indices(image[box].shape).reshape(3, -1).T - 5) * (size / shape)
        spot = (np.linalg.norm(steps, axis=1) <= 2).reshape(image[box].shape)
        image[box][spot] = 30
        if index <= LISTED * candidates:
            labels[box][spot] = index
            rows.append(lesion(index, affine[:3, :3] @ centre + affine[:3, 3]))
    # The scan as acquired is the second image that the page can show.
    raw = root.parent / "raw"
    source = f"sub-01/anat/{SCAN}.nii.gz"
    for path in (raw / source, preproc.path("preproc")):
        save(path, image, affine)
    save(preproc.path("brain_mask"), brain.astype(np.uint8), affine)
    field = DisplacementMap(np.zeros((8, 8, 8, 3), np.float32), np.diag([30.0, 30, 30, 1]))
    for key in ("to_target", "from_target"):
        write_transform(field, preproc.path(key))
    save(lesions.path("dseg"), labels, affine)
    for key in ("mask", "probseg", "template_mask"):
        save(lesions.path(key), (labels > 0).astype(np.uint8), affine)
    save(lesions.path("atlas"), atlas, affine)
    write_text(lesions.path("table"), format_lesions(rows))
    lines = ["index\tname\tx\ty\tz\tlesion\tprobability\tradius"]
    for row, centre in enumerate(centres, start=1):
        x, y, z = affine[:3, :3] @ centre + affine[:3, 3]
        index = row if row <= len(rows) else 0
        lines.append(f"{row}\tcandidate-{row:03d}\t{x:.2f}\t{y:.2f}\t{z:.2f}\t{index}\t0.5\t0.69")
    write_text(lesions.path("candidates"), "\n".join(lines) + "\n")
    close(preproc, {"route": "template"}, sources=[f"bids:raw:{source}"])
    content = {
        "Labels": [row.index for row in rows],
        "LabelImage": file_digest(lesions.path("dseg")),
        "Lesions": {str(row.index): place_and_size(row) for row in rows},
    }
    close(lesions, {"zone_tolerance_mm": 2.0}, content)
    write_json(
        root / "dataset_description.json",
        {
            "Name": "Large scan",
            "BIDSVersion": "1.10.0",
            "GeneratedBy": [{"Name": "cmbprep"}],
            "DatasetLinks": {"raw": "../raw"},
        },
    )


def apart(places: np.ndarray, count: int, spacing: np.ndarray) -> np.ndarray:
    """Return the first places that are no double of one before: 8 mm from it or more."""
    kept: list[np.ndarray] = []
    for place in places:
        if not kept or np.linalg.norm((np.array(kept) - place) * spacing, axis=1).min() >= 8:
            kept.append(place)
        if len(kept) == count:
            break
    return np.array(kept)


def lesion(index: int, centre: np.ndarray) -> Lesion:
    """Return a row of the lesion table."""
    x, y, z = (float(n) for n in centre)
    return Lesion(
        index=index,
        name=f"CMB-{index:03d}",
        x=x,
        y=y,
        z=z,
        volume_mm3=33.5,
        diameter_mm=4.0,
        probability=0.9,
        rating="definite",
    )


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write an image."""
    write_image(path, nib.Nifti1Image(data, affine))


def close(
    files: StageFiles,
    quality: dict,
    content: dict | None = None,
    sources: Sequence[str] = (),
) -> None:
    """Write the sidecar that closes a stage."""
    sidecar = closing_sidecar(
        files,
        fingerprint="f",
        sources=list(sources),
        parameters={},
        quality=quality,
        warnings=[],
        optional=("candidates",) if files.stage == "lesions" else (),
        content=content,
    )
    sidecar["Cmbprep"]["Scan"] = SCAN
    write_json(files.sidecar, sidecar)


def measure(root: Path) -> None:
    """Start the server and print how long its answers take, and its peak memory."""
    command = [sys.executable, "-m", "cmbprep.lab.cli", "review", str(root), "--no-browser"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--reader", "bench"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = next(line.split()[1] for line in process.stdout if line.startswith("Open "))
    place, _, token = address.partition("?token=")

    def ask(path: str, content: dict | None = None) -> bytes:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(place + path, body, {"X-Review-Token": token})
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def timed(what: str, path: str, content: dict | None = None) -> bytes:
        begin = time.perf_counter()
        answer = ask(path, content)
        print(f"{what:<44}{time.perf_counter() - begin:8.2f} s{len(answer) / 1e6:10.2f} MB")
        return answer

    try:
        ask("api/session")
        print(f"{'start':<44}{time.perf_counter() - start:8.2f} s")
        timed("work list", "api/scans")
        scan = json.loads(timed("scan", f"api/scans/{SCAN}"))
        for image in scan["images"]:
            timed(image["title"], f"api/scans/{SCAN}/images/{image['id']}")
        timed("outlines", f"api/scans/{SCAN}/outlines")
        acts = f"api/scans/{SCAN}/acts"
        added = {"type": "add", "centre_ras": [0.0, 0.0, 0.0]}
        timed("lesion added, the first", acts, added)
        timed("lesion added, the next", acts, {**added, "centre_ras": [10.0, 20.0, 5.0]})
        for item in scan["items"]:
            ask(acts, {"type": "verdict", "lesion": item["key"], "verdict": "definite"})
        timed(f"verdict, after {len(scan['items'])} others", acts, verdict(scan["items"][0]))
        timed("end of the reading", acts, {"type": "finish"})
        timed("work list", "api/scans")
        time.sleep(5)  # the reviewed files are written meanwhile
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+)", status)
        assert peak is not None
        print(f"{'peak memory of the server':<44}{int(peak[1]) / 1024:8.0f} MB")
    finally:
        process.terminate()
        process.wait()


def verdict(item: dict) -> dict:
    """Return an act of the page."""
    return {"type": "verdict", "lesion": item["key"], "verdict": "possible"}


if __name__ == "__main__":
    main()
