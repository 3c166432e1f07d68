"""What a run leaves under ``logs/``: the log, and records that the reports read."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from . import __version__
from .outputs import write_json
from .scans import Scan, Unit

__all__ = ["clear_error", "error_path", "open_log", "write_error", "write_inputs"]


def open_log(folder: Path, *, verbosity: int) -> Path:
    """Send the program's messages to the terminal and to a new file; give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    # One file a run: many runs may write into the same output dataset at the same time.
    path = folder / f"cmbprep-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    logger = logging.getLogger("cmbprep")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    to_file = logging.FileHandler(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter("cmbprep: %(message)s"))
    to_terminal.setLevel(logging.DEBUG if verbosity else logging.INFO)
    logger.addHandler(to_file)
    logger.addHandler(to_terminal)
    logger.debug("cmbprep %s", __version__)
    return path


def write_inputs(root: Path, unit: Unit) -> Path:
    """Record what was found for a unit, so that the report needs no raw data."""
    return write_json(
        root / "logs" / f"{unit.label}_inputs.json",
        {
            "unit": unit.label,
            "scans": [
                {
                    "name": scan.name,
                    "files": [path.name for path in scan.files],
                    "warnings": list(scan.warnings),
                }
                for scan in unit.scans
            ],
            "refused": [
                {"path": refusal.path.name, "reason": refusal.reason, "hint": refusal.hint}
                for refusal in unit.refused
            ],
            "anatomy": None if unit.anatomy is None else {"name": unit.anatomy.path.name},
        },
    )


def error_path(root: Path, scan: Scan) -> Path:
    """Give the place of a scan's error record."""
    return root / "logs" / f"{scan.name}_error.json"


def write_error(root: Path, scan: Scan, *, step: str, message: str, traceback: str) -> Path:
    """Record why a scan failed; its report shows it."""
    return write_json(
        error_path(root, scan),
        {"scan": scan.name, "step": step, "message": message, "traceback": traceback},
    )


def clear_error(root: Path, scan: Scan) -> None:
    """Forget the failure of a scan that has succeeded since."""
    error_path(root, scan).unlink(missing_ok=True)
