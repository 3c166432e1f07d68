"""Tables of the benchmarks as files of the documentation.

A benchmark prints its tables as Markdown. With ``--write-docs`` they also become tab-separated
files in ``docs/validation/tables``, which the pages show.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "validation" / "tables"
_RULE = re.compile(r"[|\s:-]+")


def save_tables(text: str, stem: str) -> list[Path]:
    """Write each Markdown table of a text to a tab-separated file.

    Parameters
    ----------
    text
        Markdown. What is not in a table is left out.
    stem
        Files are named ``<stem>.tsv``, or ``<stem>-1.tsv``, ``<stem>-2.tsv``, ... if there are
        several.

    Returns
    -------
    list of Path
        The files, in the order of the tables.
    """
    tables = [
        [_cells(line) for line in lines if not _RULE.fullmatch(line)]
        for is_table, lines in groupby(text.splitlines(), lambda line: line.startswith("|"))
        if is_table
    ]
    FOLDER.mkdir(exist_ok=True)
    paths = []
    for number, table in enumerate(tables, start=1):
        path = FOLDER / (f"{stem}-{number}.tsv" if len(tables) > 1 else f"{stem}.tsv")
        path.write_text("".join("\t".join(row) + "\n" for row in table), encoding="utf-8")
        paths.append(path)
    return paths


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("<br>", " ") for cell in line.strip().strip("|").split("|")]
