"""Stages of the output dataset: fingerprints, records, and what is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import CmbprepError
from cmbprep.lesions import COLUMNS, format_lesions
from cmbprep.outputs.files import read_json, write_image, write_json
from cmbprep.outputs.stages import (
    BLOCK,
    StageFiles,
    find_records,
    fingerprint,
    read_record,
    remove_leftovers,
)
from tests.stages import NAMES, finish, lesion_rows


def test_a_stage_is_reused_only_when_it_is_whole_and_the_same(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    assert files.existing("f")[0] is None
    finish(files, "f")
    found, _ = files.existing("f")
    assert found is not None
    assert found["table"] == files.path("table")
    assert files.existing("other")[0] is None
    files.path("mask").unlink()
    missing, reason = files.existing("f")
    assert missing is None
    assert "label-CMB_mask" in reason
    files.sidecar.write_text("{ half a fi")
    assert files.existing("f")[0] is None


def test_records_are_found_by_stage_subject_and_session(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "f")
    finish(StageFiles(tmp_path, "preproc", NAMES), "f")
    finish(StageFiles(tmp_path, "preproc", replace(NAMES, session=None, src="sub-01")), "f")
    other = replace(NAMES, subject="012", session=None, src="sub-012")
    finish(StageFiles(tmp_path, "preproc", other), "f")
    t1w = replace(NAMES, suffix="T1w", src="sub-01_ses-a")
    finish(StageFiles(tmp_path, "anatomy", t1w), "f")
    sources = [r.files.names.src for r in find_records(tmp_path, "preproc", subject="01")]
    assert sources == ["sub-01", "sub-01_ses-a_run-2"]
    assert len(find_records(tmp_path, "preproc")) == 3
    assert len(find_records(tmp_path, "preproc", subject="01", session="a")) == 1
    (found,) = find_records(tmp_path, "anatomy")
    assert found.files.names.suffix == "T1w"
    # Together, in the order that was asked for, without what was read before and other folders.
    (tmp_path / "sub-03").write_text("a file")
    (tmp_path / "sub-01" / "ses-b" / "anat").mkdir(parents=True)
    known = {found.files.sidecar, files.sidecar}
    rest = find_records(tmp_path, "preproc", "lesions", "anatomy", known=known)
    assert [(r.files.stage, r.files.names.src) for r in rest] == [
        ("preproc", "sub-01"),
        ("preproc", "sub-01_ses-a_run-2"),
        ("preproc", "sub-012"),
    ]


def test_the_dictionary_of_the_table_is_not_kept_in_memory(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "f")
    content = read_json(files.sidecar)
    write_json(files.sidecar, {**COLUMNS, "EchoTime": 0.02, **content})
    (record,) = find_records(tmp_path, "lesions")
    assert not COLUMNS.keys() & record.metadata.keys()
    assert record.metadata["EchoTime"] == 0.02
    assert record.block == content[BLOCK]


def test_a_record_whose_labels_lead_elsewhere_is_no_record(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "preproc", NAMES)
    finish(files, "f")
    content = json.loads(files.sidecar.read_text())
    content[BLOCK]["Names"]["src"] = "../../../etc/passwd"
    files.sidecar.write_text(json.dumps(content))
    with pytest.raises(CmbprepError, match="damaged"):
        read_record(tmp_path, files.sidecar)
    assert find_records(tmp_path, "preproc") == []


def test_a_copied_sidecar_is_no_result(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "preproc", NAMES)
    finish(files, "f")
    copy = files.sidecar.with_name("sub-01_ses-a_run-3_desc-preproc_T2starw.json")
    copy.write_bytes(files.sidecar.read_bytes())
    with pytest.raises(CmbprepError, match="another file"):
        read_record(tmp_path, copy)
    assert len(find_records(tmp_path, "preproc")) == 1


@pytest.mark.parametrize("value", ["nonsense", 5, True, None, ["a", 1], {"a": "b"}])
@pytest.mark.parametrize(
    "key",
    [
        "Names",
        "Quality",
        "Warnings",
        "Parameters",
        "Files",
        "Stage",
        "Optional",
        "Labels",
        "Lesions",
        "EchoTimes",
        "Fingerprint",
        "Scan",
        "Sources",
        "MissingFigures",
    ],
)
def test_a_record_of_wrong_types_stops_nothing(tmp_path: Path, key: str, value: object) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "f", lesions=2)
    content = json.loads(files.sidecar.read_text())
    place = content if key == "Sources" else content[BLOCK]
    place[key] = value
    files.sidecar.write_text(json.dumps(content))
    for record in find_records(tmp_path, "lesions"):
        record.damage()
    files.existing("f")
    sound = isinstance(value, dict) and key in ("Quality", "Parameters", "MissingFigures")
    sound = sound or (isinstance(value, str) and key in ("Scan", "Fingerprint"))
    assert (find_records(tmp_path, "lesions") != []) == sound


@pytest.mark.parametrize("column", ["x", "y", "z", "volume_mm3"])
def test_a_table_of_another_scan_is_not_believed(tmp_path: Path, column: str) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "f", lesions=2)
    one, other = lesion_rows(2)
    other = replace(other, **{column: getattr(other, column) + 0.5})
    files.path("table").write_text(format_lesions([one, other]))
    found, reason = files.existing("f")
    assert found is None
    assert "lesion 2 has another place or volume" in reason


@pytest.mark.parametrize("size", [0, 10])
@pytest.mark.parametrize("key", ["mask", "dseg", "probseg", "template_mask", "atlas", "table"])
def test_a_file_that_was_cut_short_is_made_again(tmp_path: Path, key: str, size: int) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "f")
    path = files.path(key)
    path.write_bytes(path.read_bytes()[:size])
    found, reason = files.existing("f")
    assert found is None
    assert path.name in reason


def test_a_table_without_one_of_its_rows_is_made_again(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "f", lesions=3)
    lines = files.path("table").read_text().splitlines(keepends=True)
    files.path("table").write_text("".join(lines[:-1]))
    found, reason = files.existing("f")
    assert found is None
    assert "2" in reason and "3" in reason


def test_a_label_image_without_one_of_its_lesions_is_made_again(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "f", lesions=3)
    image = nib.load(files.path("dseg"))
    data = np.asarray(image.dataobj).copy()
    data[data == 3] = 0
    write_image(files.path("dseg"), nib.Nifti1Image(data, image.affine))
    content = json.loads(files.sidecar.read_text())
    content[BLOCK]["Files"]["dseg"] = files.path("dseg").stat().st_size
    files.sidecar.write_text(json.dumps(content))
    found, reason = files.existing("f")
    assert found is None
    assert "label image has 2 lesions" in reason


def test_a_corrected_value_in_a_table_is_kept(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "f", lesions=2)
    text = files.path("table").read_text()
    files.path("table").write_text(text.replace("definite", "possible", 1))
    assert files.existing("f")[0] is not None
    (record,) = find_records(tmp_path, "lesions")
    assert [lesion.rating for lesion in record.lesions()] == ["possible", "definite"]


def test_only_the_leftovers_of_the_unit_are_removed(tmp_path: Path) -> None:
    anat = tmp_path / "sub-01" / "ses-a" / "anat"
    anat.mkdir(parents=True)
    for name in (
        ".part-x1-sub-01_ses-a_T2starw.json",
        ".part-x2-sub-01_ses-b_T2starw.json",
        "sub-01_ses-a_T2starw.json",
    ):
        (anat / name).touch()
    remove_leftovers(tmp_path / "sub-01", "sub-01_ses-a")
    assert sorted(path.name for path in anat.iterdir()) == [
        ".part-x2-sub-01_ses-b_T2starw.json",
        "sub-01_ses-a_T2starw.json",
    ]


def test_leftovers_of_sessions_are_not_those_of_the_unit_without_session(tmp_path: Path) -> None:
    names = {
        ".part-x1-sub-01_T2starw.json",
        ".part-x2-sub-01_ses-a_T2starw.json",
        ".part-x3-sub-01_acq-ses_T2starw.json",
        ".part-x4-sub-010_T2starw.json",
    }
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "sub-01")
    assert {path.name for path in tmp_path.iterdir()} == {
        ".part-x2-sub-01_ses-a_T2starw.json",
        ".part-x4-sub-010_T2starw.json",
    }


def test_the_fingerprint_sees_every_input_and_parameter() -> None:
    base = fingerprint("preproc", inputs={"a": "1", "b": "2"}, parameters={"p": 1})
    assert base == fingerprint("preproc", inputs={"b": "2", "a": "1"}, parameters={"p": 1})
    others = [
        fingerprint("lesions", inputs={"a": "1", "b": "2"}, parameters={"p": 1}),
        fingerprint("preproc", inputs={"a": "2", "b": "1"}, parameters={"p": 1}),
        fingerprint("preproc", inputs={"a": "1", "b": "2"}, parameters={"p": 2}),
    ]
    assert len({base, *others}) == 4


def test_an_optional_file_is_missed_only_where_it_was_written(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "mark")
    found, _ = files.existing("mark")
    assert found is not None and "swi" not in found
    finish(files, "mark", optional=("swi",))
    files.path("swi").unlink()
    found, reason = files.existing("mark")
    assert found is None and "swi" in reason
    finish(files, "mark", optional=("swi",))
    found, _ = files.existing("mark")
    assert found is not None and found["swi"] == files.path("swi")
