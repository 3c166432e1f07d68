"""Logs: whole lines, one writer, readers that do not meet, and writers that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cmbprep.errors import UsageError
from cmbprep.ratings import store
from cmbprep.ratings.acts import Act, BasedOn, format_act, parse_payload
from cmbprep.ratings.store import (
    ChangedElsewhereError,
    ForeignActsError,
    OpenElsewhereError,
    Reader,
    ReviewLog,
    find_logs,
    log_path,
    read_log,
    require_own_names,
)

READER = Reader(name="Anna B.")


def act(number: int = 1, reader: str = "Anna B.") -> Act:
    payload = parse_payload({"type": "comment", "lesion": None, "text": f"{number}"})
    base = BasedOn(fingerprint="f", digest="d")
    return Act(payload=payload, reader=reader, round=1, scan="sub-1", based_on=base)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Anna B.", "reviewed1annab"),
        ("Jürgen Müller-2", "reviewed1jurgenmuller2"),
        ("../etc/Passwd", "reviewed1etcpasswd"),
    ],
)
def test_names_of_readers_become_labels(name, label):
    assert Reader(name=name).label == label


@pytest.mark.parametrize("name", ["", "李雷", "2anna", "..", "x" * 61])
def test_names_that_make_no_label_are_refused(name):
    with pytest.raises(UsageError):
        Reader(name=name)


def test_a_round_and_a_name_cannot_be_mistaken_for_another_round():
    """reviewed1 and 2anna would read as round 12 of anna."""
    assert Reader(name="anna", round=12).label == "reviewed12anna"
    with pytest.raises(UsageError):
        Reader(name="2anna", round=1)


def test_acts_are_appended_and_found_again(tmp_path):
    path = log_path(tmp_path, "sub-1", READER)
    log = ReviewLog(path, tmp_path / "locks")
    for number in range(3):
        log.append(act(number))
    log.close()
    again = ReviewLog(path, tmp_path / "locks")
    again.append(act(3))
    assert read_log(path) == again.acts and len(again.acts) == 4
    again.close()
    assert find_logs(tmp_path, "sub-1") == {READER: again.acts}
    assert list((tmp_path / "locks").iterdir()) == []


def test_scans_with_the_same_beginning_do_not_share_logs(tmp_path):
    for src in ("sub-1", "sub-1_acq-b"):
        log = ReviewLog(log_path(tmp_path, src, READER), tmp_path / "locks")
        log.append(act())
        log.close()
    (acts,) = find_logs(tmp_path, "sub-1").values()
    assert len(acts) == 1


def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path):
    path = log_path(tmp_path, "sub-1", READER)
    whole = format_act(act(1)).encode() + b"\n"
    for end in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole + whole[:end])
        assert len(read_log(path)) == 1
        log = ReviewLog(path, tmp_path / "locks")
        log.append(act(2))
        log.close()
        assert [entry.payload.text for entry in read_log(path)] == ["1", "2"]


def test_a_damaged_line_is_named_and_the_others_hold(tmp_path, caplog):
    path = log_path(tmp_path, "sub-1", READER)
    line = format_act(act()).encode() + b"\n"
    path.write_bytes(line + b"\xff\xfe\n" + b'{"type": "finish"}\n' + line)
    assert len(read_log(path)) == 2
    assert "line 2" in caplog.text and "line 3" in caplog.text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"scan": "sub-2"}, "line 2 is of the scan 'sub-2'"),
        ({"reader": "Ben"}, "line 2 is of the reader 'Ben'"),
        ({"reader": "anna-b"}, "line 2 is of the reader 'anna-b'"),
        ({"round": 2}, "line 2 is of round 2"),
        ({"based_on": BasedOn(fingerprint="f", digest="e")}, "line 2 was made on another"),
    ],
)
def test_a_log_with_a_foreign_act_is_damaged_and_not_used(tmp_path, caplog, changes, text):
    path = log_path(tmp_path, "sub-1", READER)
    lines = [act(1), replace(act(2), **changes), act(3)]
    path.write_text("".join(f"{format_act(line)}\n" for line in lines))
    before = path.read_bytes()
    with pytest.raises(ForeignActsError, match=text):
        read_log(path)
    with pytest.raises(ForeignActsError, match="not used"):
        ReviewLog(path, tmp_path / "locks")
    assert find_logs(tmp_path, "sub-1") == {} and text in caplog.text
    assert path.read_bytes() == before and list((tmp_path / "locks").iterdir()) == []


def test_a_second_writer_is_told_who_writes(tmp_path):
    path = log_path(tmp_path, "sub-1", READER)
    log = ReviewLog(path, tmp_path / "locks")
    with pytest.raises(OpenElsewhereError, match=f"process {os.getpid()} on"):
        ReviewLog(path, tmp_path / "locks")
    other = ReviewLog(log_path(tmp_path, "sub-1", Reader(name="Ben")), tmp_path / "locks")
    other.append(act(reader="Ben"))
    other.close()
    log.close()
    ReviewLog(path, tmp_path / "locks").close()


#: Opens a log, prints what happened, and holds it until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from cmbprep.ratings.store import OpenElsewhereError, ReviewLog
try:
    log = ReviewLog(Path(sys.argv[1]) / sys.argv[2], Path(sys.argv[1]) / "locks")
except OpenElsewhereError as error:
    print(error.message, flush=True)
else:
    print("open", flush=True)
    time.sleep(60)
"""


def on_another_machine(folder, mounted, name):
    """Start a holder under another name of the machine and another path of the folder.

    The kernel is the same: this is as near to a second machine as one machine comes.
    """
    script = (
        f"hostname node2 && mount --bind '{folder}' '{mounted}' && "
        f"exec '{sys.executable}' -c \"$0\" '{mounted}' '{name}'"
    )
    command = ["unshare", "--mount", "--uts", "sh", "-c", script, HOLDER]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def may_mount():
    """Whether this user may mount folders, as root may."""
    trial = "hostname node2 && mount --bind /tmp /tmp"
    command = ["unshare", "--mount", "--uts", "sh", "-c", trial]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_a_writer_on_another_machine_is_named(tmp_path):
    if not may_mount():
        pytest.skip("folders cannot be mounted here")
    folder, mounted = tmp_path / "out", tmp_path / "mounted"
    folder.mkdir()
    mounted.mkdir()
    path = log_path(folder, "sub-1", READER)
    log = ReviewLog(path, folder / "locks")
    assert log.left_open is None
    with on_another_machine(folder, mounted, path.name) as other:
        said = other.stdout.readline()
        other.wait()
    assert f"process {os.getpid()} on {socket.gethostname()}" in said
    log.append(act())
    log.close()
    with on_another_machine(folder, mounted, path.name) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(OpenElsewhereError, match="on node2"):
            ReviewLog(path, folder / "locks")
        other.kill()
    log = ReviewLog(path, folder / "locks")
    assert " on node2 since " in log.left_open, "it was not closed there"
    assert len(log.acts) == 1
    log.close()
    # Once it is closed here, nothing is left of it.
    log = ReviewLog(path, folder / "locks")
    assert log.left_open is None
    log.close()


def test_locks_that_stay_on_a_machine_are_seen_by_the_name_of_the_other(tmp_path):
    """As on a network file system with local locks: the file is there, and nobody holds it here."""
    path = log_path(tmp_path, "sub-1", READER)
    locks = tmp_path / "locks"
    locks.mkdir()
    content = {"host": "node17", "pid": 4711, "start": "2026-03-01 10:11:12"}
    (locks / f"{path.stem}.lock").write_text(json.dumps(content))
    log = ReviewLog(path, locks)
    assert log.left_open == "process 4711 on node17 since 2026-03-01 10:11:12"
    log.append(act())
    log.close()


def test_a_writer_without_locks_sees_that_the_log_has_grown(tmp_path):
    """As on a file system without locks: nothing is overwritten, and nothing is done twice."""
    path = log_path(tmp_path, "sub-1", READER)
    one, two = ReviewLog(path, tmp_path / "a"), ReviewLog(path, tmp_path / "b")
    one.append(act(1))
    with pytest.raises(ChangedElsewhereError):
        two.append(act(2))
    assert [entry.payload.text for entry in two.acts] == ["1"]
    two.append(act(3))
    assert [entry.payload.text for entry in read_log(path)] == ["1", "3"]
    one.close()
    two.close()


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    path = log_path(tmp_path, "sub-1", READER)
    log = ReviewLog(path, tmp_path / "locks")
    log.append(act(1))
    before = path.read_bytes()
    write = os.write

    def short(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space left"):
        log.append(act(2))
    monkeypatch.undo()
    assert path.read_bytes() == before
    log.append(act(3))
    assert [entry.payload.text for entry in read_log(path)] == ["1", "3"]
    log.close()


WRITER = """
import sys
from pathlib import Path
from cmbprep.ratings.acts import Act, BasedOn, parse_payload
from cmbprep.ratings.store import Reader, ReviewLog
log = ReviewLog(Path(sys.argv[1]), Path(sys.argv[2]))
number = len(log.acts)
while True:
    number += 1
    payload = parse_payload({"type": "comment", "lesion": None, "text": f"{number} " + "x" * 3000})
    log.append(Act(payload=payload, reader="Anna B.", round=1, scan="sub-1",
                   based_on=BasedOn(fingerprint="f", digest="d")))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_killed_writers_lose_nothing_that_was_answered(tmp_path):
    """Kill the writer at random moments: what it has answered is there, in order, and whole."""
    path = log_path(tmp_path, "sub-1", READER)
    rng = random.Random(5)
    answered = 0
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(path), str(tmp_path / "locks")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        assert int(first) > answered
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        answered = int([line for line in [first, *rest] if line.endswith("\n")][-1])
        numbers = [int(entry.payload.text.split()[0]) for entry in read_log(path)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert answered <= len(numbers) <= answered + 1
        answered = len(numbers)
    for line in path.read_bytes().split(b"\n")[:-1]:
        json.loads(line)


def test_a_log_that_is_no_file_is_not_opened(tmp_path):
    path = log_path(tmp_path, "sub-1", READER)
    os.mkfifo(path)
    assert read_log(Path(path)) == []


def test_a_log_that_cannot_be_read_is_named_and_stops_no_other(tmp_path, monkeypatch, caplog):
    path = log_path(tmp_path, "sub-1", READER)
    other = log_path(tmp_path, "sub-1", Reader(name="Ben"))
    for one, reader in ((path, READER), (other, Reader(name="Ben"))):
        log = ReviewLog(one, tmp_path / "locks")
        log.append(act(1, reader.name))
        log.close()
    with path.open("ab") as file:
        file.write(b"x" * 3000)
    monkeypatch.setattr("cmbprep.ratings.store.MAX_LOG_BYTES", 2000)
    with pytest.raises(ForeignActsError, match="larger than any review"):
        read_log(path)
    assert list(find_logs(tmp_path, "sub-1")) == [Reader(name="Ben")]
    assert "larger than any review" in caplog.text
    require_own_names([(tmp_path, "sub-1")], READER)


def test_a_log_is_read_again_only_where_it_has_changed(tmp_path, monkeypatch):
    path = log_path(tmp_path, "sub-1", READER)
    log = ReviewLog(path, tmp_path / "locks")
    log.append(act(1))
    parsed = []
    whole = store._parse
    monkeypatch.setattr(store, "_parse", lambda *given: parsed.append(given) or whole(*given))
    first = read_log(path)
    first.clear()  # belongs to the caller
    assert len(read_log(path)) == 1 and len(parsed) == 1
    log.append(act(2))
    assert len(read_log(path)) == 2 and len(parsed) == 2
    log.close()
    path.unlink()
    assert read_log(path) == []
