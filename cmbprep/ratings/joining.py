"""Which lesions of several readers of a scan are the same one.

A lesion is known by the automatic lesions and candidates that it consists of: itself, the parts of
a merged lesion, the whole of a split one. Lesions of different readers that have one in common are
one place, on which the readers may still disagree: one has merged two lesions that another calls
two. The place then holds the lesions of the arrangement that most of its readers have, in a tie of
the reader who stands first, and every reader with a lesion there has each lesion that shares a part
with his own. What a reader has added, or moved to another place, is matched to the lesions of the
others by distance (:func:`cmbprep.ratings.matching.assign`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmbprep.ratings.acts import Act, Merge, Point, Split
from cmbprep.ratings.matching import assign, centre_distances
from cmbprep.ratings.replay import STRENGTH, standing_acts
from cmbprep.ratings.reviewed import ReviewedLesion

#: Centres of one lesion, as two readers have marked it, lie within this distance, mm.
MATCH_MM = 5.0


@dataclass(frozen=True, eq=False)
class Seen:
    """A definite or possible lesion of one reader.

    Attributes
    ----------
    row
        Of the reader's table.
    parts
        Keys of the automatic lesions and candidates that it consists of; empty if it was added
        or moved to another place.
    """

    row: ReviewedLesion
    parts: frozenset[str]


@dataclass(frozen=True, eq=False, kw_only=True)
class Match:
    """One lesion as several readers have seen it.

    Attributes
    ----------
    first
        Position of the reader whose lesion stands for all.
    parts
        What this lesion consists of.
    rows
        Position of a reader -> row of the reader's table, for readers to whom it is a lesion.
    disputed
        Whether these readers disagree on how many lesions there are at this place.
    """

    first: int
    parts: frozenset[str]
    rows: dict[int, ReviewedLesion]
    disputed: bool = False

    @property
    def centre(self) -> np.ndarray:
        """Mean of the readers' centres, mm, RAS+."""
        return np.mean([row.lesion.centre for row in self.rows.values()], axis=0)


def parts_of(acts: Sequence[Act]) -> dict[str, frozenset[str]]:
    """Return what each lesion that a reader has merged or split consists of, by its key."""
    found: dict[str, frozenset[str]] = {}

    def of(key: str) -> frozenset[str]:
        return found.get(key, frozenset() if key[0] == "N" else frozenset({key}))

    for act in standing_acts(acts)[0]:
        match act.payload:
            case Merge(lesion=str(key), lesions=parts):
                found[key] = frozenset().union(*map(of, parts))
            case Split(lesion=whole, lesions=tuple(keys)):
                found.update(dict.fromkeys(keys, of(whole)))
    return found


def see(
    rows: Iterable[ReviewedLesion], acts: Sequence[Act], places: Mapping[str, Point]
) -> list[Seen]:
    """Return the definite and possible lesions of a reader.

    Parameters
    ----------
    rows, acts
        The table and the log of the reader.
    places
        Key of each automatic lesion and candidate -> its centre in mm, RAS+. What the reader has
        moved further than :data:`MATCH_MM` away from it is another lesion.
    """
    made = parts_of(acts)
    found = []
    for row in rows:
        if row.item.positive:
            key = row.item.key
            moved = key in places and math.dist(places[key], row.lesion.centre) > MATCH_MM
            own = frozenset() if moved else frozenset({key})
            found.append(Seen(row, made.get(key, frozenset() if key[0] == "N" else own)))
    return found


def join(readers: Sequence[Sequence[Seen]]) -> list[Match]:
    """Match the lesions of several readers of a scan.

    Parameters
    ----------
    readers
        The lesions of each reader.

    Returns
    -------
    list of Match
        Automatic lesions by their index, candidates by their row, then what readers have added.
    """
    matches = [match for group in _places(readers) for match in _arrange(group)]
    matches.sort(key=lambda match: _rank(match.parts))
    for number, lesions in enumerate(readers):
        _match_added(matches, number, [lesion.row for lesion in lesions if not lesion.parts])
    return matches


#: Position of a reader -> the reader's lesions at one place.
Place = Mapping[int, Sequence[Seen]]


def _rank(parts: Iterable[str]) -> list[tuple[int, int]]:
    return sorted(("LC".index(key[0]), int(key[1:])) for key in parts)


def _places(readers: Sequence[Sequence[Seen]]) -> list[Place]:
    """Group the lesions that are connected by common parts."""
    groups: list[tuple[set[str], dict[int, list[Seen]]]] = []
    for number, lesions in enumerate(readers):
        for lesion in lesions:
            if not lesion.parts:
                continue
            keys, own = set(lesion.parts), {number: [lesion]}
            for group in [group for group in groups if group[0] & keys]:
                groups.remove(group)
                keys |= group[0]
                for other, more in group[1].items():
                    own[other] = [*more, *own.get(other, ())]
            groups.append((keys, own))
    return [own for _, own in groups]


def _arrange(place: Place) -> list[Match]:
    """Return the lesions that a place holds, with the readers who have them."""
    shapes = {
        number: tuple(sorted(map(tuple, map(_rank, (lesion.parts for lesion in lesions)))))
        for number, lesions in place.items()
    }
    votes = Counter(shapes.values())
    found: list[Match] = []
    covered: frozenset[str] = frozenset()
    for number in sorted(place, key=lambda number: (-votes[shapes[number]], number)):
        own = [lesion for lesion in place[number] if not lesion.parts & covered]
        covered = covered.union(*(lesion.parts for lesion in own))
        found += [
            Match(
                first=number,
                parts=lesion.parts,
                rows=_with_others(place, number, lesion),
                disputed=len(votes) > 1,
            )
            for lesion in own
        ]
    return found


def _with_others(place: Place, number: int, lesion: Seen) -> dict[int, ReviewedLesion]:
    """Return a lesion of one reader, and those of the others that have a part of it."""
    rows = {number: lesion.row}
    centre = np.array(lesion.row.lesion.centre)
    whole = sum(seen.parts == lesion.parts for seen in place[number]) == 1

    def order(other: Seen) -> tuple[int, float]:
        # As a merged lesion has the strongest verdict of its parts.
        merged = whole and other.parts < lesion.parts
        strength = STRENGTH.index(other.row.item.verdict) if merged else 0
        return strength, float(np.linalg.norm(np.array(other.row.lesion.centre) - centre))

    for other, lesions in place.items():
        shared = [seen for seen in lesions if seen.parts & lesion.parts]
        if other != number and shared:
            rows[other] = min(shared, key=order).row
    return dict(sorted(rows.items()))


def _match_added(matches: list[Match], number: int, rows: Sequence[ReviewedLesion]) -> None:
    """Match what a reader has added to the lesions of the others, or make a lesion of it."""
    # In the order of their coordinates, so that the order of the acts plays no part.
    rows = sorted(rows, key=lambda row: row.lesion.centre)
    others = sorted(
        (match for match in matches if number not in match.rows),
        key=lambda match: tuple(match.centre),
    )
    distance = centre_distances(
        np.array([row.lesion.centre for row in rows], float).reshape(-1, 3),
        np.array([match.centre for match in others], float).reshape(-1, 3),
    )
    pairs = dict(assign(distance, distance <= MATCH_MM))
    for place, row in enumerate(rows):
        if place in pairs:
            others[pairs[place]].rows[number] = row
        else:
            matches.append(Match(first=number, parts=frozenset(), rows={number: row}))
