"""Names of workflows, which are also the names of folders in the work folder."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path

from cmbprep.bids.model import Anatomy, Scan
from cmbprep.config import Settings
from cmbprep.plan import SubjectPlan

#: Nodes that all participants share: the one that draws the template's atlas with another
#: border, and the one that registers templates. Each run appends its own name.
ATLAS, BRIDGE = SHARED = ("draw_atlas", "bridge")


def anatomy_name(anatomy: Anatomy) -> str:
    """Return the name of a T1w image's workflow."""
    return f"{_word(anatomy.name)}_wf"


def zones_name(anatomy: Anatomy) -> str:
    """Return the name of the node that draws a person's zones."""
    return f"{_word(anatomy.name)}_zones"


def scan_name(scan: Scan, stage: str) -> str:
    """Return the name of the workflow of a scan's stage."""
    return f"{_word(scan.name)}_{stage}_wf"


def subject_wf_name(plan: SubjectPlan, *, scope: str) -> str:
    """Return the name of a participant's workflow, and of its folder in the work folder.

    Jobs that work on different sessions of a participant at the same time get different
    folders, as do studies that share a work folder. A job that is started again finds its own.

    Parameters
    ----------
    plan
        The participant.
    scope
        From :func:`work_scope`.
    """
    key = "\0".join((scope, *(unit.label for unit in plan.units)))
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{_word(f'sub_{plan.subject}')}_{digest}_wf"


def work_scope(settings: Settings) -> str:
    """Return what tells a study from others that use the same work folder.

    Paths are not enough: in containers every study is mounted at the same ones.
    """
    parts = []
    for folder in (settings.bids_dir, settings.output_dir):
        real = folder.resolve()
        parts += [str(real), str(real.stat().st_ino) if real.exists() else ""]
    return "\0".join(parts)


def shared_name(name: str) -> str:
    """Return the name, in this run, of a node that all its participants share.

    Runs at the same time must not share its folder, which lies beside the participants' ones.
    """
    return f"{name}_{_word(socket.gethostname())}_{os.getpid()}"


def shared_folders(folder: Path) -> list[Path]:
    """List the folders of shared nodes of this run, and of runs on this machine that were killed.

    Parameters
    ----------
    folder
        The folder of the whole workflow.
    """
    found = []
    for kind in SHARED:
        prefix = f"{kind}_{_word(socket.gethostname())}_"
        for path in folder.glob(f"{prefix}*"):
            pid = path.name.removeprefix(prefix)
            if pid.isdecimal() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
                found.append(path)
    return sorted(found)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _word(text: str) -> str:
    """Turn a name into one that nipype takes."""
    return re.sub(r"\W|-", "_", text)
