"""The log of a run: messages on the terminal and in a file under ``logs/``."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from cmbprep import __version__
from cmbprep.running.faults import explain

#: Messages kept until the log is opened.
_KEPT_MESSAGES = 100_000


def open_terminal(*, verbosity: int) -> None:
    """Send the program's messages to the terminal, and keep them for :func:`open_log`."""
    logger = logging.getLogger("cmbprep")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        with suppress(OSError):  # what it holds back may find no room on the disk
            handler.close()
    to_terminal = _Terminal(sys.stderr)
    to_terminal.setFormatter(logging.Formatter("cmbprep: %(message)s"))
    to_terminal.setLevel(logging.DEBUG if verbosity else logging.INFO)
    logger.addHandler(to_terminal)
    # Nothing is written before the arguments and the dataset are checked.
    logger.addHandler(MemoryHandler(_KEPT_MESSAGES, flushLevel=logging.CRITICAL + 1))


def open_log(folder: Path, *, verbosity: int) -> Path | None:
    """Send the program's messages to the terminal and to a new file.

    Those that were shown since :func:`open_terminal` are the first in the file.

    Returns
    -------
    Path or None
        The file; None, after a warning, if it cannot be made: a run does not end for its log.
    """
    # One file a run: many runs may write into the same output dataset at the same time.
    path = folder / f"cmbprep-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    logger = logging.getLogger("cmbprep")
    if not any(isinstance(handler, MemoryHandler) for handler in logger.handlers):
        open_terminal(verbosity=verbosity)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Names of files may hold bytes that are no text.
        to_file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        logger.warning("there is no log of this run: %s", explain(error, [folder]))
        return None
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for handler in list(logger.handlers):
        if isinstance(handler, MemoryHandler):
            handler.setTarget(to_file)
            logger.removeHandler(handler)
            handler.close()
    logger.addHandler(to_file)
    logger.debug("cmbprep %s", __version__)
    return path


class _Terminal(logging.StreamHandler):
    """Messages on the terminal; one that nobody reads is no reason to stop."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _LogFile(logging.FileHandler):
    """A log file that is given up, with one warning, when it cannot be written to."""

    lost = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.lost:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        # It stays among the handlers: removing it now would make logging skip the next one.
        self.lost = True
        with suppress(OSError):
            self.close()
        folder = Path(self.baseFilename).parent
        logging.getLogger("cmbprep").warning("the log ends here: %s", explain(error, [folder]))
