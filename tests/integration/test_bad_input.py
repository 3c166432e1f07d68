"""Bad input from the command line: each is named with its remedy, and the rest goes on."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cmbprep.cli.main import main
from tests.bidsdata import add_image, head, make_dataset, save


def damaged(path: Path) -> None:
    save(path, head())
    path.write_bytes(path.read_bytes()[:-2000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"this is not an image"))


def zeros(path: Path) -> None:
    save(path, np.zeros((24, 28, 20), dtype=np.float32))


def not_numbers(path: Path) -> None:
    save(path, np.full((24, 28, 20), np.nan, dtype=np.float32))


def four_dimensional(path: Path) -> None:
    save(path, np.stack([head(), head()], axis=-1))


def two_slices(path: Path) -> None:
    save(path, head((64, 64, 2)))


#: Participant -> what is wrong with the scan, and words that the message must have.
BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "damaged": (damaged, "cut short|damaged|truncated|ends"),
    "empty": (empty, "empty"),
    "text": (text, "image|NIfTI"),
    "zeros": (zeros, "zero|constant|no contrast"),
    "nan": (not_numbers, "not a number"),
    "four": (four_dimensional, "volumes|dimensions"),
    "slices": (two_slices, "slices"),
}


#: Those that the header tells; they are found before anything is computed.
HEADERS = {"empty", "text", "four", "slices"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """Run a dataset in which no scan can be processed; give status and output folder."""
    root = tmp_path_factory.mktemp("bad")
    bids = make_dataset(root / "bids")
    for name, (spoil, _) in BAD.items():
        add_image(bids, f"sub-{name}/anat/sub-{name}_T2starw.nii.gz", head())
        spoil(bids / f"sub-{name}/anat/sub-{name}_T2starw.nii.gz")
    add_image(bids, "sub-mip/anat/sub-mip_acq-minIP_swi.nii.gz", head())
    status = main([str(bids), str(root / "out"), "participant", "--nprocs", "2"])
    return status, root / "out"


def test_the_status_tells_that_scans_failed(run: tuple[int, Path]) -> None:
    assert run[0] == 1


@pytest.mark.parametrize("name", BAD)
def test_the_file_and_the_remedy_are_named(run: tuple[int, Path], name: str) -> None:
    record = json.loads((run[1] / "logs" / f"sub-{name}_T2starw_error.json").read_text())
    assert f"sub-{name}_T2starw.nii.gz" in record["message"]
    assert "What to do: " in record["message"]
    assert re.search(BAD[name][1], record["message"]), record["message"]
    page = (run[1] / f"sub-{name}.html").read_text()
    assert f"sub-{name}_T2starw" in page
    # What the header tells needs no computing, and so no traceback.
    assert ("Traceback" in page) == (name not in HEADERS)


def test_a_projection_is_refused_in_the_report(run: tuple[int, Path]) -> None:
    assert "projection" in (run[1] / "sub-mip.html").read_text()


def test_no_results_are_left_of_failed_scans(run: tuple[int, Path]) -> None:
    assert list(run[1].glob("sub-*/anat/*")) == []


def test_a_failed_scan_is_no_zero_in_the_cohort(run: tuple[int, Path], tmp_path: Path) -> None:
    assert main([str(tmp_path), str(run[1]), "group"]) == 0
    head_, *rows = (run[1] / "group_cmb.tsv").read_text().splitlines()
    columns = head_.split("\t")
    assert len(rows) == len(BAD) + 1
    for row in rows:
        cells = dict(zip(columns, row.split("\t"), strict=True))
        assert cells["n_any"] == "n/a"
        assert cells["status"] in {"failed", "refused"}


def test_wrong_arguments_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bids = make_dataset(tmp_path / "bids", ["sub-01/anat/sub-01_T2starw.nii.gz"])
    out = str(tmp_path / "out")
    (tmp_path / "net.onnx").write_text("no network")
    for arguments, words in (
        (["--detector", str(tmp_path / "net.onnx")], "not an ONNX model"),
        (["--participant-label", "02"], "02"),
        (["--detector", "nosuch"], "nosuch"),
        (["--template", "NoSuchTemplate", "--offline"], "NoSuchTemplate"),
    ):
        assert main([str(bids), out, "participant", *arguments]) == 2
        message = capsys.readouterr().err
        assert words in message
        assert "What to do: " in message
    (bids / "dataset_description.json").unlink()
    assert main([str(bids), out, "participant"]) == 2
    assert "dataset_description.json" in capsys.readouterr().err
    assert main([str(bids), out, "group"]) == 2
    assert not Path(out).exists()
