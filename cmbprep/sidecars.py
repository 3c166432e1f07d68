"""Sidecars: the JSON files that describe images, read by BIDS' inheritance principle.

They are read for the images that are used and for no others: a broken sidecar elsewhere
in the dataset stops nothing, and a dataset of thousands is not read to process one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .filenames import BidsName, parse_name

__all__ = ["Sidecar", "SidecarReader", "echo_time", "image_type"]


@dataclass(frozen=True)
class Sidecar:
    """What the sidecars of one image say together.

    Parameters
    ----------
    metadata
        The merged keys and values.
    sources
        The JSON files that they come from, the most general first.
    warnings
        Sentences on sidecars that are missing or cannot be read.
    """

    metadata: Mapping[str, Any]
    sources: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()


class SidecarReader:
    """Reads the sidecars of images in one dataset, and each folder and file only once.

    Parameters
    ----------
    root
        Folder of the dataset; sidecars above it do not count.

    Notes
    -----
    The inheritance principle (BIDS specification, "Common principles"): a JSON file
    applies to an image that lies in the same folder or below, has the same suffix, and
    has in its name every entity that the JSON file's name has. Files closer to the image
    override those further up. In one folder the one with more entities wins.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, list[tuple[BidsName, Path]]] = {}
        self._contents: dict[Path, dict[str, Any] | str] = {}

    def read(self, image: Path) -> Sidecar:
        """Merge the sidecars of an image."""
        name = parse_name(image)
        metadata: dict[str, Any] = {}
        sources, warnings = [], []
        for folder in self._path_down_to(image.parent):
            for candidate, path in self._sidecars_in(folder):
                if not _applies(candidate, name):
                    continue
                content = self._content(path)
                if isinstance(content, str):
                    warnings.append(content)
                    continue
                metadata.update(content)
                sources.append(path)
        if not sources and not warnings:
            warnings.append(f"{image.name} has no sidecar")
        return Sidecar(metadata, tuple(sources), tuple(warnings))

    def _path_down_to(self, folder: Path) -> list[Path]:
        below = folder.relative_to(self._root).parts
        return [self._root.joinpath(*below[:depth]) for depth in range(len(below) + 1)]

    def _sidecars_in(self, folder: Path) -> list[tuple[BidsName, Path]]:
        """List the sidecars of a folder, those with fewer entities first."""
        if folder not in self._folders:
            # Plain names: the top folder of a large dataset has tens of thousands of entries,
            # and none of them needs a look at the disk.
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.name.endswith(".json")]
            parsed = [(parse_name(name), folder / name) for name in names]
            self._folders[folder] = sorted(
                parsed, key=lambda item: (len(item[0].entities), item[1].name)
            )
        return self._folders[folder]

    def _content(self, path: Path) -> dict[str, Any] | str:
        """Give the keys of a JSON file, or a sentence on why they cannot be had."""
        if path not in self._contents:
            content: dict[str, Any] | str
            try:
                loaded = json.loads(path.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError) as error:
                content = f"the sidecar {path.name} cannot be read and is left out ({error})"
            else:
                content = loaded
                if not isinstance(loaded, dict):
                    content = f"the sidecar {path.name} is not a JSON object and is left out"
            self._contents[path] = content
        return self._contents[path]


def _applies(sidecar: BidsName, image: BidsName) -> bool:
    return (
        sidecar.suffix == image.suffix
        and sidecar.entities.items() <= image.entities.items()
        and set(sidecar.oddities) <= set(image.oddities)
    )


def echo_time(metadata: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """Give the echo time of an image in seconds.

    BIDS writes ``EchoTime`` in seconds, DICOM in milliseconds; a value between 1 and 1000
    can only be the latter, and is converted.

    Returns
    -------
    seconds
        None where it is missing or makes no sense.
    warning
        A sentence where something is amiss with it.

    Examples
    --------
    >>> echo_time({"EchoTime": 0.02})
    (0.02, None)
    >>> echo_time({"EchoTime": 20})
    (0.02, 'EchoTime 20 is taken to be in milliseconds; BIDS wants seconds')
    >>> echo_time({})
    (None, 'EchoTime is unknown')
    """
    if metadata.get("EchoTime") is None:
        return None, "EchoTime is unknown"
    given = metadata["EchoTime"]
    problem = f"EchoTime {given!r} is not an echo time in seconds and is left out"
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None, problem
    try:
        value = float(given)
    except ValueError:
        return None, problem
    if 0 < value < 1:
        return value, None
    if 1 < value < 1000 and math.isfinite(value):
        return (
            value / 1000,
            f"EchoTime {given} is taken to be in milliseconds; BIDS wants seconds",
        )
    return None, problem


def image_type(metadata: Mapping[str, Any]) -> frozenset[str]:
    r"""Give the values of DICOM's Image Type (0008,0008), in capitals.

    Examples
    --------
    >>> sorted(image_type({"ImageType": ["ORIGINAL", "Primary", "M"]}))
    ['M', 'ORIGINAL', 'PRIMARY']
    >>> sorted(image_type({"ImageType": "DERIVED\\PRIMARY\\MNIP"}))
    ['DERIVED', 'MNIP', 'PRIMARY']
    """
    given = metadata.get("ImageType", ())
    if isinstance(given, str):
        given = given.replace("\\", "/").split("/")
    if not isinstance(given, list | tuple):
        return frozenset()
    return frozenset(str(value).strip().upper() for value in given)
