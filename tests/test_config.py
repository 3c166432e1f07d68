"""Settings and arguments: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cmbprep.cli.parser import build_parser, parse_settings
from cmbprep.config import Settings
from cmbprep.errors import UsageError
from cmbprep.outputs.dataset import IGNORED
from cmbprep.zones.schemes import BOMBS, MARS


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
        *((["--nprocs", value], "--nprocs must be at least 1") for value in ("-3", "100000")),
        (["--omp-nthreads", "2000"], "--omp-nthreads must be at least 1"),
        *(
            ([f"--mem={value}"], "--mem must be a number of at least 1 GB")
            for value in ("0", "-4", "1e-9", "0.99", "nan", "inf", "-inf")
        ),
        *(([f"--threshold={value}"], "probability") for value in ("1", "0", "nan", "inf")),
        *(
            ([f"--white-matter-border={value}"], "--white-matter-border must be")
            for value in ("0", "-1", "51", "nan", "inf")
        ),
        (["--reader", "Anna", "--automatic"], "--reader and --automatic exclude each other"),
        (["--consensus", "all", "--reader", "A"], "--reader and --consensus exclude each other"),
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


def refuse(bids: Path, out: Path, words: str, *arguments: str) -> None:
    """Expect an error, with and without --dry-run, and nothing written."""
    before = sorted(path for path in bids.parent.rglob("*"))
    for dry in ([], ["--dry-run"]):
        with pytest.raises(UsageError, match=words) as caught:
            parse_settings([str(bids), str(out), "participant", *arguments, *dry])
        assert caught.value.exit_status == 2
        assert caught.value.hint
    assert sorted(path for path in bids.parent.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_named(bids: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    refuse(bids, closed / "out", "closed")
    refuse(bids, tmp_path / "out", "closed", "-w", str(closed))


def test_a_file_in_the_place_of_a_folder_is_named(bids: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a file")
    refuse(bids, file, "file: this is a file")
    refuse(bids, file / "out", "out: this folder cannot be made: .*file is a file")
    refuse(bids, tmp_path / "out", "file: this is a file.*--work-dir", "-w", str(file))
    refuse(bids, tmp_path / "out", "w: .*file is a file", "-w", str(file / "w"))
    for name in ("logs", ".work"):
        out = tmp_path / f"out-{name}"
        out.mkdir()
        (out / name).touch()
        refuse(bids, out, f"{name}: this is a file")


def test_a_place_where_even_root_cannot_write_is_named(bids: Path, tmp_path: Path) -> None:
    refuse(bids, Path("/proc/out"), "/proc cannot be written to")
    refuse(bids, tmp_path / "out", "/proc cannot be written to", "-w", "/proc/w")
    (tmp_path / "link").symlink_to("/proc")
    refuse(bids, tmp_path / "out", "link cannot be written to", "-w", str(tmp_path / "link" / "w"))


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    folder = tmp_path / "ro"
    (folder).mkdir()
    for command in (
        ["mount", "-t", "tmpfs", "tmpfs", str(folder)],
        ["mount", "-o", "remount,ro", str(folder)],
    ):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_file_system_is_named(bids: Path, tmp_path: Path, read_only: Path) -> None:
    refuse(bids, read_only, "ro: this folder cannot be written to")
    refuse(bids, read_only / "out", "ro cannot be written to")
    refuse(bids, tmp_path / "out", "ro: this folder", "-w", str(read_only))


def test_a_link_that_leads_nowhere_is_named(bids: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refuse(bids, tmp_path / "link", "link: this link leads nowhere")
    refuse(bids, tmp_path / "link" / "out", "link: this link leads nowhere")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    refuse(bids, tmp_path / "a", "a: this path cannot be followed")
    work = str(tmp_path / "a" / "w")
    refuse(bids, tmp_path / "out", "a/w: this path cannot be followed", "-w", work)


def test_the_work_folder_is_never_among_the_raw_data(bids: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "link").symlink_to(bids)
    for work in (bids, bids / "work", bids / "sub-01" / "x", tmp_path / "link" / "work"):
        refuse(bids, out, "the work folder .* raw dataset", "-w", str(work))
    for work in (bids / "derivatives" / "work", tmp_path / "work"):
        settings = parse_settings([str(bids), str(out), "participant", "-w", str(work)])
        assert settings.work == work
        assert not work.exists()


def test_a_name_that_is_too_long_is_told(bids: Path, tmp_path: Path) -> None:
    refuse(bids, tmp_path / ("x" * 300), "File name too long")


@pytest.mark.parametrize("kind", ["missing", "file", "closed"])
def test_a_temporary_folder_that_cannot_be_used_is_named(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / "tmpdir"
    if kind == "file":
        folder.touch()
    given = "/proc" if kind == "closed" else str(folder)
    monkeypatch.setenv("TMPDIR", given)
    refuse(bids, tmp_path / "out", f"{given}: .*TMPDIR")


def test_the_current_folder_must_exist(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="the current folder was deleted"):
        Settings(bids_dir=bids, output_dir=tmp_path / "out", level="participant")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\x00" * 20, b"[]", b"\xff\xfe", b'{"GeneratedBy": null}', b'{"GeneratedBy": {}}'],
)
def test_a_damaged_description_of_our_own_is_no_obstacle(
    bids: Path, tmp_path: Path, content: bytes
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "dataset_description.json").write_bytes(content)
    refuse(bids, out, "another dataset")
    if content.startswith(b'{"'):
        return  # it can be read, and says that it is not ours
    (out / "logs").mkdir()
    refuse(bids, out, "another dataset")
    (out / ".bidsignore").write_text("*.html\n")
    refuse(bids, out, "another dataset")
    (out / ".bidsignore").write_text("\n".join(IGNORED) + "\n")
    assert Settings(bids_dir=bids, output_dir=out, level="participant")
    (out / ".bidsignore").unlink()
    (out / "logs" / "cmbprep-20260301T101112-1.log").touch()
    assert Settings(bids_dir=bids, output_dir=out, level="group")


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
