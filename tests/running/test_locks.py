"""Locks between processes: who gets them, who frees them, what a kill leaves."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cmbprep.running.locks import holder, try_lock

HOLD = """
import sys, time
from pathlib import Path
from cmbprep.running.locks import try_lock
lock = try_lock(Path(sys.argv[1]), sys.argv[2:])
print("none" if lock is None else "held", flush=True)
time.sleep(60)
"""


def start_holder(folder: Path, *labels: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *labels], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_another_process_is_kept_out_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "out" / ".work" / "locks"
    process = start_holder(folder, "sub-01")
    try:
        assert try_lock(folder, ["sub-01"]) is None
        said = holder(folder, ["sub-01"])
        assert said.startswith(f"process {process.pid} on {socket.gethostname()} since 20")
    finally:
        kill(process)
    # The file that a killed process leaves is no lock.
    assert [path.name for path in folder.iterdir()] == ["sub-01.lock"]
    lock = try_lock(folder, ["sub-01"])
    assert lock is not None
    lock.release()
    assert list(folder.iterdir()) == []


def test_all_labels_are_locked_or_none(tmp_path: Path) -> None:
    process = start_holder(tmp_path, "sub-02_ses-b")
    try:
        assert try_lock(tmp_path, ["sub-02_ses-a", "sub-02_ses-b", "sub-02_ses-c"]) is None
        # Nothing of the failed attempt is kept.
        assert [path.name for path in tmp_path.iterdir()] == ["sub-02_ses-b.lock"]
        with try_lock(tmp_path, ["sub-02_ses-c", "sub-02_ses-a", "sub-02_ses-a"]) as lock:
            assert lock is not None
            assert len(list(tmp_path.iterdir())) == 3
        assert f"process {process.pid} " in holder(tmp_path, ["sub-02_ses-a", "sub-02_ses-b"])
    finally:
        kill(process)


def test_a_process_does_not_get_its_own_lock_twice(tmp_path: Path) -> None:
    with try_lock(tmp_path, ["a"]):
        assert try_lock(tmp_path, ["a"]) is None
        assert f"process {os.getpid()} on" in holder(tmp_path, ["a"])
    with try_lock(tmp_path, ["a"]) as again:
        assert again is not None


def test_the_message_names_another_host(tmp_path: Path) -> None:
    with try_lock(tmp_path, ["sub-01"]):
        content = {"host": "node17", "pid": 4711, "start": "2026-03-01 10:11:12"}
        (tmp_path / "sub-01.lock").write_text(json.dumps(content))
        said = holder(tmp_path, ["sub-01"])
    assert said == "process 4711 on node17 since 2026-03-01 10:11:12"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "x"}', "\x00" * 40])
def test_a_lock_whose_file_is_damaged_still_locks(tmp_path: Path, content: str) -> None:
    with try_lock(tmp_path, ["sub-01"]):
        (tmp_path / "sub-01.lock").write_text(content)
        assert holder(tmp_path, ["sub-01"]) == "another process"
        assert try_lock(tmp_path, ["sub-01"]) is None


def test_a_forked_worker_does_not_keep_the_lock_alive(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from cmbprep.running.locks import try_lock\n"
        "lock = try_lock(Path(sys.argv[1]), ['sub-01'])\n"
        "if os.fork() == 0:\n"
        "    print(os.getpid(), flush=True)\n"  # by the child: it has forgotten the lock then
        "    time.sleep(60)\n"
        "    os._exit(0)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert try_lock(tmp_path, ["sub-01"]) is None
        process.kill()
        process.wait()
        os.kill(child, 0)  # it is alive, without the lock
        lock = try_lock(tmp_path, ["sub-01"])
        assert lock is not None
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_a_program_that_is_started_does_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = try_lock(tmp_path, ["sub-01"])
    assert lock is not None
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        lock.release()
        again = try_lock(tmp_path, ["sub-01"])
        assert again is not None
        again.release()
    finally:
        kill(child)


def _take_turns(folder: str, log: str, times: int) -> None:
    for _ in range(times):
        while (lock := try_lock(Path(folder), ["sub-01"])) is None:
            time.sleep(0.0005)
        with lock, open(log, "a") as file:
            file.write("in\n")
            file.flush()
            time.sleep(0.001)
            file.write("out\n")


def test_files_that_are_removed_and_made_again_never_let_two_in(tmp_path: Path) -> None:
    """Each holder removes the file while others try to lock it."""
    context = multiprocessing.get_context("fork")
    arguments = (str(tmp_path / "locks"), str(tmp_path / "log"), 60)
    processes = [context.Process(target=_take_turns, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == "in\nout\n" * 240


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with try_lock(tmp_path, ["sub-01", "sub-02"]) as lock:
        assert lock is not None
    assert holder(tmp_path, ["sub-01"]) == "another process"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        try_lock(tmp_path / "file" / "locks", ["sub-01"])


def test_labels_with_slashes_stay_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    with try_lock(folder, ["../../x", "sub-é"]):
        assert len(list(folder.iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
