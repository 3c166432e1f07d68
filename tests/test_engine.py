"""The engine: failures, lost processes and progress, on small workflows."""

from __future__ import annotations

import errno
import gc
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits
from nipype.pipeline import engine as pe

from cmbprep import engine
from cmbprep.errors import ScanError


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


class KillSelfUnlessGivenUp(AddOne):
    """Stands for a node that draws figures."""

    reason: str | None = None

    def give_up(self, reason: str) -> None:
        self.reason = reason

    def _run_interface(self, runtime: Any) -> Any:
        if self.reason is None:
            os.kill(os.getpid(), signal.SIGKILL)
        assert "killed twice" in str(self.reason)
        self._results["y"] = 0
        return runtime


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


def test_a_node_of_extras_whose_process_is_killed_goes_without_them(run: Any) -> None:
    crashes, steps = run(pe.Node(KillSelfUnlessGivenUp(), "draws"), pe.Node(KillSelf(), "dies"))
    assert [crash.node for crash in crashes] == ["wf.dies"]
    assert steps["wf.after_draws"] == "end"


def test_a_killed_process_ends_its_own_scan_only(run: Any) -> None:
    crashes, steps = run(pe.Node(KillSelf(), "dies"), pe.Node(AddOne(), "lives"))
    assert multiprocessing.active_children() == []
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
    gc.collect()
    loaded = len(gc.get_objects())
    engine.run(
        workflow,
        engine.read_plugin(None, nprocs=1, mem_gb=None),
        crash_dir=tmp_path / "crashes",
        on_step=lambda *_: seen.append((len(gc.get_objects()), gc.get_freeze_count())),
    )
    looked_at, left_out = seen[-1]
    assert left_out > 0.9 * loaded  # nipype and what it loads
    assert looked_at < 0.1 * left_out
    assert gc.get_freeze_count() == 0


class RemoveWork(AddOne):
    """Removes the work folder, so that no result can be stored."""

    def _run_interface(self, runtime: Any) -> Any:
        work = next(path for path in Path.cwd().parents if path.name == "work")
        os.chdir("/")
        work.rename(work.with_name("gone"))
        self._results["y"] = 1
        return runtime


class ExitAll(AddOne):
    def _run_interface(self, _: Any) -> Any:
        raise SystemExit(3)


class NoPickle(AddOne):
    """Cannot be sent to a worker, nor into a crash file."""

    def __reduce_ex__(self, _: Any) -> Any:
        raise ValueError("this cannot be pickled")

    def __deepcopy__(self, _: Any) -> NoPickle:
        copy = NoPickle()
        copy.inputs.trait_set(**self.inputs.trait_get())
        return copy


class Fill(AddOne):
    def _run_interface(self, _: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", str(Path.cwd() / "image.nii"))


class TakeAll(AddOne):
    def _run_interface(self, _: Any) -> Any:
        raise MemoryError("Unable to allocate 8.00 TiB")


def test_a_node_that_cannot_store_its_result_has_failed(run: Any, tmp_path: Path) -> None:
    """nipype raises once more when it looks for the result, and the job was waited for."""
    crashes, steps = run(pe.Node(RemoveWork(), "removes"))
    assert [crash.node for crash in crashes] == ["wf.removes"]
    assert "removed" in crashes[0].message
    assert str(tmp_path / "work") in crashes[0].message
    assert "finished scans are kept" in crashes[0].message
    assert steps["wf.removes"] == "exception"


@pytest.mark.parametrize("node", [ExitAll, NoPickle])
def test_whatever_a_job_raises_is_a_crash(run: Any, node: type[AddOne]) -> None:
    crashes, steps = run(pe.Node(node(), "bad"), pe.Node(AddOne(), "good"))
    assert [crash.node for crash in crashes] == ["wf.bad"]
    assert crashes[0].message
    assert "Traceback" in crashes[0].traceback
    assert steps["wf.after_good"] == "end"


def test_a_full_disk_and_too_little_memory_have_a_remedy(run: Any, tmp_path: Path) -> None:
    crashes, _ = run(pe.Node(Fill(), "fills"), pe.Node(TakeAll(), "takes"))
    messages = {crash.node: crash.message for crash in crashes}
    assert f"the disk of {tmp_path}" in messages["wf.fills"]
    assert "finished scans are kept" in messages["wf.fills"]
    assert "8.00 TiB" in messages["wf.takes"]
    assert "--nprocs" in messages["wf.takes"]


def test_a_process_that_cannot_be_started_fails_its_nodes(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    crashes, _ = run(pe.Node(AddOne(), "a"))
    assert [crash.node for crash in crashes] == ["wf.first"]
    assert "--nprocs" in crashes[0].message


def test_no_more_workers_are_started_than_there_are_nodes(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    fork = os.fork

    def counted() -> int:
        child = fork()
        started.append(child)
        return child

    monkeypatch.setattr(os, "fork", counted)
    crashes, _ = run(pe.Node(AddOne(), "a"), nprocs=500)  # first, a, after_a
    assert crashes == []
    assert len(started) == 3


def _memory_in_use(mem_gb: float, tmp_path: Path) -> int:
    """Most nodes of 2 GB that run at a time."""
    running: set[str] = set()
    most = 0

    def note(node: str, status: str, _: float) -> None:
        nonlocal most
        (running.add if status == "start" else running.discard)(node)
        most = max(most, len(running))

    workflow = pe.Workflow("wf", base_dir=str(tmp_path / "work"))
    workflow.add_nodes([pe.Node(AddOne(x=n), f"n{n}", mem_gb=2.0) for n in range(4)])
    crash_dir = engine.configure(
        work=tmp_path / "work", log_dir=tmp_path, stop_on_first_crash=False, verbosity=0
    )
    plugin = engine.read_plugin(None, nprocs=4, mem_gb=mem_gb)
    assert engine.run(workflow, plugin, crash_dir=crash_dir, on_step=note) == []
    return most


def test_memory_is_a_limit(tmp_path: Path) -> None:
    assert _memory_in_use(4.5, tmp_path / "two") == 2
    # A node that asks for more than there is runs alone.
    assert _memory_in_use(1.0, tmp_path / "one") == 1


def test_inputs_that_cannot_be_read_fail_their_node_only(run: Any, tmp_path: Path) -> None:
    """The main process reads them to look for an earlier result."""
    removed = pe.Node(AddOne(), "removed")
    original = engine.LostWorkerMultiProcPlugin._local_hash_check

    def check(self: Any, jobid: int, graph: Any) -> bool:
        if self.procs[jobid].name == "after_removed":
            next((tmp_path / "work" / "wf" / "removed").glob("result_*.pklz")).write_bytes(b"x")
        return bool(original(self, jobid, graph))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.LostWorkerMultiProcPlugin, "_local_hash_check", check)
        crashes, steps = run(removed, pe.Node(AddOne(), "good"))
    assert [crash.node for crash in crashes] == ["wf.after_removed"]
    assert steps["wf.after_good"] == "end"


def test_the_first_crash_stops_the_workers(tmp_path: Path) -> None:
    crash_dir = engine.configure(
        work=tmp_path / "work", log_dir=tmp_path, stop_on_first_crash=True, verbosity=0
    )
    workflow = pe.Workflow("wf", base_dir=str(tmp_path / "work"))
    workflow.add_nodes([pe.Node(Break(x=1), "bad"), pe.Node(Sleep(x=1), "sleeps")])
    plugin = engine.read_plugin(None, nprocs=2, mem_gb=None)
    start = time.monotonic()
    crashes = engine.run(workflow, plugin, crash_dir=crash_dir)
    assert [crash.node for crash in crashes] == ["wf.bad"]
    assert multiprocessing.active_children() == []
    assert time.monotonic() - start < 300
    engine.configure(
        work=tmp_path / "work", log_dir=tmp_path, stop_on_first_crash=False, verbosity=0
    )


class Sleep(AddOne):
    def _run_interface(self, runtime: Any) -> Any:
        time.sleep(600)
        return runtime


@pytest.mark.parametrize("name", ["Linear", "LegacyMultiProc"])
def test_other_plugins_report_their_crashes_too(tmp_path: Path, name: str) -> None:
    crash_dir = engine.configure(
        work=tmp_path / "work", log_dir=tmp_path, stop_on_first_crash=False, verbosity=0
    )
    workflow = pe.Workflow("wf", base_dir=str(tmp_path / "work"))
    workflow.add_nodes([pe.Node(Refuse(x=1), "bad"), pe.Node(AddOne(x=1), "good")])
    path = tmp_path / "plugin.json"
    path.write_text(json.dumps({"plugin": name}))
    plugin = engine.read_plugin(path, nprocs=1, mem_gb=None)
    (crash,) = engine.run(workflow, plugin, crash_dir=crash_dir)
    assert (crash.node, crash.message) == (
        "wf.bad",
        "a.nii.gz: all voxels are zero. What to do: export it again.",
    )


def test_a_damaged_crash_file_is_a_crash(tmp_path: Path) -> None:
    workflow = pe.Workflow("wf", base_dir=str(tmp_path))
    workflow.add_nodes([pe.Node(AddOne(x=1), "a")])
    (tmp_path / "crashes").mkdir()
    name = "crash-20260301-101112-me-register-3f0c5a1e-5b1c-4d5e-8f53-0c1f2d3e4a5b.pklz"
    (tmp_path / "crashes" / name).write_bytes(b"cut short")
    (crash,) = engine.run(workflow, engine.Plugin("Linear", {}), crash_dir=tmp_path / "crashes")
    assert crash.node == "register"
    assert name in crash.message


def test_a_run_that_breaks_off_is_a_crash_of_the_workflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine.LostWorkerMultiProcPlugin, "_send_procs_to_workers", fill)
    workflow = pe.Workflow("wf", base_dir=str(tmp_path))
    workflow.add_nodes([pe.Node(AddOne(x=1), "a")])
    plugin = engine.read_plugin(None, nprocs=1, mem_gb=None)
    (crash,) = engine.run(workflow, plugin, crash_dir=tmp_path)
    assert crash.node == "wf"
    assert "full" in crash.message and "the disk of" in crash.message


def test_a_plugin_that_does_not_exist_is_an_error_not_a_result(run: Any, tmp_path: Path) -> None:
    workflow = pe.Workflow("wf", base_dir=str(tmp_path))
    workflow.add_nodes([pe.Node(AddOne(x=1), "a")])
    (tmp_path / "crashes").mkdir()
    with pytest.raises(Exception, match="NoSuch"):
        engine.run(workflow, engine.Plugin("NoSuch", {}), crash_dir=tmp_path / "crashes")
