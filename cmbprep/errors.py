"""Errors that reach the person who runs the program.

Every error says what is wrong, with which file, and what to do about it::

    CmbprepError
    ├── UsageError      the arguments or the dataset as a whole are wrong (exit status 2)
    ├── ScanError       one scan cannot be processed; the others go on (exit status 1)
    └── ResourceError   a template or model is not available here (exit status 2)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CmbprepError(Exception):
    """Base of all errors that cmbprep raises on purpose.

    Parameters
    ----------
    message
        What is wrong, in one sentence.
    path
        The file that is at fault, if there is one.
    hint
        What the person can do about it.

    Examples
    --------
    >>> str(
    ...     ScanError(
    ...         "the image is all zeros", path="sub-01_T2starw.nii.gz", hint="export it again"
    ...     )
    ... )
    'sub-01_T2starw.nii.gz: the image is all zeros. What to do: export it again.'
    """

    exit_status = 1

    def __init__(
        self, message: str, *, path: str | Path | None = None, hint: str | None = None
    ) -> None:
        self.message = _printable(message)
        self.path = None if path is None else _printable(str(path))
        self.hint = None if hint is None else _printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        text = self.message.rstrip(".")
        if self.path:
            text = f"{self.path}: {text}"
        if self.hint:
            text = f"{text}. What to do: {self.hint.rstrip('.')}"
        return text + "."

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments need help to cross process borders.
        return (_rebuild, (type(self), self.message, self.path, self.hint))


def _printable(text: str) -> str:
    r"""Escape what UTF-8 cannot hold: bytes of a file's name that are not UTF-8 (``\udce9``)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _rebuild(
    kind: type[CmbprepError], message: str, path: str | None, hint: str | None
) -> CmbprepError:
    return kind(message, path=path, hint=hint)


class UsageError(CmbprepError):
    """The arguments or the dataset as a whole are wrong; nothing was written."""

    exit_status = 2


class ScanError(CmbprepError):
    """One scan cannot be processed; the others go on."""


class ResourceError(CmbprepError):
    """A template, atlas or model that was asked for is not available here."""

    exit_status = 2


@contextmanager
def about(path: str | Path, *, hint: str | None = None) -> Iterator[None]:
    """Complete the errors of a block with the file, and the remedy, that they do not name.

    Parameters
    ----------
    path
        The file that the block works on.
    hint
        What the person can do about it, where the error says nothing else.
    """
    try:
        yield
    except CmbprepError as error:
        if error.path is None:
            error.path = _printable(str(path))
        if error.hint is None and hint is not None:
            error.hint = _printable(hint)
        raise
