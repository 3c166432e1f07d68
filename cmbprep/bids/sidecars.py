"""Sidecars: the JSON files that describe images, read by BIDS' inheritance principle.

They are read for the images that are used and for no others: a broken sidecar elsewhere
in the dataset stops nothing, and a dataset of thousands is not read to process one. The
values that the program uses are checked (:mod:`cmbprep.bids.quantities`) when they are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep.bids.model import BidsName, parse_name
from cmbprep.bids.quantities import check_metadata
from cmbprep.errors import CmbprepError
from cmbprep.files.text import ReadObject, read_object


@dataclass(frozen=True)
class Sidecar:
    """What the sidecars of one image say together.

    Parameters
    ----------
    metadata
        The merged keys and values, after the check of :func:`check_metadata`.
    warnings
        Sentences on sidecars that are missing, and on what was corrected or left out.
    unreadable
        Sentences on sidecars that cannot be read at all: a reason to refuse the image may
        stand in them.
    remedy
        What to do about the first of those.
    left_out
        Keys whose value was left out with a warning.
    """

    metadata: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    remedy: str = ""
    left_out: frozenset[str] = frozenset()


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
        self._contents: dict[Path, ReadObject | CmbprepError] = {}

    def read(self, image: Path) -> Sidecar:
        """Merge the sidecars of an image, and check what they say."""
        name = parse_name(image)
        metadata: dict[str, Any] = {}
        origins: dict[str, str] = {}
        silent: set[str] = set()
        found = False
        warnings: list[str] = []
        problems: list[CmbprepError] = []
        for path in self._sidecars_of(image, name, problems):
            content = self._content(path)
            if isinstance(content, CmbprepError):
                problems.append(content)
                continue
            metadata.update(content.content)
            origins.update(dict.fromkeys(content.content, path.name))
            silent = (silent - content.content.keys()) | set(content.dropped)
            warnings += content.warnings
            found = True
        if not found and not problems:
            warnings.append(f"{image.name} has no sidecar")
        checked = check_metadata(metadata, origins=origins, silent=frozenset(silent))
        return Sidecar(
            checked.metadata,
            (*warnings, *checked.warnings),
            unreadable=tuple(self._sentence(problem) for problem in problems),
            remedy=self._remedy(problems[0]) if problems else "",
            left_out=checked.left_out,
        )

    def _sidecars_of(
        self, image: Path, name: BidsName, problems: list[CmbprepError]
    ) -> Iterator[Path]:
        """List the sidecars that apply to an image, the most general first."""
        for folder in self._path_down_to(image.parent):
            try:
                found = self._sidecars_in(folder)
            except OSError as error:
                problems.append(
                    CmbprepError(
                        f"the folder cannot be listed ({error.strerror})",
                        path=folder / "*.json",
                        hint="check the permissions of the folder",
                    )
                )
                continue
            yield from (path for candidate, path in found if _applies(candidate, name))

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

    def _content(self, path: Path) -> ReadObject | CmbprepError:
        """Return the content of a JSON file, or the error on why it is unavailable."""
        if path not in self._contents:
            try:
                self._contents[path] = read_object(path)
            except CmbprepError as error:
                self._contents[path] = error
        return self._contents[path]

    def _sentence(self, problem: CmbprepError) -> str:
        return f"the sidecar {self._place(problem)} cannot be used: {problem.message}"

    def _remedy(self, problem: CmbprepError) -> str:
        return f"for {self._place(problem)}: {problem.hint}" if problem.hint else ""

    def _place(self, problem: CmbprepError) -> str:
        return Path(problem.path or "").relative_to(self._root).as_posix()


def _applies(sidecar: BidsName, image: BidsName) -> bool:
    return (
        sidecar.suffix == image.suffix
        and sidecar.entities.items() <= image.entities.items()
        and set(sidecar.oddities) <= set(image.oddities)
    )


def image_type(metadata: Mapping[str, Any]) -> frozenset[str]:
    r"""Return the values of DICOM's Image Type (0008,0008), in capitals.

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
