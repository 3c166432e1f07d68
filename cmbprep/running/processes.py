"""Child processes that end with the program, and signals that end the program.

A worker that outlives its parent holds memory and writes into folders that a new run uses. The
kernel ends it (``PR_SET_PDEATHSIG``) where it can; elsewhere a thread of the worker looks for its
parent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing.process import BaseProcess

#: What the person is told after a signal.
STOPPED = "stopped; finished scans are complete, run again to go on"

#: Signals that ask a program to end: of the terminal, of the system, of a closed terminal.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.5
#: A killed process is gone at once, unless it waits for a disk or the machine is very busy.
_JOIN_SECONDS = 30.0
_POLL_SECONDS = 0.01


class Stopped(KeyboardInterrupt):
    """The program was asked to end by a signal.

    Parameters
    ----------
    number
        The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_status(self) -> int:
        """Exit status as a shell reports it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.number


class _Received:
    """The signal that has asked the program to end, if one has."""

    number: int | None = None


@contextmanager
def ending_signals() -> Iterator[None]:
    """Raise :class:`Stopped` in the main thread on SIGINT, SIGTERM and SIGHUP.

    A second signal ends the process at once. Signals that are ignored (``nohup``, a background
    job of a script) stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Received.number = None
    before = {
        number: signal.getsignal(number)
        for number in ENDING
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        _Received.number = None
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    if _Received.number is not None:
        os._exit(128 + number)
    _Received.number = number
    raise Stopped(number)


def raise_if_stopped() -> None:
    """Raise :class:`Stopped` if a signal has come.

    Python drops an exception that a signal raises inside a destructor, so loops ask again.
    """
    if _Received.number is not None:
        raise Stopped(_Received.number)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold the ending signals back, so that a process forked meanwhile is not hit by them.

    The process inherits the block; :func:`start_worker` lifts it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(parent: int | None = None) -> None:
    """Prepare a worker process; the initializer of a pool.

    Ctrl-C reaches all processes of a terminal: the parent handles it and ends its workers.

    Parameters
    ----------
    parent
        Process id of the program; None if the worker is started by a server process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    tie_to_parent(parent)


def tie_to_parent(parent: int | None) -> None:
    """End this process as soon as the thread that started it ends.

    Parameters
    ----------
    parent
        Process id that the parent had; None if it is unknown.
    """
    if not _ask_kernel():
        watcher = threading.Thread(target=_watch, args=(os.getppid(),), daemon=True)
        watcher.start()
    # The parent may have ended before the kernel was asked.
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def _ask_kernel() -> bool:
    """Have the kernel kill this process when its parent ends; return whether it will."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return bool(prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of fresh Python processes that end with the program.

    If the block raises (Ctrl-C among others), the workers are killed instead of waited for.

    Parameters
    ----------
    workers
        Largest number of processes.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start_worker,
        initargs=(os.getpid(),),
    )
    try:
        yield pool
    except BaseException:
        kill_children(since=before)
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def kill_children(*, since: AbstractSet[BaseProcess]) -> None:
    """Kill the processes that were started by ``multiprocessing`` after a set was taken."""
    import multiprocessing

    children = set(multiprocessing.active_children()) - since
    for child in children:
        child.kill()
    # A pool's own thread waits for its workers too. Of two that wait, one is told that there is
    # no such process, so a child is asked again until the other has noted its end.
    deadline = time.monotonic() + _JOIN_SECONDS
    while any(child.is_alive() for child in children) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
