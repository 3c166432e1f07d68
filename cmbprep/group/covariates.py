"""Tables of the raw dataset that are joined by key: participants, sessions and scans.

``participants.tsv``, the ``sessions.tsv`` of each participant and the ``scans.tsv`` of each
session are read with their data dictionaries. A table that cannot be used stops nothing: the
group level goes on without it and says so. Where rows of one key disagree, the value is missing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from cmbprep.errors import CmbprepError
from cmbprep.files.text import MISSING, Table, read_object, read_table, shorten
from cmbprep.files.tsv import listing
from cmbprep.group.notes import Note, Notes, public_text

#: Table -> its key, and how the name of the key begins when people write another one.
KEYS = {
    "participants": ("participant_id", ("participant", "subject", "sub")),
    "sessions": ("session_id", ("session", "ses", "visit")),
    "scans": ("filename", ("file", "scan", "image")),
}
Key = TypeVar("Key")
#: Most notes on the tables of single participants; the others are counted.
MAX_NOTES = 10


@dataclass(frozen=True)
class KeyedTable:
    """Columns and rows of a table by key.

    Parameters
    ----------
    columns
        Names of the columns, the key left out.
    rows
        Key -> column -> value. Keys are labels without ``sub-`` or ``ses-``, or names of files
        without folder and extension; they are in the order of the table.
    written
        Key -> how the table writes it.
    """

    columns: tuple[str, ...] = ()
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict, compare=False)

    def value(self, key: str, column: str) -> str | None:
        """Return a value; None where it is missing."""
        value = self.rows.get(key, {}).get(column, MISSING)
        return None if value in ("", MISSING) else value


@dataclass(frozen=True, kw_only=True)
class Covariates:
    """What the raw dataset says of participants, sessions and scans besides the images.

    Parameters
    ----------
    participants
        ``participants.tsv``.
    sessions
        Participant -> ``sessions.tsv``.
    scans
        Participant and session (empty without sessions) -> ``scans.tsv``.
    dictionaries
        Table (``participants``, ``sessions``, ``scans``) -> column -> entry of its JSON file.
    """

    participants: KeyedTable = field(default_factory=KeyedTable)
    sessions: Mapping[str, KeyedTable] = field(default_factory=dict)
    scans: Mapping[tuple[str, str], KeyedTable] = field(default_factory=dict)
    dictionaries: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Columns of each table over all participants; the keys are left out."""
        tables: dict[str, Iterable[KeyedTable]] = {
            "participants": (self.participants,),
            "sessions": self.sessions.values(),
            "scans": self.scans.values(),
        }
        return {
            kind: tuple(dict.fromkeys(column for table in found for column in table.columns))
            for kind, found in tables.items()
        }

    def sites(self, subject: str, session: str = "") -> list[str]:
        """Return the different sites that tables give; the first, of ``sessions.tsv``, counts."""
        found = (
            find_value(self.sessions.get(subject, KeyedTable()), session, "site"),
            find_value(self.participants, subject, "site"),
        )
        return list(dict.fromkeys(value for value in found if value is not None))

    def describe(self, table: str, column: str) -> dict[str, Any]:
        """Return the dictionary entry of a column, with the table that it comes from."""
        entry = dict(self.dictionaries.get(table, {}).get(column, {}))
        text = entry.get("Description") or entry.get("LongName") or f"Column {column}"
        return {**entry, "Description": f"{str(text).rstrip('.')} (from {table}.tsv)."}


def read_covariates(
    dataset: Path | None, units: Iterable[tuple[str, str]]
) -> tuple[Covariates, tuple[str, ...]]:
    """Read the tables of a raw dataset.

    Parameters
    ----------
    dataset
        The raw dataset; None, or a folder that is not there, gives no covariates.
    units
        Participant and session (empty without sessions) of all scans.

    Returns
    -------
    covariates
        The tables.
    notes
        What was corrected, is in doubt, or was left out, in sentences.
    """
    if dataset is None or not dataset.is_dir():
        return Covariates(), ()
    units, notes = sorted(set(units)), Notes()
    path = dataset / "participants.tsv"
    participants, about_participants = read_keyed_table(path, "participants")
    sessions, scans = {}, {}
    for subject in dict.fromkeys(subject for subject, _ in units):
        place = dataset / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
        if table := _read_own(place, "sessions", notes):
            sessions[subject] = table
    for subject, session in units:
        folder, stem = dataset / f"sub-{subject}", _stem(subject, session)
        if session:
            folder = folder / f"ses-{session}"
        if table := _read_own(folder / f"{stem}_scans.tsv", "scans", notes):
            scans[subject, session] = table
    found = Covariates(
        participants=participants,
        sessions=_spelt_alike(sessions, lambda key: f"sub-{key}_sessions.tsv", notes),
        scans=_spelt_alike(scans, lambda key: f"{_stem(*key)}_scans.tsv", notes),
    )
    dictionaries = {
        name: _read_dictionary(dataset, name, columns, units, notes)
        for name, columns in found.columns.items()
    }
    found = replace(found, dictionaries=dictionaries)
    return found, (*about_participants, *_shortened(notes.sentences()))


def read_keyed_table(path: Path, kind: str) -> tuple[KeyedTable, tuple[str, ...]]:
    """Read a table by key.

    Parameters
    ----------
    path
        The table.
    kind
        One of :data:`KEYS`.

    Returns
    -------
    table
        Empty where there is no usable table.
    notes
        What was corrected, is in doubt, or was left out; each names the file.
    """
    if not os.path.lexists(path):
        return KeyedTable(), ()
    key, similar = KEYS[kind]
    try:
        table = read_table(path)
    except CmbprepError as error:
        hint = f"; what to do: {error.hint}" if error.hint else ""
        return KeyedTable(), (f"{path.name} is left out: {error.message}{hint}",)
    if key not in table.columns:
        # Without a header, the first row of data is taken for one: no name of it is public.
        warnings = [Note(text, _without_names(text)) for text in table.warnings]
        return KeyedTable(), (*warnings, _without_key(path.name, key, similar, table.columns))
    columns = tuple(name for name in table.columns if name != key)
    rows, notes = _by_key(table, columns, key, path.name)
    written = {normal_key(row[key], key): row[key] for row in reversed(table.rows)}
    return KeyedTable(columns, rows, written), (*table.warnings, *notes)


def normal_key(text: str, key: str) -> str:
    """Return a key as rows are looked up by: a label without prefix, or a name without folder.

    Examples
    --------
    >>> normal_key("sub-01", "participant_id"), normal_key("ses-a", "session_id")
    ('01', 'a')
    >>> normal_key("anat/sub-01_T2starw.nii.gz", "filename")
    'sub-01_T2starw'
    """
    if key == "filename":
        return text.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    return text.removeprefix("sub-" if key == "participant_id" else "ses-")


def missing_participants(participants: KeyedTable, subjects: Iterable[str]) -> tuple[str, ...]:
    """Return which participants of the results are not in ``participants.tsv``.

    Parameters
    ----------
    participants
        The table; an empty one gives no notes, because others say why it is empty.
    subjects
        Labels of the participants that have results.
    """
    file = "participants.tsv"
    labels = sorted(set(subjects))
    missing = [label for label in labels if label not in participants.rows]
    if not participants.columns or not missing:
        return ()
    if len(missing) == len(labels):
        example = ""
        told = f"{file} has no row of any participant of these results"
        rest = (
            ", so that no column could be joined; what to do: write participant_id exactly as the "
            "folders of the participants are named"
        )
        if participants.rows:
            first = shorten(participants.written[next(iter(participants.rows))])
            example = f" (it has {first}, the results have sub-{labels[0]})"
        note = Note(f"{told}{example}{rest}", told + rest)
    else:
        named = ", ".join(f"sub-{label}" for label in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        told = f"{file} has no row of {len(missing)} of the {len(labels)} participants of these "
        told, rest = f"{told}results", "; its columns are n/a for them"
        note = Note(f"{told} ({named}{more}){rest}", told + rest)
    return (note,)


@cache
def find_column(columns: tuple[str, ...], name: str) -> str | None:
    """Return the column of a name, else the only one that differs by capitals.

    Examples
    --------
    >>> find_column(("Site", "sex"), "site"), find_column(("Site", "site"), "site")
    ('Site', 'site')
    >>> find_column(("Site", "SITE"), "site") is None
    True
    """
    if name in columns:
        return name
    alike = [column for column in columns if column.lower() == name]
    return alike[0] if len(alike) == 1 else None


def find_value(table: KeyedTable, key: str, name: str) -> str | None:
    """Return a value from the column of a name (:func:`find_column`); None where it is missing."""
    column = find_column(table.columns, name)
    return None if column is None else table.value(key, column)


def _without_key(file: str, key: str, similar: tuple[str, ...], columns: Sequence[str]) -> str:
    meant = [name for name in columns if name.lower().startswith(similar)]
    there = listing(map(shorten, columns))
    remedy = f"rename {shorten(meant[0])} to {key}" if meant else f"add it; there are {there}"
    told = f"{file} has no column {key} and is left out; what to do: "
    return Note(told + remedy, f"{told}add it, or rename the column that has the keys")


def _without_names(text: str) -> str:
    """Cut what a warning on a file lists after a colon."""
    return ": ".join(text.split(": ")[:2])


def _by_key(
    table: Table, columns: Sequence[str], key: str, file: str
) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Sort the rows by key, and say which keys have several rows, and how many rows have none."""
    found: dict[str, list[dict[str, str]]] = {}
    nameless = 0
    for row in table.rows:
        name = normal_key(row[key], key)
        if name in ("", MISSING) or row[key] == MISSING:
            nameless += 1
        else:
            found.setdefault(name, []).append(row)
    rows, notes = {}, Notes()
    for name, own in found.items():
        if len(own) == 1:
            rows[name] = own[0]
            continue
        known = {column: {row[column] for row in own} - {"", MISSING} for column in columns}
        # A missing value contradicts nothing.
        rows[name] = {
            column: next(iter(values)) if len(values) == 1 else MISSING
            for column, values in known.items()
        }
        conflicts = [column for column, values in known.items() if len(values) > 1]
        told = f"which disagree; n/a there: {', '.join(conflicts)}" if conflicts else "which agree"
        prefix = {"participant_id": "sub-", "session_id": "ses-"}.get(key, "")
        notes.add(f"{file} has several rows of {{}}, {told}", f"{prefix}{name}")
    if nameless:
        notes.add(f"{file}: {nameless} rows without {key} are left out", "")
    return rows, notes.sentences()


def _read_own(path: Path, kind: str, notes: Notes) -> KeyedTable | None:
    """Read the table of a participant or session; None where there is none that can be used.

    One without rows is kept: its rows are missed.
    """
    table, found = read_keyed_table(path, kind)
    for text in found:
        # The same fault in the tables of many participants is one note.
        sentence, public = (told.replace(path.name, "{}", 1) for told in (text, public_text(text)))
        notes.add(sentence, path.name, public)
    return table if table.columns or table.rows else None


def _stem(subject: str, session: str) -> str:
    return f"sub-{subject}_ses-{session}" if session else f"sub-{subject}"


def _spelt_alike(
    tables: Mapping[Key, KeyedTable], file_of: Callable[[Key], str], notes: Notes
) -> dict[Key, KeyedTable]:
    """Write the columns of tables of one kind as most of the tables do, and note which.

    Else a column that one participant's table writes with other capitals would be one of its own,
    and change the names of everybody's columns. A table that has both spellings keeps them.
    """
    counted = Counter(column for table in tables.values() for column in table.columns)
    usual: dict[str, str] = {}
    # Of two that are equally frequent, the one in small letters, as BIDS has it.
    for column in sorted(counted, key=lambda name: (-counted[name], not name.islower())):
        usual.setdefault(column.lower(), column)
    found = {key: _renamed(table, usual) for key, table in tables.items()}
    for key, table in found.items():
        for old, new in zip(tables[key].columns, table.columns, strict=True):
            if old != new:
                notes.add(
                    f"the column {shorten(old)} of {{}} is joined with {shorten(new)} of the other "
                    "tables, from which it differs by capitals; what to do: write both alike",
                    file_of(key),
                )
    return found


def _renamed(table: KeyedTable, usual: Mapping[str, str]) -> KeyedTable:
    names = {column: usual[column.lower()] for column in table.columns}
    if len(set(names.values())) < len(names) or all(old == new for old, new in names.items()):
        return table
    rows = {
        key: {names.get(column, column): value for column, value in row.items()}
        for key, row in table.rows.items()
    }
    return replace(table, columns=tuple(names.values()), rows=rows)


def _read_dictionary(
    dataset: Path,
    name: str,
    columns: Sequence[str],
    units: Sequence[tuple[str, str]],
    notes: Notes,
) -> dict[str, dict[str, Any]]:
    """Read the entries of columns from the JSON files of a table, the topmost file first."""
    entries: dict[str, dict[str, Any]] = {}
    for path in _dictionary_paths(dataset, name, units):
        if not columns or set(columns) <= entries.keys():
            break
        try:
            read = read_object(path)
        except CmbprepError as error:
            notes.add(f"{{}} is left out: {error.message}", path.name)
            continue
        for text in read.warnings:
            sentence = text.replace(path.name, "{}", 1)
            notes.add(sentence, path.name, _without_names(sentence))
        for column in columns:
            entry = read.content.get(column)
            if isinstance(entry, dict):
                entries.setdefault(column, entry)
    return entries


def _dictionary_paths(dataset: Path, name: str, units: Sequence[tuple[str, str]]) -> Iterator[Path]:
    """Yield the JSON files of a table that are there, by the inheritance principle of BIDS."""
    places: list[Callable[[str, str], str]] = [lambda *_: f"{name}.json"]
    if name != "participants":
        places.append(lambda subject, _: f"sub-{subject}/sub-{subject}_{name}.json")
    if name == "scans":
        places.append(lambda sub, ses: f"sub-{sub}/ses-{ses}/sub-{sub}_ses-{ses}_scans.json")
    for place in places:
        for path in dict.fromkeys(dataset / place(*unit) for unit in (units or [("", "")])):
            if os.path.lexists(path):
                yield path


def _shortened(notes: Sequence[str]) -> tuple[str, ...]:
    if len(notes) <= MAX_NOTES:
        return tuple(notes)
    rest = len(notes) - MAX_NOTES
    return (*notes[:MAX_NOTES], f"there are {rest} more notes on tables of sessions and scans")
