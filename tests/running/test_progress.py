"""Progress: what the terminal says of steps that end or fail."""

from __future__ import annotations

import logging

import pytest
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from cmbprep.running.progress import Progress


def node(name: str, title: str | None = None) -> pe.Node:
    made = pe.Node(IdentityInterface(["x"]), name)
    if title is not None:
        made.title = title
    return made


@pytest.fixture
def progress() -> Progress:
    inner = pe.Workflow("sub_01_acq_a_T2starw_preproc_wf")
    inner.add_nodes([node("read", "sub-01_acq-a_T2starw: reading"), node("merge")])
    bare = pe.Workflow("sub_01_run_2_swi_lesions_wf")
    bare.add_nodes([node("merge")])
    person = pe.Workflow("sub_01_0a1b2c3d_wf")
    person.add_nodes([inner, bare, node("inputnode")])
    whole = pe.Workflow("cmbprep_wf")
    whole.add_nodes([person])
    return Progress(whole)


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        (
            "sub_01_acq_a_T2starw_preproc_wf.read",
            "end",
            (logging.INFO, "[1/1] sub-01_acq-a_T2starw: reading: done in 3 s"),
        ),
        (
            "sub_01_acq_a_T2starw_preproc_wf.read",
            "exception",
            (logging.WARNING, "[1/1] sub-01_acq-a_T2starw: reading: failed after 3 s"),
        ),
        (
            "sub_01_acq_a_T2starw_preproc_wf.merge",
            "exception",
            (logging.WARNING, "sub-01_acq-a_T2starw: merge: failed after 3 s"),
        ),
        (
            "sub_01_run_2_swi_lesions_wf.merge",
            "exception",
            (logging.WARNING, "sub-01_run-2_swi: merge: failed after 3 s"),
        ),
        ("inputnode", "exception", (logging.WARNING, "sub-01: inputnode: failed")),
        ("sub_01_run_2_swi_lesions_wf.merge", "end", None),
        ("sub_01_acq_a_T2starw_preproc_wf.merge", "start", None),
    ],
)
def test_each_failure_is_a_warning_with_the_name_of_the_image(
    progress: Progress,
    caplog: pytest.LogCaptureFixture,
    name: str,
    status: str,
    expected: tuple[int, str] | None,
) -> None:
    with caplog.at_level(logging.DEBUG, logger="cmbprep"):
        progress.step(f"cmbprep_wf.sub_01_0a1b2c3d_wf.{name}", status, 3.0)
    said = [(record.levelno, record.getMessage()) for record in caplog.records]
    if expected is None:
        assert said == []
    else:
        ((level, message),) = said
        assert level == expected[0]
        assert message.startswith(expected[1])
