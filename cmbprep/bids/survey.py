"""What lies in a participant's folder that cannot be used, and why.

The index of pybids holds the images with valid names. What it passes over is found here:
names that are nearly right, links that lead nowhere, folders that cannot be read, and things
that are no files. Folders are listed once, and no file is opened.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cmbprep.bids.model import IMAGE_EXTENSIONS, SEQUENCES, Refusal, parse_name
from cmbprep.bids.near_names import NearName, free_name, nearest_name, printable, similar_folder

logger = logging.getLogger(__name__)

#: Folders that hold scans.
SCAN_FOLDERS = ("anat", "swi")
#: Folders without images of the head's structure, some with very many files, or not raw data.
_OTHER_FOLDERS = frozenset(
    {"eeg", "meg", "ieeg", "emg", "nirs", "beh", "motion", "micr", "pet"}
    | {"derivatives", "sourcedata", "code", "stimuli"}
)

#: What BIDS allows as a label.
LABEL = re.compile(r"[a-zA-Z0-9+]+")

Kind = Literal["file", "folder", "missing", "loop", "special"]


def is_utf8(text: str) -> bool:
    """Return whether a name can be written as UTF-8, as databases and JSON files need it."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def survey_participant(folder: Path) -> Survey:
    """List a participant's folders and find what cannot be used.

    Parameters
    ----------
    folder
        The participant's folder, ``sub-<label>``.

    Raises
    ------
    OSError
        If the folder itself cannot be listed.
    """
    survey = Survey(folder.name.removeprefix("sub-"))
    survey.look_at_session(folder, None)
    return survey


@dataclass
class Survey:
    """What was found in one participant's folder besides valid images.

    Parameters
    ----------
    subject
        Label of the participant.
    refused
        Files and folders that look like scans and cannot be used, by session.
    notes
        Sentences on T1w images that cannot be used, by session.
    unusable
        Paths that must not be opened.
    sessions
        Labels of all sessions, sorted, those whose folder cannot be used as well.
    """

    subject: str
    refused: dict[str | None, list[Refusal]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[str | None, list[str]] = field(default_factory=lambda: defaultdict(list))
    unusable: set[Path] = field(default_factory=set)
    sessions: list[str] = field(default_factory=list)

    def look_at_session(self, folder: Path, session: str | None) -> None:
        """Look at the folder of a session, or of a participant."""
        files, wild = [], []
        entries = list_folder(folder)
        in_anat = _names_in(folder / "anat") if ("anat", "folder") in entries else set()
        for name, kind in entries:
            path = folder / name
            is_session = session is None and name.startswith("ses-")
            if is_session and LABEL.fullmatch(name.removeprefix("ses-")):
                self._session(path, name.removeprefix("ses-"), kind)
            elif kind == "folder":
                if is_session:
                    wild.append(printable(name))
                self._look_at_folder(path, session, in_anat)
            elif name in SCAN_FOLDERS:
                self.refused[session].append(no_folder(path, kind))
            else:
                files.append((name, kind))
        if wild:
            named = ", ".join(sorted(wild))
            what = "left out, as their labels are not valid in BIDS"
            logger.warning("sub-%s: %s: %s", self.subject, what, named)
        self._look_at_files(folder, files, session, in_anat)

    def _session(self, path: Path, label: str, kind: Kind) -> None:
        self.sessions.append(label)
        if kind != "folder":
            self.refused[label].append(no_folder(path, kind))
            return
        try:
            self.look_at_session(path, label)
        except OSError as error:
            self.refused[label].append(_unreadable(path, error))

    def _look_at_folder(self, path: Path, session: str | None, in_anat: set[str]) -> None:
        if path.name in _OTHER_FOLDERS:
            return
        if session is None and (right := similar_folder(path.name, "ses-")):
            reason = f"the folder's name is not valid; the nearest valid name is {right}"
            hint = f"rename the folder to {right}"
            self.refused[None].append(Refusal(path=path, reason=reason, hint=hint))
            return
        try:
            files = list_folder(path)
        except OSError as error:
            if path.name in SCAN_FOLDERS:
                self.refused[session].append(_unreadable(path, error))
            return
        self._look_at_files(path, files, session, in_anat)

    def _look_at_files(
        self,
        folder: Path,
        files: Sequence[tuple[str, Kind]],
        session: str | None,
        in_anat: set[str],
    ) -> None:
        taken = {name for name, _ in files}
        proposed: set[str] = set()
        is_place = folder.name in SCAN_FOLDERS
        names = taken if is_place else in_anat
        for name, kind in files:
            if _has_twin(name, taken):
                continue
            near = nearest_name(
                name, subject=self.subject, session=session, own_names_only=not is_place
            )
            if near is None or (folder.name == "fmap" and near.suffix == "GRE"):
                continue
            path = folder / name
            if is_place and self._is_valid(name, near):
                if problem := _no_image(path, kind):
                    self._put_aside(path, near, session, problem)
                continue
            if near.foreign and near.name in proposed:
                continue
            if (near.foreign or near.trailing) and _is_there(near.name, names):
                continue
            proposed.add(near.name)
            name = free_name(near.name, names)
            names.add(name)
            refusal = _near_refusal(path, kind, near, name)
            self._put_aside(path, near, session, refusal)

    @staticmethod
    def _is_valid(name: str, near: NearName) -> bool:
        """Return whether the index has an image of this name, or says itself what is wrong."""
        if not name.endswith(IMAGE_EXTENSIONS):
            return False
        # Without capitals or labels of other folders: that is found where scans are grouped.
        known = all(text.endswith(" is missing") for text in near.deviations)
        suffix = parse_name(name).suffix
        if suffix == "T2star":
            return len(near.deviations) == 1
        return known and suffix in {*SEQUENCES, "T1w"} and name.startswith("sub-")

    def _put_aside(self, path: Path, near: NearName, session: str | None, refusal: Refusal) -> None:
        self.unusable.add(path)
        if near.suffix != "T1w":
            self.refused[session].append(refusal)
            return
        self.notes[session].append(
            f"the T1w image {refusal.path.name} is not used: {refusal.reason}"
        )


def list_folder(folder: Path) -> list[tuple[str, Kind]]:
    """List a folder by name, without what is hidden.

    os.scandir knows what most entries are without a look at each on the disk.
    """
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, _kind(entry)) for entry in entries if not entry.name.startswith(".")
        )


def _kind(entry: os.DirEntry[str]) -> Kind:
    # For what is no link this needs no look at the disk.
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
    except OSError:
        pass
    return _kind_of(Path(entry.path))


def _kind_of(path: Path) -> Kind:
    try:
        if path.is_dir():
            return "folder"
        path.stat()
    except OSError as error:
        return "loop" if error.errno == errno.ELOOP else "missing"
    return "file" if path.is_file() else "special"


#: What may lie in the place of a folder: reason and remedy.
_FETCH_FOLDER = (
    "fetch the content (datalad get), mount the storage that the link leads to, or mend the link"
)
_NO_FOLDERS: Mapping[Kind, tuple[str, str]] = {
    "missing": (
        "it is a link, and what it leads to is not there or cannot be reached",
        _FETCH_FOLDER,
    ),
    "loop": ("it is a link that leads back to itself", "replace the link by the folder"),
}
_NO_FOLDER = (
    "it is not a folder, and a folder should be in its place",
    "remove it or replace it by the folder that it stands for",
)
#: What may have the name of an image. A link to content that was not fetched is found where the
#: content is read.
_NO_IMAGES: Mapping[Kind, tuple[str, str]] = {
    "folder": (
        "it is a folder with the name of an image",
        "replace the folder by a NIfTI image of that name",
    ),
    "special": (
        "it is a pipe, a socket or a device, not a file",
        "replace it by a NIfTI image of that name",
    ),
    "loop": ("it is a link that leads back to itself", "replace the link by the image"),
}


def no_folder(path: Path, kind: Kind) -> Refusal:
    """Refuse what lies in the place of a folder."""
    return _refusal(path, *_NO_FOLDERS.get(kind, _NO_FOLDER))


def _refusal(path: Path, reason: str, hint: str) -> Refusal:
    return Refusal(path=Path(printable(path)), reason=reason, hint=hint)


def _unreadable(path: Path, error: OSError) -> Refusal:
    reason = f"the folder cannot be read ({error.strerror or error})"
    return _refusal(path, reason, "check its permissions and the disk")


def _no_image(path: Path, kind: Kind) -> Refusal | None:
    """Refuse what has the name of an image and is none; the content is not looked at."""
    if not is_utf8(path.name):
        return _refusal(path, "its name is not UTF-8", "rename it, with letters and digits only")
    return _refusal(path, *_NO_IMAGES[kind]) if kind in _NO_IMAGES else None


def _near_refusal(path: Path, kind: Kind, near: NearName, name: str) -> Refusal:
    """Refuse a file whose name or place is nearly right, and propose another name."""
    problems = []
    folder = path.parent.name
    there = "" if folder in SCAN_FOLDERS else "anat/"
    if there:
        own = folder.startswith(("sub-", "ses-"))
        place = "outside the folder anat" if own else f"in {printable(folder)}"
        problems.append(f"it lies {place}/, where cmbprep does not look for scans")
    if not is_utf8(path.name):
        problems.append("its name is not UTF-8")
    problems += near.deviations
    if kind == "folder":
        problems.append("it is a folder")
    if near.foreign or kind == "folder":
        hint = f"convert the image to NIfTI, with the name {there}{name}"
    else:
        verb = "move" if there else "rename"
        hint = f"{verb} it to {there}{name}, and its sidecar likewise"
    if name != near.name:
        hint += f", as {near.name} is taken; or remove it if it is the same image"
    return _refusal(path, "; ".join(problems), hint)


def _names_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


def _has_twin(name: str, names: set[str]) -> bool:
    """Return whether this is the header file of an image in two files."""
    stem, dot, extension = name.rpartition(".")
    return extension.lower() == "hdr" and any(f"{stem}{dot}{e}" in names for e in ("img", "IMG"))


def _is_there(name: str, taken: set[str]) -> bool:
    stem = name.removesuffix(".gz").removesuffix(".nii")
    return any(f"{stem}{extension}" in taken for extension in IMAGE_EXTENSIONS)
