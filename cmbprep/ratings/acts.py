"""Acts of a reader: value objects that check themselves, and their JSON.

A review is a sequence of acts: a verdict on a lesion, a lesion added, moved, merged, split, a
region corrected, a comment, notes on the whole scan, the end of the reading, and undo and redo.
Nothing of a review is ever overwritten; :mod:`cmbprep.ratings.replay` computes from the acts what
holds.

An act names a lesion by its key: ``L3`` is lesion 3 of the automatic table, ``C12`` is row 12 of
the table of candidates, ``N1`` is the first lesion that the reader made.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, get_args

from cmbprep import __version__
from cmbprep.files.json_text import MAX_DEPTH, count_levels, json_safe, parse_json, valid_text
from cmbprep.ratings.outline import Outline

VERDICTS = ("definite", "possible", "rejected", "undecided", "later")
#: Why a lesion is rejected; ``sulcus`` stands for every sulcal or other flow void.
REASONS = ("vein", "calcification", "sulcus", "artefact", "other")
SCAN_QUALITIES = ("good", "usable", "unusable")
#: Longest comment or note, and longest finding, in characters.
MAX_TEXT = 4000
MAX_FINDING = 100
#: Most findings of a scan, and most lesions that one act names.
MAX_ITEMS = 50
#: Largest coordinate in mm: beyond it there is no head.
MAX_MM = 10_000.0

#: Largest number in a key.
MAX_NUMBER = 999_999

_KEY = re.compile(r"[LCN][1-9][0-9]{0,5}")
_NEW_KEY = re.compile(r"N[1-9][0-9]{0,5}")
Point = tuple[float, float, float]


def _check_key(value: object, *, new: bool = False) -> None:
    pattern = _NEW_KEY if new else _KEY
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{_short(value)} is not the key of a {'new ' if new else ''}lesion")


def _check_choice(value: object, allowed: Sequence[str], what: str) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{what} {_short(value)} is none of {', '.join(allowed)}")


def _check_text(value: object, what: str, limit: int = MAX_TEXT) -> None:
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError(f"{what} must be a text of at most {limit} characters")
    if valid_text(value) != value:
        raise ValueError(f"{what} holds a character that no file can hold")


def _clean_text(value: object) -> object:
    """Return what a reader wrote, as the log will hold it."""
    return valid_text(value) if isinstance(value, str) else value


def _point(value: object) -> Point:
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) != 3 or not all(
        isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= MAX_MM for n in numbers
    ):
        raise ValueError(f"{_short(value)} is not a position (x, y, z in mm)")
    x, y, z = (float(n) for n in numbers)
    return x, y, z


def _short(value: object) -> str:
    return repr(value)[:60]


def _set(payload: object, **values: object) -> None:
    """Set fields of a frozen object while it is made."""
    for name, value in values.items():
        object.__setattr__(payload, name, value)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Judge a lesion or candidate; a rejection may have a reason."""

    type: ClassVar[str] = "verdict"
    lesion: str
    verdict: str
    reason: str | None = None

    def __post_init__(self) -> None:
        _check_key(self.lesion)
        _check_choice(self.verdict, VERDICTS, "verdict")
        if self.reason is not None:
            _check_choice(self.reason, REASONS, "reason")
            if self.verdict != "rejected":
                raise ValueError("only a rejection has a reason")


@dataclass(frozen=True, kw_only=True)
class Add:
    """Add a lesion that the detector missed, at a position in mm (RAS+)."""

    type: ClassVar[str] = "add"
    centre_ras: Point
    verdict: str = "definite"
    lesion: str | None = None

    def __post_init__(self) -> None:
        _set(self, centre_ras=_point(self.centre_ras))
        _check_choice(self.verdict, VERDICTS, "verdict")
        if self.lesion is not None:
            _check_key(self.lesion, new=True)


@dataclass(frozen=True, kw_only=True)
class Move:
    """Move a lesion to another position in mm (RAS+), where it is segmented again."""

    type: ClassVar[str] = "move"
    lesion: str
    centre_ras: Point

    def __post_init__(self) -> None:
        _check_key(self.lesion)
        _set(self, centre_ras=_point(self.centre_ras))


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Make one lesion of several."""

    type: ClassVar[str] = "merge"
    lesions: tuple[str, ...]
    lesion: str | None = None

    def __post_init__(self) -> None:
        _set(self, lesions=_keys(self.lesions))
        if self.lesion is not None:
            _check_key(self.lesion, new=True)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Divide a lesion among several positions in mm (RAS+)."""

    type: ClassVar[str] = "split"
    lesion: str
    centres: tuple[Point, ...]
    lesions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_key(self.lesion)
        points = self.centres if isinstance(self.centres, list | tuple) else ()
        if not 2 <= len(points) <= MAX_ITEMS:
            raise ValueError(f"a lesion is split at 2 to {MAX_ITEMS} positions")
        _set(self, centres=tuple(_point(point) for point in points))
        if self.lesions is not None:
            _set(self, lesions=_keys(self.lesions, new=True))
            if len(self.lesions or ()) != len(points):
                raise ValueError("a split names one new lesion for each position")


@dataclass(frozen=True, kw_only=True)
class Zone:
    """Correct the region of a lesion; the zone follows from the region."""

    type: ClassVar[str] = "zone"
    lesion: str
    region: str

    def __post_init__(self) -> None:
        _check_key(self.lesion)
        _check_text(self.region, "the region", MAX_FINDING)


@dataclass(frozen=True, kw_only=True)
class Comment:
    """Comment on a lesion, or on the scan where ``lesion`` is None."""

    type: ClassVar[str] = "comment"
    lesion: str | None = None
    text: str

    def __post_init__(self) -> None:
        if self.lesion is not None:
            _check_key(self.lesion)
        _set(self, text=_clean_text(self.text))
        _check_text(self.text, "a comment")


@dataclass(frozen=True, kw_only=True)
class ScanNote:
    """Note what was seen on the scan as a whole."""

    type: ClassVar[str] = "scan"
    siderosis: bool | None = None
    quality: str | None = None
    findings: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.siderosis not in (None, True, False):
            raise ValueError("siderosis is true, false or null")
        if self.quality is not None:
            _check_choice(self.quality, SCAN_QUALITIES, "quality")
        found = self.findings if isinstance(self.findings, list | tuple) else None
        if found is None or len(found) > MAX_ITEMS:
            raise ValueError(f"findings must be a list of at most {MAX_ITEMS} texts")
        _set(self, findings=tuple(map(_clean_text, found)), note=_clean_text(self.note))
        for text in self.findings:
            _check_text(text, "a finding", MAX_FINDING)
        _check_text(self.note, "the note")


@dataclass(frozen=True, kw_only=True)
class Finish:
    """State that the whole scan was read and nothing is to be added."""

    type: ClassVar[str] = "finish"


@dataclass(frozen=True, kw_only=True)
class Reopen:
    """Take the end of the reading back."""

    type: ClassVar[str] = "reopen"


@dataclass(frozen=True, kw_only=True)
class Undo:
    """Take the last act back that still holds."""

    type: ClassVar[str] = "undo"


@dataclass(frozen=True, kw_only=True)
class Redo:
    """Let the act hold again that was taken back last."""

    type: ClassVar[str] = "redo"


Payload = (
    Verdict | Add | Move | Merge | Split | Zone | Comment | ScanNote | Finish | Reopen | Undo | Redo
)
#: ``type`` in the JSON of an act -> its class.
PAYLOADS: Mapping[str, type[Payload]] = {kind.type: kind for kind in get_args(Payload)}


def _keys(value: object, *, new: bool = False) -> tuple[str, ...]:
    keys = value if isinstance(value, list | tuple) else ()
    if not 2 <= len(keys) <= MAX_ITEMS:
        raise ValueError(f"the act needs the keys of 2 to {MAX_ITEMS} lesions")
    for key in keys:
        _check_key(key, new=new)
    if len(set(keys)) < len(keys):
        raise ValueError("the act names a lesion twice")
    return tuple(keys)


@dataclass(frozen=True, kw_only=True)
class BasedOn:
    """The automatic result that a review looks at.

    Attributes
    ----------
    fingerprint
        Of the stage ``lesions``.
    digest
        SHA-256 of the lesion table, the label image and the table of candidates. Where only the
        fingerprint differs, another version or other parameters have found the same lesions.
    """

    fingerprint: str
    digest: str

    def __post_init__(self) -> None:
        for value in (self.fingerprint, self.digest):
            _check_text(value, "a fingerprint", 128)


@dataclass(frozen=True, kw_only=True)
class Act:
    """One line of a log: what was done, by whom, when, and on which result.

    Attributes
    ----------
    payload
        What was done.
    outlines
        Key of a lesion -> its voxels and place, for the lesions that this act has segmented.
    id, time
        UUID, and UTC in ISO 8601.
    reader, round, software, scan
        Name of the reader, number of the round, version of cmbprep, name of the scan.
    based_on
        The automatic result.
    """

    payload: Payload
    reader: str
    round: int
    scan: str
    based_on: BasedOn
    outlines: Mapping[str, Outline] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    software: str = __version__

    def __post_init__(self) -> None:
        for name in ("id", "time", "reader", "software", "scan"):
            _check_text(getattr(self, name), name, 300)
        datetime.fromisoformat(self.time)
        if isinstance(self.round, bool) or not isinstance(self.round, int) or self.round < 1:
            raise ValueError("the round is a whole number from 1")


def parse_payload(content: Mapping[str, Any], *, also: Sequence[str] = ()) -> Payload:
    """Parse the JSON of what a reader does.

    Parameters
    ----------
    content
        ``type`` and the fields of that type.
    also
        Keys that may be there too and are left to the caller.

    Raises
    ------
    ValueError
        If a field is missing, unknown or has a wrong value.
    """
    kind = content.get("type")
    if not isinstance(kind, str) or kind not in PAYLOADS:
        raise ValueError(f"{_short(kind)} is not a type of act")
    cls = PAYLOADS[kind]
    names = {item.name: item.default is NO_DEFAULT for item in fields(cls)}
    unknown = [key for key in content if key not in names and key not in ("type", *also)]
    if unknown:
        raise ValueError(f"an act of the type {kind} has no field {_short(unknown[0])}")
    missing = [name for name, needed in names.items() if needed and name not in content]
    if missing:
        raise ValueError(f"an act of the type {kind} needs the field {missing[0]!r}")
    return cls(**{key: content[key] for key in names if key in content})


#: Keys of the JSON of an act besides what was done.
ENVELOPE = ("id", "time", "reader", "round", "software", "scan")


def format_act(act: Act) -> str:
    """Return the JSON of an act, one line without a line break at the end."""
    content: dict[str, Any] = {name: getattr(act, name) for name in ENVELOPE}
    content["based_on"] = asdict(act.based_on)
    content["type"] = act.payload.type
    content.update(asdict(act.payload))
    if act.outlines:
        content["outlines"] = {key: outline.to_json() for key, outline in act.outlines.items()}
    clean, _ = json_safe(content)
    return json.dumps(clean, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def parse_act(text: str) -> Act:
    """Parse one line of a log.

    Raises
    ------
    ValueError
        If it is not the JSON of an act.
    """
    content, _ = parse_json(text, [])
    if not isinstance(content, dict) or count_levels(content) > MAX_DEPTH:
        raise ValueError("the line is not a JSON object")
    also = (*ENVELOPE, "based_on", "outlines")
    payload = parse_payload(content, also=also)
    based_on, outlines = content.get("based_on"), content.get("outlines", {})
    if not isinstance(based_on, dict) or not isinstance(outlines, dict):
        raise ValueError("the act does not name the result that it is based on")
    try:
        return Act(
            payload=payload,
            based_on=BasedOn(**based_on),
            outlines={key: Outline.from_json(value) for key, value in outlines.items()},
            **{name: content[name] for name in ENVELOPE},
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"the act is not whole ({error})") from error
