"""Damage of one person's files: a row with the reason, a note that helps, and nobody else changes.

Each damage was once a traceback, a wrong number, or a change of another person's rows.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmbprep.cli.main import main
from tests.group.cohort import read
from tests.group.datasets import write_dataset
from tests.reports.outputtree import Tree, make_lesion

pytestmark = pytest.mark.usefixtures("quick")

#: Who is damaged; sub-2 never is.
SCAN = "sub-1_ses-a_T2starw"
TABLES = ("group_cmb", "group_quality", "group_lesions", "group_participants")
INPUTS = "logs/sub-1_ses-a_inputs.json"
PREPROC = "sub-1/ses-a/anat/sub-1_ses-a_desc-preproc_T2starw.json"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two participants with two visits each, and their tables."""
    base = tmp_path_factory.mktemp("sound")
    tree = Tree(base / "out")
    for person in "12":
        tree.add(f"sub-{person}_ses-a_T2starw", [make_lesion(1), make_lesion(2)])
        tree.add(f"sub-{person}_ses-b_T2starw", [make_lesion(1)])
    root = tree.finish()
    for path in (root / "logs").iterdir():
        record = json.loads(path.read_text())
        for scan in record["scans"]:
            scan["stages"] = {
                content["Cmbprep"]["Stage"]: {
                    "sidecar": file.relative_to(root).as_posix(),
                    "fingerprint": content["Cmbprep"]["Fingerprint"],
                }
                for file in root.rglob(f"{scan['name'].rpartition('_')[0]}_*.json")
                if "Cmbprep" in (content := json.loads(file.read_text()))
            }
        path.write_text(json.dumps({**record, "withdrawn": []}))
    for sidecar in root.glob("sub-*/*/anat/*.json"):
        content = json.loads(sidecar.read_text())
        if "Cmbprep" in content:
            _complete(root, sidecar)
    sessions = "session_id\tacq_time\nses-a\t2001-01-01\nses-b\t2003-01-01\n"
    write_dataset(
        base / "raw",
        participants="participant_id\tage\nsub-1\t61\nsub-2\t62\n",
        sessions={"1": sessions, "2": sessions},
    )
    return base


def _complete(root: Path, sidecar: Path) -> None:
    """Write the files of a stage that the tree leaves out."""
    from cmbprep.outputs.stages import read_record

    record = read_record(root, sidecar)
    assert record is not None
    for path in record.paths.values():
        if not path.exists():
            path.write_bytes(b"\x1f\x8b")


@pytest.fixture
def run(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return a function: damage -> rows of sub-1 and of sub-2, and what the terminal says."""
    monkeypatch.setattr("cmbprep.group.page.render_group_page", lambda _: "")
    monkeypatch.setattr("cmbprep.group.run.follow_cohort", lambda *_, **__: ([], ()))

    def found(damage: Callable[[Path, Path], object]) -> tuple[Any, Any, str]:
        base = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(sound, base, symlinks=True)
        damage(base / "raw", base / "out")
        assert main([str(base / "raw"), str(base / "out"), "group"]) == 0
        rows = {name: read(base / "out" / f"{name}.tsv") for name in TABLES}
        own, other = (
            {n: [row for row in t if row["participant_id"] == f"sub-{s}"] for n, t in rows.items()}
            for s in "12"
        )
        return own, other, capsys.readouterr().err

    return found


def change(path: str, *keys: str | int, to: Any) -> Callable[[Path, Path], object]:
    """Return a damage: another value in a JSON file of the output dataset."""

    def damage(_: Path, out: Path) -> None:
        content = json.loads((out / path).read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to
        (out / path).write_text(json.dumps(content))

    return damage


def raw(name: str, content: str | bytes) -> Callable[[Path, Path], object]:
    """Return a damage: another table in the raw dataset."""
    data = content.encode() if isinstance(content, str) else content
    return lambda dataset, _: (dataset / name).write_bytes(data)


def link(path: str, target: str) -> Callable[[Path, Path], object]:
    """Return a damage: a link in place of a file."""

    def damage(_: Path, out: Path) -> None:
        (out / path).unlink()
        (out / path).symlink_to(target)

    return damage


SESSIONS, PARTICIPANTS = "sub-1/sub-1_sessions.tsv", "participants.tsv"
TIMES = "session_id\tacq_time\nses-a\t{}\nses-b\t2003-01-01\n"
OTHER = {"name": "sub-2_ses-a_T2starw", "reason": "x"}
DAMAGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "only a mark": (
        raw(SESSIONS, b"\xef\xbb\xbf\n"),
        "sub-1_sessions.tsv is left out: it is empty",
    ),
    "blank UTF-16": (raw(SESSIONS, "\ufeff\n".encode("utf-16-le")), "it is empty"),
    "only a blank": (raw(SESSIONS, "\u00a0\n"), "it is empty"),
    "spaces": (raw(SESSIONS, "session_id acq_time\nses-a 2001\n"), "separated by spaces, not by"),
    "bars": (raw(SESSIONS, "session_id|acq_time\nses-a|2001\n"), "separated by vertical bars"),
    "other sessions": (raw(SESSIONS, TIMES.replace("ses-a", "SES-A")), "no row of sub-1_ses-a"),
    "no rows": (raw(SESSIONS, "session_id\tacq_time\n"), "no row of sub-1_ses-a, sub-1_ses-b"),
    "a placeholder": (raw(SESSIONS, TIMES.format("9999-12-31")), "more than 60 years apart"),
    "one shifted date": (raw(SESSIONS, TIMES.format("1925-01-01")), "more than 60 years apart"),
    "a long cell": (raw(SESSIONS, TIMES.format("x" * 10_000)), "is no date"),
    "a long header": (raw(SESSIONS, "x" * 10_000 + "\n"), "no column session_id"),
    "escapes": (raw(SESSIONS, TIMES.format("\x1b[31mx\u202e")), "invisible marks are removed"),
    "a record of another": (change(INPUTS, "unit", to="sub-2_ses-a"), "sub-1_ses-a_inputs.json"),
    "no scan of another": (change(INPUTS, "withdrawn", to=[OTHER]), ""),
    "a name of no file": (
        change(INPUTS, "scans", 0, "stages", "lesions", "sidecar", to="sub-1/" + "x" * 5000),
        "1 scan has no result",
    ),
    "a loop": (link(PREPROC, Path(PREPROC).name), "symbolic links"),
    "a mapping for a text": (change(PREPROC, "Manufacturer", to={"a": 1}), "Manufacturer"),
    "a list for a number": (change(PREPROC, "EchoTime", to=["<b>"]), "left out as unknown"),
    "a record of nobody": (
        lambda _, out: (out / "logs/sub-*_x_error.json").write_text("{}"),
        "",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_of_one_person_is_named_and_changes_nobody_else(
    run: Callable[..., Any], name: str
) -> None:
    damage, note = DAMAGES[name]
    before, other, _ = run(lambda *_: None)
    own, same, told = run(damage)
    assert same == other
    assert {n: len(rows) for n, rows in own.items() if n != "group_lesions"} == {
        n: len(rows) for n, rows in before.items() if n != "group_lesions"
    }
    assert note in told and "Traceback" not in told
    assert max(map(len, told.splitlines())) < 600
    assert not set(told) & {"\x1b", "\u202e"}
    for row in own["group_cmb"]:
        assert (row["status"] == "complete") == (row["reason"] == "n/a")
        assert row["status"] == "complete" or row["n_any"] == "n/a"
        assert os.sep + "out" not in row["reason"]
        assert row["age"] in ("61", "63", "n/a") and len(row["days_since_baseline"]) < 6


def test_a_row_that_was_cut_short_gives_no_number(run: Callable[..., Any]) -> None:
    cut = "participant_id\tage\tsex\nsub-2\t62\tF\nsub-1\t6"
    own, other, told = run(raw(PARTICIPANTS, cut))
    assert [row["age"] for row in own["group_cmb"]] == ["n/a", "n/a"]
    assert other["group_cmb"][0]["age"] == "62"
    assert "participants.tsv: the file ends within a row" in told


def test_capitals_of_a_column_change_nothing(run: Callable[..., Any]) -> None:
    before, other, _ = run(lambda *_: None)
    table = TIMES.format("2001-01-01").replace("acq_time", "Acq_Time")
    own, same, _ = run(raw(SESSIONS, table))
    assert (own, same) == (before, other)
    assert [row["acq_time"] for row in own["group_cmb"]] == ["2001-01-01", "2003-01-01"]


def test_a_refused_file_has_a_reason(run: Callable[..., Any]) -> None:
    own, _, _ = run(change(INPUTS, "refused", to=[{"path": "sub-1_swi.nii", "reason": None}]))
    (row,) = (row for row in own["group_cmb"] if row["status"] == "refused")
    assert row["reason"] == "the record of the run does not say why"
