"""Settings and arguments: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cmbprep.cli.parser import build_parser, parse_settings
from cmbprep.errors import UsageError
from cmbprep.settings import Settings
from cmbprep.zones import BOMBS, MARS


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    folder = tmp_path / "bids"
    folder.mkdir()
    return folder


def test_labels_lose_their_prefix_and_their_doubles(bids: Path, tmp_path: Path) -> None:
    settings = parse_settings(
        f"{bids} {tmp_path / 'out'} participant --participant-label sub-02 01"
        " --participant-label 02 --session-label ses-a".split()
    )
    assert settings.participants == ("02", "01")
    assert settings.sessions == ("a",)


def test_defaults_are_what_the_contract_says(bids: Path, tmp_path: Path) -> None:
    settings = parse_settings([str(bids), str(tmp_path / "out"), "participant"])
    assert settings.template == "MNI152NLin2009cAsym"
    assert settings.scheme == "mars"
    assert settings.nprocs >= 1
    assert not settings.offline


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nprocs", "0"], "nprocs"),
        (["--omp-nthreads", "0"], "omp-nthreads"),
        (["--mem", "0"], "mem"),
        (["--threshold", "1"], "probability"),
        (["--white-matter-border", "0"], "white-matter-border"),
        (["--bids-filter-file", "nowhere.json"], "nowhere.json"),
        (["--plugin-file", "nowhere.yml"], "nowhere.yml"),
        (["--detector", "nowhere.onnx"], "nowhere.onnx: there is no such file.*--detector"),
    ],
)
def test_a_wrong_value_is_named(
    bids: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        parse_settings([str(bids), str(tmp_path / "out"), "participant", *arguments])


def test_the_file_of_a_network_is_found_from_any_folder(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Net.ONNX").touch()
    monkeypatch.chdir(tmp_path)
    arguments = [str(bids), "out", "participant", "--detector", "Net.ONNX"]
    assert parse_settings(arguments).detector == str(tmp_path / "Net.ONNX")


def test_the_raw_data_are_never_written_into(bids: Path) -> None:
    for out in (bids, bids / "sub-01", bids / "out"):
        with pytest.raises(UsageError, match="raw"):
            Settings(bids_dir=bids, output_dir=out, level="participant")
    allowed = bids / "derivatives" / "cmbprep"
    assert Settings(bids_dir=bids, output_dir=allowed, level="participant").output_dir == allowed


def test_a_link_to_the_raw_data_is_seen_through(bids: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bids)
    with pytest.raises(UsageError, match="raw"):
        Settings(bids_dir=bids, output_dir=tmp_path / "link", level="participant")


def test_another_dataset_is_not_written_into(bids: Path, tmp_path: Path) -> None:
    out = tmp_path / "fmriprep"
    out.mkdir()
    description = out / "dataset_description.json"
    description.write_text(json.dumps({"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}))
    with pytest.raises(UsageError, match="another dataset"):
        Settings(bids_dir=bids, output_dir=out, level="participant")
    description.write_text(json.dumps({"Name": "x", "GeneratedBy": [{"Name": "cmbprep"}]}))
    assert Settings(bids_dir=bids, output_dir=out, level="participant")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_named(bids: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="closed"):
        Settings(bids_dir=bids, output_dir=closed / "out", level="participant")


def test_a_file_in_the_place_of_the_output_folder_is_named(bids: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="out"):
        Settings(bids_dir=bids, output_dir=tmp_path / "out", level="participant")


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        parse_settings([str(tmp_path / "nowhere"), str(tmp_path / "out"), "participant"])


def test_relative_paths_hold_in_every_folder(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = parse_settings(["bids", "out", "participant", "-w", "work"])
    assert settings.bids_dir == bids
    assert settings.output_dir == tmp_path / "out"
    assert settings.work == tmp_path / "work"


def test_derivatives_are_folders_with_names(bids: Path, tmp_path: Path) -> None:
    for name in ("fp", "fs"):
        (tmp_path / name).mkdir()
    arguments = [str(bids), str(tmp_path / "out"), "participant"]
    given = ["-d", f"fmriprep={tmp_path}/fp", "--derivatives", f"{tmp_path}/fs"]
    settings = parse_settings([*arguments, *given])
    assert [(one.name, one.path.name) for one in settings.derivatives] == [
        ("fmriprep", "fp"),
        ("fs", "fs"),
    ]
    assert parse_settings(arguments).derivatives == ()
    with pytest.raises(UsageError, match=r"gone: there is no such folder"):
        parse_settings([*arguments, "-d", str(tmp_path / "gone")])


def test_help_names_the_borders_that_the_schemes_have() -> None:
    text = " ".join(build_parser().format_help().split())
    assert f"(mars, default: {MARS.border_mm:g})" in text
    assert f"(bombs, default: {BOMBS.border_mm:g})" in text
