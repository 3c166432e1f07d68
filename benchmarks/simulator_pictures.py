"""The pictures of docs/simulator.md: simulated scans beside real ones.

``python benchmarks/simulator_pictures.py --real BIDS --veins CROP`` writes
``docs/_static/simulator-*.png``. The real scans are those that the tests use; without them
only the simulated pictures are made.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmbprep.lab.simulate import scanner, sources, vessels
from cmbprep.lab.simulate.field import Geometry, plan_geometry
from cmbprep.lab.simulate.head import Head, build_head
from cmbprep.lab.simulate.heads import load_template_head
from cmbprep.lab.simulate.protocols import Protocol, get_protocol
from cmbprep.lab.simulate.scanner import high_pass_phase, swi
from cmbprep.lab.simulate.truth import tell_truth

mpl.use("Agg")
import matplotlib.pyplot as plt

STATIC = Path(__file__).resolve().parents[1] / "docs" / "_static"
CENTRE = (0.0, -18.0, 8.0)

#: What is painted on the picture of the structures.
COLOURS = {
    "microbleed": (1.0, 0.1, 0.1),
    "compact": (1.0, 0.55, 0.0),
    "vein": (0.2, 0.5, 1.0),
    "flow_void": (1.0, 0.3, 1.0),
    "dropout": (0.9, 0.85, 0.2),
    "iron_rich_nucleus": (0.2, 0.8, 0.6),
}

Panel = tuple[str, NDArray[np.floating], tuple[float, float]]


class Patient:
    """One simulated person, scanned as often as is asked."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.head: Head = build_head(load_template_head(), rng, age=74, atrophy=0.4)
        places = sources.place_masks(self.head)
        self.sources = sources.draw_microbleeds(self.head, places, 16, rng)
        self.sources += sources.draw_mimics(self.head, places, 74, rng)
        inverse = self.head.to_template.inverse
        self.tubes = vessels.draw_veins(self.head, inverse, rng)
        self.tubes += vessels.draw_arteries(inverse, rng)

    def acquire(self, protocol: Protocol) -> scanner.Acquisition:
        """Scan without a tilt of the slices."""
        rng = np.random.default_rng(9)
        geometry = plan_geometry(replace(protocol, tilt=0.0), CENTRE, rng)
        return scanner.acquire(self.head, self.tubes, self.sources, protocol, geometry, rng)

    def scan(self, protocol: Protocol) -> NDArray[np.complex64]:
        """Complex image of the last echo, axes to the right, front and top of the head."""
        return self.acquire(protocol).echoes[-1][::-1]


def _slice(volume: NDArray[np.floating], part: float) -> NDArray[np.floating]:
    return volume[:, :, int(part * (volume.shape[2] - 1))].T


def _draw(path: Path, rows: list[list[Panel]], size: float) -> None:
    columns = max(len(row) for row in rows)
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(size * columns, 1.15 * size * len(rows)),
        squeeze=False,
        dpi=75,
    )
    for axis in axes.ravel():
        axis.axis("off")
    for line, row in zip(axes, rows, strict=True):
        for axis, (title, image, limits) in zip(line, row, strict=False):
            axis.imshow(image, origin="lower", cmap="gray", vmin=limits[0], vmax=limits[1])
            axis.set_title(title, fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., 0]  # type: ignore[attr-defined]
    plt.close(figure)
    # 32 greys keep the noise, which does not compress, below the size that a page can bear.
    coarse = (pixels.astype(int) // 8 * 255 // 31).astype(np.uint8)
    Image.fromarray(coarse).save(path, optimize=True)


def _panel(title: str, image: NDArray[np.floating], top: float = 99.7) -> Panel:
    return title, image, (0.0, float(np.percentile(image, top)))


def draw_protocols(patient: Patient) -> None:
    """The same person at 1.5 T in thick slices, at 3 T, and on SWI with its phase."""
    rows = []
    for name in ("clinical-2d-1.5t", "clinical-2d-3t", "ukb-swi"):
        echo = patient.scan(get_protocol(name))
        images = [("magnitude", np.abs(echo))]
        if name == "ukb-swi":
            images.append(("SWI", swi(echo)))
        for kind, image in images:
            rows.append(
                [_panel(f"{name}, {kind}", _slice(image, part)) for part in (0.3, 0.5, 0.62, 0.75)]
            )
    phase = high_pass_phase(echo)
    rows.append(
        [
            ("ukb-swi, high-pass phase", _slice(phase, part), (-1.5, 1.5))
            for part in (0.3, 0.5, 0.62, 0.75)
        ]
    )
    _draw(STATIC / "simulator-protocols.png", rows, 2.0)


def draw_beside_real(patient: Patient, real: Path) -> None:
    """Coarse T2*: three real EPI scans and the simulated person in their voxels."""
    rows = []
    for subject, matrix, voxel, slices in (
        ("s1", (100, 100), (2.24, 2.24, 4.13), 31),
        ("forrest", (80, 80), (3.0, 3.0, 3.3), 35),
    ):
        file = next((real / f"sub-{subject}" / "anat").glob("*_T2starw.nii.gz"))
        image = np.squeeze(nib.as_closest_canonical(nib.load(file)).get_fdata())
        preset = replace(
            get_protocol("clinical-2d-3t"),
            name=subject,
            echo_times=(0.030,),
            repetition_time=2000.0,
            flip_angle=75.0,
            voxel=voxel,
            gap=0.0,
            matrix=matrix,
            slices=slices,
            snr=60.0,
        )
        simulated = np.abs(patient.scan(preset))
        for title, volume, parts in (
            (f"real ({subject}, EPI)", image, (0.35, 0.55, 0.75)),
            ("simulated in its voxels", simulated, (0.4, 0.55, 0.7)),
        ):
            rows.append([_panel(title, _slice(volume, part)) for part in parts])
    _draw(STATIC / "simulator-real.png", rows, 2.0)


def draw_veins(patient: Patient, crop: Path) -> None:
    """Cortical veins at 0.47 x 0.47 x 1 mm: a real crop and simulated ones of its size."""
    image = nib.load(crop)
    real = np.asarray(image.dataobj, dtype=np.float32)
    preset = replace(
        get_protocol("swi-3t"),
        echo_times=(0.020,),
        voxel=(0.47, 0.47, 1.0),
        matrix=(320, 400),
        slices=24,
    )
    # A slab over the upper convexity, where the crop comes from.
    rng = np.random.default_rng(9)
    centre = (CENTRE[0], CENTRE[1], 44.0)
    geometry = plan_geometry(replace(preset, tilt=0.0), centre, rng)
    scan = scanner.acquire(patient.head, patient.tubes, patient.sources, preset, geometry, rng)
    simulated = np.abs(scan.echoes[-1][::-1])
    middle = real.shape[2] // 2
    rows = [
        [_panel(f"real, echo {k + 1}", real[:, :, middle, k].T, 99.9) for k in range(3)],
        [
            _panel("simulated", simulated[x : x + 40, y : y + 40, z].T, 99.9)
            for x, y, z in _vein_crops(patient, geometry)
        ],
    ]
    _draw(STATIC / "simulator-veins.png", rows, 1.8)


def draw_structures(patient: Patient) -> None:
    """What the truth says of a scan: lesions, compact mimics and extended structures."""
    acquired = patient.acquire(get_protocol("ukb-swi"))
    truth = tell_truth(patient.head, patient.sources, acquired)
    kinds = [row.split("\t") for row in truth.other_table.splitlines()]
    column = kinds[0].index("kind")
    magnitude = np.abs(acquired.echoes[-1])[::-1]
    grey = np.clip(magnitude / np.percentile(magnitude, 99.7), 0, 1)
    colour = np.repeat(grey[..., None], 3, axis=3)
    for index, row in enumerate(kinds[1:], start=1):
        where = (truth.others == index)[::-1]
        colour[where] = COLOURS.get(row[column], COLOURS["compact"])
    colour[(truth.microbleeds > 0)[::-1]] = COLOURS["microbleed"]
    # Right to left in the picture as in the array: columns are x, rows y.
    strips = []
    for image in (np.repeat(grey[..., None], 3, axis=3), colour):
        parts = [_slice3(image, part) for part in (0.22, 0.4, 0.52, 0.72)]
        strips.append(np.concatenate(parts, axis=1))
    picture = np.concatenate(strips, axis=0)
    pixels = Image.fromarray(np.round(picture * 255).astype(np.uint8))
    # 32 greys and the colours; a palette that is found by itself has no room for the latter.
    levels = [(v, v, v) for v in np.linspace(0, 255, 32).astype(int)]
    levels += [tuple(round(255 * c) for c in paint) for paint in COLOURS.values()]
    palette = Image.new("P", (1, 1))
    palette.putpalette([int(c) for level in levels for c in level])
    coarse = pixels.quantize(palette=palette, dither=Image.Dither.NONE)
    coarse = coarse.resize((coarse.width * 3 // 4, coarse.height * 3 // 4))
    coarse.save(STATIC / "simulator-structures.png", optimize=True)


def _slice3(volume: NDArray[np.floating], part: float) -> NDArray[np.floating]:
    plane = volume[:, :, int(part * (volume.shape[2] - 1))]
    return plane.transpose(1, 0, 2)[::-1][24:-24, 16:-16]


def draw_orientations(patient: Patient) -> None:
    """Sagittal and coronal slices."""
    rows = []
    for name in ("gre3d-3t-sagittal", "clinical-2d-1.5t-coronal"):
        image = np.abs(patient.acquire(get_protocol(name)).echoes[-1])
        rows.append([_panel(name, _slice(image, part)) for part in (0.3, 0.42, 0.55, 0.68)])
    _draw(STATIC / "simulator-orientations.png", rows, 2.0)


def _vein_crops(patient: Patient, geometry: Geometry) -> list[tuple[int, int, int]]:
    """Corners and slices of three crops of 40 voxels in the brain, around cortical veins."""
    brain = patient.head.brain_mask()
    inverse = np.linalg.inv(patient.head.affine)
    tubes = sorted((t for t in patient.tubes if t.kind == "cortical"), key=lambda t: -t.radii.max())
    matrix, corners = geometry.head_to_voxel, []
    for tube in tubes:
        middle = tube.points[len(tube.points) // 2]
        i, j, k = np.round(inverse[:3, :3] @ middle + inverse[:3, 3]).astype(int)
        if not brain[i - 11 : i + 12, j - 11 : j + 12, k].all():
            continue  # a crop with bone in it shows bone
        x, y, z = matrix[:3, :3] @ middle + matrix[:3, 3]
        # Images are shown with their first axis reversed.
        corner = (int(geometry.shape[0] - 1 - x) - 20, int(y) - 20)
        in_plane = all(0 <= c <= n - 40 for c, n in zip(corner, geometry.shape, strict=False))
        if in_plane and 2 <= z <= geometry.shape[2] - 3:
            corners.append((*corner, round(float(z))))
        if len(corners) == 3:
            break
    return corners


def main() -> int:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="BIDS dataset with real T2starw scans")
    parser.add_argument("--veins", type=Path, help="crop of a real high-resolution magnitude")
    args = parser.parse_args()
    STATIC.mkdir(parents=True, exist_ok=True)
    patient = Patient()
    if args.real:
        draw_beside_real(patient, args.real)
    if args.veins:
        draw_veins(patient, args.veins)
    draw_protocols(patient)
    draw_structures(patient)
    draw_orientations(patient)
    return 0


if __name__ == "__main__":
    sys.exit(main())
