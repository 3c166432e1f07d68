"""How well lesions are followed from one visit to the next, on simulated people.

    python benchmarks/followup.py simulate CACHE [--people 10] [--tuning]
    python benchmarks/followup.py measure CACHE [--tuning]
    python benchmarks/followup.py moved OUTPUT_DIR --participant-label s1 niivue [--tuning]

``simulate`` scans each person at four visits, three with one protocol and the last with another.
Every two visits are compared: three pairs with the same protocol and three with a change. Every
visit has a head position, noise and
errors of the brain mask of its own; microbleeds of earlier visits stay and new ones appear. The
scans are corrected for bias and go through the packaged detector. What is done already is kept.

``measure`` registers the visits, follows the lesions and compares them with the truth:

- visible persistent microbleeds (seen on both scans by the simulator's rule, listed at one visit
  or both) that are called persistent;
- lesions called new that are no microbleed that has appeared (false new ones), per pair;
- new microbleeds that are visible and listed, and called new.

``moved`` takes real scans of an output dataset, puts microbleeds in, and follows them to the same
scan after a known rotation, shift and resampling: nothing is new there. All lesions are simulated.
``--tuning`` uses other seeds: those that thresholds were set on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.detectors.base import Detection, DetectorInput
from cmbprep.followup.protocol import Acquisition, describe_changes
from cmbprep.followup.registration import HeadScan, register_visits
from cmbprep.followup.status import Fate, VisitLesions, follow_lesions, unassessed
from cmbprep.lesions import Lesion
from cmbprep.ratings.automatic import Candidate
from cmbprep.spatial.transforms import LinearMap, map_points

PROTOCOLS = (
    "clinical-2d-1.5t",
    "clinical-2d-3t",
    "ukb-swi",
    "clinical-2d-1.5t-long-te",
    "gre3d-3t",
    "swi-3t",
)
#: First word of the seeds of people that are reported on, and of those for tuning.
REPORTED, TUNING = 7200, 7100
#: Microbleeds of the first visit: median and spread (log), and most. New ones per interval.
FIRST, SPREAD, MOST, NEW = 4.0, 0.7, 15, 0.7
MATCH_MM = 5.0


@dataclass(frozen=True)
class Truth:
    """A microbleed or mimic that was put in."""

    number: int
    kind: str
    centre: tuple[float, float, float]
    diameter: float
    visible: bool


@dataclass(frozen=True)
class Told:
    """What is listed in a scan of one visit, and what was put in."""

    protocol: str
    lesions: tuple[Lesion, ...]
    truth: tuple[Truth, ...]


@dataclass(frozen=True, eq=False)
class Scan:
    """A simulated scan after detection."""

    visit: VisitLesions
    image: NDArray[np.float32]
    protocol: str
    truth: tuple[Truth, ...]

    @property
    def told(self) -> Told:
        """What is listed, and what was put in."""
        return Told(self.protocol, self.visit.lesions, self.truth)


def protocols_of(person: int) -> tuple[str, ...]:
    """Return the protocol of each visit of a person: three times the same, and another one."""
    first = person % len(PROTOCOLS)
    other = (first + 1 + person // len(PROTOCOLS)) % len(PROTOCOLS)
    return (PROTOCOLS[first],) * 3 + (PROTOCOLS[other],)


def simulate_person(cache: Path, family: int, person: int) -> None:
    """Simulate and read the scans of a person that are not there yet."""
    from cmbprep.detectors import get_detector
    from cmbprep.lab.simulate import scanner, sources, vessels
    from cmbprep.lab.simulate.field import plan_geometry
    from cmbprep.lab.simulate.head import build_head
    from cmbprep.lab.simulate.heads import load_template_head
    from cmbprep.lab.simulate.protocols import get_protocol
    from cmbprep.lab.simulate.truth import tell_truth
    from cmbprep.lab.training.scans import detector_inputs, rough_mask

    paths = [cache / f"{family}_{person:02d}_{visit}.npz" for visit in range(4)]
    if all(path.exists() for path in paths):
        return
    rng = np.random.default_rng([family, person])
    age = float(rng.uniform(55, 85))
    atrophy, load = rng.uniform(0.1, 0.7, 2)
    head = build_head(load_template_head(), rng, age=age, atrophy=atrophy, lesion_load=load)
    places = sources.place_masks(head)
    counts = [int(np.clip(round(np.exp(rng.normal(np.log(FIRST), SPREAD))), 1, MOST))]
    for _ in range(3):
        counts.append(counts[-1] + int(rng.poisson(NEW)))
    bleeds = sources.draw_microbleeds(head, places, counts[-1], rng)
    mimics = sources.draw_mimics(head, places, age, rng)
    tubes = vessels.draw_veins(head, head.to_template.inverse, rng)
    tubes += vessels.draw_arteries(head.to_template.inverse, rng)
    centre = head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    detector = get_detector("learned")
    for number, (path, name) in enumerate(zip(paths, protocols_of(person), strict=True)):
        if path.exists():
            continue
        start = time.process_time()
        own = np.random.default_rng([family, person, number])
        protocol = get_protocol(name)
        geometry = plan_geometry(protocol, centre.tolist(), own)
        found = [*bleeds[: counts[number]], *mimics]
        ids = [*range(1, len(found) - len(mimics) + 1)]
        ids += range(1001, 1001 + len(mimics))
        scan = scanner.acquire(head, tubes, found, protocol, geometry, own, with_structures=False)
        truth = tell_truth(head, found, scan, with_zones=False, numbers=ids)
        mask = rough_mask(head, scan.geometry, own)
        *_, given = detector_inputs(scan.echoes, scan.geometry.affine, mask, protocol)
        found_there = detector.detect(given)
        _save(path, given, found_there, name, [truth.microbleed_table, truth.other_table])
        print(f"{path.stem} {name} {time.process_time() - start:.0f} s", flush=True)


def _save(
    path: Path, scan: DetectorInput, found: Detection, protocol: str, tables: list[str]
) -> None:
    from cmbprep.lab.simulate.protocols import get_protocol

    preset = get_protocol(protocol)
    weighed = found.candidates
    assert weighed is not None
    names = list(weighed.columns)
    rows = weighed.rows[
        :, [names.index(n) for n in ("x", "y", "z", "lesion", "probability", "radius")]
    ]
    truth = []
    for table in tables:
        header, *lines = (line.split("\t") for line in table.splitlines())
        for line in lines:
            row = dict(zip(header, line, strict=True))
            centre = [float(row[axis]) for axis in "xyz"]
            number = int(row["person_index"])
            size = float(row["diameter_mm"])
            truth.append([number, row["kind"], centre, size, row["visible"] == "true"])
    about = {
        "protocol": protocol,
        "acquisition": {
            "sequence": scan.sequence,
            "field_strength": preset.field_strength,
            "echo_time": preset.echo_times[-1],
            "spacing_mm": [round(float(s), 4) for s in scan.spacing],
            "scanner": preset.manufacturer,
        },
        "lesions": [{"name": f"CMB-{one.index:03d}", **_row(one)} for one in found.lesions],
        "truth": truth,
    }
    top = float(scan.magnitude.max())
    stored = np.round(scan.magnitude / top * 32000).astype(np.int16)
    temporary = path.with_name(f".{path.name}")
    np.savez_compressed(
        temporary,
        image=stored,
        mask=np.packbits(scan.brain_mask),
        affine=scan.affine,
        candidates=rows,
        about=json.dumps(about),
    )
    temporary.rename(path)


def _row(lesion: Any) -> dict[str, Any]:
    values = asdict(lesion)
    values["x"], values["y"], values["z"] = values.pop("centre_ras")
    return values


def load_scan(path: Path) -> Scan:
    """Read a scan that ``simulate`` has written."""
    with np.load(path) as stored:
        about = json.loads(str(stored["about"]))
        image = stored["image"].astype(np.float32)
        mask = np.unpackbits(stored["mask"], count=image.size).reshape(image.shape).astype(bool)
        affine, rows = stored["affine"], stored["candidates"]
    listed = tuple(Lesion(**values) for values in about["lesions"])
    candidates = tuple(
        Candidate(
            row=number,
            centre_ras=(float(x), float(y), float(z)),
            probability=float(chance),
            diameter_mm=float(np.clip(2 * np.exp(radius), 0.5, 20)),
        )
        for number, (x, y, z, lesion, chance, radius) in enumerate(rows, start=1)
        if not lesion
    )
    acquired = about["acquisition"]
    visit = VisitLesions(
        lesions=tuple(one for one in listed if one.susceptibility != "diamagnetic"),
        dismissed=tuple(one for one in listed if one.susceptibility == "diamagnetic"),
        candidates=candidates,
        brain=mask,
        affine=affine,
        acquisition=Acquisition(**{**acquired, "spacing_mm": tuple(acquired["spacing_mm"])}),
        image=image,
    )
    truth = tuple(
        Truth(n, kind, tuple(centre), size, seen) for n, kind, centre, size, seen in about["truth"]
    )
    return Scan(visit, image, about["protocol"], truth)


# --- What became of the lesions, and what did ----------------------------------------------------


def assign_truth(scan: Told) -> dict[int, Truth]:
    """Return what each listed lesion is, by its index; lesions that are nothing are left out."""
    from cmbprep.ratings.matching import assign, centre_distances

    if not scan.lesions or not scan.truth:
        return {}
    distances = centre_distances(
        np.array([one.centre for one in scan.truth]),
        np.array([one.centre for one in scan.lesions]),
    )
    pairs = assign(distances, distances <= MATCH_MM)
    return {scan.lesions[j].index: scan.truth[i] for i, j in pairs}


def register_cached(
    cache: Path, names: tuple[str, str], scans: tuple[Scan, Scan]
) -> dict[str, Any]:
    """Register two visits, or read what an earlier call has found."""
    path = cache / f"{names[0]}_to_{names[1]}.json"
    if not path.exists():
        start = time.process_time()
        first, second = (_head(scan) for scan in scans)
        found = register_visits(first, second)
        about = {name: value for name, value in vars(found).items() if name != "to_second"}
        about |= {"matrix": found.to_second.matrix.tolist(), "error_mm": found.error_mm}
        path.write_text(json.dumps({**about, "seconds": time.process_time() - start}))
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored


def _head(scan: Scan) -> HeadScan:
    import nibabel as nib

    affine = scan.visit.affine
    mask = nib.Nifti1Image(scan.visit.brain.astype(np.uint8), affine)
    return HeadScan(image=nib.Nifti1Image(scan.image, affine), brain_mask=mask)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is counted of a pair of visits."""

    pair: str
    protocols: tuple[str, str]
    changed: bool
    verdict: str
    #: Visible persistent microbleeds that are listed: at either visit, and at both; and how many
    #: of each are called persistent.
    listed: int
    listed_found: int
    listed_twice: int
    listed_twice_found: int
    #: Matched pairs that are two different things.
    mismatched: int
    #: Lesions called new that are no new microbleed: any, and definite ones; what they are.
    false_new: int
    false_new_definite: int
    false_kinds: tuple[str, ...]
    false_gone: int
    #: New microbleeds that are visible and listed, how many are called new, and what else.
    new: int
    new_found: int
    new_other: tuple[str, ...]
    not_assessable: int


def judge_pair(
    name: str, scans: tuple[Told, Told], fates: Sequence[Fate], verdict: str, *, changed: bool
) -> Outcome:
    """Compare the fates of a pair's lesions with the truth."""
    known = [assign_truth(scan) for scan in scans]
    there = [{one.number: one for one in scan.truth} for scan in scans]
    identities = [
        tuple(
            None if lesion is None else found.get(lesion.index)
            for lesion, found in zip((fate.first, fate.second), known, strict=True)
        )
        for fate in fates
    ]
    status: dict[int, set[str]] = defaultdict(set)
    sides: dict[int, set[int]] = defaultdict(set)
    for fate, pair in zip(fates, identities, strict=True):
        for side, one in enumerate(pair):
            if one is not None:
                status[one.number].add(fate.status)
                sides[one.number].add(side)
    persistent = [
        number
        for number in there[0].keys() & there[1].keys()
        if there[0][number].kind == "microbleed"
        and there[0][number].visible
        and there[1][number].visible
        and status[number]
    ]
    twice = [number for number in persistent if len(sides[number]) == 2]
    appeared = there[1].keys() - there[0].keys()
    wrong, kinds, wrong_definite = 0, [], 0
    for fate, pair in zip(fates, identities, strict=True):
        one = pair[1]
        if fate.status == "new" and (one is None or one.number not in appeared):
            wrong += 1
            wrong_definite += fate.rating == "definite"
            before = None if one is None else there[0].get(one.number)
            seen = "hidden before" if before is not None and not before.visible else "visible"
            kinds.append("nothing" if one is None else f"{one.kind} {seen}")
    new = [n for n in appeared if there[1][n].kind == "microbleed" and status[n]]
    return Outcome(
        pair=name,
        protocols=(scans[0].protocol, scans[1].protocol),
        changed=changed,
        verdict=verdict,
        listed=len(persistent),
        listed_found=sum(status[number] == {"persistent"} for number in persistent),
        listed_twice=len(twice),
        listed_twice_found=sum(status[number] == {"persistent"} for number in twice),
        mismatched=sum(
            one is not None and other is not None and one.number != other.number
            for one, other in identities
        ),
        false_new=wrong,
        false_new_definite=wrong_definite,
        false_kinds=tuple(kinds),
        false_gone=sum(fate.status == "gone" for fate in fates),
        new=len(new),
        new_found=sum(status[number] == {"new"} for number in new),
        new_other=tuple(
            fate.reason
            for fate, (_, one) in zip(fates, identities, strict=True)
            if one is not None and one.number in new and fate.status != "new"
        ),
        not_assessable=sum(fate.status == "not assessable" for fate in fates),
    )


def measure_pairs(cache: Path, family: int, people: int) -> list[Outcome]:
    """Follow the lesions of every pair of visits that is in the cache."""
    outcomes = []
    for person in range(people):
        names = [f"{family}_{person:02d}_{visit}" for visit in range(4)]
        for pair in combinations(names, 2):
            if not all((cache / f"{name}.npz").exists() for name in pair):
                print(f"not simulated, and left out: {' and '.join(pair)}")
                continue
            first, second = (load_scan(cache / f"{name}.npz") for name in pair)
            found = register_cached(cache, pair, (first, second))
            to_second = LinearMap(np.array(found["matrix"]))
            fates = follow_lesions(first.visit, second.visit, to_second, found["error_mm"])
            if found["verdict"] == "failed":
                fates = unassessed(first.visit, second.visit, "registration")
            name = "_".join(pair)
            changes = describe_changes(first.visit.acquisition, second.visit.acquisition)
            told = (first.told, second.told)
            outcomes.append(judge_pair(name, told, fates, found["verdict"], changed=bool(changes)))
    return outcomes


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print one line per protocol, and one for the pairs with a change."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        if one.changed:
            groups["change of protocol"].append(one)
        else:
            groups[one.protocols[0]].append(one)
            groups["equal protocol"].append(one)
    print(
        f"{'':26s} pairs  persistent: listed once  twice  mismatched  "
        "false new (definite)  false gone  new: found  not assessable"
    )
    for name in sorted(groups, key=lambda key: (key in ("equal protocol",), key)):
        part = groups[name]
        count = len(part)

        def total(field: str, part: list[Outcome] = part) -> int:
            return sum(getattr(one, field) for one in part)

        print(
            f"{name:26s} {count:5d}  {total('listed_found'):5d}/{total('listed'):<5d}  "
            f"{total('listed_twice_found'):5d}/{total('listed_twice'):<5d}  "
            f"{total('mismatched'):3d}  "
            f"{total('false_new') / count:.3f} ({total('false_new_definite') / count:.3f})  "
            f"{total('false_gone') / count:.3f}  {total('new_found'):3d}/{total('new'):<3d}  "
            f"{total('not_assessable') / count:.2f}"
        )


# --- Real scans and themselves, moved -----------------------------------------------------------

#: Moves: rotations (degrees), shifts (mm) of the head; and how the slices are laid anew: rotation
#: (degrees) and shift (voxels) of the lattice.
MOVES = (
    ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0.5, 0.5, 0.0)),
    ((12, -6, 20), (8, -15, 10), (0, 0, 3), (0.3, 0.6, 0.5)),
    ((-5, 8, -14), (-6, 10, -8), (2, -1, -4), (0.0, 0.0, 0.5)),
)
IMPLANTED = 10


def moved_scan(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    move: tuple[Any, ...],
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64], LinearMap]:
    """Turn and shift a head in the scanner, and sample it on another lattice.

    Returns
    -------
    image, mask, affine
        Of the moved scan.
    to_moved
        Points of the scan to points of the moved one.
    """
    from scipy import ndimage
    from scipy.spatial.transform import Rotation

    degrees, shift, turn, step = move
    shape = np.array(image.shape)
    centre = affine[:3, :3] @ ((shape - 1) / 2) + affine[:3, 3]
    head = _about(centre, Rotation.from_euler("xyz", degrees, degrees=True).as_matrix(), shift)
    lattice = _about(centre, Rotation.from_euler("xyz", turn, degrees=True).as_matrix(), (0, 0, 0))
    # The lattice in the head's own frame, and where it comes to lie.
    offset = np.eye(4)
    offset[:3, 3] = step
    own = lattice @ affine @ offset
    to_voxel = np.linalg.inv(affine) @ own
    sampled = ndimage.affine_transform(
        image, to_voxel[:3, :3], to_voxel[:3, 3], order=3, mode="nearest"
    )
    seen = ndimage.affine_transform(
        mask.astype(np.float32), to_voxel[:3, :3], to_voxel[:3, 3], order=1
    )
    return np.maximum(sampled, 0), seen >= 0.5, head @ own, LinearMap(head)


def _about(
    centre: NDArray[np.float64], turn: NDArray[np.float64], shift: tuple[float, ...]
) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centre - turn @ centre + np.asarray(shift)
    return matrix


def read_visit(
    image: NDArray[np.float32], mask: NDArray[np.bool_], affine: NDArray[np.float64], **scan: Any
) -> Scan:
    """Detect the lesions of a scan, as a visit."""
    from cmbprep.detectors import get_detector

    given = DetectorInput(
        magnitude=image, affine=affine, brain_mask=mask, sequence="T2starw", **scan
    )
    found = get_detector("learned").detect(given)
    weighed = found.candidates
    assert weighed is not None
    at = [list(weighed.columns).index(name) for name in ("x", "y", "z", "probability", "lesion")]
    candidates = tuple(
        Candidate(row=n, centre_ras=(x, y, z), probability=chance, diameter_mm=3.0)
        for n, (x, y, z, chance, lesion) in enumerate(weighed.rows[:, at].tolist(), 1)
        if not lesion
    )
    spacing = [round(float(size), 4) for size in given.spacing]
    visit = VisitLesions(
        lesions=tuple(Lesion(name=f"CMB-{one.index}", **_row(one)) for one in found.lesions),
        candidates=candidates,
        brain=mask,
        affine=affine,
        acquisition=Acquisition(
            sequence="T2starw",
            field_strength=given.field_strength,
            echo_time=given.echo_times[-1],
            spacing_mm=(spacing[0], spacing[1], spacing[2]),
            scanner="real",
        ),
        image=image,
    )
    return Scan(visit, image, "real", ())


def run_moved(arguments: argparse.Namespace) -> int:
    """Follow implanted microbleeds of real scans to the same scans, moved."""
    from cmbprep.lab.simulate.implant import draw_deposits, implant, plausible_places
    from cmbprep.lab.training.scans import load_backgrounds

    family = TUNING if arguments.tuning else REPORTED
    for background in load_backgrounds(arguments.output_dir, arguments.participant_label):
        rng = np.random.default_rng([family, *background.name.encode()])
        places = plausible_places(background.image, background.mask, background.affine)
        deposits = draw_deposits(places, background.affine, IMPLANTED, rng, diameter_mm=(1.0, 5.0))
        acquired = {"field_strength": 3.0, "echo_time": 0.025}
        put_in = implant(
            background.image, background.affine, background.mask, deposits, **acquired, seed=1
        )
        about = {"field_strength": 3.0, "echo_times": (0.025,)}
        first = read_visit(put_in.image, background.mask, background.affine, **about)
        for number, move in enumerate(MOVES):
            image, mask, affine, truth = moved_scan(
                put_in.image, background.mask, background.affine, move
            )
            second = read_visit(image, mask, affine, **about)
            found = register_visits(_head(first), _head(second))
            points = _head(first).brain_points()
            off = map_points(points, (found.to_second,)) - map_points(points, (truth,))
            fates = follow_lesions(first.visit, second.visit, found.to_second, found.error_mm)
            counts = {
                status: sum(fate.status == status for fate in fates)
                for status in ("persistent", "new", "gone", "not assessable")
            }
            matched = sum(fate.first is not None and fate.second is not None for fate in fates)
            print(
                f"{background.name} move {number}: registration {found.verdict}, off by "
                f"{np.linalg.norm(off, axis=1).mean():.2f} mm; {len(first.visit.lesions)} and "
                f"{len(second.visit.lesions)} lesions, {matched} matched; {counts}",
                flush=True,
            )
            for fate in fates:
                if fate.status in ("new", "gone"):
                    print("   ", fate.status, fate.rating, fate.lesion.probability, fate.reason)
    return 0


def run_simulate(arguments: argparse.Namespace) -> int:
    """Simulate what is not there yet."""
    arguments.cache.mkdir(parents=True, exist_ok=True)
    family = TUNING if arguments.tuning else REPORTED
    for person in range(arguments.people):
        simulate_person(arguments.cache, family, person)
    return 0


def run_measure(arguments: argparse.Namespace) -> int:
    """Print the outcomes."""
    family = TUNING if arguments.tuning else REPORTED
    outcomes = measure_pairs(arguments.cache, family, arguments.people)
    print_outcomes(outcomes)
    for one in outcomes:
        if one.false_kinds or one.new_other or one.verdict != "ok":
            print(one.pair, *one.protocols, one.verdict, one.false_kinds, one.new_other)
    return 0


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, run in (("simulate", run_simulate), ("measure", run_measure)):
        command = commands.add_parser(name)
        command.add_argument("cache", type=Path, help="folder of the simulated scans")
        command.add_argument("--people", type=int, default=10)
        command.add_argument("--tuning", action="store_true")
        command.set_defaults(run=run)
    command = commands.add_parser("moved")
    command.add_argument("output_dir", type=Path, help="results of cmbprep on real scans")
    command.add_argument("--participant-label", nargs="+", required=True)
    command.add_argument("--tuning", action="store_true")
    command.set_defaults(run=run_moved)
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
