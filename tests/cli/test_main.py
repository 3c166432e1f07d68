"""The commands' frame: what ends them is one line and an exit status, never a traceback."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cmbprep.participant.level
from cmbprep.cli import guard, main
from cmbprep.errors import UsageError
from cmbprep.lab import cli as tools


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    folder = tmp_path / "bids"
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    return folder


def command(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cmbprep.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UsageError("no", path="a.json", hint="do"), 2, "a.json: no. What to do: do."),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk of "),
        (
            OSError(errno.EACCES, "Permission denied", "/x/y.json"),
            1,
            "/x/y.json: permission denied",
        ),
        (MemoryError(), 1, "the memory ran out"),
        (RecursionError("maximum recursion depth exceeded"), 1, "nested too deeply"),
        (KeyboardInterrupt(), 130, "stopped; finished scans are complete, run again to go on"),
    ],
)
def test_what_ends_a_run_is_one_line(
    error: BaseException,
    status: int,
    words: str,
    bids: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(cmbprep.participant.level, "run_participant_level", fail)
    assert main.main([str(bids), str(tmp_path / "out"), "participant"]) == status
    said = capsys.readouterr().err
    assert said.startswith("cmbprep: ")
    assert words in said
    assert len(said.splitlines()) == 1


def test_the_full_disk_is_that_of_the_run(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Path] = []

    def explain(_: object, folders: Any) -> str:
        seen.extend(folders)
        return "x"

    def fail(_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(guard, "explain", explain)
    monkeypatch.setattr(cmbprep.participant.level, "run_participant_level", fail)
    out, work = tmp_path / "out", tmp_path / "work"
    assert main.main([str(bids), str(out), "participant", "-w", str(work)]) == 1
    assert seen == [out, work]


def test_a_programming_error_is_not_hidden(
    bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cmbprep.participant.level, "run_participant_level", fail)
    with pytest.raises(ZeroDivisionError):
        main.main([str(bids), str(tmp_path / "out"), "participant"])


def test_tools_end_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "demo"))

    monkeypatch.setattr("cmbprep.lab.demo.run_demo", fail)
    assert tools.main(["demo", str(tmp_path / "demo")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"cmbprep-tools: {tmp_path / 'demo'}: permission denied")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_signals_end_a_run(number: int, status: int, bids: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "import cmbprep.participant.level\n"
        "from cmbprep.cli.main import main\n"
        "def wait(_):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
        "cmbprep.participant.level.run_participant_level = wait\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", code, str(bids), str(tmp_path / "out"), "participant"]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status
    assert errors == "cmbprep: stopped; finished scans are complete, run again to go on\n"
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_output_that_nobody_reads_is_no_error(words: list[str], unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "cmbprep.cli.main", *words],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (141, b"")


def test_a_broken_pipe_elsewhere_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert guard.run_guarded("cmbprep", fail) == 1
    assert capsys.readouterr().err == "cmbprep: broken pipe.\n"


def test_a_full_disk_under_the_output_is_told() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    code = (
        "import sys\n"
        "from cmbprep.cli.guard import run_guarded\n"
        "sys.exit(run_guarded('cmbprep', lambda: print('x') or 0))\n"
    )
    with open("/dev/full", "w") as full:
        answer = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert answer.returncode != 0
    assert "finished scans are kept" in answer.stderr


def test_a_current_folder_that_is_gone_is_told(bids: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, shutil, sys\n"
        "from cmbprep.cli.main import main\n"
        "shutil.rmtree(os.getcwd())\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    for given in ([str(bids), str(tmp_path / "out")], ["bids", "out"]):
        gone.mkdir(exist_ok=True)
        answer = subprocess.run(
            [sys.executable, "-c", code, *given, "participant", "--dry-run"],
            cwd=gone,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(cmbprep.__file__).parents[1])},
        )
        assert answer.returncode == 2, answer.stderr
        assert answer.stderr.startswith("cmbprep: the current folder was deleted. What to do: ")
        assert len(answer.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_text_are_written_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    def show() -> int:
        print(os.fsdecode(b"sub-\xff"))
        return 0

    code = (
        "import os, sys\n"
        "from cmbprep.cli.guard import run_guarded\n"
        "sys.exit(run_guarded('x', lambda: print(os.fsdecode(b'sub-\\xff')) or 0))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, b"sub-\\udcff\n")


#: What of the libraries would write into the home folder or ask a network.
USE_ALL = """
import sys
import cmbprep
from cmbprep.cli.guard import private_caches
with private_caches():
    import onnxruntime, matplotlib.font_manager, nipype, ants, bids, nilearn.plotting
    import cmbprep.engine
    from cmbprep.detectors import get_detector
    get_detector("learned")
    print(matplotlib.get_cachedir())
"""


def test_nothing_is_left_in_the_home_folder_and_no_network_is_asked(
    bids: Path, tmp_path: Path
) -> None:
    anat = bids / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (anat / "sub-01_T2starw.nii.gz").write_bytes(b"x")
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    apart = ["unshare", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("no right to run without a network here")
    hidden = ("ORT_DISABLE_TELEMETRY", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
    dry = ["-m", "cmbprep.cli.main", bids, tmp_path / "out", "participant", "--dry-run"]
    # The image of the dry run is no image, which its exit status says.
    for words, status in ((["-c", USE_ALL], 0), (dry, 1)):
        answer = subprocess.run(
            [*apart, sys.executable, *map(str, words)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == status, answer.stderr
        assert list(home.rglob("*")) == []
        assert list(temporary.rglob("*")) == []
    assert not (tmp_path / "out").exists()


def test_caches_of_the_person_are_used_where_they_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.delenv("NIPYPE_CONFIG_DIR", raising=False)
    with guard.private_caches():
        assert os.environ["MPLCONFIGDIR"] == str(tmp_path)
        folder = Path(os.environ["NIPYPE_CONFIG_DIR"])
        assert folder.is_dir()
    assert not folder.exists()
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path)
    assert "NIPYPE_CONFIG_DIR" not in os.environ
