"""The engine: failures, lost processes and progress, on small workflows."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits
from nipype.pipeline import engine as pe

from cmbprep import engine
from cmbprep.errors import ScanError, UsageError


class _Number(BaseInterfaceInputSpec):
    x = traits.Int(mandatory=True)


class _Result(TraitedSpec):
    y = traits.Int()


class AddOne(SimpleInterface):
    input_spec = _Number
    output_spec = _Result

    def _run_interface(self, runtime: Any) -> Any:
        self._results["y"] = self.inputs.x + 1
        Path("ran").write_text(str(self.inputs.x))
        return runtime


class Refuse(AddOne):
    def _run_interface(self, _: Any) -> Any:
        raise ScanError("all voxels are zero", path="a.nii.gz", hint="export it again")


class Break(AddOne):
    def _run_interface(self, _: Any) -> Any:
        raise ZeroDivisionError("by zero")


class KillSelf(AddOne):
    def _run_interface(self, runtime: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        return runtime


class KillSelfOnce(AddOne):
    def _run_interface(self, runtime: Any) -> Any:
        mark = Path(self.inputs.x_file)
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._run_interface(runtime)

    class input_spec(_Number):  # noqa: N801 - nipype's name
        x_file = traits.Str()


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Run nodes that all hang on one first node; give crashes and the steps seen."""

    def run_nodes(*nodes: pe.Node, nprocs: int = 2) -> tuple[list[engine.Crash], dict[str, str]]:
        crash_dir = engine.configure(
            work=tmp_path / "work", log_dir=tmp_path, stop_on_first_crash=False, verbosity=0
        )
        workflow = pe.Workflow("wf", base_dir=str(tmp_path / "work"))
        first = pe.Node(AddOne(x=1), "first")
        for node in nodes:
            workflow.connect(first, "y", node, "x")
            after = pe.Node(AddOne(), f"after_{node.name}")
            workflow.connect(node, "y", after, "x")
        steps: dict[str, str] = {}
        crashes = engine.run(
            workflow,
            engine.read_plugin(None, nprocs=nprocs, mem_gb=None),
            crash_dir=crash_dir,
            on_step=lambda node, status, _: steps.__setitem__(node, status),
        )
        return crashes, steps

    return run_nodes


@pytest.mark.parametrize("nprocs", [1, 2])
def test_a_failure_is_told_in_its_own_words_and_the_rest_goes_on(run: Any, nprocs: int) -> None:
    crashes, steps = run(
        pe.Node(Refuse(), "bad"),
        pe.Node(Break(), "worse"),
        pe.Node(AddOne(), "good"),
        nprocs=nprocs,
    )
    messages = {crash.node: crash.message for crash in crashes}
    assert messages == {
        "wf.bad": "a.nii.gz: all voxels are zero. What to do: export it again.",
        "wf.worse": "ZeroDivisionError: by zero",
    }
    assert steps["wf.after_good"] == "end"
    assert "wf.after_bad" not in steps
    assert all("Traceback" in crash.traceback for crash in crashes)


def test_a_killed_process_ends_its_own_scan_only(run: Any) -> None:
    crashes, steps = run(pe.Node(KillSelf(), "dies"), pe.Node(AddOne(), "lives"))
    assert [crash.node for crash in crashes] == ["wf.dies"]
    assert "killed twice" in crashes[0].message
    assert "--mem" in crashes[0].message
    assert steps["wf.after_lives"] == "end"


def test_a_process_that_is_lost_once_is_tried_again(run: Any, tmp_path: Path) -> None:
    node = pe.Node(KillSelfOnce(x_file=str(tmp_path / "mark")), "dies_once")
    crashes, steps = run(node)
    assert crashes == []
    assert steps["wf.after_dies_once"] == "end"


def test_waiting_does_not_look_through_all_that_is_loaded(tmp_path: Path) -> None:
    """nipype collects garbage at every poll, which kept a processor busy."""
    seen: list[tuple[int, int]] = []
    workflow = pe.Workflow("wf", base_dir=str(tmp_path))
    workflow.add_nodes([pe.Node(AddOne(x=1), "a")])
    (tmp_path / "crashes").mkdir()
    engine.run(
        workflow,
        engine.read_plugin(None, nprocs=1, mem_gb=None),
        crash_dir=tmp_path / "crashes",
        on_step=lambda *_: seen.append((len(gc.get_objects()), gc.get_freeze_count())),
    )
    looked_at, left_out = seen[-1]
    assert left_out > 100_000  # nipype and what it loads
    assert looked_at < 0.1 * left_out
    assert gc.get_freeze_count() == 0


def test_a_plugin_file_is_read_or_named(tmp_path: Path) -> None:
    path = tmp_path / "plugin.yml"
    path.write_text("plugin: SLURM\nplugin_args: {sbatch_args: --mem=4G}\n")
    plugin = engine.read_plugin(path, nprocs=4, mem_gb=None)
    assert (plugin.name, plugin.arguments["sbatch_args"]) == ("SLURM", "--mem=4G")
    for content in ("- a\n", "plugin_args: {}\n", "plugin: [\n"):
        path.write_text(content)
        with pytest.raises(UsageError, match=r"plugin\.yml"):
            engine.read_plugin(path, nprocs=4, mem_gb=None)


def test_a_plugin_that_does_not_exist_is_an_error_not_a_result(run: Any, tmp_path: Path) -> None:
    workflow = pe.Workflow("wf", base_dir=str(tmp_path))
    workflow.add_nodes([pe.Node(AddOne(x=1), "a")])
    (tmp_path / "crashes").mkdir()
    with pytest.raises(Exception, match="NoSuch"):
        engine.run(workflow, engine.Plugin("NoSuch", {}), crash_dir=tmp_path / "crashes")
