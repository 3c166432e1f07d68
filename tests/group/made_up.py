"""Cohorts of any size that are made up at the level of the tables, for tests and benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmbprep.group.frequency import FrequencyMap, Vote
from cmbprep.group.prevalence import people
from cmbprep.group.tables import Table
from cmbprep.lesions import ZONES
from cmbprep.spatial.view import BLOCK
from cmbprep.zones.burden import BURDEN_SCALES

#: Site -> protocols with their shares: sequence, field, TE (s), slice (mm), maker, scanner.
SITES: dict[str, tuple[tuple[float, tuple[str, float, float, float, str, str]], ...]] = {
    "Amsterdam": ((1.0, ("swi", 3.0, 0.020, 1.5, "Siemens", "Prisma")),),
    "Boston": (
        (0.7, ("T2starw", 1.5, 0.025, 5.0, "GE", "Signa")),
        (0.3, ("T2starw", 3.0, 0.020, 3.0, "GE", "Premier")),
    ),
    "Cairo": ((1.0, ("T2starw", 1.5, 0.040, 4.0, "Philips", "Achieva")),),
}
QUALITY = {
    "preproc_snr": (24, 5),
    "preproc_bias_ratio": (1.5, 0.2),
    "preproc_brain_volume_ml": (1450, 140),
    "preproc_brain_cut_fraction": (0.008, 0.004),
    "preproc_brain_mask_agreement": (0.96, 0.02),
    "preproc_brain_mask_sureness": (0.78, 0.03),
    "preproc_t1w_registration_similarity": (1.08, 0.02),
    "preproc_t1w_registration_overlap": (0.96, 0.03),
    "preproc_t1w_registration_covered": (0.99, 0.008),
    "preproc_t1w_registration_rotation_deg": (4, 2),
    "preproc_t1w_registration_shift_mm": (6, 3),
    "preproc_t1w_registration_local_shift_mm": (0.8, 0.4),
    "lesions_brain_with_region_fraction": (0.985, 0.006),
    "lesions_zone_tolerance_mm": (2, 0),
    "anatomy_snr": (19, 2),
    "anatomy_bias_ratio": (1.4, 0.1),
    "anatomy_brain_volume_ml": (1460, 140),
    "anatomy_brain_mask_agreement": (0.97, 0.01),
    "anatomy_template_registration_overlap": (0.97, 0.02),
    "anatomy_template_registration_agreeing": (0.95, 0.03),
    "anatomy_template_registration_jacobian_low": (0.7, 0.06),
    "anatomy_template_registration_jacobian_high": (1.5, 0.1),
    "anatomy_template_registration_rotation_deg": (5, 3),
    "anatomy_template_registration_shift_mm": (14, 6),
}


def made_up_tables(n_scans: int, seed: int = 1, second: float = 0.25) -> dict[str, Table]:
    """Make the tables of a cohort; ``second`` is the share of people with a second visit."""
    random = np.random.default_rng(seed)
    scans: list[dict[str, Any]] = []
    lesions: list[dict[str, Any]] = []
    quality: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    number = 0
    while len(scans) < n_scans:
        number += 1
        person = f"sub-{number:05d}"
        site = str(random.choice(list(SITES)))
        visits = 2 if random.random() < second else 1
        rate = random.gamma(0.35, 6)
        if random.random() < 0.02:
            people.append(_absent(person, site))
            continue
        people.append(
            {"participant_id": person, "status": "complete", "site": site, "n_visits": visits}
        )
        for visit in range(1, min(visits, n_scans - len(scans)) + 1):
            scan, own = _scan(random, person, site, visit, rate)
            scans.append(scan)
            lesions += own
            quality.append(_quality(random, scan))
    return {
        "cmb": _table(scans),
        "lesions": _table(lesions),
        "quality": _table(quality, ["participant_id", "session_id", "scan", *QUALITY]),
        "participants": _table(people),
    }


def made_up_followup(tables: dict[str, Table], seed: int = 1) -> Table:
    """Make the table of follow-ups of the people with two visits: one pair each.

    Some are not registered, have no dates, or another protocol at the second visit.
    """
    random = np.random.default_rng(seed)
    visits: dict[str, list[dict[str, Any]]] = {}
    for scan in tables["cmb"].values:
        if scan["status"] == "complete":
            visits.setdefault(scan["participant_id"], []).append(scan)
    pairs = [own for own in visits.values() if len(own) == 2]
    names = [f"n_{fate}_{rating}" for fate in FATES for rating in ("definite", "any")]
    return _table([_pair(random, *own, names) for own in pairs])


FATES = ("new", "persistent", "gone", "not_assessable")


def _pair(
    random: np.random.Generator, first: dict[str, Any], second: dict[str, Any], names: list[str]
) -> dict[str, Any]:
    changed = first["MagneticFieldStrength"] != second["MagneticFieldStrength"]
    line: dict[str, Any] = {
        "participant_id": first["participant_id"],
        "comparison": "both",
        "session_first": first["session_id"],
        "session_second": second["session_id"],
        "scan_first": first["scan"],
        "scan_second": second["scan"],
        "status": "complete",
        "reason": None,
        "years_between": round(float(random.uniform(0.5, 3)), 3),
        **dict.fromkeys(names),
        **{f"aria_h_new_{rating}": None for rating in ("definite", "any")},
        **{f"rdes291_new_{rating}": None for rating in ("definite", "any")},
        "protocol_changed": changed,
        "limits": "field strength 1.5 and 3 T" if changed else None,
    }
    if random.random() < 0.03:
        reason = "the outlines of the brains do not fit"
        return {**line, "status": "registration_failed", "reason": reason}
    if random.random() < 0.05:
        line["years_between"] = None
    for fate in FATES:
        possible, definite = (int(n) for n in random.poisson(random.gamma(0.3, 2, 2)))
        line |= {f"n_{fate}_definite": definite, f"n_{fate}_any": definite + possible}
    for rating in ("definite", "any"):
        for scale, name in (("aria", "aria_h_new"), ("rdes291", "rdes291_new")):
            line[f"{name}_{rating}"] = BURDEN_SCALES[scale].classify(line[f"n_new_{rating}"])
    return line


def _table(values: list[dict[str, Any]], names: list[str] | None = None) -> Table:
    names = names or list(dict.fromkeys(name for line in values for name in line))
    return Table({name: {"Description": name} for name in names}, tuple(values))


def _absent(person: str, site: str) -> dict[str, Any]:
    return {
        "participant_id": person,
        "site": site,
        "status": "no scan",
        "reason": "no blood-sensitive scan in the dataset",
    }


def _scan(
    random: np.random.Generator, person: str, site: str, visit: int, rate: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    shares, protocols = zip(*SITES[site], strict=True)
    sequence, field, echo, thickness, maker, model = protocols[
        int(random.choice(len(protocols), p=shares))
    ]
    session = f"ses-{visit}"
    scan: dict[str, Any] = {
        "participant_id": person,
        "session_id": session,
        "scan": f"{person}_{session}_{sequence}",
        "status": "complete",
        "reason": None,
        "site": site,
        "visit": visit,
        "is_baseline": visit == 1,
        "is_primary": True,
        "source": "automatic",
        "sequence": sequence,
        "Manufacturer": maker,
        "ManufacturersModelName": model,
        "MagneticFieldStrength": field,
        "EchoTime": echo,
        "SliceThickness": thickness,
        "echo_times": [echo],
        "cmbprep_version": "1.0",
        "scheme": "MARS",
        "detector": "learned",
        "n_warnings": int(random.random() < 0.1),
    }
    if random.random() < 0.03:
        failed = random.random() < 0.6
        status, reason = ("failed", "the registration failed") if failed else _REFUSED
        return {**scan, "status": status, "reason": reason}, []
    own = _lesions(random, scan, int(random.poisson(rate * (1 + (field == 3.0)))))
    scan |= count(own)
    if random.random() < 0.01:
        # A slab: what is in the part that was not seen is not known.
        unknown = [name for name in scan if name.endswith("_infratentorial")]
        totals = ["n_definite", "n_any", "n_possible", "pattern_definite", "pattern_any"]
        scan |= dict.fromkeys([*unknown, *totals])
    return scan, own


_REFUSED = ("refused", "the file is a phase image")


def count(own: list[dict[str, Any]]) -> dict[str, Any]:
    """Count lesions as the table of scans does."""
    found: dict[str, Any] = {"n_diamagnetic": 0}
    for rating in ("definite", "any"):
        chosen = [item for item in own if rating == "any" or item["rating"] == "definite"]
        zones = {item["zone"] for item in chosen}
        lobar, deep = "lobar" in zones, bool(zones & {"deep", "infratentorial"})
        name = {(1, 1): "mixed", (1, 0): "strictly lobar", (0, 1): "strictly deep", (0, 0): "none"}
        found[f"pattern_{rating}"] = name[(lobar, deep)]
        found[f"n_{rating}"] = found[f"n_listed_{rating}"] = len(chosen)
        found[f"volume_{rating}_mm3"] = round(sum(item["volume_mm3"] for item in chosen), 2)
        for zone in ZONES:
            found[f"n_{rating}_{zone}"] = sum(item["zone"] == zone for item in chosen)
    found["n_possible"] = found["n_any"] - found["n_definite"]
    return found


def _lesions(
    random: np.random.Generator, scan: dict[str, Any], number: int
) -> list[dict[str, Any]]:
    low, high = np.array([-60, -90, -40]), np.array([60, 60, 65])
    places = random.uniform(low, high, (number, 3)).round(2)
    sizes = random.lognormal(1.4, 0.4, number).round(2)
    return [
        {
            **{name: scan[name] for name in ("participant_id", "session_id", "scan")},
            "index": index,
            "x_mni": float(x),
            "y_mni": float(y),
            "z_mni": float(z),
            "zone": str(random.choice(ZONES, p=(0.6, 0.28, 0.12))),
            "rating": "definite" if random.random() < 0.7 else "possible",
            "volume_mm3": float(size**3 / 2),
            "diameter_mm": float(size),
            "counted": True,
        }
        for index, ((x, y, z), size) in enumerate(zip(places, sizes, strict=True), start=1)
    ]


def _quality(random: np.random.Generator, scan: dict[str, Any]) -> dict[str, Any]:
    row = {name: scan[name] for name in ("participant_id", "session_id", "scan")}
    if scan["status"] != "complete":
        return row
    shift = {"Amsterdam": 0.4, "Boston": -0.3, "Cairo": 0.0}[scan["site"]]
    numbers = random.normal(size=len(QUALITY)) + shift
    return row | {
        name: round(float(middle + width * number), 4)
        for (name, (middle, width)), number in zip(QUALITY.items(), numbers, strict=True)
    }


def made_up_map(tables: dict[str, Table], spacing: float = 1.0, seed: int = 1) -> FrequencyMap:
    """Make a frequency map of the lesions: a ball of the lesion's diameter for each.

    One in twenty people was seen without the lowest part of the head.
    """
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (-96, -132, -78)
    i, j, k = (int(np.ceil(n / spacing)) for n in (193, 229, 193))
    shape = (i, j, k)
    reach = np.argwhere(np.ones((13, 13, 13), bool)) - 6
    away = spacing * np.linalg.norm(reach, axis=1)
    random = np.random.default_rng(seed)
    own: dict[str, list[dict[str, Any]]] = {}
    for lesion in tables["lesions"].values:
        own.setdefault(lesion["scan"], []).append(lesion)
    upper = np.zeros(tuple(-(-n // BLOCK) for n in shape), bool)
    upper[:, :, upper.shape[2] // 4 :] = True
    votes = []
    for scan in people(tables["cmb"].values):
        found: dict[int, bool] = {}
        for lesion in own.get(scan["scan"], []):
            point = np.array([lesion[f"{axis}_mni"] for axis in "xyz"]) - affine[:3, 3]
            centre = np.rint(point / spacing).astype(int)
            voxels = centre + reach[away <= lesion["diameter_mm"] / 2]
            flat = np.ravel_multi_index(tuple(voxels.T), shape, order="F")
            for index in flat.tolist():
                found[index] = found.get(index, False) or lesion["rating"] == "definite"
        votes.append(
            Vote(
                scan=scan["scan"],
                participant=scan["participant_id"].removeprefix("sub-"),
                inside=np.array(list(found), dtype=np.intp),
                definite=np.array(list(found.values()), dtype=bool),
                seen=upper if random.random() < 0.05 else None,
            )
        )
    return FrequencyMap(
        template="MNI152NLin2009cAsym", shape=shape, affine=affine, votes=tuple(votes)
    )
