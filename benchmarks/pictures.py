"""Pictures of the documentation, and of what a detector misses and wrongly marks.

    python benchmarks/pictures.py simulator --real BIDS --veins CROP
    python benchmarks/pictures.py zones DIR DEST
    python benchmarks/pictures.py implanted backgrounds.tsv PICTURE.png --model FOLD
    python benchmarks/pictures.py held-out FOLDER learned PICTURE.png [--lower learned-all]
    python benchmarks/pictures.py report REPORT.html

``simulator`` writes ``docs/_static/simulator-*.png``: simulated scans beside real ones. The real
scans are those that the tests use; without them only the simulated pictures are made.

``zones`` draws zones on real scans, to be looked at. Every T2*-weighted scan and T1w image of a
BIDS dataset is placed as the program places it, and one picture each shows the borders of the
zones (blue lobar, red deep, green infratentorial), of the ventricles (yellow) and of the brain
mask (white).

``implanted`` shows what is missed, and what is wrongly marked, in real scans with implanted
bleeds. Backgrounds, seeds and matching are those of ``benchmarks/detection.py``. False positives
are the places of a background that get the highest probabilities, those in several of its copies
taken as one and shown without the bleeds that were put in. Misses are the widest voids with a
probability below that of one false positive a scan.

``held-out`` shows the same in simulated people. It reads the scans, their truth and the results
that ``benchmarks/held_out.py`` has written into FOLDER, matched as ``cmbprep-tools evaluate``
does. Shown are the false positives with the highest probabilities, the widest of the bleeds that
are missed, and others of these evenly by their width. With the results of a lower threshold it
counts what lies at the misses. All lesions are simulated. Both show each place in the three
planes of its voxels, 36 mm wide.

``report`` photographs the top of a report, as ``make demo`` makes it, with headless Chromium, and
writes ``docs/_static/report.png``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from detection import (
    MATCH_MM,
    REPORT_SEEDS,
    Background,
    implanted_scan,
    load_backgrounds,
    mistaken,
    open_detector,
    rated,
    score,
    search,
)
from held_out import MIN_DIAMETER_MM, PROTOCOLS, scan_label
from numpy.typing import NDArray
from PIL import Image

from cmbprep.detectors.base import DetectorInput
from cmbprep.lab.evaluate.collect import Request, collect
from cmbprep.lab.evaluate.matching import Mark, Rule
from cmbprep.lab.evaluate.reading import read_marks
from cmbprep.lab.simulate import scanner, sources, vessels
from cmbprep.lab.simulate.field import Geometry, plan_geometry
from cmbprep.lab.simulate.head import Head, build_head
from cmbprep.lab.simulate.heads import load_template_head
from cmbprep.lab.simulate.protocols import Protocol, get_protocol
from cmbprep.lab.simulate.truth import tell_truth
from cmbprep.lab.training.scans import detector_inputs
from cmbprep.phase.swi import high_pass_phase, swi

# --- Simulated scans beside real ones ------------------------------------------------------------

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
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

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


def add_simulator(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``simulator``."""
    parser.add_argument("--real", type=Path, help="BIDS dataset with real T2starw scans")
    parser.add_argument("--veins", type=Path, help="crop of a real high-resolution magnitude")
    parser.set_defaults(run=run_simulator)


def run_simulator(arguments: argparse.Namespace) -> int:
    """Draw the pictures."""
    STATIC.mkdir(parents=True, exist_ok=True)
    patient = Patient()
    if arguments.real:
        draw_beside_real(patient, arguments.real)
    if arguments.veins:
        draw_veins(patient, arguments.veins)
    draw_protocols(patient)
    draw_structures(patient)
    draw_orientations(patient)
    return 0


# --- Zones on real scans -------------------------------------------------------------------------

ZONE_COLOURS = {
    "lobar": (90, 160, 255),
    "deep": (255, 80, 60),
    "infratentorial": (70, 220, 100),
    None: (255, 230, 60),
}
#: Size of the pictures' pixels, mm, and where sections are taken, parts of the brain's extent.
PIXEL = 1.0
SECTIONS = ((2, 0.3), (2, 0.5), (2, 0.7), (0, 0.35), (1, 0.5))


def add_zones(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``zones``."""
    parser.add_argument("dataset", type=Path)
    parser.add_argument("dest", type=Path)
    parser.add_argument("--subjects", nargs="*")
    parser.set_defaults(run=run_zones)


def run_zones(arguments: argparse.Namespace) -> int:
    """Draw what the arguments ask for."""
    for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ.setdefault(name, "1")
    arguments.dest.mkdir(parents=True, exist_ok=True)
    for folder in sorted(arguments.dataset.glob("sub-*")):
        if not arguments.subjects or folder.name[4:] in arguments.subjects:
            _subject(folder, arguments.dest)
    return 0


def _corrected(path: Path) -> nib.Nifti1Image:
    from cmbprep.brain.bias import correct_bias

    image = nib.squeeze_image(nib.load(path))
    image = nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), image.affine)
    return correct_bias(image).image


def _subject(folder: Path, dest: Path) -> None:
    from cmbprep.brain.refine import refine_brain_mask
    from cmbprep.registration.scan import AnatomicalImage, register_head, register_scan
    from cmbprep.templates import load_template

    template = load_template()
    reference, mask = nib.load(template.t1w), nib.load(template.brain_mask)
    anatomy, to_template = None, None
    for path in sorted(folder.glob("anat/*_T1w.nii*")):
        image = _corrected(path)
        found = register_head(image, reference, mask, same_contrast=True)
        brain = refine_brain_mask(image, found.brain_prior)
        anatomy = AnatomicalImage(image=image, brain_mask=brain, verdict=found.quality.verdict)
        to_template = found.to_template
        print(path.name, found.quality, flush=True)
        draw_zones(dest / f"{folder.name}_T1w.png", image, brain, (found.to_template,))
    for path in sorted(folder.glob("anat/*_T2starw.nii*")):
        image = _corrected(path)
        placed = register_scan(image, anatomy, reference, mask)
        print(path.name, placed.route, placed.quality, placed.warnings, flush=True)
        chain = placed.chain(to_template)
        draw_zones(dest / f"{folder.name}_T2starw.png", image, placed.brain_mask, chain)


def draw_zones(path: Path, image: nib.Nifti1Image, brain: nib.Nifti1Image, chain: Any) -> None:
    """Draw sections of an image with the borders of the zones."""
    from PIL import Image

    from cmbprep.spatial.grids import resample_to_grid, respaced_grid
    from cmbprep.spatial.propagate import carry_atlas
    from cmbprep.templates import load_template
    from cmbprep.zones.schemes import MARS

    image, brain = nib.as_closest_canonical(image), nib.as_closest_canonical(brain)
    grid = respaced_grid(image.shape, image.affine, (PIXEL,) * 3)
    values = resample_to_grid(np.asarray(image.dataobj), image.affine, grid)
    inside = resample_to_grid(np.asarray(brain.dataobj) > 0, brain.affine, grid) >= 0.5
    atlas_path = load_template().atlas("mars")
    assert atlas_path is not None
    atlas = carry_atlas(nib.load(atlas_path), inside, grid, chain)
    codes = np.zeros(256, np.uint8)
    for region in MARS.regions:
        codes[region.index] = 1 + list(ZONE_COLOURS).index(region.zone)
    zones = codes[atlas]
    where = np.argwhere(inside)
    low, high = where.min(axis=0), where.max(axis=0)
    panels = []
    for axis, part in SECTIONS:
        index = int(low[axis] + part * (high[axis] - low[axis]))
        panels.append(
            _zone_panel(*(np.rot90(np.take(one, index, axis)) for one in (values, zones, inside)))
        )
    height = max(panel.shape[0] for panel in panels)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, 6), (0, 0))) for p in panels]
    Image.fromarray(np.concatenate(padded, axis=1)).save(path)


def _zone_panel(values: Any, zones: Any, inside: Any) -> Any:
    top = max(float(np.percentile(values[inside], 99)), 1e-6) if inside.any() else 1.0
    grey = np.clip(values / top * 220, 0, 255).astype(np.uint8)
    picture = np.repeat(np.stack([grey] * 3, axis=-1), 2, axis=0).repeat(2, axis=1)
    zones, inside = (one.repeat(2, axis=0).repeat(2, axis=1) for one in (zones, inside))
    picture[_edge(inside)] = (255, 255, 255)
    for code, colour in enumerate(ZONE_COLOURS.values(), start=1):
        picture[_edge(zones == code)] = colour
    return picture


def _edge(region: Any) -> Any:
    """Pixels of a region that touch what is none of it."""
    padded = np.pad(region, 1)
    core = region.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            core &= np.roll(padded, step, axis)[1:-1, 1:-1]
    return region & ~core


# --- Missed and wrongly marked in real scans with implanted bleeds -------------------------------

#: Half of the width of what is shown, mm, and the size of a pixel of it.
HALF_MM = 18.0
PIXEL_MM = 0.5
#: False positives of different copies that are as near as this are one, mm.
SAME_MM = 5.0


@dataclass(frozen=True)
class Shown:
    """A place in a scan and what to write above it."""

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    centre: NDArray[np.float64]
    level: float
    text: str


@dataclass(frozen=True)
class _Miss:
    diameter: float
    probability: float
    centre: NDArray[np.float64]
    image: NDArray[np.float32]


def add_implanted(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``implanted``."""
    parser.add_argument("table", type=Path, help="table of backgrounds (TSV)")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--detector", default="learned")
    parser.add_argument("--model", type=Path, help="folder of another model of `learned`")
    parser.add_argument("--seeds", type=int, default=6, help="copies of a background")
    parser.add_argument("--each", type=int, default=6, help="of each kind and background")
    parser.set_defaults(run=run_implanted)


def run_implanted(arguments: argparse.Namespace) -> int:
    """Draw what the arguments ask for."""
    detector = open_detector(arguments.detector, arguments.model, threshold=0.01)
    rows: list[tuple[str, list[Shown]]] = []
    for background in load_backgrounds(arguments.table, role="report"):
        wrong, missed = look(background, detector, arguments.seeds, arguments.each)
        rows += [(f"{background.name}: false positives", wrong)]
        rows += [(f"{background.name}: missed", missed)]
    draw_places(rows, arguments.each, arguments.picture)
    return 0


def look(
    background: Background, detector: Any, seeds: int, each: int
) -> tuple[list[Shown], list[Shown]]:
    """Find the worst false positives and misses of a background."""
    false: list[tuple[float, NDArray[np.float64]]] = []
    bleeds: list[_Miss] = []
    for seed in REPORT_SEEDS[:seeds]:
        scan = implanted_scan(background, seed)
        found = search(detector, background, scan.image)
        result = score(scan.lesions, found, scan=f"{background.name}-{seed}")
        bleeds += [
            _Miss(mark.diameter_mm or 0.0, chance, np.asarray(mark.centre), scan.image)
            for mark, chance in rated(result)
        ]
        false += [(chance, np.asarray(mark.centre)) for mark, chance in mistaken(result)]
    false.sort(key=lambda one: -one[0])
    level = false[seeds][0] if len(false) > seeds else 0.0
    bright = float(np.percentile(background.image[background.mask], 99.5))
    places = gather(false)[:each]
    lost = sorted((b for b in bleeds if b.probability <= level), key=lambda b: -b.diameter)[:each]

    def show(image: NDArray[np.float32], centre: NDArray[np.float64], text: str) -> Shown:
        return Shown(image, background.affine, centre, bright, text)

    marks = [
        show(background.image, centre, f"{chance:.2f}, in {count} of {seeds}")
        for chance, count, centre in places
    ]
    misses = [show(b.image, b.centre, f"{b.diameter:.1f} mm, {b.probability:.2f}") for b in lost]
    missed = sum(b.probability <= level for b in bleeds)
    print(
        f"{background.name}: {missed} of {len(bleeds)} missed at one false positive a scan "
        f"({level:.2f})"
    )
    return marks, misses


def gather(
    marks: Sequence[tuple[float, NDArray[np.float64]]],
) -> list[tuple[float, int, NDArray[np.float64]]]:
    """Join marks of one place, the most probable first: probability, how many, centre (mm)."""
    joined: list[tuple[float, int, NDArray[np.float64]]] = []
    for chance, centre in sorted(marks, key=lambda one: -one[0]):
        for number, (highest, count, place) in enumerate(joined):
            if np.linalg.norm(place - centre) <= SAME_MM:
                joined[number] = (highest, count + 1, place)
                break
        else:
            joined.append((chance, 1, centre))
    return joined


def section(shown: Shown, axis: int) -> NDArray[np.float32]:
    """Cut a square out of the plane across a voxel axis, pixels as the voxels are."""
    from nibabel.affines import voxel_sizes
    from scipy import ndimage

    spacing = voxel_sizes(shown.affine)
    voxel = np.linalg.solve(shown.affine[:3, :3], shown.centre - shown.affine[:3, 3])
    steps = np.arange(-HALF_MM, HALF_MM + PIXEL_MM / 2, PIXEL_MM)
    first, second = (k for k in range(3) if k != axis)
    points = np.empty((3, len(steps), len(steps)))
    points[axis] = np.round(voxel[axis])
    points[first] = voxel[first] + (steps / spacing[first])[:, None]
    points[second] = voxel[second] + (steps / spacing[second])[None, :]
    cut = ndimage.map_coordinates(shown.image, points, order=0, mode="constant")
    return np.asarray(cut.T[::-1], np.float32)


def draw_places(rows: Sequence[tuple[str, list[Shown]]], each: int, path: Path) -> None:
    """Write the picture: one row of places for each entry."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines = 1 + max(shown.text.count("\n") for _, places in rows for shown in places)
    size = (3.3 * each, (1.35 + 0.2 * lines) * len(rows))
    figure, axes = plt.subplots(len(rows), each, figsize=size, squeeze=False, dpi=80)
    for line, (title, places) in zip(axes, rows, strict=True):
        line[0].set_title(title, loc="left", fontsize=9, pad=3 + 11 * lines, fontweight="bold")
        for cell in line:
            cell.axis("off")
        for cell, shown in zip(line, places, strict=False):
            planes = [section(shown, axis) for axis in (2, 1, 0)]
            gap = np.full((planes[0].shape[0], 3), shown.level, np.float32)
            strip = np.hstack([planes[0], gap, planes[1], gap, planes[2]])
            cell.imshow(strip, cmap="gray", vmin=0, vmax=shown.level, interpolation="nearest")
            cell.text(1, -2, shown.text, fontsize=8, va="bottom")
    figure.tight_layout()
    figure.savefig(path)


# --- Missed and wrongly listed in simulated people -----------------------------------------------


def add_held_out(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``held-out``."""
    parser.add_argument("folder", type=Path, help="folder of benchmarks/held_out.py")
    parser.add_argument("name", help="folder of the results in it")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--lower", help="results of a lower threshold")
    parser.add_argument("--each", type=int, default=12, help="of each kind")
    parser.add_argument("--across", type=int, default=4, help="in a row")
    parser.set_defaults(run=run_held_out)


def run_held_out(arguments: argparse.Namespace) -> int:
    """Draw what the arguments ask for."""
    wrong, missed = sort_out(arguments.folder, arguments.name)
    if arguments.lower:
        names = (arguments.name, arguments.lower)
        fates = Counter(fate(arguments.folder, names, scan, mark) for scan, mark, _ in missed)
        print("nearest to a miss:", dict(fates.most_common()))
    widest, rest = missed[: arguments.each], missed[arguments.each :]
    spread = np.linspace(0, len(rest) - 1, min(arguments.each, len(rest))).round().astype(int)
    kinds = {
        "listed wrongly": wrong[: arguments.each],
        "widest that are missed": widest,
        "others that are missed": [rest[number] for number in spread],
    }
    rows: list[tuple[str, list[Shown]]] = []
    for title, marks in kinds.items():
        shown = [show(arguments.folder, *mark) for mark in marks]
        parts = [shown[i : i + arguments.across] for i in range(0, len(shown), arguments.across)]
        rows += [(title if number == 0 else "", part) for number, part in enumerate(parts)]
    draw_places(rows, arguments.across, arguments.picture)
    return 0


def sort_out(
    folder: Path, name: str
) -> tuple[list[tuple[str, Mark, str]], list[tuple[str, Mark, str]]]:
    """Return false positives, most probable first, and false negatives, widest first.

    Each comes with its scan and a few words.
    """
    rule = Rule(distance_mm=MATCH_MM, min_diameter_mm=MIN_DIAMETER_MM)
    results = collect(Request(output=folder / name, truth=folder / "truth", rule=rule)).results
    wrong: list[tuple[str, Mark, str]] = []
    missed: list[tuple[str, Mark, str]] = []
    for result in results:
        for one in result.false_positives:
            mark = one.predicted
            wrong.append((result.scan, mark, f"{mark.probability:.2f}, {one.origin}"))
        for mark in result.misses:
            words = f"{mark.diameter_mm:.1f} mm, {_nearest(mark, result.mimics)}"
            missed.append((result.scan, mark, words))
    print(f"{len(wrong)} listed wrongly, {len(missed)} missed")
    wrong.sort(key=lambda one: -(one[1].probability or 0.0))
    missed.sort(key=lambda one: -(one[1].diameter_mm or 0.0))
    return wrong, missed


def _nearest(mark: Mark, others: tuple[Mark, ...]) -> str:
    """Kind of the nearest compact thing whose surface is within 5 mm of a bleed's."""
    gaps = {
        float(np.linalg.norm(np.subtract(mark.centre, one.centre)))
        - ((mark.diameter_mm or 0.0) + (one.diameter_mm or 0.0)) / 2: one.kind or "?"
        for one in others
        if not one.extended and one.visible
    }
    gap = min(gaps, default=np.inf)
    return gaps[gap] if gap <= MATCH_MM else "nothing near"


def fate(folder: Path, names: tuple[str, str], scan: str, bleed: Mark) -> str:
    """Return the candidate nearest to a missed bleed, listed or below the threshold."""
    nearest = []
    for name in names:
        path = folder / name / scan.split("_", maxsplit=1)[0] / "anat" / f"{scan}_seg-CMB_dseg.tsv"
        gaps = [
            (float(np.linalg.norm(np.subtract(m.centre, bleed.centre))), m)
            for m in read_marks(path)
        ]
        near = min(gaps, key=lambda one: one[0], default=None)
        nearest.append(near[1] if near is not None and near[0] <= MATCH_MM else None)
    listed, lower = nearest
    if lower is None:
        return "no mark"
    if lower.susceptibility == "diamagnetic":
        return "a mark that is called diamagnetic"
    return "a mark that is not listed" if listed is None else "a mark that is listed"


def show(folder: Path, scan: str, mark: Mark, words: str) -> Shown:
    """Cut out the place of a mark."""
    image = _image(folder, scan)
    bright = float(np.percentile(image.magnitude[image.brain_mask], 99.5))
    text = f"{words}\n{scan.removeprefix('sub-')}"
    return Shown(image.magnitude, image.affine, np.asarray(mark.centre), bright, text)


@lru_cache(maxsize=8)
def _image(folder: Path, scan: str) -> DetectorInput:
    """Make what the detector was given, from the name of its results."""
    person, _, label = scan.removeprefix("sub-").partition("_acq-")
    names = {scan_label(name, kind): name for name in PROTOCOLS for kind in ("", "swi")}
    name = names[label]
    with np.load(folder / f"{name}-{person}.npz") as stored:
        data = {key: stored[key] for key in ("echoes", "affine", "brain")}
    given = detector_inputs(list(data["echoes"]), data["affine"], data["brain"], get_protocol(name))
    return next(one for one in given if scan_label(name, one.sequence) == label)


# --- The report in the README --------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
TARGET = Path(__file__).resolve().parents[1] / "docs" / "_static" / "report.png"


def add_report(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``report``."""
    parser.add_argument("report", type=Path, help="demo/derivatives/sub-01.html, say")
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--size", type=int, nargs=2, default=(1200, 1600), help="pixels")
    parser.set_defaults(run=run_report)


def run_report(arguments: argparse.Namespace) -> int:
    """Take the picture that the arguments ask for."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = [browser, "--headless=new", "--disable-gpu", "--hide-scrollbars"]
        # Chromium refuses to run its sandbox as root, as in most containers.
        command += ["--no-sandbox", f"--user-data-dir={folder}/profile"]
        command += ["--window-size={},{}".format(*arguments.size), f"--screenshot={shot}"]
        command.append(arguments.report.resolve().as_uri())
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        pixels = np.asarray(Image.open(shot).convert("RGB"))
    # Steps of four cannot be seen, and take a quarter off the file.
    rounded = np.where(pixels == 255, 255, np.round(pixels / 4) * 4).clip(0, 255)
    Image.fromarray(rounded.astype(np.uint8)).save(arguments.out, optimize=True)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1000:.0f} kB")
    return 0


COMMANDS = {
    "simulator": (add_simulator, "simulated scans beside real ones"),
    "zones": (add_zones, "zones on real scans"),
    "implanted": (add_implanted, "misses and false positives in real scans with implanted bleeds"),
    "held-out": (add_held_out, "misses and false positives in simulated people"),
    "report": (add_report, "the picture of a report in the README"),
}


def main() -> int:
    """Run a sub-command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (add, text) in COMMANDS.items():
        add(commands.add_parser(name, help=text, description=text))
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
