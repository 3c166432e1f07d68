"""Draw figures so that one which cannot be drawn costs nothing but itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import TypeVar, cast

from cmbprep.errors import CmbprepError
from cmbprep.reports.figures.canvas import shorten

logger = logging.getLogger("cmbprep")

#: Characters of a reason: it stands in a list.
LONGEST = 200
_FOLDER = re.compile(r"(?<!\w)/\w")

T = TypeVar("T")


def draw_all(
    figures: Mapping[str, Callable[[], str]], keep: Callable[[str, str], T]
) -> tuple[dict[str, T], dict[str, str]]:
    """Draw figures one by one, whatever happens to each of them.

    Parameters
    ----------
    figures
        Name of each figure -> function that reads what it needs and draws it.
    keep
        Stores a figure; takes its name and its text.

    Returns
    -------
    drawn
        Name -> what ``keep`` returned.
    missing
        Name -> why the figure could not be drawn or stored (see :func:`explain`). The
        traceback is in the log, at debug level.
    """
    drawn: dict[str, T] = {}
    missing: dict[str, str] = {}
    for name, draw in figures.items():
        made, why = attempt(name, partial(_draw, name, draw, keep))
        if why is None:
            drawn[name] = cast(T, made)
        else:
            missing[name] = why
    return drawn, missing


def _draw(name: str, draw: Callable[[], str], keep: Callable[[str, str], T]) -> T:
    return keep(name, draw())


def attempt(name: str, make: Callable[[], T]) -> tuple[T | None, str | None]:
    """Make a figure or another extra of a page; an error in it costs nothing else.

    Parameters
    ----------
    name
        For the log.
    make
        Reads what it needs and makes it.

    Returns
    -------
    made, why
        What was made, or None and why it could not be made (see :func:`explain`).
    """
    try:
        return make(), None
    # A figure is an extra: no error in it may cost a result.
    except Exception as error:
        logger.debug("the figure %s could not be drawn", name, exc_info=True)
        return None, explain(error)


def explain(error: Exception) -> str:
    """Return why a figure could not be drawn: one sentence without any folder's name.

    Examples
    --------
    >>> explain(MemoryError())
    'there was not enough memory to draw it'
    >>> explain(ValueError("shape (2, 3) differs"))
    'drawing it failed (ValueError: shape (2, 3) differs)'
    """
    if isinstance(error, MemoryError):
        return "there was not enough memory to draw it"
    if isinstance(error, OSError):
        named = isinstance(error.filename, str)
        file = Path(error.filename).name if named else "a file"
        return f"{file} could not be read or written ({error.strerror or type(error).__name__})"
    message = error.message if isinstance(error, CmbprepError) else str(error)
    message = " ".join(message.split())
    # A path says where somebody's data lie: it is for the log alone.
    if not message or _FOLDER.search(message):
        return f"drawing it failed ({type(error).__name__})"
    return shorten(f"drawing it failed ({type(error).__name__}: {message}", LONGEST - 1) + ")"


def once(read: Callable[[], T]) -> Callable[[], T]:
    """Let several figures share what is read: the first call reads, later ones get the same.

    An error is kept, too, so that a file which cannot be read is not read again for each figure.
    """
    kept: list[T] = []
    errors: list[Exception] = []

    @wraps(read)
    def shared() -> T:
        if errors:
            raise errors[0]
        if not kept:
            try:
                kept.append(read())
            except Exception as error:
                errors.append(error)
                raise
        return kept[0]

    return shared
