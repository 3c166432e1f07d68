"""Servers that are killed at any moment: nothing that was answered is lost or half-written."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from cmbprep.ratings.consensus import reviewed_scan
from cmbprep.ratings.reviewed import ReviewedFiles, is_current
from cmbprep.ratings.store import Reader, log_path, read_log
from tests.ratings.madeup import automatic, make_dataset
from tests.review.serving import Running, serving, start

SCAN = "sub-01_T2starw"
ANNA = Reader(name="Anna B.")


def test_a_killed_server_loses_at_most_the_last_act(tmp_path: Path):
    root = make_dataset(tmp_path / "out")
    scan = automatic(root)
    path = log_path(scan.folder, scan.src, ANNA)
    rng = random.Random(7)
    stored = 0
    for _ in range(6):
        server = start(root)
        answered: list[str] = []
        reader = threading.Thread(target=read_on, args=(server, answered, stored))
        reader.start()
        time.sleep(rng.uniform(0.05, 1.0))
        server.process.kill()
        reader.join()
        server.stop()
        ids = [act.id for act in read_log(path)]
        assert ids[stored : stored + len(answered)] == answered
        assert len(ids) - stored - len(answered) in (0, 1)
        stored = len(ids)
        check_files(root)
    assert stored > 20
    # The next server brings the files up to the log.
    with serving(root):
        pass
    assert is_current(scan, ANNA, read_log(path))
    check_files(root)


def read_on(server: Running, answered: list[str], number: int) -> None:
    """Judge, finish and take back, as fast as the server answers."""
    step = number
    while True:
        step += 1
        lesion = f"L{step % 3 + 1}"
        content = (
            {"type": "finish"}
            if step % 4 == 0 and number + len(answered) > 6
            else {"type": "verdict", "lesion": lesion, "verdict": "definite"}
        )
        name = f"{number}-{step}"
        try:
            status, answer = server.act(SCAN, id=name, **content)
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return
        if status == 200:
            assert answer["act"]["id"] == name
            answered.append(name)


def check_files(root: Path) -> None:
    """Every file that has its final name is whole."""
    for reader in (ANNA, Reader(name="Anna"), Reader(name="Ben")):
        check_files_of(root, ReviewedFiles(automatic(root), reader))


def check_files_of(root: Path, files: ReviewedFiles) -> None:
    for image in (files.dseg, files.mask):
        if image.exists():
            assert np.asarray(nib.load(image).dataobj).shape == (40, 48, 24)
    # A hidden file has not got its final name yet.
    for path in root.glob("sub-*/anat/[!.]*.json"):
        json.loads(path.read_text())
    if files.table.exists():
        lines = files.table.read_text().splitlines()
        assert len({line.count("\t") for line in lines}) == 1


def test_two_readers_at_once(tmp_path: Path):
    root = make_dataset(tmp_path / "out")
    names = ("Anna", "Ben")
    answered: dict[str, list[str]] = {name: [] for name in names}

    def hammer(server: Running, name: str) -> None:
        for step in range(60):
            lesion = f"L{step % 3 + 1}"
            verdict = "definite" if name == "Anna" else "possible"
            content = {"type": "verdict", "lesion": lesion, "verdict": verdict}
            status, answer = server.act(SCAN, **content)
            assert status == 200
            answered[name].append(answer["act"]["id"])
        assert server.act(SCAN, type="finish")[0] == 200

    with serving(root, reader="Anna") as one, serving(root, reader="Ben") as two:
        threads = [
            threading.Thread(target=hammer, args=pair) for pair in ((one, "Anna"), (two, "Ben"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    scan = automatic(root)
    for name, rating in (("Anna", "definite"), ("Ben", "possible")):
        acts = read_log(log_path(scan.folder, scan.src, Reader(name=name)))
        assert [act.id for act in acts[:-1]] == answered[name] and len(acts) == 61
        lesions = reviewed_scan(scan, reader=name).lesions
        assert [lesion.rating for lesion in lesions] == [rating] * 3
    check_files(root)
