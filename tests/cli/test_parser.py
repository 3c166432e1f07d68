"""The command line: spellings that are accepted, and errors that say what to write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cmbprep.cli.main import main
from cmbprep.cli.parser import build_parser, options_without_effect, parse_settings
from cmbprep.errors import UsageError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to work in, with a dataset ``raw`` and without ``out``."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "filter.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(arguments: str, capsys: pytest.CaptureFixture[str], place: Path) -> str:
    """Return the last line of a refusal, which must end with status 2 and write nothing."""
    before = sorted(place.rglob("*"))
    try:
        status = main(arguments.split())
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    assert status == 2
    assert sorted(place.rglob("*")) == before
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "option",
    ["--participant-label", "--participant_label", "--participant_lab", "--participant"],
)
def test_underscores_and_beginnings_of_options_are_accepted(place: Path, option: str) -> None:
    settings = parse_settings(["raw", "out", "participant", option, "sub-01", "02"])
    assert settings.participants == ("01", "02")


def test_every_option_has_its_spelling_with_underscores(place: Path) -> None:
    arguments = (
        "raw out participant --session_label=ses-a_b --bids_filter_file filter.json"
        " --skip_bids_validation --work_dir some_where --omp_nthreads=2 --keep_work"
    )
    settings = parse_settings([*arguments.split()])
    # Values keep their underscores.
    assert settings.sessions == ("a_b",)
    assert settings.work_dir == place / "some_where"
    assert settings.filter_file is not None
    assert (settings.validate, settings.omp_nthreads, settings.keep_work) == (False, 2, True)


def test_arguments_after_two_hyphens_are_left_alone(place: Path) -> None:
    (place / "--participant_label").mkdir()
    arguments = "--nprocs 1 -- --participant_label out participant"
    settings = parse_settings([*arguments.split()])
    assert settings.bids_dir == place / "--participant_label"


def test_a_list_can_be_ended_by_two_hyphens(place: Path) -> None:
    arguments = "--participant_label 01 02 -- raw out participant"
    settings = parse_settings([*arguments.split()])
    assert settings.participants == ("01", "02")
    assert settings.level == "participant"


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (["sub-01", "01", "01/"], ("01",)),
        ([" 02 ", "sub-01"], ("02", "01")),
        (["+a"], ("+a",)),
    ],
)
def test_labels_are_read(place: Path, given: list[str], labels: tuple[str, ...]) -> None:
    settings = parse_settings(["raw", "out", "participant", "--participant-label", *given])
    assert settings.participants == labels


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (["01,02"], "write --session-label 01 02"),
        (["01,", "02"], "write --session-label 01 02"),
        (["ses-a;ses-b"], "write --session-label ses-a ses-b"),
        (["a b"], "write --session-label a b"),
        ([","], "write --session-label 01 02"),
        ([""], "is set"),
        (["ses-"], "is set"),
        (["  "], "is set"),
    ],
)
def test_lists_with_commas_and_empty_labels_are_explained(
    place: Path, given: list[str], advice: str
) -> None:
    with pytest.raises(UsageError) as e:
        parse_settings(["raw", "out", "participant", "--session_label", *given])
    assert e.value.exit_status == 2
    assert "--session-label" in e.value.message
    assert e.value.hint is not None
    assert advice in e.value.hint


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ("--participant-label 01 raw out participant", "'01', 'raw', 'out', 'participant'"),
        ("raw --session_label a out participant", "'a', 'out', 'participant'"),
        ("raw out -d x=raw participant", "'x=raw', 'participant'"),
        ("raw out --derivatives x=raw participant -v", "'x=raw', 'participant'"),
    ],
)
def test_a_list_that_took_the_other_arguments_is_explained(
    arguments: str, taken: str, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    message = error_of(arguments, capsys, place)
    assert f"here {taken};" in message
    assert "write BIDS_DIR OUTPUT_DIR participant first, or end the list with --" in message


@pytest.mark.parametrize("arguments", ["", "raw", "raw out", "raw out --nprocs 2"])
def test_missing_arguments_are_told_without_a_list_to_blame(
    arguments: str, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    message = error_of(arguments, capsys, place)
    assert "write BIDS_DIR OUTPUT_DIR participant, then the options" in message
    assert "takes every argument" not in message


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ("raw out participant --participant_labels 01", "write --participant-label"),
        ("raw out participant --wrk-dir x", "write --work-dir"),
        ("raw out participant --Nprocs 3", "write --nprocs"),
        ("raw out participant --n_cpus 3", "write --nprocs N"),
        ("raw out participant --nthreads 3", "write --nprocs N"),
        ("raw out participant --mem_mb 3000", "write --mem GB (in gigabytes)"),
        ("raw out participant --fs-subjects-dir x", "write --derivatives NAME=PATH"),
        ("raw out participant --qqqqq", "see cmbprep --help"),
        ("raw out participant 01", "labels of participants go to --participant-label"),
        ("raw out Participant", "write participant"),
        ("raw out GROUP", "write group"),
        ("raw out participants", "write participant"),
        ("raw out x", "write participant or group after OUTPUT_DIR"),
        ("raw participant out", "the order is BIDS_DIR OUTPUT_DIR participant"),
        ("participant raw out", "the order is BIDS_DIR OUTPUT_DIR participant"),
    ],
)
def test_what_to_write_instead_is_named(
    arguments: str, advice: str, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    assert advice in error_of(arguments, capsys, place)


def test_wrong_values_of_other_options_keep_their_own_message(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    message = error_of("raw out participant --scheme mar", capsys, place)
    assert message.endswith("invalid choice: 'mar' (choose from 'mars', 'bombs')")


def test_help_and_errors_load_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from cmbprep.cli.main import main\n"
        "for arguments in (['--help'], ['raw', 'out', 'particpant']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'nibabel', 'bids', 'nipype', 'pandas', 'ants', 'nilearn'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip().splitlines()[-1] == "[]"
    assert "--participant_label" in run.stdout


@pytest.mark.parametrize("words", [["", "OUT", "participant"], ["BIDS", " ", "participant"]])
def test_an_empty_path_is_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(words)
    assert caught.value.code == 2
    assert "the path is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["participant", "--deidentified", "--strict"], ["--strict", "--deidentified"]),
        (["participant", "--cluster", "site"], ["--cluster"]),
        (["participant", "--strata", "site"], ["--strata"]),
        (["participant", "--offline", "--pattern-rule", "deep"], []),
        (["group", "--threshold", "0.5", "--offline", "--strict"], ["--threshold"]),
    ],
)
def test_options_of_the_other_level_are_named(
    place: Path, words: list[str], named: list[str]
) -> None:
    assert options_without_effect(parse_settings(["raw", "out", *words])) == named
