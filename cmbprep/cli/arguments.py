"""Command lines that are nearly right, and what to write instead."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import NoReturn

from cmbprep.errors import UsageError

_ORDER = "BIDS_DIR OUTPUT_DIR participant"

#: Options of other BIDS Apps -> what does the same here.
_OTHER_APPS: Mapping[str, str] = {
    **dict.fromkeys(
        ("--nthreads", "--n-cpus", "--ncpus", "--n-procs", "--n-jobs", "--nproc", "--num-threads"),
        "--nprocs N",
    ),
    **dict.fromkeys(("--mem-gb", "--memory-gb", "--mem-mb"), "--mem GB (in gigabytes)"),
    **dict.fromkeys(("--session-id", "--ses-label", "--session"), "--session-label S"),
    **dict.fromkeys(("--subject-label", "--subject", "--sub-label"), "--participant-label L"),
    **dict.fromkeys(
        ("--fs-subjects-dir", "--anat-derivatives", "--fmriprep-dir"), "--derivatives NAME=PATH"
    ),
    **dict.fromkeys(("--run-id", "--task-id", "--acquisition"), "--bids-filter-file F"),
    **dict.fromkeys(("--output-spaces", "--output-space"), "--template ID"),
    "--use-plugin": "--plugin-file F",
    "--verbose": "-v",
    "--debug": "-vv",
}


class ArgumentParser(argparse.ArgumentParser):
    """A parser that accepts underscores in options and explains its errors."""

    _given: tuple[str, ...] = ()

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments, with ``--participant_label`` read as ``--participant-label``."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        given[:end] = [self._with_hyphens(argument) for argument in given[:end]]
        self._given = tuple(given)
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and what to write instead; exit with status 2."""
        hints = (
            _explain_level(message, self._given, self._levels()),
            _explain_required(message, self._given, self._lists()),
            _explain_unknown(message, self._options()),
        )
        hint = next((text for text in hints if text), None)
        super().error(f"{message}. What to do: {hint}." if hint else message)

    def _options(self) -> list[str]:
        return [name for name in self._option_string_actions if name.startswith("--")]

    def _lists(self) -> frozenset[str]:
        """Return the options that take any number of values."""
        return frozenset(
            name for name, action in self._option_string_actions.items() if action.nargs == "+"
        )

    def _levels(self) -> list[str]:
        return [
            str(choice)
            for action in self._get_positional_actions()
            for choice in action.choices or ()
        ]

    def _with_hyphens(self, argument: str) -> str:
        if not argument.startswith("--") or "_" not in argument:
            return argument
        name, equals, value = argument.partition("=")
        plain = name.replace("_", "-")
        known = any(option.startswith(plain) for option in self._options())
        return f"{plain}{equals}{value}" if known else argument


def read_labels(given: Iterable[str], prefix: str, option: str) -> tuple[str, ...]:
    """Return labels without their prefix, each once, in the order given.

    Parameters
    ----------
    given
        Labels as they were typed.
    prefix
        ``sub-`` or ``ses-``.
    option
        The option that they were given to, for messages.

    Raises
    ------
    UsageError
        If one is empty, or several were written as one.
    """
    # The shell completes names of folders with a slash.
    labels = [label.strip().rstrip("/") for label in given]
    apart = re.split(r"[,;\s]+", " ".join(labels))
    for label in labels:
        if not label.removeprefix(prefix):
            raise UsageError(
                f"a label given to {option} is empty",
                hint=f"write at least one label, such as {option} 01; check that the variable it "
                "comes from is set",
            )
        if re.search(r"[,;\s]", label):
            raise UsageError(
                f"{option} takes labels with spaces between them, not {label!r}",
                hint=f"write {option} {' '.join(filter(None, apart)) or '01 02'}",
            )
    return tuple(dict.fromkeys(label.removeprefix(prefix) for label in labels))


def _explain_level(message: str, given: Sequence[str], levels: Sequence[str]) -> str | None:
    if "invalid choice" not in message or "argument level" not in message:
        return None
    wrong = message.partition("invalid choice: ")[2].partition(" (choose")[0].strip("'\"")
    if any(level in given for level in levels):
        return f"the order is {_ORDER}"
    near = _nearest(wrong, levels)
    return f"write {near}" if near else f"write {' or '.join(levels)} after OUTPUT_DIR"


def _explain_required(message: str, given: Sequence[str], lists: frozenset[str]) -> str | None:
    if "arguments are required" not in message:
        return None
    # The last list takes what follows it.
    for place, option in reversed(list(enumerate(given))):
        taken = list(takewhile(lambda word: not word.startswith("-"), given[place + 1 :]))
        if option in lists and len(taken) > 1:
            return (
                f"{option} takes every argument up to the next option, here "
                f"{', '.join(map(repr, taken))}; write {_ORDER} first, or end the list with --"
            )
    return f"write {_ORDER}, then the options"


def _explain_unknown(message: str, options: Sequence[str]) -> str | None:
    if not message.startswith("unrecognized arguments: "):
        return None
    unknown = message.partition(": ")[2].split()
    if any(argument in options for argument in unknown):
        return "what follows -- is no option; write options before it"
    for argument in unknown:
        if not argument.startswith("-"):
            continue
        plain = argument.partition("=")[0].replace("_", "-").lower()
        if plain in _OTHER_APPS:
            return f"for {argument} write {_OTHER_APPS[plain]}"
        near = _nearest(plain, options)
        return f"for {argument} write {near}" if near else "see cmbprep --help for all options"
    return (
        f"write {_ORDER} and nothing more without an option; labels of participants go to "
        "--participant-label"
    )


def _nearest(text: str, known: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(text.lower(), lower, n=1, cutoff=0.75)
    return lower[close[0]] if close else None
