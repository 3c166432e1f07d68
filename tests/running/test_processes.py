"""Children that end with their parent, and signals that end a program."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from cmbprep.running import processes

#: A program with two workers at work; it prints their process ids.
PROGRAM = """
import os, sys, time
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from cmbprep.running import processes

if sys.argv[1] == "thread":
    processes._ask_kernel = lambda: False
    processes._WATCH_SECONDS = 0.05

def main():
    with processes.signals_blocked():
        pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"),
            initializer=processes.start_worker, initargs=(os.getpid(),))
        jobs = [pool.submit(time.sleep, 600) for _ in range(2)]
    while not all(job.running() for job in jobs):
        time.sleep(0.01)
    try:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(600)
    finally:
        processes.kill_children(since=set())

try:
    with processes.ending_signals():
        main()
except processes.Stopped as stop:
    print(processes.STOPPED, file=sys.stderr)
    sys.exit(stop.exit_status)
"""


def start(way: str, **options: object) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, way],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    return process, workers


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_for_end(pids: list[int], seconds: float = 60.0) -> list[int]:
    """Return the processes that are still alive after a while."""
    until = time.monotonic() + seconds
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < until:
        time.sleep(0.02)
    return left


@pytest.mark.parametrize("way", ["kernel", "thread"])
def test_workers_end_when_their_parent_is_killed(way: str) -> None:
    process, workers = start(way)
    process.kill()
    process.communicate()
    assert wait_for_end(workers) == []


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("group", [False, True])
def test_a_signal_ends_all_with_one_line(number: int, status: int, group: bool) -> None:
    """Ctrl-C and a closed terminal reach the whole group of processes."""
    process, workers = start("kernel")
    (os.killpg if group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors == "stopped; finished scans are complete, run again to go on\n"
    assert wait_for_end(workers) == []


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    process, workers = start(
        "kernel", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    os.killpg(process.pid, signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    assert all(is_alive(pid) for pid in workers)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_second_signal_ends_at_once() -> None:
    code = (
        "import time\n"
        "from cmbprep.running import processes\n"
        "with processes.ending_signals():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(600)\n"
        "    finally:\n"
        "        print('ending', flush=True)\n"
        "        time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in ("ready\n", "ending\n"):
        assert process.stdout.readline() == line
        process.terminate()
    assert process.wait(60) == 143
    process.stdout.close()


def test_a_worker_whose_parent_has_gone_before_ends() -> None:
    code = (
        "from cmbprep.running.processes import start_worker; start_worker(1 << 22); print('lives')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout) == (1, "")


def test_a_stop_that_python_has_dropped_is_raised_again() -> None:
    with processes.ending_signals():
        with suppress(processes.Stopped):  # as Python does inside a destructor
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(processes.Stopped):
            processes.raise_if_stopped()
    processes.raise_if_stopped()  # over with the block
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_pool_that_is_left_by_an_exception_does_not_wait() -> None:
    def leave() -> None:
        with processes.process_pool(1) as pool:
            assert pool.submit(abs, -1).result() == 1
            pool.submit(time.sleep, 600)
            raise KeyboardInterrupt

    start_time = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        leave()
    assert time.monotonic() - start_time < 300


def test_killed_children_are_gone_although_a_pool_waits_for_them_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two threads that wait for one process, the slower one is told that there is none."""
    wait = os.waitpid

    def wait_slowly(pid: int, options: int) -> tuple[int, int]:
        found = wait(pid, options)
        if found[0]:
            time.sleep(0.05)
        return found

    monkeypatch.setattr(os, "waitpid", wait_slowly)
    before = set(multiprocessing.active_children())
    for _ in range(8):
        pool = ProcessPoolExecutor(
            2,
            mp_context=multiprocessing.get_context("fork"),
            initializer=processes.start_worker,
            initargs=(os.getpid(),),
        )
        jobs = [pool.submit(time.sleep, 600) for _ in range(2)]
        while not all(job.running() for job in jobs):
            time.sleep(0.01)
        processes.kill_children(since=before)
        left = set(multiprocessing.active_children()) - before
        pool.shutdown(wait=False, cancel_futures=True)
        assert left == set()
