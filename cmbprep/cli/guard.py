"""What every command does around its work: signals, failures of the machine, output that ends."""

from __future__ import annotations

import io
import logging
import os
import select
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cmbprep.errors import CmbprepError
from cmbprep.running.faults import explain
from cmbprep.running.places import check_current_folder
from cmbprep.running.processes import STOPPED, Stopped, ending_signals, kill_children

#: Exit status if the reader of the output has gone (``| head``), as a shell reports it.
BROKEN_PIPE = 141


def run_guarded(
    program: str, body: Callable[[], int], *, folders: Callable[[], Sequence[Path]] = tuple
) -> int:
    """Run a command; turn what ends it into one line on the terminal and an exit status.

    Parameters
    ----------
    program
        Name that the line begins with.
    body
        The command's work.
    folders
        Returns the folders that are written to, as far as they are known, to name a full disk.

    Returns
    -------
    int
        What ``body`` returns; the error's own for a :class:`~cmbprep.errors.CmbprepError`; 1
        for a failure of the machine; 2 if the current folder is gone; 130, 143 or 129 after
        SIGINT, SIGTERM or SIGHUP; 141 if nobody reads the output any more.
    """
    _let_any_name_be_written()
    try:
        with ending_signals():
            status = body()
            sys.stdout.flush()
            return status
    except SystemExit:  # argparse, after --help and --version
        if _reader_has_gone():
            return BROKEN_PIPE
        raise
    except CmbprepError as error:
        _say(program, str(error))
        return error.exit_status
    except KeyboardInterrupt as stop:
        if "multiprocessing" in sys.modules:
            # Python would wait for their jobs when it ends.
            kill_children(since=set())
        _say(program, STOPPED)
        return stop.exit_status if isinstance(stop, Stopped) else 130
    except (OSError, MemoryError, RecursionError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return BROKEN_PIPE
        logging.getLogger("cmbprep").debug("traceback of the failure:", exc_info=error)
        try:
            check_current_folder()
        except CmbprepError as gone:
            _say(program, str(gone))
            return gone.exit_status
        _say(program, explain(error, folders()))
        return 1


def _say(program: str, text: str) -> None:
    # Nobody may be reading, or the log on a full disk is the terminal.
    with suppress(OSError):
        sys.stderr.write(f"{program}: {text}\n")
        sys.stderr.flush()


def _let_any_name_be_written() -> None:
    """Write file names that are not text in the terminal's encoding with escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _reader_has_gone() -> bool:
    """Return whether standard output is closed; if so, let Python end without a word about it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError, ValueError):
            os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    except (OSError, ValueError):
        return False
    # Without a buffer nothing is left to be written; the pipe itself knows.
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


@contextmanager
def private_caches() -> Iterator[None]:
    """Keep caches of libraries out of the home folder.

    matplotlib writes a list of fonts and reads a configuration there; both go to a temporary
    folder that is removed, unless ``MPLCONFIGDIR`` is set. nipype reads its configuration there,
    which could change how nodes run.
    """
    given = {name: os.environ.get(name) for name in ("MPLCONFIGDIR", "NIPYPE_CONFIG_DIR")}
    folder = tempfile.mkdtemp(prefix="cmbprep-")
    try:
        for name, value in given.items():
            os.environ[name] = value or folder
        yield
    finally:
        for name, value in given.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
