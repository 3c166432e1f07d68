"""Group outputs without what could identify a person (``--deidentified``).

Labels of participants stay: they are pseudonyms, and without them no table could be joined. Labels
of sessions and other entities that look like a date are replaced by numbers. Columns stay too, so
that tables of several sites can still be bound; their values are left out. Columns that the program
knows say in their dictionary entry what they hold (:data:`IDENTIFIES`). Columns of the raw
dataset's tables are judged by their names and values, and are left out where in doubt. Ages above
:data:`MAX_AGE` are left out one by one. Notes stay, with counts instead of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cmbprep.files.tsv import listing
from cmbprep.group.ages import years_per_unit
from cmbprep.group.dictionary import ENTITIES
from cmbprep.group.notes import public_text
from cmbprep.group.rows import Row
from cmbprep.group.tables import Table, cell
from cmbprep.ratings.store import Reader

#: Key in the entry of a column for what its values may be; no part of the dictionary written.
IDENTIFIES = "Identifies"
#: Value of that key for a column of the raw dataset, which is judged by its values.
UNKNOWN = "unknown"
#: Longest text, and most different texts of a column, that are a category and no free text.
MAX_LENGTH, MAX_TEXTS = 30, 20
#: Older people are few enough to be identified by their age.
MAX_AGE = 89

#: Words in the name of a column, and ends of such words, that personal data are named by.
_WORD = re.compile(
    "name|birth|born|dob|yob|date|day|month|time|address|street|city|zip|plz|postcode|phone|mail|"
    "email|mrn|ssn|comments?|notes?|remarks?|initials|surname|operator|technician|technologist|"
    "radiographer|radiologist|physician|doctor|nurse|rater|reader"
)
_ENDS = ("name", "date", "datum", "birth", "month", "address", "comment", "comments")
_DATE = re.compile(
    r"(?<!\d)(?:\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    r"|\d{1,2}[- .]*[A-Za-z]{3,9}[- .,]*\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4})(?!\d)"
)
_MONTH = re.compile(
    r"(?<![A-Za-z])(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ .,_-]*(?:19|20)\d{2}"
    r"(?!\d)",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"(?<![\d.])(?:\d{6}|\d{8})(?!\.?\d)")
#: How digits can be a date, by their number; a year and a month alone stand for the first day.
_WRITTEN = {6: ("%y%m%d", "%d%m%y", "%Y%m"), 8: ("%Y%m%d", "%d%m%Y", "%m%d%Y")}
#: Years that a date of birth or of a scan can have.
_YEARS = range(1900, 2101)
_LONG_NUMBER = re.compile(r"\d{6,}")
_AGE = re.compile(r"(?:^|[_\W])age(?:$|[_\W\d])", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
#: An absolute path; a path inside the dataset tells nobody's name.
_PATH = re.compile(r"(?<![\w.\\/])(?:[A-Za-z]:)?[\\/][^\s;,()]+")
#: Columns that hold sentences, whatever their entries say.
_SENTENCES = ("reason",)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A column whose values were left out of a table."""

    table: str
    column: str
    kind: str
    values: int


class Disguise:
    """What stands for the names of files and labels that could identify a person.

    Parameters
    ----------
    rows
        All scans, and files that were refused: their names may hold anything.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        #: Names of the files that were refused.
        refused = {row.name for row in rows if row.status == "refused"}
        self.refused = refused - {row.name for row in rows if row.status != "refused"}
        dated = {
            label
            for row in rows
            for entity, label in row.entities.items()
            if entity != "sub" and looks_like_date(label)
        }
        #: Label that looks like a date -> what stands for it.
        self.labels = {label: f"date{n}" for n, label in enumerate(sorted(dated), 1)}
        shorts = {
            review.reader.short
            for row in rows
            if row.scan is not None and row.scan.reading is not None
            for review in row.scan.reading.reviews
        }
        #: Short name of a reader -> what stands for it.
        self.readers: dict[str, str] = {}
        self.add_readers(shorts)
        listed = "|".join(map(re.escape, self.labels))
        self._pattern = re.compile(rf"(?<![A-Za-z0-9+])(?:{listed})(?![A-Za-z0-9+])")

    def add_readers(self, shorts: Iterable[str]) -> None:
        """Number more readers, by their short names."""
        for short in sorted({*shorts} - self.readers.keys()):
            self.readers[short] = f"reader {len(self.readers) + 1}"

    def of(self, value: Any) -> Any:
        """Return a value of a table without labels that look like a date, and without paths."""
        if not isinstance(value, str):
            return value
        if "/" in value or "\\" in value:
            value = _PATH.sub("(path)", value)
        return (
            self._pattern.sub(lambda match: self.labels[match[0]], value) if self.labels else value
        )

    def public(self, note: str) -> str:
        """Return a note with counts instead of names, and without paths and dated labels."""
        return str(self.of(str(public_text(note))))


def deidentify(
    name: str, table: Table, disguise: Disguise, *, keep_ages: bool = False
) -> tuple[Table, tuple[LeftOut, ...]]:
    """Leave the values that could identify a person out of a table.

    Parameters
    ----------
    name
        Of the table, for the list of what was left out.
    table
        A group table.
    disguise
        Of the scans of the cohort.
    keep_ages
        Whether to keep ages above :data:`MAX_AGE`, for models; no output shows them then.

    Returns
    -------
    table
        The same columns and rows.
    left_out
        The columns whose values are missing now; those that had none are not listed.
    """
    kinds = {column: _kind(column, table) for column in table.dictionary}
    private = {column: kind for column, kind in kinds.items() if kind is not None}
    ages = {} if keep_ages else _age_columns(table, private)
    dictionary = {
        column: _entry(column, entry, private, ages) for column, entry in table.dictionary.items()
    }
    values = []
    for line in table.values:
        hidden = {*private}
        if line.get("scan") in disguise.refused:
            hidden |= {"scan", *ENTITIES}
        hidden |= {name for name, factor in ages.items() if _is_old(line.get(name), factor)}
        values.append({key: disguise.of(item) for key, item in line.items() if key not in hidden})
    private |= {"scan": "names of refused files"} if "scan" in table.dictionary else {}
    private |= dict.fromkeys(ages, f"ages above {MAX_AGE}")
    found = []
    for column, kind in private.items():
        before = sum(_is_there(line.get(column)) for line in table.values)
        after = sum(_is_there(line.get(column)) for line in values)
        if before > after:
            found.append(LeftOut(table=name, column=column, kind=kind, values=before - after))
    return Table(dictionary, tuple(values)), tuple(found)


_LEFT_OUT = "The values were left out (--deidentified)."
_AGES_LEFT_OUT = f"Ages above {MAX_AGE} years are n/a (--deidentified)."


def _entry(
    column: str,
    entry: Mapping[str, Any],
    private: Mapping[str, str],
    ages: Mapping[str, float],
) -> dict[str, Any]:
    """Return the entry of a column, without the words of the raw dataset that could identify."""
    from_raw = entry.get(IDENTIFIES) == UNKNOWN
    if column in private and from_raw:
        # Its levels may be names.
        return {"Description": _LEFT_OUT, IDENTIFIES: UNKNOWN}
    kept = {key: item for key, item in entry.items() if not (from_raw and _tells(item))}
    told = _LEFT_OUT if column in private else _AGES_LEFT_OUT if column in ages else ""
    if told or "Description" not in kept:
        text = kept.get("Description", "Column of the raw dataset; its description was left out.")
        kept["Description"] = f"{text} {told}".strip()
    return kept


def _tells(item: Any) -> bool:
    """Return whether a part of an entry holds a date, a path or an address."""
    if isinstance(item, Mapping):
        return any(_tells(part) for pair in item.items() for part in pair)
    if isinstance(item, list | tuple):
        return any(map(_tells, item))
    return isinstance(item, str) and (
        looks_like_date(item) or "@" in item or _PATH.search(item) is not None
    )


def _age_columns(table: Table, private: Mapping[str, str]) -> dict[str, float]:
    """Return the columns of ages that are kept, and what makes years of their numbers."""
    return {
        column: years_per_unit(str(entry.get("Units") or "years")) or 1.0
        for column, entry in table.dictionary.items()
        if column not in private and _AGE.search(column)
    }


def _is_old(value: Any, factor: float) -> bool:
    """Return whether an age is above the limit; also a text such as ``90+``."""
    number = _NUMBER.search(cell(value))
    if number is None:
        return False
    years = float(number[0].replace(",", ".")) * factor
    # A text such as ">89" or "89+" means an age above it.
    return years > MAX_AGE or (years == MAX_AGE and not _is_number(cell(value)))


def _is_there(value: Any) -> bool:
    return value is not None and cell(value) != "n/a"


def _kind(column: str, table: Table) -> str | None:
    """Return what the values of a column could identify a person by; None for nothing."""
    declared = table.dictionary[column].get(IDENTIFIES)
    if declared is None and column.endswith(_SENTENCES):
        return "free text"
    if declared != UNKNOWN:
        return None if declared is None else str(declared)
    values = {cell(line.get(column)) for line in table.values} - {"n/a"}
    return judge_column(column, values)


def judge_column(name: str, values: Iterable[str]) -> str | None:
    """Return what could identify a person in a column of the raw dataset; None for nothing.

    Parameters
    ----------
    name
        Of the column.
    values
        The values that are not missing.

    Examples
    --------
    >>> judge_column("smoker", ["yes", "no"]), judge_column("scanned", ["2021-05-03"])
    (None, 'dates')
    """
    texts = sorted(set(values))
    if any(_WORD.fullmatch(word) or word.endswith(_ENDS) for word in _words_of(name)):
        return "named like personal data"
    if any(map(looks_like_date, texts)):
        return "dates"
    if texts and all(text.isdecimal() and int(text) in _YEARS for text in texts):
        return "years"
    if any("/" in text or "\\" in text or "@" in text for text in texts):
        return "paths or addresses"
    if any(_LONG_NUMBER.search(text.partition(".")[0]) for text in texts):
        return "numbers of six digits or more"
    words = [text for text in texts if not _is_number(text)]
    if any(len(text) > MAX_LENGTH for text in words) or len(words) > MAX_TEXTS:
        return "free text"
    return None


def _words_of(name: str) -> list[str]:
    """Return the words of the name of a column, small: ``PatientName2`` has two."""
    return [word.lower() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])", name)]


def looks_like_date(text: str) -> bool:
    """Return whether a text holds a date, or six or eight digits that can be one.

    Examples
    --------
    >>> looks_like_date("20210503"), looks_like_date("3 May 2021"), looks_like_date("baseline2")
    (True, True, False)
    >>> looks_like_date("210312"), looks_like_date("Mar2021"), looks_like_date("000001")
    (True, True, False)
    """
    if _DATE.search(text) or _MONTH.search(text):
        return True
    return any(map(_is_day, _DIGITS.findall(text)))


def _is_day(digits: str) -> bool:
    for written in _WRITTEN[len(digits)]:
        try:
            # Without a time of day, so without a time zone.
            found = datetime.strptime(digits, written)  # noqa: DTZ007
        except ValueError:
            continue
        if found.year in _YEARS:
            return True
    return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def deidentified_rows(rows: Sequence[Row], disguise: Disguise) -> list[Row]:
    """Return the rows for the page: without reasons and warnings, readers by numbers."""
    return [_deidentified_row(row, disguise) for row in rows]


def _deidentified_row(row: Row, disguise: Disguise) -> Row:
    scan = row.scan
    if scan is not None and scan.reading is not None:
        # Reviews that are used must stay the same objects as those in the list of all.
        renamed = {
            id(review): replace(
                review,
                reader=Reader(
                    name=disguise.readers[review.reader.short], round=review.reader.round
                ),
            )
            for review in scan.reading.reviews
        }
        reading = replace(
            scan.reading,
            reviews=tuple(renamed[id(review)] for review in scan.reading.reviews),
            used=tuple(renamed.get(id(review), review) for review in scan.reading.used),
        )
        scan = replace(scan, reading=reading)
    name = "refused file" if row.name in disguise.refused else disguise.of(row.name)
    return replace(row, name=name, scan=scan, reason=None, private=True)


def describe_privacy(
    root: Path, tables: Mapping[str, Table], left_out: Sequence[LeftOut], disguise: Disguise
) -> str:
    """Return the text of ``group_deidentified.txt``: what was left out, and what remains.

    Parameters
    ----------
    root
        The output dataset, whose other files are looked at by their names.
    tables
        The group tables, as they are written.
    left_out, disguise
        What was left out of the tables, and what was replaced.
    """
    lines = ["Left out of the group tables and of group.html:"]
    lines += [f"- {x.table}, column {x.column}: {x.kind} ({x.values} values)" for x in left_out]
    lines.append(
        "- group.html: reasons and warnings, names of readers, names in notes, and links to the "
        "reports"
    )
    if disguise.labels:
        number = len(disguise.labels)
        lines += ["", f"Replaced by date1, date2, ...: {number} labels that look like a date."]
    if any(x.kind.startswith("ages") for x in left_out):
        told = "Models, where there are any, were fitted with these ages."
        lines += ["", f"Ages above {MAX_AGE} are n/a in the tables. {told}"]
    lines += ["", "Kept: labels of participants, which must be pseudonyms."]
    lines += [f"- {text}" for text in _kept(tables)]
    lines += ["", "Other files of this folder can still identify a person. Look before sharing:"]
    lines += [f"- {text}" for text in _others(root)]
    return "\n".join(lines) + "\n"


def _kept(tables: Mapping[str, Table]) -> Iterable[str]:
    """Return what in the tables of the group could still identify a person, and what to do."""
    scans, people = tables["group_cmb"], tables["group_participants"]
    labels = {cell(line.get("participant_id")) for line in (*scans.values, *people.values)}
    if dated := sorted(filter(looks_like_date, labels)):
        yield (
            f"{_number(dated, 'label')} of participants that look like a date: {listing(dated)}; "
            "what to do: give these participants other labels in the dataset and in these results, "
            "and run the group level again"
        )
    sites = {cell(line.get("site")) for line in (*scans.values, *people.values)} - {"n/a"}
    if sites:
        yield (
            f"the column site has {_number(sites, 'label')} of sites: {listing(sorted(sites))}; "
            "what to do, if a site could identify a person: write codes in participants.tsv or "
            "sessions.tsv, and run the group level again"
        )
    named = {
        f"{entity}-{line[entity]}"
        for entity in ENTITIES
        for line in scans.values
        if line.get(entity) and not str(line[entity]).isdigit()
    }
    if named:
        yield (
            f"{_number(named, 'label')} in names of scans: {listing(sorted(named), 10)}; what to "
            "do, if one could identify a person: rename the files in the dataset, and process them "
            "again"
        )
    described = [name for name, item in people.dictionary.items() if item.get(IDENTIFIES)]
    raw = [name for name in described if people.dictionary[name][IDENTIFIES] == UNKNOWN]
    if raw:
        yield (
            f"{_number(raw, 'column')} of the raw dataset (group_participants, phenotype/cmb) with "
            f"their names and descriptions: {listing(raw)}; what to do: read them before sharing"
        )


def _number(items: Sized, noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


#: Pattern of files -> what in them could identify a person.
_OTHER_FILES: Mapping[str, str] = {
    "sub-*.html": "reports: slices of the head, names of files, reasons, warnings, names and dates "
    "of readers",
    "sub-*/**/*_desc-preproc_*.nii.gz": "corrected images: the whole head, with the face",
    "sub-*/**/*.json": "sidecars: names of source files and warnings",
    "logs/*": "logs: dates, paths, command lines, names of users and computers, reasons",
    "sub-*/**/*_acts.jsonl": "logs of reviews: names of readers, times and comments",
    "sub-*/**/*_desc-reviewed*": "reviewed results: names of readers in the names of files",
    "sub-*/**/*_desc-followup*_dseg.json": "follow-ups: names of readers",
    "dataset_description.json": "description: paths of the raw dataset and of derivatives",
}


def _others(root: Path) -> Iterable[str]:
    for pattern, what in _OTHER_FILES.items():
        number = sum(path.is_file() for path in root.glob(pattern))
        if number:
            yield f"{pattern} ({number} file{'' if number == 1 else 's'}): {what}"
