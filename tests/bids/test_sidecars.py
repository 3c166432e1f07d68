"""Sidecars that are not clean: what is read, what is corrected, and what refuses a scan."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cmbprep.bids.model import Scan, Unit
from cmbprep.bids.sidecars import SidecarReader
from cmbprep.bids.units import find_units
from tests.bidsdata import GRE_SIDECAR, make_dataset

PLAIN = "sub-01/anat/sub-01_T2starw.nii.gz"
SIDECAR = "sub-01/anat/sub-01_T2starw.json"
PROJECTION = json.dumps(
    {
        "EchoTime": 0.02,
        "MagneticFieldStrength": 3,
        "ImageType": ["DERIVED", "PRIMARY", "M", "MNIP"],
        "InstitutionName": "Zürich",
    },
    ensure_ascii=False,
)


def unit_of(root: Path) -> Unit:
    (unit,) = find_units(root, participants=["01"])
    return unit


def only_scan(root: Path) -> Scan:
    (scan,) = unit_of(root).scans
    return scan


@pytest.mark.parametrize(
    "content",
    [
        PROJECTION.encode(),
        PROJECTION.encode("latin-1"),
        PROJECTION.encode("utf-8-sig"),
        PROJECTION.encode("utf-16"),
        PROJECTION.replace("0.02", '0.02, "TotalReadoutTime": inf').encode(),
        PROJECTION.replace("0.02", "NaN").encode(),
        PROJECTION.replace("}", ",}").encode(),
        PROJECTION.replace("0.02", "9" * 400).encode(),
        PROJECTION.replace("Zürich", "\\ud800").encode(),
    ],
)
def test_a_projection_is_refused_however_its_sidecar_is_written(
    tmp_path: Path, content: bytes
) -> None:
    root = make_dataset(tmp_path, {PLAIN: {}})
    (root / SIDECAR).write_bytes(content)
    unit = unit_of(root)
    assert unit.scans == ()
    (refusal,) = unit.refused
    assert refusal.path == root / PLAIN and "projection" in refusal.reason


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../.git/annex/objects/x/MD5E-s3--y.json")


@pytest.mark.parametrize(
    ("damage", "reason", "remedy"),
    [
        (lambda path: path.write_bytes(b""), "empty", "restore it"),
        (lambda path: path.write_text("[1]"), "not a JSON object", "write it like"),
        (lambda path: path.write_text('{"EchoTime": 0.0'), "cannot be read as JSON", "correct it"),
        (lambda path: path.write_bytes(b'{"a": "\0"}'), "NUL", "restore it"),
        (lambda path: path.write_text("[" * 100_000), "nested too deep", "correct the file"),
        (lambda path: path.write_text("/annex/objects/x\n"), "not fetched", "datalad get"),
        (replace_by_link, "not fetched", "datalad get"),
        (replace_by_folder, "a folder", "remove or rename"),
        (replace_by_fifo, "FIFO", "remove or rename"),
    ],
)
@pytest.mark.parametrize("place", [SIDECAR, "T2starw.json"])
def test_an_unreadable_sidecar_refuses_the_scan_and_no_other(
    tmp_path: Path, damage: Callable[[Path], object], reason: str, remedy: str, place: str
) -> None:
    other = "sub-01/anat/sub-01_swi.nii.gz"
    root = make_dataset(tmp_path, {PLAIN: GRE_SIDECAR, other: GRE_SIDECAR})
    (root / place).write_text("{}")
    damage(root / place)
    unit = unit_of(root)
    assert [scan.source for scan in unit.scans] == [root / other]
    (refusal,) = unit.refused
    assert refusal.path == root / PLAIN
    assert f"the sidecar {place} cannot be used" in refusal.reason and reason in refusal.reason
    assert remedy in refusal.hint and place in refusal.hint


def test_an_unreadable_sidecar_of_an_image_that_is_no_scan_is_passed_over(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, [PLAIN, "sub-01/anat/sub-01_FLAIR.nii.gz"])
    (root / "sub-01/anat/sub-01_FLAIR.json").write_text("{")
    assert unit_of(root).refused == ()
    assert only_scan(root).warnings == ()


def test_an_unreadable_sidecar_of_the_t1w_image_is_a_warning(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, [PLAIN, "sub-01/anat/sub-01_T1w.nii.gz"])
    (root / "sub-01/anat/sub-01_T1w.json").write_text("{")
    unit = unit_of(root)
    assert unit.anatomy is not None and not unit.refused
    (warning,) = unit.scans[0].warnings
    assert "sub-01_T1w.json cannot be used" in warning


@pytest.mark.parametrize(
    ("given", "value", "warning"),
    [
        ("30000", 3.0, "gauss"),
        ("0", None, "0 in sub-01_T2starw.json is not plausible"),
        ('"3T"', 3.0, "is a text and is read as 3 tesla"),
        ("null", None, "MagneticFieldStrength is unknown"),
        ("NaN", None, "values that are not finite numbers are left out: MagneticFieldStrength"),
        ("true", None, "is not a number"),
        ("[3, 3]", 3, "is a list"),
        ("9" * 400, None, "values that are not finite numbers are left out"),
    ],
)
def test_the_field_strength_is_checked_and_warned_of_once(
    tmp_path: Path, given: str, value: float | None, warning: str
) -> None:
    root = make_dataset(tmp_path, {PLAIN: {}})
    (root / SIDECAR).write_text(f'{{"EchoTime": 0.02, "MagneticFieldStrength": {given}}}')
    scan = only_scan(root)
    assert scan.metadata.get("MagneticFieldStrength") == value
    assert ("MagneticFieldStrength" in scan.metadata) is (value is not None)
    (text,) = scan.warnings
    assert warning in text


@pytest.mark.parametrize(
    ("given", "value", "warning"),
    [
        ("0.9", None, "not plausible"),
        ("1e-6", None, "not plausible"),
        ("-0.02", None, "not plausible"),
        ("9" * 400, None, "left out: EchoTime"),
        ("NaN", None, "left out: EchoTime"),
        ("null", None, "EchoTime is unknown"),
        ('"20 ms"', 0.02, "is read as 0.02 seconds"),
        ("[20]", 0.02, "milliseconds"),
    ],
)
def test_the_echo_time_is_checked_and_warned_of_once(
    tmp_path: Path, given: str, value: float | None, warning: str
) -> None:
    root = make_dataset(tmp_path, {PLAIN: {}})
    (root / SIDECAR).write_text(f'{{"EchoTime": {given}, "MagneticFieldStrength": 3}}')
    scan = only_scan(root)
    assert scan.echoes[0].echo_time == value
    assert scan.metadata.get("EchoTime") == value
    (text,) = scan.warnings
    assert warning in text


def test_values_near_the_image_overrule_broken_ones_further_up(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, {PLAIN: GRE_SIDECAR})
    (root / "T2starw.json").write_text('{"MagneticFieldStrength": 0, "EchoTime": 900}')
    scan = only_scan(root)
    assert scan.metadata == GRE_SIDECAR and scan.warnings == ()


def test_missing_values_near_the_image_are_not_filled_from_further_up(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, {PLAIN: {"EchoTime": 0.02, "MagneticFieldStrength": None}})
    (root / "T2starw.json").write_text('{"MagneticFieldStrength": 7}')
    scan = only_scan(root)
    assert "MagneticFieldStrength" not in scan.metadata
    assert scan.warnings == ("MagneticFieldStrength is unknown",)


def test_values_of_a_wrong_type_are_in_no_metadata(tmp_path: Path) -> None:
    wrong = {
        "ImageType": 7,
        "SeriesDescription": {"a": 1},
        "SliceThickness": "thick",
        "SpacingBetweenSlices": [1, 2],
        "FlipAngle": True,
        "Manufacturer": ["A", "B"],
        "PulseSequenceType": None,
        "ImagingFrequency": {},
    }
    root = make_dataset(tmp_path, {PLAIN: {**GRE_SIDECAR, **wrong, "Other": [None, {}]}})
    scan = only_scan(root)
    assert scan.metadata == {**GRE_SIDECAR, "Other": [None, {}]}
    assert len(scan.warnings) == len(wrong)


def test_thick_slabs_are_still_told_from_slices(tmp_path: Path) -> None:
    slab = {"SliceThickness": "16 mm", "SpacingBetweenSlices": 0.002}
    root = make_dataset(tmp_path, {PLAIN: {**GRE_SIDECAR, **slab}})
    (refusal,) = unit_of(root).refused
    assert "projection" in refusal.reason


@pytest.mark.parametrize("kind", ["PHASE MAP", "P"])
def test_part_mag_with_a_sidecar_of_phase(tmp_path: Path, kind: str) -> None:
    sidecar = {**GRE_SIDECAR, "ImageType": ["ORIGINAL", "PRIMARY", kind, "FFE"]}
    root = make_dataset(tmp_path, {"sub-01/anat/sub-01_part-mag_T2starw.nii.gz": sidecar})
    (refusal,) = unit_of(root).refused
    assert "part-mag" in refusal.reason and "ImageType" in refusal.reason
    assert "correct the name or ImageType" in refusal.hint
    assert "give the magnitude" not in refusal.hint


def test_a_folder_that_cannot_be_listed_is_no_folder_without_sidecars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_dataset(tmp_path, [PLAIN])
    real = os.scandir

    def refuse(path: Path) -> object:
        if path == root:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("cmbprep.bids.sidecars.os.scandir", refuse)
    sidecar = SidecarReader(root).read(root / PLAIN)
    assert sidecar.metadata == GRE_SIDECAR
    assert "cannot be listed" in sidecar.unreadable[0] and "permissions" in sidecar.remedy
