"""JSON files and tables as people, converters and spreadsheets write them."""

from __future__ import annotations

import json
import math
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbprep.errors import CmbprepError
from cmbprep.files.json_text import json_safe
from cmbprep.files.text import read_bytes, read_object, read_table
from cmbprep.outputs.files import read_json, write_json

MANY_DIGITS = "9" * 400


def written(tmp_path: Path, content: str | bytes, name: str = "x.json") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def strict(path: Path) -> Any:
    def refuse(text: str) -> Any:
        raise AssertionError(f"{text} is not JSON")

    return json.loads(path.read_bytes().decode("utf-8"), parse_constant=refuse)


# --- what is read ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 0.02, "b": [1, "x, ]", null, true]}', {"a": 0.02, "b": [1, "x, ]", None, True]}),
        (b'{"a": 1E5, "b": -0, "c": 0.0200}', {"a": 1e5, "b": 0, "c": 0.02}),
        ('{"Name": "Étude 🧠"}'.encode(), {"Name": "Étude 🧠"}),
        (b'{"emoji": "\\ud83e\\udde0"}', {"emoji": "🧠"}),
        (b"{}", {}),
    ],
)
def test_sound_files_are_read_as_they_are(
    tmp_path: Path, content: bytes, expected: dict[str, Any]
) -> None:
    found = read_object(written(tmp_path, content))
    assert found.content == expected
    assert found.warnings == () and found.dropped == ()
    assert read_json(tmp_path / "x.json") == expected


@pytest.mark.parametrize(
    ("content", "expected", "warning"),
    [
        ('{"Name": "Zürich"}'.encode("latin-1"), {"Name": "Zürich"}, "not UTF-8"),
        ('{"Name": "a–b"}'.encode("cp1252"), {"Name": "a–b"}, "not UTF-8"),
        (b'{"Name": "\x81"}', {"Name": "\x81"}, "not UTF-8"),
        ('{"Name": "é"}'.encode("utf-8-sig"), {"Name": "é"}, "byte order mark"),
        ('{"Name": "é"}'.encode("utf-16"), {"Name": "é"}, "UTF-16"),
        ('\ufeff{"Name": "é"}'.encode("utf-16-be"), {"Name": "é"}, "UTF-16"),
        (b'{"a": [1, 2,],}', {"a": [1, 2]}, "comma before a closing bracket"),
        (b'{"a": "1,}", }', {"a": "1,}"}, "comma before a closing bracket"),
        (b'{"a": "inf, ]",}', {"a": "inf, ]"}, "comma"),
        (b'{"a": "\\",]", "b": 1,}', {"a": '",]', "b": 1}, "comma"),
        (b'{"a": NaN, "b": 2}', {"a": None, "b": 2}, "left out: a"),
        (b'{"a": -Infinity}', {"a": None}, "left out: a"),
        (b'{"a": 0.02, "t": inf}', {"a": 0.02, "t": None}, "left out: t"),
        (b'{"a": -nan, "b": [-inf, 1]}', {"a": None, "b": [None, 1]}, r"left out: a, b[0]"),
        (b'{"a": 1.#QNAN, "b": -1.#IND00}', {"a": None, "b": None}, "left out: a, b"),
        (f'{{"a": {MANY_DIGITS}}}'.encode(), {"a": None}, "left out: a"),
        (f'{{"a": {"9" * 5000}}}'.encode(), {"a": None}, "left out: a"),
        (b'{"a": 1e400, "b": {"c": -1e999}}', {"a": None, "b": {"c": None}}, "left out: a, b.c"),
        (b'{"a": True, "b": None}', {"a": True, "b": None}, "True, None"),
        (b'{"a": .5, "b": -.5, "c": 5., "d": +3}', {"a": 0.5, "b": -0.5, "c": 5.0, "d": 3}, ".5"),
        (b'{"a": 007}', {"a": 7}, "007"),
        (b'{"a": "x\ty\nz"}', {"a": "x\ty\nz"}, "line ends or tabs"),
        (b'{"a": "\\ud800"}', {"a": "\ufffd"}, "Unicode"),
        (b'{"\\udfff": 1}', {"\ufffd": 1}, "Unicode"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}, "a": 3}', {"a": 3, "b": {"c": 2}}, "twice"),
    ],
)
def test_faults_with_one_sensible_reading_are_repaired(
    tmp_path: Path, content: bytes, expected: dict[str, Any], warning: str
) -> None:
    found = read_object(written(tmp_path, content))
    assert found.content == expected
    assert any(warning in text for text in found.warnings)
    assert all(text.startswith("x.json: ") for text in found.warnings)


def test_an_integer_that_a_double_holds_is_exact(tmp_path: Path) -> None:
    found = read_object(written(tmp_path, '{"a": 9007199254740993}'))
    assert found.content["a"] == 9007199254740993


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"\0" * 100, "empty"),
        (b'{"a": 1}\0\0', "NUL"),
        (b'{"a": "x\0y"}', "NUL"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"3", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": 0.0', "cannot be read as JSON"),
        (b'{"a": 0,02}', "cannot be read as JSON"),
        (b'{"a": 3T}', "cannot be read as JSON"),
        (b"{'a': 1}", "cannot be read as JSON"),
        (b'{"a": 1}{"a": 2}', "cannot be read as JSON"),
        (b'{"a": [1,,2]}', "cannot be read as JSON"),
        (b"\x1f\x8b\x08rubbish", "cannot be read as JSON|not UTF-8"),
        (b"\xff\xfe\x00broken", "damaged"),
        (b"{\x00}\x00", "NUL"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, "nested too deep"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "not fetched"),
        (b"/annex/objects/MD5E-s2--1.json\n", "not fetched"),
    ],
)
def test_what_nobody_can_read_is_one_kind_of_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = written(tmp_path, content)
    for read in (read_object, read_json):
        with pytest.raises(CmbprepError, match=message) as e:
            read(path)
        assert e.value.path == str(path) and e.value.hint


@pytest.mark.parametrize(
    "content", ['{"a": 1,}', '{"a": .5}', '{"a": inf}', '{"a": "\t"}', '{"a": "ü"}']
)
def test_an_output_that_needs_a_repair_is_damaged(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, content.encode("latin-1"))
    assert read_object(path).warnings
    with pytest.raises(CmbprepError, match=r"x\.json"):
        read_json(path)


@pytest.mark.parametrize(
    "value",
    ["NaN", "-Infinity", MANY_DIGITS, "1e999", "1E+0400", "-2.5e309", "9" * 250 + "e99"],
)
def test_a_number_of_an_output_that_no_double_holds_is_unknown(tmp_path: Path, value: str) -> None:
    for text in (f'{{"a": {value}, "b": 1}}', f'{{"b": 1, "a": {value}\n}}'):
        assert read_json(written(tmp_path, text)) == {"a": None, "b": 1}


def test_large_numbers_that_a_double_holds_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, '{"a": 1e308, "b": 1e-400, "c": 12e99, "d": "3e4567", "e": [[]]}')
    content = read_json(path)
    assert content == {"a": 1e308, "b": 0.0, "c": 12e99, "d": "3e4567", "e": [[]]}
    assert [type(value) for value in content.values()] == [float, float, float, str, list]


def test_many_brackets_are_not_deep(tmp_path: Path) -> None:
    content = {str(number): [{}] for number in range(200)}
    assert read_json(written(tmp_path, json.dumps(content))) == content


def test_what_is_not_a_regular_file_is_never_opened(tmp_path: Path) -> None:
    fifo, folder, pipe = tmp_path / "fifo.json", tmp_path / "folder.json", tmp_path / "socket.json"
    os.mkfifo(fifo)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(pipe))
        for path, kind in ((fifo, "FIFO"), (folder, "folder"), (pipe, "socket")):
            for read in (read_object, read_json, read_table):
                with pytest.raises(CmbprepError, match=kind):
                    read(path)
    with pytest.raises(CmbprepError, match="device"):
        read_object(Path("/dev/zero"))


def test_links_without_content_get_the_remedy(tmp_path: Path) -> None:
    annexed = tmp_path / "annexed.json"
    annexed.symlink_to(".git/annex/objects/ab/cd/MD5E-s3--x.json/MD5E-s3--x.json")
    with pytest.raises(CmbprepError, match="not fetched") as e:
        read_object(annexed)
    assert "datalad get" in str(e.value) and "git annex get" in str(e.value)
    dangling = tmp_path / "dangling.json"
    dangling.symlink_to("nowhere.json")
    with pytest.raises(CmbprepError, match="does not exist"):
        read_object(dangling)
    loop = tmp_path / "loop.json"
    loop.symlink_to("loop.json")
    with pytest.raises(CmbprepError, match="cannot be read"):
        read_object(loop)
    with pytest.raises(CmbprepError, match="no such file"):
        read_object(tmp_path / "absent.json")
    good = tmp_path / "good.json"
    good.symlink_to(written(tmp_path, "{}"))
    assert read_object(good).content == {}


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    path = written(tmp_path, "{}")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    # Permissions do not bind the superuser, who runs many tests.
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(CmbprepError, match="permissions"):
        read_object(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as stream:
        stream.truncate(40 * 2**30)  # sparse: takes no room
    with pytest.raises(CmbprepError, match="too large"):
        read_object(path)
    assert read_bytes(written(tmp_path, b"12345"), limit=5) == b"12345"
    with pytest.raises(CmbprepError, match="too large"):
        read_bytes(tmp_path / "x.json", limit=4)


# --- what is written -------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, categories=("Cs", "L", "N", "P"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=VALUES)
def test_any_value_becomes_strict_json(value: Any) -> None:
    clean, dropped = json_safe(value)
    text = json.dumps(clean, allow_nan=False, ensure_ascii=False)
    text.encode("utf-8")
    assert json.loads(text) == clean
    assert bool(dropped) == (repr(clean) != repr(value))


def test_what_json_cannot_hold_is_named(tmp_path: Path, caplog: Any) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    content = {
        "kept": [1, 2.5, "x", None, True],
        "q": {"a": math.nan, "b": [1.0, math.inf]},
        "huge": int(MANY_DIGITS),
        "text": "\ud800",
        "deep": deep,
    }
    _, dropped = json_safe(content)
    assert dropped[:4] == ["q.a", "q.b[1]", "huge", "text"]
    path = write_json(tmp_path / "out.json", content)
    found = strict(path)
    assert found["kept"] == content["kept"]
    assert found["q"] == {"a": None, "b": [1.0, None]}
    assert found["huge"] is None and found["text"] == "\ufffd"
    assert "q.a, q.b[1], huge, text" in caplog.text and "out.json" in caplog.text
    assert read_json(path)["kept"] == content["kept"]


def test_sound_content_is_written_byte_for_byte(tmp_path: Path) -> None:
    content = {"b": 1, "a": [0.1, "é"], "t": (1, 2), "n": {"x": None}}
    path = write_json(tmp_path / "out.json", content)
    assert path.read_text(encoding="utf-8") == (
        json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    )


# --- tables ----------------------------------------------------------------------------


def table(tmp_path: Path, content: str | bytes) -> Any:
    return read_table(written(tmp_path, content, "t.tsv"))


def test_a_sound_table(tmp_path: Path) -> None:
    found = table(tmp_path, 'id\tage\tnote\nsub-1\t71\tsaid "no"\nsub-2\tn/a\t5" disc\n')
    assert found.columns == ("id", "age", "note")
    assert found.rows == (
        {"id": "sub-1", "age": "71", "note": 'said "no"'},
        {"id": "sub-2", "age": "n/a", "note": '5" disc'},
    )
    assert found.warnings == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines(tmp_path: Path, end: str) -> None:
    found = table(tmp_path, end.join(["id\tage", "1\t71", "", "2\tx\u2028y", ""]))
    assert [row["age"] for row in found.rows] == ["71", "x\u2028y"]
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("content", "expected", "warning"),
    [
        ("id\tplace\n1\tZürich\n".encode("latin-1"), ["Zürich"], "not UTF-8"),
        ("id\tplace\n1\tx\n".encode("utf-8-sig"), ["x"], "byte order mark"),
        ("id\tplace\n1\tx\n".encode("utf-16"), ["x"], "UTF-16"),
        (b'"id"\t"place"\n"1"\t"say ""hi"""\n', ['say "hi"'], "lines 1, 2"),
        (
            b"id\tplace\n1\tx\n2\n",
            ["x", "n/a"],
            "end early, and their last columns are missing (li",
        ),
        (
            b"id\tplace\n1\tx\ty\n2\tz\n",
            ["z"],
            "more cells than the header and are left out (line 2)",
        ),
        (b"id\tplace\n1\tx\t\t\n", ["x"], "empty cells beyond the last column"),
        (b"id\tplace\tplace\n1\tx\ty\n", ["x"], "twice, and only the first is used: place"),
        (b"id\tplace\tPlace\n1\tx\ty\n", ["x"], "differ only by capitals and are kept apart"),
        (b"id\tplace\t\n1\tx\ty\n", ["x"], "without a name are ignored: number 3"),
        (b"id \t place\n 1\t x \n", ["x"], None),
    ],
)
def test_tables_that_are_not_clean(
    tmp_path: Path, content: bytes, expected: list[str], warning: str | None
) -> None:
    found = table(tmp_path, content)
    assert [row["place"] for row in found.rows] == expected
    if warning is None:
        assert found.warnings == ()
    else:
        (text,) = found.warnings
        assert warning in text and text.startswith("t.tsv: ")


def test_columns_that_differ_by_case_are_kept_apart(tmp_path: Path) -> None:
    found = table(tmp_path, "id\tplace\tPlace\n1\tx\ty\n")
    assert found.rows == ({"id": "1", "place": "x", "Place": "y"},)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,age\n1,2\n", "commas"),
        (b"id;age\n1;2\n", "semicolons"),
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"PK\x03\x04\x00\x00", "NUL"),
    ],
)
def test_tables_that_nobody_can_read(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CmbprepError, match=message) as e:
        table(tmp_path, content)
    assert e.value.hint
