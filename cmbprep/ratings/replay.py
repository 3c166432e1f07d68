"""From the acts of a reader to what holds: verdicts, lesions, regions, notes.

Undo and redo are acts like others, so that the log keeps what was taken back. The acts that
still hold (:func:`standing_acts`) are applied one after the other to a state in which every
listed lesion is undecided.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from cmbprep.ratings.acts import (
    MAX_NUMBER,
    Act,
    Add,
    Comment,
    Finish,
    Merge,
    Move,
    Payload,
    Redo,
    Reopen,
    ScanNote,
    Split,
    Undo,
    Verdict,
    Zone,
)
from cmbprep.ratings.outline import Outline

#: Verdicts that make an item a lesion of the reviewed result.
POSITIVE = ("definite", "possible")
#: From the strongest verdict to the weakest: a merged lesion has the strongest of its parts.
STRENGTH = ("definite", "possible", "undecided", "later", "rejected", None)


class RefusedActError(ValueError):
    """The act is well formed, but does not fit what holds."""


class OpenLesionsError(RefusedActError):
    """The reading cannot be finished: lesions are undecided or left for later."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = list(keys)
        super().__init__(
            f"these lesions are still undecided or left for later: {', '.join(self.keys)}"
        )


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What the acts on a scan may refer to.

    Attributes
    ----------
    listed, candidates
        Keys of the automatic lesions, and of the candidates below the threshold.
    regions
        Names of the regions of the rating scheme.
    """

    listed: Sequence[str]
    candidates: Collection[str] = ()
    regions: Collection[str] = ()


@dataclass(frozen=True, kw_only=True)
class Item:
    """A lesion or candidate as the reader sees it.

    Attributes
    ----------
    key
        ``L3``, ``C12``, ``N1``.
    verdict
        None for a candidate that was not looked at.
    reason
        Of a rejection.
    region
        As the reader has corrected it; None where the automatic one holds.
    comment
        Text of the reader.
    outline
        Where the reader's lesion lies; None where the automatic one holds.
    deleted_by
        Key of a lesion that replaces it, after a merge or a split.
    reviewed_at
        Time of the last act on it.
    """

    key: str
    verdict: str | None
    reason: str | None = None
    region: str | None = None
    comment: str = ""
    outline: Outline | None = None
    deleted_by: str | None = None
    reviewed_at: str | None = None

    @property
    def kind(self) -> str:
        """``listed``, ``candidate`` or ``added``."""
        return {"L": "listed", "C": "candidate", "N": "added"}[self.key[0]]

    @property
    def positive(self) -> bool:
        """Whether it is a lesion of the reviewed result."""
        return self.deleted_by is None and self.verdict in POSITIVE

    @property
    def open(self) -> bool:
        """Whether the reader has still to decide on it."""
        return self.deleted_by is None and self.verdict in ("undecided", "later")


@dataclass
class State:
    """What holds after some acts.

    Attributes
    ----------
    items
        By key: listed lesions, then what the reader has touched or made.
    finished
        Whether the whole scan was read.
    scan
        Notes on the scan as a whole.
    comment
        Comment on the scan.
    undo_depth, redo_depth
        Number of acts that can be taken back, and that can hold again.
    acts
        Number of acts in the log, undo and redo included.
    """

    items: dict[str, Item]
    finished: bool = False
    finished_at: str | None = None
    scan: ScanNote = field(default_factory=ScanNote)
    comment: str = ""
    undo_depth: int = 0
    redo_depth: int = 0
    acts: int = 0

    @property
    def open_items(self) -> list[str]:
        """Keys of the items that are still undecided or left for later."""
        return [key for key, item in self.items.items() if item.open]

    @property
    def positive(self) -> list[Item]:
        """Lesions of the reviewed result."""
        return [item for item in self.items.values() if item.positive]


def standing_acts(acts: Iterable[Act]) -> tuple[list[Act], list[Act]]:
    """Return the acts that hold, and those that were taken back and can hold again."""
    done: list[Act] = []
    undone: list[Act] = []
    for act in acts:
        if isinstance(act.payload, Undo):
            if done:
                undone.append(done.pop())
        elif isinstance(act.payload, Redo):
            if undone:
                done.append(undone.pop())
        else:
            done.append(act)
            undone.clear()
    return done, undone


def replay(acts: Sequence[Act], listed: Iterable[str]) -> State:
    """Compute what holds after the acts of one reader on one scan.

    An act that does not fit, as in a log changed by hand, changes nothing.

    Parameters
    ----------
    acts
        In the order of the log.
    listed
        Keys of the automatic lesions.
    """
    done, undone = standing_acts(acts)
    state = State({key: Item(key=key, verdict="undecided") for key in listed})
    for act in done:
        _apply(state, act)
    state.undo_depth, state.redo_depth, state.acts = len(done), len(undone), len(acts)
    return state


def check(state: State, payload: Payload, scope: Scope) -> None:
    """Check whether an act fits what holds.

    Raises
    ------
    RefusedActError
        If it does not; the message is for the reader.
    """
    match payload:
        case Undo() if not state.undo_depth:
            raise RefusedActError("there is nothing to undo")
        case Redo() if not state.redo_depth:
            raise RefusedActError("there is nothing to redo")
        case Finish() if state.open_items:
            raise OpenLesionsError(state.open_items)
        case Reopen() if not state.finished:
            raise RefusedActError("the reading was not finished")
        case Zone() if payload.region not in scope.regions:
            raise RefusedActError(f"the scheme has no region {payload.region[:60]!r}")
    for key in _named(payload):
        item = state.items.get(key)
        if item is None and key not in scope.candidates:
            raise RefusedActError(f"there is no lesion {key}")
        if item is not None and item.deleted_by is not None:
            raise RefusedActError(f"the lesion {key} was replaced by {item.deleted_by}")


def number_new(acts: Iterable[Act], payload: Payload) -> Payload:
    """Number the lesions that an act makes, or check the numbers that it brings.

    A number is used once in a log, also where the act was taken back.

    Raises
    ------
    RefusedActError
        If a number was used before.
    """
    used = {key for act in acts for key in _made(act.payload)}
    free = (key for key in _numbers(used) if key not in used)
    match payload:
        case Add(lesion=None) | Merge(lesion=None):
            return replace(payload, lesion=next(free))
        case Split(lesions=None):
            return replace(payload, lesions=tuple(islice(free, len(payload.centres))))
    if again := used.intersection(_made(payload)):
        raise RefusedActError(f"the key {min(again)} was used before")
    return payload


def without_numbers(payload: Payload) -> Payload:
    """Return an act without the numbers that it brings for the lesions that it makes."""
    match payload:
        case Add() | Merge():
            return replace(payload, lesion=None)
        case Split():
            return replace(payload, lesions=None)
    return payload


def _numbers(used: Collection[str]) -> Iterator[str]:
    """Return keys of new lesions: first those after the used ones, then those between them."""
    last = max((int(key[1:]) for key in used), default=0)
    return (f"N{number}" for number in chain(range(last + 1, MAX_NUMBER + 1), range(1, last)))


def _named(payload: Payload) -> tuple[str, ...]:
    """Return the keys of the lesions that must be there for an act."""
    match payload:
        case Verdict() | Move() | Zone() | Split():
            return (payload.lesion,)
        case Comment(lesion=str(key)):
            return (key,)
        case Merge():
            return payload.lesions
    return ()


def _made(payload: Payload) -> tuple[str, ...]:
    """Return the keys of the lesions that an act makes."""
    match payload:
        case Add(lesion=str(key)) | Merge(lesion=str(key)):
            return (key,)
        case Split(lesions=tuple(keys)):
            return keys
    return ()


def _apply(state: State, act: Act) -> None:
    payload = act.payload
    if any(_is_gone(state, key) for key in _named(payload)):
        return
    if isinstance(payload, Finish):
        state.finished, state.finished_at = True, act.time
        return
    state.finished, state.finished_at = False, None
    match payload:
        case Comment(lesion=None):
            state.comment = payload.text
        case ScanNote():
            state.scan = payload
        case _:
            _apply_to_lesions(state, act)


def _apply_to_lesions(state: State, act: Act) -> None:
    match payload := act.payload:
        case Verdict():
            _change(state, act, payload.lesion, verdict=payload.verdict, reason=payload.reason)
        case Move():
            _change(state, act, payload.lesion, region=None)
        case Zone():
            _change(state, act, payload.lesion, region=payload.region)
        case Comment(lesion=str(key)):
            _change(state, act, key, comment=payload.text)
        case Add(lesion=str(key)):
            _make(state, act, key, verdict=payload.verdict)
        case Merge(lesion=str(key)):
            parts = [_item(state, part) for part in payload.lesions]
            verdict = min((part.verdict for part in parts), key=STRENGTH.index)
            comment = "; ".join(dict.fromkeys(part.comment for part in parts if part.comment))
            for part in payload.lesions:
                _change(state, act, part, deleted_by=key)
            values = {"region": parts[0].region, "comment": comment}
            _make(state, act, key, verdict=verdict or "undecided", **values)
        case Split(lesions=tuple(keys)):
            whole = _item(state, payload.lesion)
            _change(state, act, payload.lesion, deleted_by=keys[0])
            verdict = whole.verdict or "undecided"
            values = {name: getattr(whole, name) for name in ("reason", "region", "comment")}
            for key in keys:
                _make(state, act, key, verdict=verdict, **values)


def _is_gone(state: State, key: str) -> bool:
    """Return whether a lesion was replaced, or never made."""
    item = state.items.get(key)
    return key[0] == "N" if item is None else item.deleted_by is not None


def _item(state: State, key: str) -> Item:
    """Return an item; a candidate gets one when it is first looked at."""
    return state.items.get(key, Item(key=key, verdict=None))


def _change(state: State, act: Act, key: str, **values: object) -> None:
    item = _item(state, key)
    if key in act.outlines:
        values["outline"] = act.outlines[key]
    state.items[key] = replace(item, reviewed_at=act.time, **values)  # type: ignore[arg-type]


def _make(state: State, act: Act, key: str, **values: object) -> None:
    state.items[key] = Item(key=key, verdict=None)
    _change(state, act, key, **values)
