"""A process of its own for what ANTs does on more than one thread.

Deformable registration takes most of the time there is, and cut into a fixed number of parts it
gives the same bytes on every run, be there one processor or many. Linear registration does not:
its threads add their parts up in the order in which they finish. ITK reads its number of threads
once a process, so one of the two has to be done elsewhere.

The process starts when the registration does, and loads ``ants`` while the pose is searched for.
It ends when its input does, and is killed with the process that started it. If it is killed
itself, it is started again once and the stage is run anew.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import cmbprep
from cmbprep.errors import ScanError
from cmbprep.running.processes import start_worker
from cmbprep.spatial.ants import Fit, Maps, load_ants, run_stage, work_on

logger = logging.getLogger("cmbprep")

#: What talking to a process that was killed raises.
_KILLED = (EOFError, BrokenPipeError, pickle.UnpicklingError)

#: How the work is cut. Another number gives other roundings (0.04 mm in the median, of a T1w
#: image), so it is the same everywhere. Two halves add up to the same in either order.
THREADS = 2


class AntsProcess:
    """Runs stages of antsRegistration on :data:`THREADS` threads; a context manager."""

    def __enter__(self) -> AntsProcess:
        self._start()
        return self

    def _start(self) -> None:
        # As a module and not by multiprocessing, which would run an unguarded script again.
        place = str(Path(cmbprep.__file__).parents[1])
        path = os.pathsep.join([place, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )

    def __exit__(self, *_: object) -> None:
        # It ends by itself at the end of its input, and is not waited for if it is at work.
        try:
            self._process.communicate(timeout=1.0)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._end()

    def _end(self) -> None:
        self._process.kill()
        # What was not sent yet cannot be sent any more.
        with suppress(BrokenPipeError):
            self._process.communicate()

    def run(self, fit: Fit) -> Maps:
        """Do what :func:`~.ants.run_stage` does.

        Raises
        ------
        ScanError
            Like there, and if the process was killed twice.
        """
        try:
            return self._ask(fit)
        except _KILLED:
            logger.warning("the process that deforms the template was killed; trying again")
            self._end()
            self._start()
        try:
            return self._ask(fit)
        except _KILLED as error:
            raise ScanError(
                "the process that deforms the template was killed, most likely because the memory "
                "ran out",
                hint="run it again with a lower --nprocs, or give --mem the memory in GB that may "
                "be used",
            ) from error

    def _ask(self, fit: Fit) -> Maps:
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump(fit, self._process.stdin)
        self._process.stdin.flush()
        answer: Maps | Exception = pickle.load(self._process.stdout)  # noqa: S301 - our own
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Run one stage after the other, until there are no more."""
    work_on(THREADS)
    load_ants()
    while True:
        try:
            fit: Fit = pickle.load(requests)  # noqa: S301 - of who started this
        except EOFError:
            return
        try:
            answer: Maps | Exception = run_stage(fit)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it is known
            answer = error
        answers.write(_pickle(answer))
        answers.flush()


def _pickle(answer: Maps | Exception) -> bytes:
    """Pickle an answer; an error that cannot be pickled becomes one with its text."""
    try:
        content = pickle.dumps(answer)
        if isinstance(answer, Exception):
            pickle.loads(content)  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - an exception class may do anything
        return pickle.dumps(RuntimeError(f"{type(answer).__name__}: {answer}"))
    return content


def _main() -> None:
    start_worker(int(sys.argv[1]))
    # What ITK prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
