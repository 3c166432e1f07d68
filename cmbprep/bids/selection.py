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

from cmbprep.bids.model import Refusal
from cmbprep.bids.near_names import printable, similar_folder
from cmbprep.bids.survey import LABEL, list_folder, no_folder
from cmbprep.errors import CmbprepError, UsageError
from cmbprep.files.text import read_object

logger = logging.getLogger(__name__)

#: Keys of a filter file: the kinds of image that cmbprep looks for.
FILTER_KINDS = ("t2starw", "megre", "swi", "t1w")

#: Keys of the filter files of other BIDS Apps (fMRIPrep, sMRIPrep, NiBabies, MRIQC, QSIPrep,
#: ASLPrep, PETPrep, XCP-D), in lower case: kinds of image that are of no use here.
FOREIGN_KINDS = frozenset(
    (
        *("asl", "aslcontext", "aslref", "bold", "boldref", "cbf", "dwi", "epi", "events"),
        *("fieldmap", "flair", "fmap", "lesion", "m0scan", "magnitude", "magnitude1"),
        *("magnitude2", "mask", "mp2rage", "mprage", "pdw", "perf", "pet", "phase1", "phase2"),
        *("phasediff", "roi", "sbref", "surf", "t1map", "t2map", "t2w", "unit1", "xfm"),
    )
)

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
        _warn_of_description(path)
        return
    if not os.path.lexists(path):
        hint = f'write one, such as {{"Name": "My study", "BIDSVersion": "1.10.0"}}, {_SKIP}'
        for parent in root.parents[:3]:
            if (parent / _DESCRIPTION).is_file():
                hint = f"give {parent} as BIDS_DIR, which has one"
                break
        raise UsageError(f"the dataset has no {_DESCRIPTION}", path=root, hint=hint)
    _check_description(_read_object(path, hint=f"correct the file, {_SKIP}"), path)


def _check_description(description: Mapping[str, Any], path: Path) -> None:
    for key in ("Name", "BIDSVersion"):
        value = description.get(key)
        if value in (None, "", [], {}):
            raise UsageError(f"{key} is missing", path=path, hint=f"add it, {_SKIP}")
        if not isinstance(value, str):
            logger.warning("%s: %s should be text, not %.60r", path, key, value)
    kind = description.get("DatasetType", "raw")
    if isinstance(kind, list) and len(kind) == 1:
        kind = kind[0]
    if not isinstance(kind, str):
        logger.warning("%s: DatasetType is not text and is ignored", path)
    elif kind.strip().lower() == "derivative":
        raise UsageError(
            "DatasetType says that this is a derivative dataset",
            path=path,
            hint=f"give the raw dataset as BIDS_DIR, {_SKIP}",
        )


def _warn_of_description(path: Path) -> None:
    """Warn that a description that cannot be read is passed over."""
    if not os.path.lexists(path):
        return
    try:
        found = read_object(path)
    except CmbprepError as error:
        logger.warning("%s: %s; the dataset is processed without it", path, error.message)
        return
    _log_warnings(found.warnings)


def has_plain_description(root: Path) -> bool:
    """Return whether pybids can cope with a dataset's description, or with its absence.

    It reads it whatever it is told, waits for a FIFO, and fails on what is not an object or
    only claims to be a derivative.
    """
    path = root / _DESCRIPTION
    if not os.path.lexists(path):
        return True
    try:
        found = read_object(path, repair=False)
    except CmbprepError:
        return False
    return not found.warnings and found.content.get("DatasetType", "raw") == "raw"


def choose_participants(
    root: Path, asked: Sequence[str] | None
) -> tuple[list[str], dict[str, Refusal]]:
    """Choose the participants to look at.

    Parameters
    ----------
    root
        Folder of the dataset.
    asked
        Labels, with or without ``sub-``; None for all.

    Returns
    -------
    labels
        Sorted.
    lost
        Label -> why there is no folder to look at: a link that leads nowhere, or no folder.

    Raises
    ------
    UsageError
        If the dataset has no participants, or not the ones asked for.
    """
    labels = None if asked is None else _asked(asked, "sub-", "--participant-label")
    if labels is not None and all(
        LABEL.fullmatch(label) and (root / f"sub-{label}").is_dir() for label in labels
    ):
        # The common case needs no listing of what may be thousands of folders.
        return labels, {}
    found, wild, similar, lost = _participants_in(root)
    if labels is not None:
        lost = {label: refusal for label, refusal in lost.items() if label in labels}
        labels = [label for label in labels if label not in lost]
    if labels is None or not set(labels) <= set(found):
        for name, right in similar:
            what = "is left out: the name of a participant's folder should be"
            logger.warning("%s %s %s", name, what, right)
    if not found and (labels or not lost):
        raise UsageError(
            "the dataset has no participants"
            + (f": {', '.join(wild[:3])} have labels that BIDS does not allow" if wild else ""),
            path=root,
            hint="folders of participants are named sub-<label>, of letters and digits only",
        )
    if labels is not None:
        return _choose(labels, found, "sub-", "participant", root), lost
    if found and wild:
        logger.warning("left out, as their labels are not valid in BIDS: %s", ", ".join(wild))
    return found, lost


def _participants_in(
    root: Path,
) -> tuple[list[str], list[str], list[tuple[str, str]], dict[str, Refusal]]:
    """List the participants of a dataset.

    Returns
    -------
    Valid labels; names with labels that are not valid; names of folders that were meant as
    participants, with the right ones; and what lies in the place of a participant's folder.
    """
    found, wild, similar = [], [], []
    lost: dict[str, Refusal] = {}
    try:
        entries = list_folder(root)
    except OSError as error:
        raise UsageError(
            f"the folder cannot be listed ({error.strerror})",
            path=root,
            hint="check its permissions",
        ) from error
    for name, kind in entries:
        label = name.removeprefix("sub-")
        if name.startswith("sub-") and LABEL.fullmatch(label):
            if kind == "folder":
                found.append(label)
            else:
                lost[label] = no_folder(root / name, kind)
        elif kind == "folder":
            # Only shown: a name need not be text.
            if name.startswith("sub-"):
                wild.append(printable(name))
            elif right := similar_folder(name, "sub-"):
                similar.append((printable(name), right))
    return sorted(found), sorted(wild), similar, lost


def choose_sessions(
    root: Path, asked: Sequence[str] | None, available: Iterable[str]
) -> list[str] | None:
    """Return the labels of the sessions to look at, sorted; None for all.

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
    labels = _asked(asked, "ses-", "--session-label")
    found = sorted(set(available))
    if not found:
        raise UsageError(
            "these participants have no sessions", path=root, hint="leave --session-label out"
        )
    return _choose(labels, found, "ses-", "session", root)


def _asked(given: Sequence[str], prefix: str, option: str) -> list[str]:
    """Return the labels that were asked for, without prefix, sorted, each once.

    A trailing slash, as the shell completes names of folders, is no part of a label.
    """
    words = [word for text in given for word in re.split(r"[,;\s]+", text) if word]
    labels = sorted({word.rstrip("/").removeprefix(prefix) for word in words})
    for text in given:
        if not text.strip():
            raise UsageError("a label is empty", hint=f"write {option} LABEL [LABEL ...]")
        if re.search(r"[,;]|\S\s+\S", text):
            raise UsageError(
                f"{text!r} is a list with commas" if "," in text else f"{text!r} is a list",
                hint=f"separate labels by spaces: {option} {' '.join(labels)}",
            )
    return labels


def _choose(
    labels: list[str], found: Sequence[str], prefix: str, what: str, root: Path
) -> list[str]:
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
    """Return the labels nearest to one that does not exist: first those of the same number."""
    number = label.lstrip("0")
    same = [other for other in found if other.lstrip("0").lower() == number.lower()]
    close = difflib.get_close_matches(label, found, n=count, cutoff=0.3)
    return list(dict.fromkeys([*same, *close, *found]))[:count]


@cache
def layout_config() -> Mapping[str, Any]:
    """Return the pybids configuration: what entities are called and how names show them."""
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
    return check_filters(filters, path=path)


def check_filters(
    filters: Mapping[str, Any], *, path: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Check the filters of a filter file.

    Returns
    -------
    dict
        The filters for the kinds of image that are looked for here, with labels without
        prefix (``ses-01`` is ``01``). Kinds that only other BIDS Apps know are left out.

    Raises
    ------
    UsageError
        Naming the key that is wrong, and the nearest valid one.
    """
    clean: dict[str, dict[str, Any]] = {}
    for kind, wanted in filters.items():
        if kind in FILTER_KINDS:
            clean[kind] = _check_filter(kind, wanted, path)
        elif kind.lower() in FOREIGN_KINDS:
            logger.info("the filter for %r is for other BIDS Apps and is ignored", kind)
        else:
            near = difflib.get_close_matches(
                kind.lower().replace("*", "star"), FILTER_KINDS, n=1, cutoff=0.5
            )
            kinds = f"the kinds of image are {', '.join(FILTER_KINDS)}"
            raise UsageError(
                f"the filter for {kind!r} has no meaning here",
                path=path,
                hint=f"did you mean {near[0]!r}? {kinds[0].upper()}{kinds[1:]}" if near else kinds,
            )
    return clean


def _check_filter(kind: str, wanted: Any, path: Path | None) -> dict[str, Any]:
    """Check the filter for one kind of image; return it with labels without prefix."""
    if not isinstance(wanted, Mapping):
        raise UsageError(
            f"the filter for {kind!r} is not an object",
            path=path,
            hint=f'write entities and values, such as "{kind}": {{"session": "01"}}',
        )
    prefixes = _prefixes()
    clean = {}
    for entity, value in wanted.items():
        if entity not in prefixes:
            near = difflib.get_close_matches(entity, prefixes, n=1, cutoff=0.3)
            known = ", ".join(prefixes)
            raise UsageError(
                f"the filter for {kind!r} uses the entity {entity!r}, which is not known",
                path=path,
                hint=f"did you mean {near[0]!r}? All are: {known}"
                if near
                else f"known are: {known}",
            )
        items = [
            _filter_value(kind, entity, item, prefixes[entity], path)
            for item in (value if isinstance(value, list) else [value])
        ]
        if not items:
            raise UsageError(
                f"the filter {kind!r}: {entity!r} is an empty list, which nothing matches",
                path=path,
                hint="use null for an entity that must be absent",
            )
        clean[entity] = items if isinstance(value, list) else items[0]
    return clean


def _filter_value(kind: str, entity: str, value: Any, prefix: str, path: Path | None) -> Any:
    """Return a value that an entity must have, without the prefix of its label."""
    if isinstance(value, bool) or not (value is None or isinstance(value, str | int)):
        raise UsageError(
            f"the filter {kind!r}: {entity!r} has the value {value!r}",
            path=path,
            hint="use text, a whole number, null, or a list of these",
        )
    return value.removeprefix(prefix) if isinstance(value, str) else value


@cache
def _prefixes() -> dict[str, str]:
    """Return pybids' names of entities, and how names of files show them: ``acq-``."""
    found = {}
    for entity in layout_config()["entities"]:
        match = re.search(r"[_/]([a-z]+-)\(", entity["pattern"])
        found[entity["name"]] = match.group(1) if match else ""
    return found


def _read_object(path: Path, *, hint: str) -> dict[str, Any]:
    try:
        found = read_object(path)
    except CmbprepError as error:
        raise UsageError(error.message, path=path, hint=hint) from error
    _log_warnings(found.warnings)
    return found.content


def _log_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        logger.warning("%s", warning)
