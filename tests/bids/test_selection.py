"""Descriptions, labels and filter files that are nearly right."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cmbprep.bids.selection import (
    FILTER_KINDS,
    check_dataset,
    check_filters,
    choose_participants,
    choose_sessions,
    read_filter_file,
)
from cmbprep.bids.units import find_units
from cmbprep.errors import UsageError
from cmbprep.outputs.dataset import prepare_dataset
from cmbprep.zones.schemes import get_scheme
from tests.bidsdata import make_dataset

PLAIN = "sub-01/anat/sub-01_T2starw.nii.gz"
SESSION = "sub-01/ses-01/anat/sub-01_ses-01_acq-fine_run-02_T2starw.nii.gz"


def names(root: Path, **options: Any) -> list[str]:
    return [scan.name for unit in find_units(root, **options) for scan in unit.scans]


# --- description -----------------------------------------------------------------------

DESCRIPTION = '{"Name": "Étude", "BIDSVersion": "1.9.0"}'


@pytest.mark.parametrize(
    "content",
    [
        DESCRIPTION.encode("latin-1"),
        DESCRIPTION.encode("utf-8-sig"),
        DESCRIPTION.encode("utf-16"),
        DESCRIPTION.replace("}", ",}").encode(),
        DESCRIPTION.replace("}", ', "Funding": NaN}').encode(),
        b'{"Name": 5, "BIDSVersion": 1.9}',
        b'{"Name": "x", "BIDSVersion": "1.9.0", "DatasetType": 3}',
    ],
)
def test_a_description_that_is_not_clean_is_read_with_a_warning(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_dataset(tmp_path, [PLAIN])
    (root / "dataset_description.json").write_bytes(content)
    assert names(root) == ["sub-01_T2starw"]
    assert "dataset_description.json" in caplog.text


@pytest.fixture(params=[False, True], ids=["few", "many"])
def whole_index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pybids index few participants one by one, or the dataset with its description."""
    if request.param:
        monkeypatch.setattr("cmbprep.bids.index.FEW_PARTICIPANTS", 0)


BROKEN = [b"", b"{", b"[1]", b"[" * 100_000, b"\0" * 9, b'{"a": "\0"}', b"3"]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_description_is_refused_or_passed_over(
    tmp_path: Path, content: bytes, whole_index: None, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_dataset(tmp_path, [PLAIN])
    (root / "dataset_description.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"dataset_description\.json") as e:
        find_units(root)
    assert "--skip-bids-validation" in str(e.value)
    assert names(root, validate=False) == ["sub-01_T2starw"]
    assert "processed without it" in caplog.text


@pytest.mark.parametrize(
    "claims",
    [
        {"GeneratedBy": None},
        {"GeneratedBy": {"Name": "x"}},
        {"PipelineDescription": "x"},
        {"GeneratedBy": [3]},
    ],
)
def test_a_derivative_of_any_shape_is_refused_or_passed_over(
    tmp_path: Path, claims: dict[str, Any], whole_index: None
) -> None:
    description = {"Name": "x", "BIDSVersion": "1.9", "DatasetType": "derivative", **claims}
    root = make_dataset(tmp_path, [PLAIN], description=description)
    with pytest.raises(UsageError, match="derivative dataset"):
        find_units(root)
    assert names(root, validate=False) == ["sub-01_T2starw"]


def test_a_description_that_is_a_fifo_is_not_waited_for(tmp_path: Path, whole_index: None) -> None:
    root = make_dataset(tmp_path, [PLAIN])
    (root / "dataset_description.json").unlink()
    os.mkfifo(root / "dataset_description.json")
    with pytest.raises(UsageError, match="FIFO"):
        find_units(root)
    assert names(root, validate=False) == ["sub-01_T2starw"]


@pytest.mark.parametrize(
    "value", [0, True, {"a": 1}, ["x"], None], ids=["0", "true", "object", "list", "null"]
)
@pytest.mark.parametrize("key", ["Name", "BIDSVersion", "DatasetType", "GeneratedBy", "License"])
def test_no_wrong_type_in_a_description_is_a_traceback(
    tmp_path: Path, key: str, value: object
) -> None:
    description = {"Name": "x", "BIDSVersion": "1.9.0", key: value}
    root = make_dataset(tmp_path / "raw", [PLAIN], description=description)
    if value is None and key in ("Name", "BIDSVersion"):
        with pytest.raises(UsageError, match=f"{key} is missing"):
            check_dataset(root, validate=True)
    else:
        check_dataset(root, validate=True)
    prepare_dataset(tmp_path / "out", raw=root, scheme=get_scheme("mars"))
    written = json.loads((tmp_path / "out/dataset_description.json").read_text())
    assert isinstance(written["Name"], str)
    assert "License" not in written


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (DESCRIPTION.encode("latin-1"), "Étude"),
        (DESCRIPTION.replace("}", ",}").encode(), "Étude"),
        (b"[" * 100_000, "raw"),
        (b"", "raw"),
        (b'{"Name": "\\ud800"}', "\ufffd"),
    ],
)
def test_the_output_is_described_whatever_the_raw_description_is(
    tmp_path: Path, content: bytes, name: str
) -> None:
    root = make_dataset(tmp_path / "raw", [PLAIN])
    (root / "dataset_description.json").write_bytes(content)
    prepare_dataset(tmp_path / "out", raw=root, scheme=get_scheme("mars"))
    written = json.loads((tmp_path / "out/dataset_description.json").read_text("utf-8"))
    assert written["Name"] == f"Cerebral microbleeds of {name}"


# --- labels ----------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [["01", "02"], ["sub-01", "02"], ["sub-02/", "sub-01/", "01"]])
def test_labels_with_and_without_prefix(tmp_path: Path, asked: list[str]) -> None:
    root = make_dataset(tmp_path, [PLAIN, "sub-02/anat/sub-02_T2starw.nii.gz"])
    assert choose_participants(root, asked) == (["01", "02"], {})
    asked = [label.replace("sub-", "ses-") for label in asked]
    assert choose_sessions(root, asked, ["01", "02", "03"]) == ["01", "02"]


@pytest.mark.parametrize(
    "asked", [["01,02"], ["sub-01,sub-02"], ["01,", "02"], ["01;02"], ["01 02"], ["01, 02"]]
)
def test_lists_with_commas_are_explained(tmp_path: Path, asked: list[str]) -> None:
    root = make_dataset(tmp_path, [PLAIN, "sub-02/anat/sub-02_T2starw.nii.gz"])
    with pytest.raises(UsageError) as e:
        choose_participants(root, asked)
    assert "separate labels by spaces: --participant-label 01 02" in str(e.value)
    asked = [label.replace("sub-", "ses-") for label in asked]
    with pytest.raises(UsageError) as e:
        choose_sessions(root, asked, ["01", "02"])
    assert "separate labels by spaces: --session-label 01 02" in str(e.value)


def test_an_empty_label_is_not_taken_for_none(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, [PLAIN])
    with pytest.raises(UsageError, match="empty"):
        choose_participants(root, [""])


def test_a_participant_whose_content_is_not_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_dataset(tmp_path, [PLAIN])
    (root / "sub-02").symlink_to("nowhere")
    for asked, there in ((None, ["01"]), (["02"], []), (["sub-02/"], [])):
        labels, lost = choose_participants(root, asked)
        assert labels == there
        # find_units gives it a unit that says so (tests/bids/test_links.py).
        assert lost["02"].reason.startswith("it is a link, and what it leads to is not there")
        assert "datalad get" in lost["02"].hint
    assert caplog.text == ""
    with pytest.raises(UsageError, match=r"has no participant sub-03.*sub-01"):
        choose_participants(root, ["02", "03"])
    shutil.rmtree(root / "sub-01")
    with pytest.raises(UsageError, match="the dataset has no participants"):
        choose_participants(root, ["02", "03"])


# --- filters ---------------------------------------------------------------------------

#: As fMRIPrep's and QSIPrep's documentation show them, and more kinds of others.
FMRIPREP: dict[str, Any] = {
    "fmap": {"datatype": "fmap"},
    "bold": {"datatype": "func", "suffix": "bold", "echo": {"odd": 1}},
    "sbref": {"datatype": "func", "suffix": "sbref"},
    "flair": {"datatype": "anat", "suffix": "FLAIR"},
    "t2w": {"datatype": "anat", "suffix": "T2w"},
    "t1w": {"datatype": "anat", "suffix": "T1w"},
    "roi": {"datatype": "anat", "suffix": "roi"},
}


def test_filter_files_of_other_apps_are_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "filter.json"
    others = ("dwi", "asl", "pet", "m0scan", "T2w", "mask", "xfm")
    path.write_text(json.dumps({**FMRIPREP, **{kind: {} for kind in others}}))
    with caplog.at_level(logging.INFO):
        assert read_filter_file(path) == {"t1w": {"datatype": "anat", "suffix": "T1w"}}
    assert "'bold'" in caplog.text and "ignored" in caplog.text
    root = make_dataset(tmp_path / "raw", [PLAIN, "sub-01/anat/sub-01_T1w.nii.gz"])
    assert names(root, filters=FMRIPREP) == ["sub-01_T2starw"]


@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("t2star", "t2starw"),
        ("T2Starw", "t2starw"),
        ("T2starw", "t2starw"),
        ("t2*w", "t2starw"),
        ("SWI", "swi"),
        ("megree", "megre"),
        ("T1w", "t1w"),
    ],
)
def test_a_kind_that_is_nearly_right_is_named(kind: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{meant}'"):
        check_filters({kind: {}})


def test_a_kind_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(UsageError, match=f"kinds of image are {', '.join(FILTER_KINDS)}"):
        check_filters({"xyz": {}})


@pytest.mark.parametrize(
    ("wanted", "clean"),
    [
        ({"session": "ses-01"}, {"session": "01"}),
        ({"subject": "sub-01"}, {"subject": "01"}),
        ({"acquisition": "acq-fine"}, {"acquisition": "fine"}),
        ({"run": "run-02"}, {"run": "02"}),
        ({"run": ["run-02", 3, None, "*"]}, {"run": ["02", 3, None, "*"]}),
        ({"suffix": "T2starw", "extension": ".nii.gz"}, None),
        ({"acquisition": "ses-1"}, None),
    ],
)
def test_prefixes_of_values_are_left_out(
    tmp_path: Path, wanted: dict[str, Any], clean: dict[str, Any] | None
) -> None:
    assert check_filters({"t2starw": wanted}) == {"t2starw": wanted if clean is None else clean}


@pytest.mark.parametrize(
    "wanted", [{"session": "ses-01"}, {"acquisition": "acq-fine"}, {"run": "run-2"}]
)
def test_filters_with_prefixes_choose_scans(tmp_path: Path, wanted: dict[str, Any]) -> None:
    other = "sub-01/ses-02/anat/sub-01_ses-02_acq-raw_run-01_T2starw.nii.gz"
    root = make_dataset(tmp_path, [SESSION, other])
    assert names(root, filters={"t2starw": wanted}) == ["sub-01_ses-01_acq-fine_run-02_T2starw"]
