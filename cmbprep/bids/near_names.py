"""Names that are nearly right, and the nearest name that BIDS and cmbprep accept.

Scanners' converters and people write names that differ from BIDS in capitals, in the ending,
in the format or in the folder. A file that was meant as a blood-sensitive scan must not be
passed over without a word, so its name is compared with what a valid name would be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from cmbprep.bids.model import ENTITY_ORDER, IMAGE_EXTENSIONS, SEQUENCES, parse_name

#: What is written in the place of a suffix, in small letters and without punctuation -> the
#: suffix that is meant. ``*`` counts as a letter.
_MEANT = {
    **dict.fromkeys(
        (
            *("t2star", "t2starw", "t2starweighted", "t2starwi", "t2stargre", "gret2star"),
            *("t2*", "t2*w", "t2*weighted", "t2*wi", "t2*gre", "t2s", "t2sw", "t2sweighted"),
            *("gre", "gret2*", "t2gre", "gret2"),
        ),
        "T2starw",
    ),
    **dict.fromkeys(("megre", "mgre", "multiechogre", "multigre"), "MEGRE"),
    **dict.fromkeys(("swi", "swan", "swip", "swiw", "susceptibilityweighted"), "swi"),
    **dict.fromkeys(("t1w", "t1", "t1weighted", "t1wi", "mprage", "t1mprage"), "T1w"),
}

#: In these folders only the standard's own suffixes count: other names mean other things there.
_OWN_NAMES = frozenset({"t2starw", "megre", "swi", "t1w"})

#: A quick look that leaves nearly all names of a dataset out.
_WORTH_A_LOOK = re.compile(r"(?i)t2[^a-z0-9]?s|t2[^a-z]?\*|gre|swi|swan|t1|mprage|suscept")

#: Extensions that images of the head have, in small letters, the longest first.
_EXTENSIONS = (
    *(".nii.gz", ".nii", ".img.gz", ".hdr.gz", ".img", ".hdr", ".mgz", ".mgh", ".nrrd", ".nhdr"),
    *(".mha", ".mhd", ".mif.gz", ".mif", ".mnc", ".dcm", ".ima", ".par", ".nii.zip", ".nii.bz2"),
    *(".nii.xz", ".nii.zst", ".niigz", ".gz"),
)

_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
#: Entities whose order does not matter here, besides those that tell scans apart.
_FILE_ENTITIES = ("echo", "flip", "inv", "mt", "part")
_NAME_ORDER = (*ENTITY_ORDER[:-1], *_FILE_ENTITIES, ENTITY_ORDER[-1])
_KNOWN = frozenset(_NAME_ORDER)

_DUPLICATE = re.compile(r"_*_dup-?\d+$", re.IGNORECASE)
_COPY = re.compile(r"(?: ?\(\d+\)| ?- ?[Cc]opy|[ _.-][Cc]opy ?\d*|\s+)+$")
_HEUDICONV = re.compile(r"heudiconv\d*[a-z]*", re.IGNORECASE)
_ECHO_ENDING = re.compile(r"e(\d+)[a-z]?")
_PARTS = {
    **dict.fromkeys(("mag", "magnitude"), "mag"),
    **dict.fromkeys(("ph", "pha", "phase"), "phase"),
    **dict.fromkeys(("imag", "imaginary"), "imag"),
    "real": "real",
}
#: What is made from a scan, or another kind of image; such a file is not meant as a scan.
_DERIVED = re.compile(
    r"(?i)(brain)?(mask|seg|dseg|probseg|rois?|labels?|lesions?|cmb|xfm|events|map|minip|mip|mnip"
    r"|bold|sbref|flair|t2w|pdw|pdt2|inplanet[12]|unit1|angio|dwi|epi|defacemask)\d*"
)


@dataclass(frozen=True)
class NearName:
    """A name that is nearly right.

    Parameters
    ----------
    suffix
        The suffix that is meant, ``T2starw`` for instance; ``T1w`` for an anatomy.
    name
        The nearest valid name.
    deviations
        What is wrong with the name, in phrases.
    trailing
        Whether unknown words follow the suffix; the file may be a companion of the scan.
    foreign
        Whether the file is in another format than NIfTI.
    """

    suffix: str
    name: str
    deviations: tuple[str, ...]
    trailing: bool = False
    foreign: bool = False


@dataclass
class _Reading:
    """What is gathered from the parts of one name."""

    entities: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    suffix: str = ""
    deviations: list[str] = field(default_factory=list)
    trailing: bool = False
    foreign: bool = False
    derived: bool = False

    def note(self, text: str) -> None:
        if text not in self.deviations:
            self.deviations.append(text)


def printable(path: str | PurePath) -> str:
    r"""Write a path so that any terminal and file can hold it.

    Examples
    --------
    >>> printable("sub-01_acq-\udcff_T2starw.nii.gz")
    'sub-01_acq-\\xff_T2starw.nii.gz'
    >>> printable("sub-01_é x_swi.nii")
    'sub-01_é x_swi.nii'
    """
    text = os.fspath(path)
    if text.isascii() and text.isprintable():
        return text
    text = os.fsencode(text).decode("utf-8", errors="backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def similar_folder(name: str, prefix: str) -> str | None:
    """Return the valid name of a folder that was meant as ``sub-<label>`` or ``ses-<label>``.

    Examples
    --------
    >>> similar_folder("Sub-01", "sub-"), similar_folder("ses_2", "ses-")
    ('sub-01', 'ses-2')
    >>> similar_folder("sub-01", "sub-"), similar_folder("sessions", "ses-")
    (None, None)
    """
    match = re.fullmatch(rf"(?i:({prefix[:-1]}))([-_ ]?)([a-zA-Z0-9+]+)", name)
    if match is None or name.startswith(prefix):
        return None
    if not match.group(2) and not match.group(3).isdigit():
        return None  # "subjects", "session", "session1"
    return prefix + match.group(3)


def nearest_name(
    filename: str, *, subject: str, session: str | None, own_names_only: bool = False
) -> NearName | None:
    """Return what is wrong with the name of an image, and the nearest valid name.

    Parameters
    ----------
    filename
        Name of the file, without its folder.
    subject, session
        Labels of the folders that it lies in.
    own_names_only
        Whether to look only for suffixes of BIDS itself, in any capitals, as in folders of
        other kinds of image.

    Returns
    -------
    NearName or None
        None for names of other images. A name without deviations is valid.

    Examples
    --------
    >>> near = nearest_name("sub-01_T2Starw.NII.GZ", subject="01", session=None)
    >>> near.name, near.deviations
    ('sub-01_T2starw.nii.gz', ('.NII.GZ should be .nii.gz', 'T2Starw should be T2starw'))
    >>> nearest_name("sub-01_MEGRE_e2_ph.nii.gz", subject="01", session=None).name
    'sub-01_echo-2_part-phase_MEGRE.nii.gz'
    >>> nearest_name("sub-01_FLAIR.nii.gz", subject="01", session=None) is None
    True
    """
    if filename.startswith(".") or not _WORTH_A_LOOK.search(filename):
        return None
    reading = _Reading()
    taken = _take_extension(filename, reading)
    if taken is None:
        return None
    stem, extension = taken
    parts = [part for part in _take_endings(stem, reading).split("_") if part]
    place = _find_suffix(parts, own_names_only=own_names_only)
    if place is None and not own_names_only:
        place = _without_suffix(parts, reading)
    if place is None:
        return None
    first, end = place
    written = "_".join(parts[first:end])
    if written:
        reading.suffix = _meant_by(written) or ""
        if written != reading.suffix:
            reading.note(f"{printable(written)} should be {reading.suffix}")
    for part in parts[:first]:
        _read_part(part, reading, subject=subject)
    for part in parts[end:]:
        _read_ending(part, reading)
    if reading.derived:
        return None
    _complete(reading, subject, session)
    return NearName(
        reading.suffix,
        _write(reading, extension),
        tuple(reading.deviations),
        trailing=reading.trailing,
        foreign=reading.foreign,
    )


def free_name(name: str, taken: Collection[str]) -> str:
    """Return a name, with the first run number that makes it differ from those taken."""
    if name not in taken:
        return name
    parsed = parse_name(name)
    run = parsed.entities.get("run", "1")
    for number in range(int(run) + 1 if run.isdigit() else 2, 1000):
        entities = {**parsed.entities, "run": str(number)}
        other = _join(entities, parsed.suffix, parsed.extension)
        if other not in taken:
            return other
    return name


def _take_extension(filename: str, reading: _Reading) -> tuple[str, str] | None:
    """Return the stem and the extension that the file should have; None for other files."""
    lower = filename.lower()
    written = next((ending for ending in _EXTENSIONS if lower.endswith(ending)), "")
    stem = filename[: len(filename) - len(written)]
    if not written:
        # A name that ends with its suffix, without any extension.
        if "." in filename.rpartition("_")[2]:
            return None
        reading.note("the extension .nii.gz or .nii is missing")
        return stem, ".nii.gz"
    actual = filename[len(stem) :]
    if actual in IMAGE_EXTENSIONS:
        return stem, actual
    if written in (*IMAGE_EXTENSIONS, ".niigz", ".gz"):
        right = written if written in IMAGE_EXTENSIONS else ".nii.gz"
        reading.note(f"{actual} should be {right}")
        return stem, right
    reading.note(f"{actual} is not a format that cmbprep reads")
    reading.foreign = True
    return stem, ".nii.gz"


def _take_endings(stem: str, reading: _Reading) -> str:
    """Remove what programs put at the very end of a name."""
    if match := _COPY.search(stem):
        reading.note(f"it ends in {match.group()!r}")
        stem = stem[: match.start()]
    if match := _DUPLICATE.search(stem):
        reading.note(f"the ending {match.group()} is heudiconv's mark of a repeated series")
        stem = stem[: match.start()]
    if re.search(r" (?=[^_]*$)", stem):
        reading.note("a space stands in the place of an underscore")
    return re.sub(r" +", "_", stem)


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9*]", "", text.lower())


def _meant_by(text: str) -> str | None:
    if text in SEQUENCES:
        return text
    bare = _bare(text)
    if bare in _MEANT:
        return _MEANT[bare]
    numbered = re.fullmatch(r"(.+?[a-z*])\d+", bare)
    return _MEANT.get(numbered.group(1)) if numbered else None


def _find_suffix(parts: list[str], *, own_names_only: bool) -> tuple[int, int] | None:
    """Return where the last suffix starts and ends; None if there is none."""
    for last in range(len(parts) - 1, -1, -1):
        if _ENTITY.fullmatch(parts[last]) and _meant_by(parts[last]) is None:
            continue
        for first in (last - 1, last):
            if first < 0 or (first < last and _ENTITY.fullmatch(parts[first])):
                continue
            text = "_".join(parts[first : last + 1])
            if first < last and (_bare(text) not in _MEANT or parts[last] in SEQUENCES):
                continue
            own = text in SEQUENCES or text.lower() in _OWN_NAMES
            if _meant_by(text) is None or (own_names_only and not own):
                continue
            return first, last + 1
    return None


def _without_suffix(parts: list[str], reading: _Reading) -> tuple[int, int] | None:
    """Read a name that ends with an entity which says what the image is, as ``_acq-swi``."""
    match = _ENTITY.fullmatch(parts[-1]) if parts else None
    if match is None or match.group(1) not in ("acq", "rec", "mod"):
        return None
    meant = _meant_by(match.group(2))
    if meant is None or meant == "T1w":
        return None
    reading.suffix = meant
    reading.note(f"the suffix {meant} is missing")
    return len(parts), len(parts)


def _read_part(part: str, reading: _Reading, *, subject: str) -> None:
    """Read a part of a name in front of the suffix."""
    match = _ENTITY.fullmatch(part)
    if match is None:
        if part.lower() in {subject.lower(), f"sub{subject}".lower(), "sub"}:
            return  # a label without sub-, which is put in its place
        reading.extra.append(part)
        return
    key, value = match.groups()
    if key.lower() in _KNOWN and key != key.lower():
        reading.note(f"{part} should be {key.lower()}-{value}")
        key = key.lower()
    if key in reading.entities:
        reading.extra.append(part)
    else:
        reading.entities[key] = value


def _read_ending(part: str, reading: _Reading) -> None:
    """Read a part of a name after the suffix, where BIDS allows none."""
    if match := _ENTITY.fullmatch(part):
        key, value = match.group(1).lower(), match.group(2)
        if key == "dup":
            reading.note(f"{part} is heudiconv's mark of a repeated series")
            return
        reading.derived = reading.derived or key == "desc"
        reading.note(f"{part} should stand before the suffix")
        reading.entities.setdefault(key, value)
    elif match := _ECHO_ENDING.fullmatch(part):
        reading.note(f"the ending _{part} is dcm2niix's number of an echo")
        reading.entities.setdefault("echo", match.group(1))
    elif meant := _PARTS.get(part.lower()):
        reading.note(f"the ending _{part} should be part-{meant} before the suffix")
        reading.entities.setdefault("part", meant)
    elif _HEUDICONV.fullmatch(part):
        reading.note(f"the ending _{part} is left over from heudiconv")
    elif _DERIVED.fullmatch(part):
        reading.derived = True
    else:
        reading.note(f"nothing may stand after the suffix, as _{printable(part)} does")
        reading.trailing = True


def _complete(reading: _Reading, subject: str, session: str | None) -> None:
    """Put the labels of the folders in, where the name lacks them."""
    for key, label in (("sub", subject), ("ses", session)):
        if label is not None and key not in reading.entities:
            reading.note(f"{key}-{label} is missing")
        elif reading.deviations and reading.entities.get(key) != label:
            reading.note(f"{key}-{reading.entities[key]} is not the label of its folder")
        if label is None:
            reading.entities.pop(key, None)
        else:
            reading.entities[key] = label


def _write(reading: _Reading, extension: str) -> str:
    entities = dict(reading.entities)
    # Parts that BIDS does not know are kept as a label, so that no two names become one.
    labels = [re.sub(r"[^a-zA-Z0-9+]", "", re.sub(r"^[a-z]+-", "", part)) for part in reading.extra]
    if joined := "".join(label for label in labels if label):
        entities["acq"] = entities.get("acq", "") + joined
    return _join(entities, reading.suffix, extension)


def _join(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Write a name with its entities in the order of BIDS, unknown ones last."""
    order = [key for key in _NAME_ORDER if key in entities]
    order += [key for key in entities if key not in _KNOWN]
    return "_".join([*(f"{key}-{entities[key]}" for key in order), suffix]) + extension
