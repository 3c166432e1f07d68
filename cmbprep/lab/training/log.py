"""The log of a training run: lines with the time, in a file and on the screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path


def logger(path: Path, prefix: str = "") -> Callable[[str], None]:
    """Return a function that adds lines to a file and shows them; processes may share the file.

    Parameters
    ----------
    path
        The file; it is made if need be, and what it holds stays.
    prefix
        Of each line, after the time.
    """

    def say(text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {prefix}{text}\n"
        with open(path, "a", encoding="utf-8") as log:
            log.write(line)
        sys.stderr.write(line)

    return say
