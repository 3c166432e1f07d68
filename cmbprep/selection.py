"""What the person asked for: a dataset, participants, sessions, and filters on scans."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from .errors import UsageError

__all__ = [
    "FILTER_KINDS",
    "check_dataset",
    "check_filters",
    "choose_participants",
    "choose_sessions",
    "layout_config",
    "read_filter_file",
    "sessions_of",
]

logger = logging.getLogger(__name__)

#: Keys of a filter file: the kinds of image that cmbprep looks for.
FILTER_KINDS = ("t2starw", "megre", "swi", "t1w")

_LABEL = re.compile(r"[a-zA-Z0-9+]+")
_DESCRIPTION = "dataset_description.json"
_SKIP = "or leave the check out with --skip-bids-validation"


def check_dataset(root: Path, *, validate: bool) -> None:
    """Check that a folder is a raw BIDS dataset.

    Parameters
    ----------
    root
        The folder.
    validate
        Whether ``dataset_description.json`` must be there and complete.

    Raises
    ------
    UsageError
        If it is not.
    """
    if not root.exists():
        raise UsageError("there is no such folder", path=root, hint="check the path of BIDS_DIR")
    if not root.is_dir():
        raise UsageError(
            "BIDS_DIR is a file", path=root, hint="give the folder that holds the dataset"
        )
    path = root / _DESCRIPTION
    if not validate:
        _refuse_wild_description(path)
        return
    if not path.is_file():
        hint = f'write one, such as {{"Name": "My study", "BIDSVersion": "1.10.0"}}, {_SKIP}'
        for parent in root.parents[:3]:
            if (parent / _DESCRIPTION).is_file():
                hint = f"give {parent} as BIDS_DIR, which has one"
                break
        raise UsageError(f"the dataset has no {_DESCRIPTION}", path=root, hint=hint)
    description = _read_object(path, hint=f"correct the file, {_SKIP}")
    for key in ("Name", "BIDSVersion"):
        if not description.get(key):
            raise UsageError(f"{key} is missing", path=path, hint=f"add it, {_SKIP}")
    if description.get("DatasetType", "raw") == "derivative":
        raise UsageError(
            "DatasetType says that this is a derivative dataset",
            path=path,
            hint=f"give the raw dataset as BIDS_DIR, {_SKIP}",
        )


def _refuse_wild_description(path: Path) -> None:
    """Refuse the one wrong description that pybids cannot look past."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(content, dict):
        raise UsageError("it is not a JSON object", path=path, hint="correct or remove the file")


def choose_participants(root: Path, asked: Sequence[str] | None) -> list[str]:
    """Give the labels of the participants to look at, sorted.

    Parameters
    ----------
    root
        Folder of the dataset.
    asked
        Labels, with or without ``sub-``; None for all.

    Raises
    ------
    UsageError
        If the dataset has no participants, or not the ones asked for.
    """
    if asked is not None and all(
        _LABEL.fullmatch(label) and (root / f"sub-{label}").is_dir()
        for label in (_bare(given, "sub-") for given in asked)
    ):
        # The common case needs no listing of what may be thousands of folders.
        return sorted({_bare(given, "sub-") for given in asked})
    found, wild = _labels_in(root, "sub-")
    if not found:
        raise UsageError(
            "the dataset has no participants"
            + (f": {', '.join(wild[:3])} have labels that BIDS does not allow" if wild else ""),
            path=root,
            hint="folders of participants are named sub-<label>, of letters and digits only",
        )
    if asked is None:
        if wild:
            logger.warning("left out, as their labels are not valid in BIDS: %s", ", ".join(wild))
        return found
    return _choose(asked, found, "sub-", "participant", root)


def sessions_of(root: Path, participant: str) -> list[str]:
    """Give the labels of a participant's sessions, sorted; empty where there are none."""
    found, wild = _labels_in(root / f"sub-{participant}", "ses-")
    if wild:
        logger.warning(
            "sub-%s: left out, as their labels are not valid in BIDS: %s",
            participant,
            ", ".join(wild),
        )
    return found


def choose_sessions(
    root: Path, asked: Sequence[str] | None, available: Iterable[str]
) -> list[str] | None:
    """Give the labels of the sessions to look at, sorted; None for all.

    Parameters
    ----------
    root
        Folder of the dataset, for messages.
    asked
        Labels, with or without ``ses-``; None for all.
    available
        Labels of the sessions that the participants have.
    """
    if asked is None:
        return None
    found = sorted(set(available))
    if not found:
        raise UsageError(
            "these participants have no sessions", path=root, hint="leave --session-label out"
        )
    return _choose(asked, found, "ses-", "session", root)


def _bare(label: str, prefix: str) -> str:
    return label.strip().removeprefix(prefix)


def _labels_in(folder: Path, prefix: str) -> tuple[list[str], list[str]]:
    """List the valid labels of a folder's sub-folders, and the names of invalid ones."""
    found: list[str] = []
    wild: list[str] = []
    # os.scandir knows which entries are folders without a look at each on the disk.
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    for name in names:
        if name.startswith(prefix):
            label = name.removeprefix(prefix)
            if _LABEL.fullmatch(label):
                found.append(label)
            else:
                wild.append(name)
    return sorted(found), sorted(wild)


def _choose(
    asked: Sequence[str], found: Sequence[str], prefix: str, what: str, root: Path
) -> list[str]:
    labels = sorted({_bare(label, prefix) for label in asked})
    for label in labels:
        if label not in found:
            nearest = [f"{prefix}{near}" for near in _nearest(label, found)]
            raise UsageError(
                f"the dataset has no {what} {prefix}{label}",
                path=root,
                hint=f"the nearest labels are {', '.join(nearest)}",
            )
    return labels


def _nearest(label: str, found: Sequence[str], count: int = 3) -> list[str]:
    """Give the labels nearest to one that does not exist: first those of the same number."""
    number = label.lstrip("0")
    same = [other for other in found if other.lstrip("0").lower() == number.lower()]
    close = difflib.get_close_matches(label, found, n=count, cutoff=0.3)
    return list(dict.fromkeys([*same, *close, *found]))[:count]


@cache
def layout_config() -> Mapping[str, Any]:
    """Give the pybids configuration: what entities are called and how names show them."""
    text = resources.files("cmbprep.data").joinpath("bids_layout.json").read_text("utf-8")
    config: dict[str, Any] = json.loads(text)
    return config


def read_filter_file(path: Path) -> dict[str, dict[str, Any]]:
    """Read a BIDS filter file.

    Parameters
    ----------
    path
        A JSON file as fMRIPrep takes them: for each kind of image (``t2starw``,
        ``megre``, ``swi``, ``t1w``) the entities that it must have, by pybids' names.

    Returns
    -------
    dict
        Kind -> entity -> a value, a list of values, ``"*"`` (any value, but there must be
        one) or None (the entity must be absent).

    Raises
    ------
    UsageError
        Naming the file and the key that is wrong.
    """
    if not path.is_file():
        raise UsageError("there is no such filter file", path=path, hint="check the path")
    example = '{"t2starw": {"acquisition": "highres"}}'
    filters = _read_object(path, hint=f"write it like {example}")
    check_filters(filters, path=path)
    return filters


def check_filters(filters: Mapping[str, Any], *, path: Path | None = None) -> None:
    """Check the filters of a filter file.

    Raises
    ------
    UsageError
        Naming the key that is wrong.
    """
    entities = [entity["name"] for entity in layout_config()["entities"]]
    for kind, wanted in filters.items():
        if kind not in FILTER_KINDS:
            raise UsageError(
                f"the filter for {kind!r} has no meaning here",
                path=path,
                hint=f"the kinds of image are {', '.join(FILTER_KINDS)}",
            )
        if not isinstance(wanted, Mapping):
            raise UsageError(
                f"the filter for {kind!r} is not an object",
                path=path,
                hint=f'write entities and values, such as "{kind}": {{"session": "01"}}',
            )
        for entity, value in wanted.items():
            if entity not in entities:
                near = difflib.get_close_matches(entity, entities, n=1, cutoff=0.3)
                raise UsageError(
                    f"the filter for {kind!r} uses the entity {entity!r}, which is not known",
                    path=path,
                    hint=f"did you mean {near[0]!r}? All are: {', '.join(entities)}"
                    if near
                    else f"known are: {', '.join(entities)}",
                )
            _check_value(kind, entity, value, path)


def _check_value(kind: str, entity: str, value: object, path: Path | None) -> None:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if isinstance(item, bool) or not (item is None or isinstance(item, str | int)):
            raise UsageError(
                f"the filter {kind!r}: {entity!r} has the value {item!r}",
                path=path,
                hint="use text, a whole number, null, or a list of these",
            )
    if not values:
        raise UsageError(
            f"the filter {kind!r}: {entity!r} is an empty list, which nothing matches",
            path=path,
            hint="use null for an entity that must be absent",
        )


def _read_object(path: Path, *, hint: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"it is not readable as JSON ({error})", path=path, hint=hint) from error
    if not isinstance(content, dict):
        raise UsageError("it is not a JSON object", path=path, hint=hint)
    return content
