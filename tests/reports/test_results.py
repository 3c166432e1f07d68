"""What counts as a result: by the last run's record, and never by a file that is merely there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cmbprep.bids.model import Anatomy, Echo, Refusal, Scan, Unit
from cmbprep.outputs.records import (
    Recorded,
    Surroundings,
    recorded_units,
    write_error,
    write_inputs,
)
from cmbprep.outputs.stages import BLOCK, StageFiles, find_records
from cmbprep.plan import Method, SubjectPlan, plan_subject
from cmbprep.reports.individual import write_subject_report
from cmbprep.reports.results import ScanResult, SubjectResult, collect_results
from cmbprep.templates import load_template
from tests.stages import finish


@pytest.fixture
def method() -> Method:
    template = load_template()
    return Method(reference=template, template=template, scheme="mars", detector="classical")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "out"


def scan(raw: Path, suffix: str = "T2starw", **entities: str) -> Scan:
    entities = {"sub": "01", **entities}
    name = "_".join(f"{key}-{value}" for key, value in entities.items())
    path = raw / "sub-01" / "anat" / f"{name}_{suffix}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
    return Scan(entities=entities, suffix=suffix, datatype="anat", echoes=(Echo(magnitude=path),))


def unit(*scans: Scan, **more: object) -> Unit:
    return Unit(subject="01", session=None, scans=scans, **more)  # type: ignore[arg-type]


class Runs:
    """Runs of the participant level in which every stage succeeds at once."""

    origin = "this dataset"
    recorded: Recorded

    def __init__(self, root: Path, raw: Path, method: Method) -> None:
        self.root, self.raw, self.method = root, raw, method

    def plan(self, unit: Unit, **changes: object) -> SubjectPlan:
        method = replace(self.method, **changes)  # type: ignore[arg-type]
        return plan_subject([unit], root=self.root, method=method)

    def record(self, unit: Unit, plan: SubjectPlan, *, filtered: bool = False) -> list[str]:
        surroundings = Surroundings(self.raw, filtered=filtered, origin=self.origin)
        self.recorded = write_inputs(self.root, unit, plan.scans, surroundings)
        return list(self.recorded.news)

    def __call__(
        self, unit: Unit, *, lesions: int = 2, filtered: bool = False, **changes: object
    ) -> list[str]:
        plan = self.plan(unit, **changes)
        news = self.record(unit, plan, filtered=filtered)
        for one in plan.scans:
            for stage in one.stages:
                if stage.todo:
                    sources = [
                        f"bids:raw:{path.relative_to(self.raw).as_posix()}"
                        for path in one.scan.files
                    ]
                    finish(
                        stage.files,
                        stage.fingerprint,
                        lesions=lesions,
                        scan=one.scan.name,
                        sources=sources,
                    )
        return news


@pytest.fixture
def run(root: Path, raw: Path, method: Method) -> Runs:
    return Runs(root, raw, method)


def subject_of(root: Path) -> SubjectResult:
    (subject,) = collect_results(root)
    return subject


def scans_of(root: Path) -> dict[str, ScanResult]:
    return {result.name: result for result in subject_of(root).scans}


def test_a_finished_scan_is_complete(run: Runs, root: Path, raw: Path) -> None:
    assert run(unit(scan(raw)), lesions=3) == []
    (result,) = scans_of(root).values()
    assert (result.status, result.reason, len(result.lesions)) == ("complete", None, 3)


# --- what a new run knows, an old file must not overrule -------------------------------


def test_a_second_kind_of_scan_leaves_the_first_ones_names(
    run: Runs, root: Path, raw: Path
) -> None:
    run(unit(scan(raw)))
    before = sorted(root.rglob("sub-01/anat/*"))
    assert run(unit(scan(raw), scan(raw, "swi")), lesions=1) == []
    assert set(before) < set(root.rglob("sub-01/anat/*"))
    results = scans_of(root)
    assert {name: len(r.lesions) for name, r in results.items()} == {
        "sub-01_T2starw": 2,
        "sub-01_swi": 1,
    }
    assert subject_of(root).superseded == ()


def test_a_new_threshold_that_was_not_finished_leaves_no_old_result(
    run: Runs, root: Path, raw: Path
) -> None:
    run(unit(scan(raw)))
    again = run.plan(unit(scan(raw)), threshold=0.9)
    run.record(unit(scan(raw)), again)
    (result,) = scans_of(root).values()
    assert result.status == "incomplete"
    assert "other input, parameters or version" in str(result.reason)
    assert result.lesions == ()
    run(unit(scan(raw)), lesions=5, threshold=0.9)
    (result,) = scans_of(root).values()
    assert (result.status, len(result.lesions)) == ("complete", 5)


def test_a_changed_scan_whose_lesions_were_not_found_again_has_no_result(
    run: Runs, root: Path, raw: Path
) -> None:
    run(unit(scan(raw)))
    changed = scan(raw)
    changed.source.write_text("another image")
    plan = run.plan(unit(changed))
    run.record(unit(changed), plan)
    (one,) = plan.scans
    finish(one.preproc.files, one.preproc.fingerprint)
    (result,) = scans_of(root).values()
    assert result.status == "incomplete"
    assert "lesions" in str(result.reason)


def test_a_withdrawn_scan_counts_no_more(run: Runs, root: Path, raw: Path) -> None:
    first, second = scan(raw, run="1"), scan(raw, run="2")
    run(unit(first, second))
    first.source.unlink()
    (news,) = run(unit(second))
    assert "sub-01_run-1_T2starw" in news and "no longer in the dataset" in news
    results = scans_of(root)
    assert results["sub-01_run-1_T2starw"].status == "withdrawn"
    assert results["sub-01_run-1_T2starw"].lesions == ()
    assert results["sub-01_run-2_T2starw"].status == "complete"
    assert "sub-01_run-1_seg-CMB_dseg.json" in subject_of(root).superseded
    # It is said once, and stays so.
    assert run(unit(second)) == []
    assert scans_of(root)["sub-01_run-1_T2starw"].status == "withdrawn"
    # The scan comes back.
    assert run(unit(scan(raw, run="1"), second)) == []
    assert scans_of(root)["sub-01_run-1_T2starw"].status == "complete"


def test_a_scan_that_is_refused_now_counts_no_more(run: Runs, root: Path, raw: Path) -> None:
    both = scan(raw), scan(raw, "swi")
    run(unit(*both))
    refusal = Refusal(path=both[1].source, reason="it is a projection", hint="leave it out")
    (news,) = run(unit(both[0], refused=(refusal,)))
    assert "it is a projection" in news
    assert scans_of(root)["sub-01_swi"].status == "withdrawn"


def test_a_filter_withdraws_nothing_that_is_still_in_the_dataset(
    run: Runs, root: Path, raw: Path
) -> None:
    one, other = scan(raw), scan(raw, "swi")
    run(unit(one, other))
    assert run(unit(one), filtered=True) == []
    assert [r.status for r in scans_of(root).values()] == ["complete", "complete"]
    other.source.unlink()
    assert len(run(unit(one), filtered=True)) == 1
    assert scans_of(root)["sub-01_swi"].status == "withdrawn"
    # The source is there again, but no run has looked at it.
    scan(raw, "swi")
    assert run(unit(one), filtered=True) == []
    assert scans_of(root)["sub-01_swi"].status == "withdrawn"


def test_a_link_without_content_is_still_in_the_dataset(run: Runs, root: Path, raw: Path) -> None:
    one, other = scan(raw), scan(raw, "swi")
    run(unit(one, other))
    other.source.unlink()
    other.source.symlink_to("../.git/annex/objects/nowhere")
    assert run(unit(one), filtered=True) == []
    assert scans_of(root)["sub-01_swi"].status == "complete"


def test_a_failed_scan_that_is_withdrawn_is_gone(run: Runs, root: Path, raw: Path) -> None:
    one, other = scan(raw), scan(raw, "swi")
    run.record(unit(one, other), run.plan(unit(one, other)))
    write_error(root, other, step="read", message="it is empty", traceback="")
    run(unit(one))
    assert set(scans_of(root)) == {"sub-01_T2starw"}


def test_results_of_an_older_layout_are_marked_and_left_out(
    run: Runs, root: Path, raw: Path
) -> None:
    # Earlier builds named the outputs of a lone swi scan without a mark.
    swi = scan(raw, "swi")
    plan = run.plan(unit(swi))
    names = replace(plan.scans[0].lesions.files.names, src="sub-01")
    for stage in ("preproc", "lesions"):
        finish(StageFiles(root, stage, names), "old", lesions=7, scan="sub-01_swi")
    (result,) = scans_of(root).values()
    assert (result.status, len(result.lesions)) == ("complete", 7)  # no record tells otherwise
    run(unit(swi), lesions=1)
    (result,) = scans_of(root).values()
    assert (result.status, len(result.lesions)) == ("complete", 1)
    assert subject_of(root).superseded == (
        "sub-01_desc-preproc_swi.json",
        "sub-01_seg-CMB_dseg.json",
    )


def test_without_records_the_name_of_the_source_decides(run: Runs, root: Path, raw: Path) -> None:
    swi = scan(raw, "swi")
    run(unit(swi), lesions=1)
    right = run.plan(unit(swi)).scans[0].lesions.files.names
    for src in ("sub-01", "sub-01_acq-zswi"):
        for stage in ("preproc", "lesions"):
            files = StageFiles(root, stage, replace(right, src=src))
            finish(files, "old", lesions=7, scan="sub-01_swi")
    (root / "logs" / "sub-01_inputs.json").unlink()
    (result,) = scans_of(root).values()
    assert (result.src, len(result.lesions)) == ("sub-01_acq-swi", 1)


# --- complete means every stage ---------------------------------------------------------


def test_a_scan_without_its_t1w_stage_is_not_complete(run: Runs, root: Path, raw: Path) -> None:
    t1w = raw / "t1w.nii.gz"
    raw.mkdir()
    t1w.write_text("T1w")
    with_t1w = unit(scan(raw), anatomy=Anatomy(path=t1w, entities={"sub": "01"}))
    run(with_t1w)
    assert [r.status for r in scans_of(root).values()] == ["complete"]
    assert len(subject_of(root).anatomies) == 1
    (anatomy,) = find_records(root, "anatomy")
    anatomy.files.sidecar.unlink()
    (result,) = scans_of(root).values()
    assert result.status == "incomplete"
    assert "anatomy" in str(result.reason)


@pytest.mark.parametrize("stage", ["preproc", "lesions"])
def test_a_scan_without_a_stage_is_not_complete(
    run: Runs, root: Path, raw: Path, stage: str
) -> None:
    run(unit(scan(raw)))
    (record,) = find_records(root, stage)
    record.files.sidecar.unlink()
    (result,) = scans_of(root).values()
    assert result.status == "incomplete"
    assert stage in str(result.reason)


@pytest.mark.parametrize("stage", ["preproc", "lesions"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"Cmbprep": 1}', "\udcff"])
def test_a_damaged_sidecar_costs_its_scan_alone(
    run: Runs, root: Path, raw: Path, stage: str, content: str
) -> None:
    run(unit(scan(raw), scan(raw, "swi")))
    record = next(r for r in find_records(root, stage) if r.files.names.suffix == "swi")
    record.files.sidecar.write_bytes(content.encode("utf-8", "surrogateescape"))
    results = scans_of(root)
    assert results["sub-01_swi"].status == "incomplete"
    assert results["sub-01_swi"].lesions == () or stage == "preproc"
    assert results["sub-01_T2starw"].status == "complete"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"unit": 3, "scans": 5}'])
def test_a_damaged_record_of_the_run_stops_nothing(
    run: Runs, root: Path, raw: Path, content: str
) -> None:
    run(unit(scan(raw)))
    (root / "logs" / "sub-01_inputs.json").write_text(content)
    assert any(r.status == "complete" for s in collect_results(root) for r in s.scans)
    # The next run writes it anew.
    assert run(unit(scan(raw))) == []
    assert [r.status for r in scans_of(root).values()] == ["complete"]


@pytest.mark.parametrize("subject", [None, "01"])
def test_a_damaged_record_of_a_session_is_named_once(
    root: Path, caplog: pytest.LogCaptureFixture, subject: str | None
) -> None:
    for name in ("sub-01_inputs.json", "sub-01_ses-a_inputs.json"):
        (root / "logs").mkdir(parents=True, exist_ok=True)
        (root / "logs" / name).write_text("{")
    collect_results(root, subject=subject)
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == 2
    assert "sub-01_inputs.json" in found[0] and "sub-01_ses-a_inputs.json" in found[1]


def test_a_damaged_error_record_still_says_that_the_scan_failed(
    run: Runs, root: Path, raw: Path
) -> None:
    run(unit(scan(raw)))
    write_error(root, scan(raw), step="x", message="y", traceback="")
    (root / "logs" / "sub-01_T2starw_error.json").write_text("")
    (result,) = scans_of(root).values()
    assert result.status == "failed"


def test_a_record_that_leads_out_of_the_folder_is_not_followed(
    run: Runs, root: Path, raw: Path, tmp_path: Path
) -> None:
    run(unit(scan(raw)))
    path = root / "logs" / "sub-01_inputs.json"
    content = json.loads(path.read_text())
    content["scans"][0]["stages"]["lesions"]["sidecar"] = "../elsewhere/x.json"
    path.write_text(json.dumps(content))
    (result,) = scans_of(root).values()
    assert result.status == "incomplete"


def test_a_table_that_does_not_fit_its_image_is_no_result(run: Runs, root: Path, raw: Path) -> None:
    run(unit(scan(raw)), lesions=3)
    (record,) = find_records(root, "lesions")
    table = record.files.path("table")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    (result,) = scans_of(root).values()
    assert result.status == "failed"
    assert table.name in str(result.reason)
    assert result.lesions == ()


def test_an_empty_table_is_no_result(run: Runs, root: Path, raw: Path) -> None:
    run(unit(scan(raw)), lesions=3)
    (record,) = find_records(root, "lesions")
    record.files.path("table").write_text("")
    (result,) = scans_of(root).values()
    assert result.status != "complete"
    assert record.files.path("table").name in str(result.reason)


def test_units_are_known_by_their_records_and_results(run: Runs, root: Path, raw: Path) -> None:
    run(unit(scan(raw)))
    assert recorded_units(root) == [("01", None)]
    (root / "logs" / "sub-01_inputs.json").unlink()
    assert recorded_units(root) == [("01", None)]
    (root / "logs" / "sub-02_ses-b_inputs.json").write_text("")
    assert recorded_units(root) == [("01", None), ("02", "b")]


def test_the_record_names_files_by_their_place_in_the_dataset(
    run: Runs, root: Path, raw: Path
) -> None:
    run(unit(scan(raw)))
    content = json.loads((root / "logs" / "sub-01_inputs.json").read_text())
    assert content["scans"][0]["sources"] == ["sub-01/anat/sub-01_T2starw.nii.gz"]
    assert str(raw) not in json.dumps(content)
    assert set(content["scans"][0]["stages"]) == {"preproc", "lesions"}
    assert BLOCK not in content


def test_the_report_names_results_that_are_not_used(run: Runs, root: Path, raw: Path) -> None:
    first, second = scan(raw, run="1"), scan(raw, run="2")
    run(unit(first, second))
    first.source.unlink()
    run(unit(second))
    page = write_subject_report(root, "01").read_text()
    assert "Older results" in page and "sub-01_run-1_seg-CMB_dseg.json" in page
    assert "no longer in the dataset" in page


def test_results_of_another_dataset_are_kept(run: Runs, root: Path, raw: Path) -> None:
    run(unit(scan(raw)))
    scan(raw).source.unlink()
    run.origin = "another dataset"
    for _ in range(2):  # the first such run must not make the second one forget
        assert run(unit(scan(raw, "swi"))) == []
        assert run.recorded.foreign == ("sub-01_T2starw",)
        assert [r.status for r in scans_of(root).values()] == ["complete", "complete"]
    run.origin = "this dataset"
    assert len(run(unit(scan(raw, "swi")))) == 1
    assert scans_of(root)["sub-01_T2starw"].status == "withdrawn"


@pytest.mark.parametrize("scans", [[], None, [{"no": "name"}]])
def test_a_result_that_the_record_does_not_name_is_not_silently_dropped(
    run: Runs, root: Path, raw: Path, scans: object
) -> None:
    run(unit(scan(raw)))
    path = root / "logs" / "sub-01_inputs.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "scans": scans}))
    (result,) = scans_of(root).values()
    assert result.status == "incomplete"
    assert "does not name this scan" in str(result.reason)
    assert result.lesions == ()


def test_a_record_cannot_give_a_scan_the_result_of_another(
    run: Runs, root: Path, raw: Path
) -> None:
    run(unit(scan(raw), scan(raw, "swi")))
    path = root / "logs" / "sub-01_inputs.json"
    content = json.loads(path.read_text())
    content["scans"][1]["stages"] = content["scans"][0]["stages"]
    path.write_text(json.dumps(content))
    results = scans_of(root)
    assert results["sub-01_swi"].status == "incomplete"
    assert "another scan" in str(results["sub-01_swi"].reason)
    assert results["sub-01_T2starw"].status == "complete"


def test_a_lost_record_is_said(
    run: Runs, root: Path, raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(unit(scan(raw)))
    assert [r.status for r in scans_of(root).values()] == ["complete"]
    assert "no sound record" not in caplog.text
    (root / "logs" / "sub-01_inputs.json").unlink()
    assert [r.status for r in scans_of(root).values()] == ["complete"]
    assert "sub-01: there is no sound record of the last run" in caplog.text


@pytest.mark.parametrize(
    "name", ["sub-_inputs.json", "sub-a b_inputs.json", "sub-77_inputs.json/x"]
)
def test_names_in_logs_that_are_no_records_are_passed_over(
    run: Runs, root: Path, raw: Path, name: str
) -> None:
    run(unit(scan(raw)))
    path = root / "logs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    assert recorded_units(root) == [("01", None)]
    assert set(scans_of(root)) == {"sub-01_T2starw"}


def test_a_failure_of_a_unit_without_a_record_is_known(run: Runs, root: Path, raw: Path) -> None:
    write_error(root, scan(raw, ses="b"), step="planning", message="m", traceback="")
    assert recorded_units(root) == [("01", "b")]
    write_inputs(root, replace(unit(), session="b"), [], Surroundings(raw))
    assert [s.scans for s in collect_results(root)] == [()]
