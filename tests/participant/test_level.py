"""The participant level around its workflows: what it plans, tells, waits for and gives up."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import pytest

from cmbprep.bids import units as units_module
from cmbprep.config import Settings
from cmbprep.engine import Crash
from cmbprep.errors import UsageError
from cmbprep.group import followup
from cmbprep.outputs.stages import find_records
from cmbprep.participant import runner, withdrawal
from cmbprep.participant.level import run_participant_level
from cmbprep.plan import SubjectPlan
from cmbprep.reports.results import ScanResult, collect_results
from cmbprep.running import locks
from cmbprep.running.locks import try_lock
from tests.bidsdata import add_image, make_dataset
from tests.stages import finish


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = make_dataset(tmp_path / "bids")
    for label in ("01", "02"):
        add_image(root, f"sub-{label}/anat/sub-{label}_T2starw.nii.gz")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


class Work:
    """Stands for the workflows: finishes what is planned, but for the images that fail."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.unsaved: set[tuple[str, str]] = set()
        self.transient = False
        self.missing_figures: dict[str, str] = {}
        self.computed: list[str] = []

    def __call__(self, plans: Sequence[SubjectPlan]) -> dict[str, Crash]:
        lost: dict[str, Crash] = {}
        for plan in plans:
            for one in plan.scans if plan.todo else ():
                if not one.todo:
                    continue
                anatomy = one.anatomy.anatomy.name if one.anatomy else None
                for name in (anatomy, one.scan.name):
                    if name in self.failing:
                        node = f"cmbprep_wf.{name.replace('-', '_')}_wf.register"
                        lost[one.scan.name] = self.crash(node, f"{name} is broken")
                        break
                if one.scan.name in lost:
                    continue
                self.computed.append(one.scan.name)
                for stage in one.stages:
                    if stage.todo and (one.scan.name, stage.files.stage) not in self.unsaved:
                        between = f"/ses-{one.scan.session}" if one.scan.session else ""
                        source = f"sub-{plan.subject}{between}/anat/{one.scan.source.name}"
                        sources = [f"bids:raw:{source}"]
                        finish(
                            stage.files,
                            stage.fingerprint,
                            scan=one.scan.name if stage.files.stage != "anatomy" else None,
                            sources=sources,
                            MissingFigures=self.missing_figures,
                        )
        return lost

    def crash(self, node: str, message: str) -> Crash:
        return Crash(node, message, f"Traceback: {message}", self.transient)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()
    monkeypatch.setattr(runner.Run, "compute", lambda _, plans: work(plans))
    return work


Start = Callable[..., int]


@pytest.fixture
def start(bids: Path, out: Path) -> Start:
    def start(**changes: object) -> int:
        values = {"bids_dir": bids, "output_dir": out, "level": "participant", **changes}
        return run_participant_level(Settings(detector="classical", **values))  # type: ignore[arg-type]

    return start


def results(out: Path) -> dict[str, ScanResult]:
    return {scan.name: scan for subject in collect_results(out) for scan in subject.scans}


def test_all_done_is_zero(start: Start, out: Path, work: Work) -> None:
    assert start() == 0
    assert {name: r.status for name, r in results(out).items()} == {
        "sub-01_T2starw": "complete",
        "sub-02_T2starw": "complete",
    }
    assert (out / "sub-01.html").is_file()
    assert not (out / ".work").exists()
    work.computed.clear()
    assert start() == 0
    assert work.computed == []


def test_a_stage_that_is_not_there_is_a_failure(
    start: Start, out: Path, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    work.unsaved.add(("sub-01_T2starw", "preproc"))
    assert start() == 1
    assert results(out)["sub-01_T2starw"].status == "failed"
    assert results(out)["sub-02_T2starw"].status == "complete"
    work.unsaved.clear()
    assert start() == 0
    assert results(out)["sub-01_T2starw"].status == "complete"


# --- a T1w image that fails must not cost the scan --------------------------------------


def warnings_of(out: Path, label: str) -> str:
    content = json.loads((out / "logs" / f"sub-{label}_inputs.json").read_text())
    return " ".join(content["scans"][0]["warnings"])


def test_the_next_t1w_image_is_tried_and_then_none(
    start: Start, bids: Path, out: Path, work: Work
) -> None:
    for run in ("1", "2"):
        add_image(bids, f"sub-01/anat/sub-01_run-{run}_T1w.nii.gz", sidecar={})
    work.failing.add("sub-01_run-1_T1w")
    assert start() == 0
    (anatomy,) = (r for r in find_records(out, "anatomy"))
    assert anatomy.files.names.src == "sub-01_run-2"
    assert "sub-01_run-1_T1w.nii.gz could not be used" in warnings_of(out, "01")
    assert "sub-01_run-2_T1w.nii.gz is used instead" in warnings_of(out, "01")
    work.failing.add("sub-01_run-2_T1w")
    anatomy.files.sidecar.unlink()
    assert start() == 0
    assert results(out)["sub-01_T2starw"].status == "complete"
    assert "registered to the template without one" in warnings_of(out, "01")
    assert results(out)["sub-01_T2starw"].preproc is not None


def test_a_t1w_image_whose_header_is_broken_is_not_even_tried(
    start: Start, bids: Path, out: Path, work: Work
) -> None:
    add_image(bids, "sub-01/anat/sub-01_T1w.nii.gz", sidecar={}).write_bytes(b"")
    assert start() == 0
    warning = warnings_of(out, "01")
    assert "the file is empty" in warning
    assert str(bids) not in warning and "What to do" not in warning
    assert find_records(out, "anatomy") == []


def test_a_killed_process_is_no_reason_to_leave_the_t1w_image(
    start: Start, bids: Path, out: Path, work: Work
) -> None:
    add_image(bids, "sub-01/anat/sub-01_T1w.nii.gz", sidecar={})
    work.failing.add("sub-01_T1w")
    work.transient = True
    assert start() == 1
    assert results(out)["sub-01_T2starw"].status == "failed"


# --- one participant never stops the others ---------------------------------------------


def test_a_participant_that_cannot_be_planned_stops_no_other(
    start: Start, out: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_subject = runner.plan_subject

    def refuse(units: Sequence[runner.Unit], **more: object) -> SubjectPlan:
        if units[0].subject == "01":
            raise RuntimeError("nobody has thought of this")
        return plan_subject(units, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "plan_subject", refuse)
    assert start() == 1
    found = results(out)
    assert found["sub-02_T2starw"].status == "complete"
    assert found["sub-01_T2starw"].status == "failed"
    assert "nobody has thought of this" in str(found["sub-01_T2starw"].reason)
    assert (out / "sub-01.html").is_file()


def test_a_report_that_cannot_be_written_stops_no_other(
    start: Start, out: Path, work: Work
) -> None:
    (out / "sub-01.html").mkdir(parents=True)
    assert start() == 1
    assert (out / "sub-02.html").is_file()
    assert results(out)["sub-01_T2starw"].status == "complete"


def test_a_follow_up_that_fails_is_said_and_stops_no_other(
    start: Start,
    out: Path,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[list[str]] = []

    def compute(_: Path, orders: Mapping[str, object], *args: object, **options: object):
        asked.append(sorted(orders))
        return {"01": "the visits cannot be read"}

    monkeypatch.setattr(followup, "compute_followups", compute)
    assert start() == 1
    assert asked == [["01", "02"]]
    assert "sub-01: the follow-up failed: the visits cannot be read" in capsys.readouterr().err
    assert {result.status for result in results(out).values()} == {"complete"}
    assert (out / "sub-01.html").is_file()


def test_a_broken_file_in_the_output_stops_no_one(start: Start, out: Path, work: Work) -> None:
    assert start() == 0
    for path in (*out.glob("sub-01/anat/*.json"), *out.glob("logs/sub-01*.json")):
        path.write_text("")
    work.computed.clear()
    assert start() == 0
    assert work.computed == ["sub-01_T2starw"]
    assert results(out)["sub-01_T2starw"].status == "complete"


# --- a dry run and the run say the same --------------------------------------------------


def test_a_dry_run_gives_the_verdicts_of_the_run(
    start: Start, bids: Path, out: Path, work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    (bids / "sub-01/anat/sub-01_T2starw.nii.gz").write_bytes(b"")
    (bids / "sub-02/anat/sub-02_T2starw.json").write_text('{"EchoTime": 20}')
    assert start(dry_run=True) == 1
    assert not out.exists()
    plan = capsys.readouterr().out
    assert "fail sub-01_T2starw" in plan
    assert "scan sub-02_T2starw: sub-02/anat/sub-02_T2starw.nii.gz" in plan
    assert "run lesions of sub-02_T2starw" in plan
    (warning,) = (line for line in plan.splitlines() if "EchoTime" in line)
    assert start() == 1
    told = capsys.readouterr().err
    assert warning.partition("warning: ")[2] in told
    reason = plan.partition("fail sub-01_T2starw (")[2].partition(". What to do")[0]
    assert "the file is empty" in reason
    assert "the file is empty" in str(results(out)["sub-01_T2starw"].reason)
    assert results(out)["sub-02_T2starw"].status == "complete"


def test_warnings_are_shown_once(
    start: Start, bids: Path, work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    work.missing_figures = {"sub-01_desc-bias_T2starw.svg": "it is too flat"}
    assert start(participants=("01",)) == 0
    told = capsys.readouterr().err
    assert told.count("the figure sub-01_desc-bias_T2starw.svg is missing: it is too flat") == 1
    assert start(participants=("01",)) == 0
    assert "missing" not in capsys.readouterr().err


# --- withdrawn participants ---------------------------------------------------------------


def remove(bids: Path, label: str) -> None:
    for path in (bids / f"sub-{label}").rglob("*.*"):
        path.unlink()
    (bids / f"sub-{label}" / "anat").rmdir()
    (bids / f"sub-{label}").rmdir()


def test_a_participant_that_was_withdrawn_counts_no_more(
    start: Start, bids: Path, out: Path, work: Work
) -> None:
    assert start() == 0
    remove(bids, "01")
    assert start(participants=("02",)) == 0  # nobody has asked for the other one
    assert results(out)["sub-01_T2starw"].status == "complete"
    assert start() == 0
    assert results(out)["sub-01_T2starw"].status == "withdrawn"
    assert results(out)["sub-02_T2starw"].status == "complete"
    assert (
        "withdrawn" in (out / "sub-01.html").read_text()
        or "no longer" in (out / "sub-01.html").read_text()
    )


def test_another_dataset_with_the_same_output_withdraws_nothing(
    start: Start, out: Path, work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start() == 0
    other = make_dataset(tmp_path / "other")
    add_image(other, "sub-03/anat/sub-03_T2starw.nii.gz")
    assert start(bids_dir=other) == 0
    assert {r.status for r in results(out).values()} == {"complete"}
    assert "not in this dataset" in capsys.readouterr().err


def test_a_lone_scan_that_is_gone_is_withdrawn(
    start: Start, bids: Path, out: Path, work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start() == 0
    for path in (bids / "sub-01" / "anat").iterdir():
        path.unlink()
    assert start(participants=("01",), dry_run=True) == 0
    assert "withdraw sub-01_T2starw" in capsys.readouterr().out
    assert results(out)["sub-01_T2starw"].status == "complete"
    assert start(participants=("01",)) == 1
    assert results(out)["sub-01_T2starw"].status == "withdrawn"
    # There is nothing more to do, and nothing is written.
    with pytest.raises(UsageError, match="no blood-sensitive scan"):
        start(participants=("01",))


def test_a_participant_that_is_asked_for_and_gone_is_withdrawn(
    start: Start, bids: Path, out: Path, work: Work
) -> None:
    assert start() == 0
    remove(bids, "01")
    assert start(participants=("01",)) == 1
    assert results(out)["sub-01_T2starw"].status == "withdrawn"
    with pytest.raises(UsageError):
        start(participants=("77",))


def test_a_dataset_without_any_scan_left_withdraws_all(
    start: Start, bids: Path, out: Path, work: Work
) -> None:
    assert start() == 0
    for path in bids.glob("sub-*/anat/*"):
        path.unlink()
    assert start() == 1 or {r.status for r in results(out).values()} == {"withdrawn"}
    assert {r.status for r in results(out).values()} == {"withdrawn"}


def test_a_scan_that_is_refused_now_is_withdrawn(
    start: Start, bids: Path, out: Path, work: Work
) -> None:
    assert start() == 0
    (bids / "sub-01/anat/sub-01_T2starw.json").write_text("{")
    assert start(participants=("01",)) == 1
    assert results(out)["sub-01_T2starw"].status == "withdrawn"
    assert "refused now" in str(results(out)["sub-01_T2starw"].reason)


def test_a_broken_record_of_one_unit_does_not_keep_others_from_being_withdrawn(
    start: Start, bids: Path, out: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start() == 0
    add_image(bids, "sub-03/anat/sub-03_T2starw.nii.gz")
    remove(bids, "01")
    remove(bids, "02")
    write = withdrawal.write_inputs

    def fail_once(root: Path, unit: runner.Unit, *rest: object, **more: object) -> object:
        if unit.subject == "01":
            raise RuntimeError("broken")
        return write(root, unit, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(withdrawal, "write_inputs", fail_once)
    assert start() == 1
    assert results(out)["sub-02_T2starw"].status == "withdrawn"


@pytest.mark.parametrize("session", [None, "a"])
@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_participant_that_cannot_be_read_keeps_its_results(
    bids: Path,
    out: Path,
    work: Work,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    session: str | None,
    all_of_them: bool,
) -> None:
    if session is not None:
        remove(bids, "01")
        add_image(bids, f"sub-01/ses-{session}/anat/sub-01_ses-{session}_T2starw.nii.gz")
    assert start() == 0
    known = {name: result.status for name, result in results(out).items()}
    assert set(known.values()) == {"complete"}
    look = units_module.survey_participant

    def fail(folder: Path) -> object:
        if all_of_them or folder.name == "sub-01":
            raise OSError(errno.EIO, "Input/output error", str(folder))
        return look(folder)

    monkeypatch.setattr(units_module, "survey_participant", fail)
    if all_of_them:
        with pytest.raises(UsageError, match="Input/output error"):
            start()
    else:
        assert start() == 1
    assert {name: result.status for name, result in results(out).items()} == known
    monkeypatch.undo()


def test_a_folder_whose_content_is_not_here_keeps_its_results(
    start: Start, bids: Path, out: Path, work: Work
) -> None:
    assert start() == 0
    remove(bids, "01")
    (bids / "sub-01").symlink_to("../store/sub-01")
    assert start() == 1
    assert results(out)["sub-01_T2starw"].status == "complete"
    (bids / "sub-01").unlink()
    (bids / "sub-01").write_text("no folder")
    start()
    assert results(out)["sub-01_T2starw"].status == "withdrawn"


def test_a_participant_that_another_run_adds_is_not_withdrawn(
    start: Start, bids: Path, out: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = runner.Run.process_all

    def meanwhile(run: runner.Run, by_subject: Sequence[list[runner.Unit]]) -> None:
        process(run, by_subject)
        monkeypatch.setattr(runner.Run, "process_all", process)
        add_image(bids, "sub-03/anat/sub-03_T2starw.nii.gz")
        assert start(participants=("03",)) == 0

    monkeypatch.setattr(runner.Run, "process_all", meanwhile)
    assert start() == 0
    assert {result.status for result in results(out).values()} == {"complete"}
    assert "sub-03_T2starw" in results(out)


def test_a_withdrawal_that_must_wait_is_said(
    start: Start, bids: Path, out: Path, work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start() == 0
    remove(bids, "01")
    lock = try_lock(out / ".work" / "locks", ["sub-01"])
    assert lock is not None
    with lock:
        assert start() == 1
    assert "sub-01 is no longer in the dataset" in capsys.readouterr().err
    assert start() == 0
    assert results(out)["sub-01_T2starw"].status == "withdrawn"


@pytest.mark.parametrize("busy", [False, True])
def test_a_lock_that_cannot_be_made_stops_no_other(
    start: Start,
    bids: Path,
    out: Path,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    busy: bool,
) -> None:
    assert start() == 0
    if not busy:
        remove(bids, "01")
        add_image(bids, "sub-03/anat/sub-03_T2starw.nii.gz")
    tried = runner.try_lock

    def refuse(folder: Path, labels: Sequence[str]) -> object:
        if "sub-01" in labels:
            if busy and not seen:
                seen.append(True)
                return None
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return tried(folder, labels)

    seen: list[bool] = []
    monkeypatch.setattr(runner, "try_lock", refuse)
    monkeypatch.setattr(locks, "try_lock", refuse)
    assert start() == 1
    assert results(out)["sub-02_T2starw"].status == "complete"


def test_an_old_failure_does_not_outlive_the_run_that_mends_it(
    start: Start, out: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.failing = {"sub-01_T2starw"}
    assert start() == 1
    assert results(out)["sub-01_T2starw"].status == "failed"
    work.failing = set()

    def killed(run: runner.Run, *rest: object) -> None:
        raise KeyboardInterrupt

    finished = runner.Run.finish
    monkeypatch.setattr(runner.Run, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert results(out)["sub-01_T2starw"].status == "complete"
    monkeypatch.setattr(runner.Run, "finish", finished)


def test_a_report_waits_for_another_of_the_same_participant(
    start: Start, out: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = try_lock(out / ".work" / "locks", ["report-sub-01"])
    assert lock is not None
    seen: list[bool] = []

    def release(_: float) -> None:
        seen.append((out / "sub-01.html").exists())
        lock.release()

    monkeypatch.setattr(locks.time, "sleep", release)
    assert start() == 0
    assert seen == [False]
    assert (out / "sub-01.html").exists()
    assert not (out / ".work" / "locks").exists()


def test_a_dry_run_of_reports_writes_nothing(
    start: Start, out: Path, work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start() == 0
    (out / "sub-01.html").write_text("old")
    before = sorted(out.rglob("*"))
    assert start(reports_only=True, dry_run=True) == 0
    assert "write sub-01.html" in capsys.readouterr().out
    assert (out / "sub-01.html").read_text() == "old"
    assert sorted(out.rglob("*")) == before
    with pytest.raises(UsageError, match="sub-77"):
        start(reports_only=True, participants=("77",))


def test_warnings_of_a_header_are_recorded_even_if_the_scan_fails(
    start: Start, bids: Path, out: Path, work: Work
) -> None:
    path = bids / "sub-01/anat/sub-01_T2starw.nii.gz"
    image = nib.load(path)
    image.header.set_xyzt_units("unknown", "unknown")
    nib.save(image, path)
    work.failing.add("sub-01_T2starw")
    assert start() == 1
    assert "unit of length" in warnings_of(out, "01")
    assert any("unit of length" in text for text in results(out)["sub-01_T2starw"].doubts)


# --- two runs -----------------------------------------------------------------------------


def test_a_busy_participant_is_waited_for(
    start: Start,
    out: Path,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lock = try_lock(out / ".work" / "locks", ["sub-01"])
    assert lock is not None
    order: list[str] = []
    monkeypatch.setattr(locks.time, "sleep", lambda _: (order.append("wait"), lock.release()))
    assert start() == 0
    assert order == ["wait"]
    # The free one first, then the one that was busy.
    assert work.computed == ["sub-02_T2starw", "sub-01_T2starw"]
    assert "sub-01 is being worked on by process" in capsys.readouterr().err


def test_locks_are_free_after_a_failure(
    start: Start, out: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(run: object, plans: object) -> dict[str, Crash]:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.Run, "compute", stop)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert try_lock(out / ".work" / "locks", ["sub-01", "sub-02"]) is not None


def test_a_wrong_plugin_file_is_found_before_anything_is_written(
    start: Start, out: Path, tmp_path: Path, work: Work
) -> None:
    path = tmp_path / "plugin.json"
    path.write_text('{"plugin": "Nonsense"}')
    with pytest.raises(UsageError, match="Nonsense"):
        start(plugin_file=path)
    assert not out.exists()


def test_files_are_named_within_the_dataset_and_no_other_path_is_cut(tmp_path: Path) -> None:
    raw = tmp_path / "data"
    raw.mkdir()
    settings = Settings(bids_dir=raw, output_dir=tmp_path / "out", level="participant")
    text = f"'{raw}/sub-01/a.nii' and /mnt{raw}/sub-01/b.nii"
    assert runner.shorten(text, settings) == f"'sub-01/a.nii' and /mnt{raw}/sub-01/b.nii"
