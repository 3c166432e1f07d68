"""Simulated people as a BIDS dataset with the truth in ``derivatives/truth``."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbprep import __version__
from cmbprep.errors import UsageError
from cmbprep.lab.shared import read_data
from cmbprep.lab.simulate.protocols import (
    DEFAULT_PROTOCOLS,
    Person,
    Protocol,
    draw_people,
    get_protocol,
)
from cmbprep.lab.simulate.visits import NEW_PER_YEAR, YEAR_DAYS, Visit, draw_visits
from cmbprep.lesions import COLUMNS
from cmbprep.outputs.files import write_image, write_json, write_text
from cmbprep.running.processes import process_pool

if TYPE_CHECKING:
    from cmbprep.lab.simulate.dura import Sheet
    from cmbprep.lab.simulate.field import Geometry
    from cmbprep.lab.simulate.head import Head
    from cmbprep.lab.simulate.scanner import Acquisition
    from cmbprep.lab.simulate.sources import Source
    from cmbprep.lab.simulate.truth import Truth
    from cmbprep.lab.simulate.variants import Variant
    from cmbprep.lab.simulate.vessels import Tube
    from cmbprep.spatial.grids import Grid

BIDS_VERSION = "1.10.0"

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class _Task:
    dest: Path
    index: int
    person: Person
    visits: Sequence[Visit]
    seed: int
    t1w: Path | None
    variant: Variant

    def place(self, visit: Visit) -> tuple[Path, str]:
        """Folder of a visit's images in a dataset, and the start of their names."""
        label = f"sub-{self.person.label}"
        if visit.session is None:
            return Path(label, "anat"), label
        return Path(label, f"ses-{visit.session}", "anat"), f"{label}_ses-{visit.session}"

    def stem(self, visit: Visit, name: str) -> Path:
        """An image of a visit, without its extension."""
        folder, label = self.place(visit)
        return self.dest / folder / f"{label}_{name}"


def simulate_dataset(
    dest: Path,
    *,
    participants: int,
    seed: int,
    protocols: Sequence[str] | None = None,
    sites: int = 1,
    nprocs: int = 1,
    heads: Path | None = None,
    variant: Variant | None = None,
    visits: int = 1,
    visit_protocols: Sequence[str] = (),
    new_per_year: float = NEW_PER_YEAR,
    progress: Progress | None = None,
) -> None:
    """Write a BIDS dataset of simulated people with known microbleeds.

    Parameters
    ----------
    dest
        Folder to make; it must not exist or be empty.
    participants
        Number of people.
    seed
        The same seed gives the same files, byte for byte, whatever `nprocs` is.
    protocols
        Names of presets (``protocols.PROTOCOLS``); people or sites take them in turn.
    sites
        Number of sites.
    nprocs
        People simulated at a time.
    heads
        A BIDS dataset with T1w images to make heads from, instead of the packaged template.
    variant
        What is different from the scans that scanners make of usual heads.
    visits
        Visits of each person; more than one are sessions.
    visit_protocols
        Presets that the visits take in turn, in place of `protocols`.
    new_per_year
        New microbleeds per person-year of people without hypertension (:mod:`.visits`).
    progress
        Called with the number of people done, of people in all, and the last one's label.

    Raises
    ------
    UsageError
        If an argument is wrong or `dest` is in the way.
    """
    if participants < 1 or sites < 1 or nprocs < 1:
        raise UsageError("the numbers of participants, sites and processes must be 1 or more")
    if seed < 0:
        raise UsageError("the seed must not be negative")
    from cmbprep.lab.simulate.variants import USUAL

    chosen = variant or USUAL
    images: list[Path] = []
    if heads is not None:
        from cmbprep.lab.simulate.heads import find_heads

        images = find_heads(heads)
    names = tuple(protocols or DEFAULT_PROTOCOLS)
    used = [get_protocol(name) for name in visit_protocols or names]
    people = draw_people(participants, seed, names, sites)
    drawn = [
        draw_visits(
            person,
            np.random.default_rng([seed, 3, index]),
            count=visits,
            per_year=new_per_year,
            protocols=visit_protocols,
        )
        for index, person in enumerate(people)
    ]
    with aside(Path(dest)) as folder:
        _write_dataset_files(folder, people, used, seed, chosen)
        heads_of = [images[index % len(images)] if images else None for index in range(len(people))]
        tasks = [
            _Task(folder, index, *pair, seed, heads_of[index], chosen)
            for index, pair in enumerate(zip(people, drawn, strict=True))
        ]
        for done, task in enumerate(_in_turn(tasks, nprocs), start=1):
            if progress is not None:
                progress(done, len(tasks), task.person.label)


@contextmanager
def aside(dest: Path) -> Iterator[Path]:
    """Yield a folder beside `dest` that takes its place when all went well."""
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UsageError(
            "something is there already", path=dest, hint="give a new or an empty folder"
        )
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{dest.name}-", dir=dest.parent))
    except OSError as error:
        raise UsageError(f"cannot be written ({error.strerror})", path=dest) from error
    try:
        yield folder
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        if dest.exists():
            dest.rmdir()
        folder.rename(dest)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_turn(tasks: list[_Task], nprocs: int) -> Iterator[_Task]:
    if min(nprocs, len(tasks)) == 1:
        for task in tasks:
            yield _simulate_person(task)
        return
    with process_pool(min(nprocs, len(tasks))) as pool:
        yield from pool.map(_simulate_person, tasks)


def _simulate_person(task: _Task) -> _Task:
    from cmbprep.lab.simulate import dura, sources, surgery, variants, vessels
    from cmbprep.lab.simulate.head import build_head
    from cmbprep.lab.simulate.heads import load_real_head, load_template_head

    person = task.person
    # One stream for each stage, so that a change in one leaves the others' draws alone.
    streams = [np.random.default_rng([task.seed, 2, task.index, k]) for k in range(7)]
    head = build_head(
        load_template_head() if task.t1w is None else load_real_head(task.t1w),
        streams[0],
        age=person.age,
        atrophy=person.atrophy,
        lesion_load=person.lesion_load,
        rim=task.variant.rim,
    )
    places = sources.place_masks(head)
    operated = surgery.draw_surgery(head, places, streams[6])
    if operated is not None:
        head = surgery.operate(head, operated)
        places = sources.place_masks(head)
    # The first n of a longer list are those of a shorter one: each visit has the first ones.
    bleeds = sources.draw_microbleeds(head, places, task.visits[-1].microbleeds, streams[1])
    mimics = sources.draw_mimics(head, places, person.age, streams[2])
    if operated is not None:
        mimics.append(surgery.rim(operated, streams[6]))
    tubes = vessels.draw_veins(head, head.to_template.inverse, streams[3])
    tubes += vessels.draw_arteries(head.to_template.inverse, streams[3])
    tubes = variants.scale_veins(tubes, task.variant.veins)
    sheets: list[dura.Sheet] = []
    if task.variant.dura:
        stream = np.random.default_rng([task.seed, 2, task.index, 7])
        sheets = dura.draw_dura(head.to_template.inverse, stream)
    for visit in task.visits:
        _simulate_visit(task, visit, head, (tubes, sheets), (bleeds, mimics))
    if task.visits[0].session is not None:
        _write_sessions(task)
    return task


def _simulate_visit(
    task: _Task,
    visit: Visit,
    head: Head,
    lines: tuple[Sequence[Tube], Sequence[Sheet]],
    things: tuple[Sequence[Source], Sequence[Source]],
) -> None:
    """Scan a participant.

    ``lines`` are vessels and sheets of dura, ``things`` the microbleeds of all visits, and the
    mimics.
    """
    from cmbprep.lab.simulate import scanner, variants
    from cmbprep.lab.simulate.field import plan_geometry
    from cmbprep.lab.simulate.truth import tell_truth

    protocol = get_protocol(visit.protocol)
    bleeds, mimics = things
    found = [*bleeds[: visit.microbleeds], *mimics]
    # Numbers that are the same at every visit: all microbleeds, and then the mimics.
    numbers = [*range(1, len(found) - len(mimics) + 1)]
    numbers += range(len(bleeds) + 1, len(bleeds) + len(mimics) + 1)
    later = () if visit.number == 1 else (visit.number,)
    images, coil = (np.random.default_rng([task.seed, 2, task.index, k, *later]) for k in (4, 5))
    centre = head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    geometry = plan_geometry(protocol, centre, images)
    tubes, sheets = lines
    scan = scanner.acquire(head, tubes, found, protocol, geometry, images, sheets=sheets)
    t1w_geometry = _t1w_geometry(scan.geometry, centre, coil)
    t1w = scanner.acquire_t1w(head, t1w_geometry, protocol.field_strength, coil)
    _write_t1w(task.stem(visit, "T1w"), t1w, t1w_geometry, protocol)
    truth, affine = tell_truth(head, found, scan, numbers=numbers), scan.geometry.affine
    if task.variant.stripped:
        scan = variants.strip_skull(scan, head)
    grid = None
    if task.variant.resampled is not None:
        grid = variants.isotropic_grid(scan.geometry.shape, affine, task.variant.resampled)
        truth = variants.resample_truth(truth, affine, grid)
    _write_scan(task, visit, scan, protocol, grid)
    _write_visit_truth(task, visit, truth, affine if grid is None else grid.affine)


def _t1w_geometry(
    scan: Geometry, centre: NDArray[np.float64], rng: np.random.Generator
) -> Geometry:
    """A sagittal 1 mm grid; the head has moved by a little since or before the other scan."""
    from cmbprep.lab.simulate.field import Geometry, rotation

    shape = (184, 224, 224)
    moved = np.eye(4)
    moved[:3, :3] = rotation(np.deg2rad(rng.normal(0, 1.2, 3)))
    moved[:3, 3] = rng.normal(0, 1.5, 3)
    pose = moved @ scan.pose
    affine = np.eye(4)
    middle = pose[:3, :3] @ (centre - [0, 0, 12.0]) + pose[:3, 3]
    affine[:3, 3] = np.round(middle, 1) - (np.asarray(shape) - 1) / 2
    return Geometry(affine=affine, shape=shape, pose=pose)


def save_image(
    path: Path,
    data: NDArray[Any],
    affine: NDArray[np.float64],
    sidecar: Any,
    *,
    units: tuple[str, str] = ("mm", "sec"),
) -> None:
    """Write an image in scanner coordinates (code 1), millimetres, and its sidecar.

    Parameters
    ----------
    path
        Without an extension.
    data, affine
        Values as they are stored; 4x4, voxel -> RAS+ mm.
    sidecar
        Content of the JSON file.
    units
        Of length and of time, in the header.
    """
    import nibabel as nib

    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    write_image(path.with_name(f"{path.name}.nii.gz"), image, units=units)
    write_json(path.with_name(f"{path.name}.json"), sidecar)


def _as_int16(data: NDArray[np.float32], top: float) -> NDArray[np.int16]:
    """Scale so that `top` becomes 4095, as scanners store magnitudes."""
    return np.round(np.clip(data / top, 0, 1) * 4095).astype(np.int16)


def _scanner(protocol: Protocol) -> dict[str, Any]:
    return {
        "Manufacturer": protocol.manufacturer,
        "ManufacturersModelName": protocol.model,
        "MagneticFieldStrength": protocol.field_strength,
    }


_T1W = {
    "MRAcquisitionType": "3D",
    "RepetitionTime": 2.3,
    "InversionTime": 1.1,
    "EchoTime": 0.003,
    "FlipAngle": 9,
    "SliceThickness": 1.0,
}


def _write_t1w(
    stem: Path, data: NDArray[np.float32], geometry: Geometry, protocol: Protocol
) -> None:
    stored = _as_int16(data, float(np.percentile(data, 99.95)))
    save_image(stem, stored, geometry.affine, {**_scanner(protocol), **_T1W})


def _scan_sidecar(protocol: Protocol, echo_time: float) -> dict[str, Any]:
    return {
        **_scanner(protocol),
        "MRAcquisitionType": "3D" if protocol.three_d else "2D",
        "ScanningSequence": "GR",
        "EchoTime": echo_time,
        "RepetitionTime": protocol.repetition_time / 1000,
        "FlipAngle": protocol.flip_angle,
        "SliceThickness": protocol.voxel[2],
        "SpacingBetweenSlices": protocol.spacing[2],
        "ProtocolName": protocol.name,
        "PulseSequenceDetails": "Simulated: dipole field of a susceptibility model, signal "
        "computed on cells finer than the voxel.",
    }


def _write_scan(
    task: _Task, visit: Visit, scan: Acquisition, protocol: Protocol, grid: Grid | None
) -> None:
    from cmbprep.lab.simulate.variants import resample_image

    def save(name: str, data: NDArray[Any], sidecar: dict[str, Any]) -> None:
        where = scan.geometry.affine if grid is None else grid.affine
        units = ("unknown", "unknown") if task.variant.unitless else ("mm", "sec")
        save_image(task.stem(visit, name), data, where, sidecar, units=units)

    def on_grid(image: NDArray[Any]) -> NDArray[Any]:
        return image if grid is None else resample_image(image, scan.geometry.affine, grid)

    top = float(np.percentile(np.abs(scan.echoes[0]), 99.95))
    suffix = "T2starw" if protocol.suffix == "swi" else protocol.suffix
    numbered = len(scan.echoes) > 1 or suffix == "MEGRE"
    for number, (echo, echo_time) in enumerate(
        zip(scan.echoes, protocol.echo_times, strict=True), start=1
    ):
        start = f"echo-{number}_" if numbered else ""
        sidecar = _scan_sidecar(protocol, echo_time)
        magnitude = f"{start}part-mag_{suffix}" if protocol.phase else f"{start}{suffix}"
        save(magnitude, _as_int16(on_grid(np.abs(echo).astype(np.float32)), top), sidecar)
        if protocol.phase:
            angle = np.angle(on_grid(echo)).astype(np.float32)
            save(f"{start}part-phase_{suffix}", angle, {**sidecar, "Units": "rad"})
    if protocol.suffix == "swi":
        from cmbprep.phase.swi import swi

        weighted = swi(scan.echoes[-1], phase_sign=protocol.phase_sign)
        sidecar = _scan_sidecar(protocol, protocol.echo_times[-1])
        save("swi", _as_int16(on_grid(weighted), top), sidecar)


def write_truth(
    stem: Path,
    affine: NDArray[np.float64],
    segments: Mapping[str, tuple[NDArray[np.uint8], str]],
    sidecar: Mapping[str, Any],
) -> None:
    """Write masks, labels and tables of what was put into a scan.

    Parameters
    ----------
    stem
        Folder and entities of the scan.
    affine
        Of the scan.
    segments
        ``CMB`` and ``mimics`` -> label image and table.
    sidecar
        What all sidecars say.
    """
    from cmbprep.lab.simulate.truth import TRUTH_COLUMNS

    mask = (segments["CMB"][0] > 0).astype(np.uint8)
    path = stem.with_name(f"{stem.name}_label-CMB_mask")
    save_image(path, mask, affine, {"Type": "Lesion", **sidecar})
    for seg, (labels, table) in segments.items():
        path = stem.with_name(f"{stem.name}_seg-{seg}_dseg")
        save_image(path, labels, affine, {**sidecar, **COLUMNS, **TRUTH_COLUMNS})
        write_text(path.with_name(f"{path.name}.tsv"), table)


def _write_visit_truth(
    task: _Task, visit: Visit, truth: Truth, affine: NDArray[np.float64]
) -> None:
    from cmbprep.zones.schemes import MARS, format_regions

    folder, label = task.place(visit)
    root = task.dest / "derivatives" / "truth"
    names = sorted(p.name for p in (task.dest / folder).glob("*.nii.gz"))
    scans = [name for name in names if not name.endswith("_T1w.nii.gz")]
    common = {"Sources": [f"bids:raw:{(folder / name).as_posix()}" for name in scans]}
    segments = {
        "CMB": (truth.microbleeds, truth.microbleed_table),
        "mimics": (truth.others, truth.other_table),
    }
    stem = root / folder / label
    write_truth(stem, affine, segments, common)
    if truth.zones is not None:
        save_image(stem.with_name(f"{label}_atlas-{MARS.name}_dseg"), truth.zones, affine, common)
        write_text(root / f"atlas-{MARS.name}_dseg.tsv", format_regions(MARS))


def _write_sessions(task: _Task) -> None:
    """Write when the participant was scanned, and at which age."""
    columns = read_data("cmbprep.lab.simulate", "columns.json")["sessions"]
    rows = [list(columns)]
    for visit in task.visits:
        age = task.person.age + visit.days / YEAR_DAYS
        when = visit.acquired.isoformat(timespec="seconds")
        rows.append([f"ses-{visit.session}", when, f"{age:.2f}", visit.protocol])
    stem = task.dest / f"sub-{task.person.label}" / f"sub-{task.person.label}_sessions"
    write_text(stem.with_suffix(".tsv"), "".join("\t".join(row) + "\n" for row in rows))
    write_json(stem.with_suffix(".json"), columns)


def _write_dataset_files(
    folder: Path,
    people: Sequence[Person],
    protocols: Sequence[Protocol],
    seed: int,
    variant: Variant,
) -> None:
    describe(folder, "Simulated microbleeds", "What was put into the simulated scans", "CC0")
    listing = "\n".join(f"- {p.name}: {p.source}" for p in dict.fromkeys(protocols))
    write_readme(
        folder,
        "README.simulated.md",
        version=__version__,
        participants=len(people),
        seed=seed,
        protocols=listing,
        variant=variant.describe(),
    )
    if any(protocol.suffix == "swi" for protocol in protocols):
        # Processed SWI has a suffix in wide use that the standard does not have yet.
        write_text(folder / ".bidsignore", "**/*_swi.nii.gz\n**/*_swi.json\n")
    columns = read_data("cmbprep.lab.simulate", "columns.json")["participants"]
    rows = [list(columns), *(_participant_row(person, columns) for person in people)]
    write_text(folder / "participants.tsv", "".join("\t".join(row) + "\n" for row in rows))
    write_json(folder / "participants.json", columns)


def write_readme(folder: Path, name: str, **values: object) -> None:
    """Fill in a text of this package, for a dataset and for the truth in it."""
    text = resources.files("cmbprep.lab.simulate").joinpath(name).read_text(encoding="utf-8")
    for place in (folder, folder / "derivatives" / "truth"):
        write_text(place / "README.md", text.format(**values))


def describe(folder: Path, name: str, truth_name: str, licence: str | None) -> None:
    """Write the descriptions of a raw dataset and of the truth in its derivatives."""
    common: dict[str, Any] = {
        "BIDSVersion": BIDS_VERSION,
        "GeneratedBy": [{"Name": "cmbprep-tools simulate", "Version": __version__}],
    }
    if licence:
        common["License"] = licence
    write_json(folder / "dataset_description.json", {"Name": name, "DatasetType": "raw", **common})
    write_json(
        folder / "derivatives" / "truth" / "dataset_description.json",
        {
            "Name": truth_name,
            "DatasetType": "derivative",
            **common,
            "DatasetLinks": {"raw": "../.."},
        },
    )


def _participant_row(person: Person, columns: Iterable[str]) -> list[str]:
    values = {"participant_id": f"sub-{person.label}", **asdict(person)}
    words = {True: "yes", False: "no"}
    return [
        words[value] if isinstance(value, bool) else str(value)
        for value in (values[name] for name in columns)
    ]
