"""The plan: what runs, what is reused, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cmbprep.bids.model import Anatomy, Echo, Scan, Unit
from cmbprep.plan import Method, StagePlan, SubjectPlan, plan_subject
from cmbprep.templates import load_template
from tests import stages


@pytest.fixture
def method() -> Method:
    template = load_template()
    return Method(
        reference=template,
        template=template,
        scheme="mars",
        detector="classical",
        detector_parameters={"name": "classical", "version": "1"},
    )


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in ("t1w", "t2s_a", "t2s_b"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def units(raw: Path) -> list[Unit]:
    """Two sessions that share a T1w image, a scan each."""
    anatomy = Anatomy(path=raw / "t1w", entities={"sub": "01", "ses": "a"})
    return [
        Unit(
            subject="01",
            session=session,
            scans=(
                Scan(
                    entities={"sub": "01", "ses": session},
                    suffix="T2starw",
                    datatype="anat",
                    echoes=(Echo(magnitude=raw / f"t2s_{session}", echo_time=0.02),),
                ),
            ),
            anatomy=anatomy,
        )
        for session in ("a", "b")
    ]


def finish(stage: StagePlan) -> None:
    stages.finish(stage.files, stage.fingerprint)


def finish_all(plan: SubjectPlan) -> None:
    for scan in plan.scans:
        finish(scan.preproc)
        finish(scan.lesions)
        if scan.anatomy:
            finish(scan.anatomy.stage)


def todo(plan: SubjectPlan) -> list[str]:
    stages = [anatomy.stage for anatomy in plan.anatomies]
    stages += [stage for scan in plan.scans for stage in (scan.preproc, scan.lesions)]
    return [f"{s.files.stage} {s.files.names.session}" for s in stages if s.todo]


def test_at_first_everything_runs_and_shared_anatomy_runs_once(
    units: list[Unit], tmp_path: Path, method: Method
) -> None:
    plan = plan_subject(units, root=tmp_path / "out", method=method)
    assert todo(plan) == ["anatomy a", "preproc a", "lesions a", "preproc b", "lesions b"]
    assert len(list(plan.describe())) == 5


def test_what_is_done_is_not_done_again(units: list[Unit], tmp_path: Path, method: Method) -> None:
    finish_all(plan_subject(units, root=tmp_path / "out", method=method))
    assert not plan_subject(units, root=tmp_path / "out", method=method).todo


def test_a_new_threshold_reruns_detection_alone(
    units: list[Unit], tmp_path: Path, method: Method
) -> None:
    finish_all(plan_subject(units, root=tmp_path / "out", method=method))
    plan = plan_subject(units, root=tmp_path / "out", method=replace(method, threshold=0.3))
    assert todo(plan) == ["lesions a", "lesions b"]


def test_a_new_scheme_or_detector_version_reruns_lesions_alone(
    units: list[Unit], tmp_path: Path, method: Method
) -> None:
    finish_all(plan_subject(units, root=tmp_path / "out", method=method))
    for changed in (
        replace(method, scheme="bombs"),
        replace(method, detector_parameters={"name": "classical", "version": "2"}),
    ):
        plan = plan_subject(units, root=tmp_path / "out", method=changed)
        assert todo(plan) == ["lesions a", "lesions b"]


def test_a_network_is_known_by_its_content_not_its_place(
    units: list[Unit], tmp_path: Path, method: Method
) -> None:
    network = replace(
        method, detector="/a/net.onnx", detector_parameters={"model_sha256": "1", "version": "1"}
    )
    finish_all(plan_subject(units, root=tmp_path / "out", method=network))
    moved = replace(network, detector="/b/c/net.onnx")
    assert not plan_subject(units, root=tmp_path / "out", method=moved).todo
    assert "/a/" not in repr(network.lesion_parameters)
    changed = replace(network, detector_parameters={"model_sha256": "2", "version": "2"})
    plan = plan_subject(units, root=tmp_path / "out", method=changed)
    assert todo(plan) == ["lesions a", "lesions b"]


def test_a_changed_scan_reruns_that_scan_alone(
    units: list[Unit], raw: Path, tmp_path: Path, method: Method
) -> None:
    finish_all(plan_subject(units, root=tmp_path / "out", method=method))
    (raw / "t2s_b").write_text("another scan")
    plan = plan_subject(units, root=tmp_path / "out", method=method)
    assert todo(plan) == ["preproc b", "lesions b"]


def test_a_changed_t1w_reruns_all_that_depends_on_it(
    units: list[Unit], raw: Path, tmp_path: Path, method: Method
) -> None:
    finish_all(plan_subject(units, root=tmp_path / "out", method=method))
    (raw / "t1w").write_text("another head")
    plan = plan_subject(units, root=tmp_path / "out", method=method)
    assert len(todo(plan)) == 5


def test_lost_anatomy_is_made_again_as_a_scan_is_complete_with_every_stage(
    units: list[Unit], tmp_path: Path, method: Method
) -> None:
    first = plan_subject(units, root=tmp_path / "out", method=method)
    finish_all(first)
    assert [scan.incomplete() for scan in first.scans] == [None, None]
    first.anatomies[0].stage.files.sidecar.unlink()
    assert all("anatomy" in str(scan.incomplete()) for scan in first.scans)
    plan = plan_subject(units, root=tmp_path / "out", method=method)
    assert todo(plan) == ["anatomy a"]
    first.scans[1].lesions.files.path("table").unlink()
    plan = plan_subject(units, root=tmp_path / "out", method=method)
    assert todo(plan) == ["anatomy a", "lesions b"]


def test_a_scan_with_a_problem_is_not_computed(
    units: list[Unit], tmp_path: Path, method: Method
) -> None:
    problems = {"sub-01_ses-a_T2starw": "the file is empty"}
    plan = plan_subject(units, root=tmp_path / "out", method=method, problems=problems)
    assert [scan.todo for scan in plan.scans] == [False, True]
    assert "fail sub-01_ses-a_T2starw (the file is empty)" in list(plan.describe())
    assert len(plan.anatomies) == 1
    problems["sub-01_ses-b_T2starw"] = "as well"
    plan = plan_subject(units, root=tmp_path / "out", method=method, problems=problems)
    assert not plan.todo
    assert plan.anatomies == ()


def test_an_input_that_cannot_be_read_does_not_stop_the_plan(
    units: list[Unit], raw: Path, tmp_path: Path, method: Method
) -> None:
    (raw / "t2s_a").unlink()
    assert plan_subject(units, root=tmp_path / "out", method=method).todo


def with_phase(units: list[Unit], raw: Path, phase_units: str = "rad") -> list[Unit]:
    """The first session's scan with a phase image."""
    (raw / "phase_a").touch()
    scan = units[0].scans[0]
    (echo,) = scan.echoes
    echo = replace(echo, phase=raw / "phase_a", phase_units=phase_units)
    return [replace(units[0], scans=(replace(scan, echoes=(echo,)),)), units[1]]


def test_a_changed_phase_image_reruns_lesions_alone(
    units: list[Unit], raw: Path, tmp_path: Path, method: Method
) -> None:
    finish_all(plan_subject(units, root=tmp_path / "out", method=method))
    found = with_phase(units, raw)
    plan = plan_subject(found, root=tmp_path / "out", method=method)
    assert todo(plan) == ["lesions a"]
    finish_all(plan)
    (raw / "phase_a").write_text("another phase")
    plan = plan_subject(found, root=tmp_path / "out", method=method)
    assert todo(plan) == ["lesions a"]
    finish_all(plan)
    found = with_phase(units, raw, "arbitrary")
    (raw / "phase_a").write_text("another phase")
    assert todo(plan_subject(found, root=tmp_path / "out", method=method)) == ["lesions a"]
