"""The log of a run: a full disk, a folder that cannot be made, names that are no text."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from cmbprep.outputs.logs import open_log


def test_a_log_on_a_full_disk_ends_with_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    path = open_log(tmp_path / "logs", verbosity=0)
    assert path is not None
    logger = logging.getLogger("cmbprep")
    logger.info("before")
    (handler,) = (one for one in logger.handlers if isinstance(one, logging.FileHandler))
    handler.stream.close()
    handler.stream = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - logging closes it
    logger.info("one")
    logger.info("two")
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "the log ends here" not in line] == [
        "cmbprep: before",
        "cmbprep: one",
        "cmbprep: two",
    ]
    (warning,) = (line for line in said if "the log ends here" in line)
    assert "finished scans are kept" in warning


def test_a_log_that_cannot_be_made_is_done_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").touch()
    assert open_log(tmp_path / "logs", verbosity=0) is None
    logging.getLogger("cmbprep").info("one")
    said = capsys.readouterr().err.splitlines()
    assert "there is no log of this run" in said[0]
    assert said[1:] == ["cmbprep: one"]


def test_names_that_are_no_text_go_into_the_log(tmp_path: Path) -> None:
    path = open_log(tmp_path / "logs", verbosity=0)
    assert path is not None
    logging.getLogger("cmbprep").info("%s", os.fsdecode(b"sub-\xff"))
    assert r"sub-\udcff" in path.read_text("utf-8")
