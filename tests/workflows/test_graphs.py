"""Graphs are built, not run: which nodes there are and what feeds what."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from nipype.pipeline import engine as pe

from cmbprep.bids.model import Anatomy, Echo, Scan, Unit
from cmbprep.config import Settings
from cmbprep.engine import Crash
from cmbprep.plan import Method, ScanPlan, StagePlan, SubjectPlan, plan_subject
from cmbprep.templates import Template, load_template
from cmbprep.workflows import base
from cmbprep.workflows.base import init_cmbprep_wf
from cmbprep.workflows.crashes import crashed_scans
from cmbprep.workflows.names import shared_folders, shared_name, subject_wf_name, work_scope
from cmbprep.workflows.scan import add_preproc_wf
from tests import stages


@pytest.fixture
def method() -> Method:
    template = load_template()
    return Method(reference=template, template=template, scheme="mars", detector="classical")


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    folder = tmp_path / "bids"
    folder.mkdir()
    for name in ("t1w.nii.gz", "t2s.nii.gz", "swi.nii.gz"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def settings(bids: Path, tmp_path: Path) -> Settings:
    return Settings(bids_dir=bids, output_dir=tmp_path / "out", level="participant")


def unit(bids: Path, *, t1w: bool) -> Unit:
    scans = tuple(
        Scan(
            entities={"sub": "01", "run": run},
            suffix=suffix,
            datatype="anat",
            echoes=(Echo(magnitude=bids / f"{name}.nii.gz"),),
        )
        for run, suffix, name in (("1", "T2starw", "t2s"), ("2", "swi", "swi"))
    )
    anatomy = Anatomy(path=bids / "t1w.nii.gz", entities={"sub": "01"}) if t1w else None
    return Unit(subject="01", session=None, scans=scans, anatomy=anatomy)


def finish(stage: StagePlan) -> None:
    stages.finish(stage.files, stage.fingerprint)


def build(
    plan: SubjectPlan, settings: Settings, method: Method
) -> tuple[pe.Workflow, dict[str, set[str]]]:
    """Return the workflow, and for each node of the run graph the nodes that feed it."""
    workflow = init_cmbprep_wf([plan], settings=settings, method=method)
    graph = workflow._create_flat_graph()
    feeds = {
        node.fullname.partition("_wf.")[2].partition("_wf.")[2]: {
            other.fullname.partition("_wf.")[2].partition("_wf.")[2]
            for other in graph.predecessors(node)
        }
        for node in graph.nodes()
    }
    return workflow, feeds


def test_anatomy_is_made_once_for_two_scans(bids: Path, settings: Settings, method: Method) -> None:
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    workflow, _ = build(plan, settings, method)
    names = workflow.list_node_names()
    assert sum(name.endswith("T1w_wf.register") for name in names) == 1
    assert sum(name.endswith("preproc_wf.register") for name in names) == 2
    assert sum(name.endswith("ds_lesions") for name in names) == 2


def test_every_sink_is_given_all_that_its_stage_promises(
    bids: Path, settings: Settings, method: Method
) -> None:
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    workflow = init_cmbprep_wf([plan], settings=settings, method=method)
    graph = workflow._create_flat_graph()
    sinks = [node for node in graph.nodes() if node.name.startswith("ds_")]
    assert len(sinks) == 5
    for sink in sinks:
        given = {
            target
            for source in graph.predecessors(sink)
            for _, target in graph.get_edge_data(source, sink)["connect"]
        }
        figures = {"figures", "missing_figures"}
        records = {name for name in given if name.startswith(("quality", "warnings"))}
        more = given & {"details", "view"}
        assert given == set(sink.interface._keys) | figures | records | more
        assert {"quality1", "quality2", "warnings1", "warnings2"} <= records


def test_without_a_t1w_the_scan_is_registered_to_the_template(
    bids: Path, settings: Settings, method: Method
) -> None:
    plan = plan_subject([unit(bids, t1w=False)], root=settings.output_dir, method=method)
    workflow, _ = build(plan, settings, method)
    names = workflow.list_node_names()
    assert not any("T1w_wf" in name for name in names)
    (register, *_) = [name for name in names if name.endswith("preproc_wf.register")]
    assert type(workflow.get_node(register).interface).__name__ == "RegisterToReference"


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (2, 2), (16, 2)])
def test_a_registration_is_given_what_it_can_use(
    asked: int, given: int, bids: Path, settings: Settings, method: Method
) -> None:
    """Only what deforms works on two threads: a T1w image, or scans without one."""
    settings = replace(settings, omp_nthreads=asked)
    found = []
    for t1w in (True, False):
        plan = plan_subject([unit(bids, t1w=t1w)], root=settings.output_dir, method=method)
        workflow, _ = build(plan, settings, method)
        names = [name for name in workflow.list_node_names() if name.endswith(".register")]
        found.append(sorted(workflow.get_node(name).n_procs for name in names))
    assert found == [[1, 1, given], [given, given]]


def test_what_is_there_is_not_in_the_graph(bids: Path, settings: Settings, method: Method) -> None:
    first = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    finish(first.scans[0].anatomy.stage)
    for scan in first.scans:
        finish(scan.preproc)
    finish(first.scans[0].lesions)
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    workflow, _ = build(plan, settings, method)
    names = workflow.list_node_names()
    assert not any(name.endswith("register") for name in names)
    assert [name.split(".")[1] for name in names if name.endswith("ds_lesions")] == [
        "sub_01_run_2_swi_lesions_wf"
    ]
    # A T1w stage that is lost alone is made again, and nothing else.
    finish(first.scans[1].lesions)
    first.scans[0].anatomy.stage.files.sidecar.unlink()
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    lone, _ = build(plan, settings, method)
    sinks = [name.rpartition(".")[2] for name in lone.list_node_names() if ".ds_" in name]
    assert sinks == ["ds_anatomy"]
    # The reused images come in as paths of the output dataset.
    (detect,) = [name for name in names if name.endswith(".detect")]
    reused = workflow.get_node(detect).inputs.in_file
    assert reused == str(first.scans[1].preproc.files.path("preproc"))


def test_every_way_to_the_template_reaches_the_node_that_places(
    bids: Path, settings: Settings, method: Method
) -> None:
    reference = method.reference
    other = Template(id="Other", t1w=reference.t1w, brain_mask=reference.brain_mask)
    method = replace(method, template=other)
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    workflow = init_cmbprep_wf([plan], settings=settings, method=method)
    graph = workflow._create_flat_graph()
    places = [node for node in graph.nodes() if node.name == "place"]
    assert len(places) == 2
    for place in places:
        way = {
            target: (source.name.partition("_")[0], output)
            for source in graph.predecessors(place)
            for output, target in graph.get_edge_data(source, place)["connect"]
            if target.startswith(("to_", "from_"))
        }
        assert way == {
            "to_template": ("bridge", "to_template"),
            "from_template": ("bridge", "from_template"),
            "to_reference": ("register", "to_reference"),
            "from_reference": ("register", "from_reference"),
            "to_target": ("register", "to_t1w"),
            "from_target": ("register", "from_t1w"),
            "to_direct": ("register", "to_reference"),
            "from_direct": ("register", "from_reference"),
        }


def test_a_participant_whose_graph_cannot_be_built_costs_no_other(
    bids: Path, settings: Settings, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    scans = tuple(replace(scan, entities={"sub": "02"}) for scan in unit(bids, t1w=False).scans[:1])
    other = replace(unit(bids, t1w=False), subject="02", scans=scans)
    broken = plan_subject([other], root=settings.output_dir, method=method)

    def fail(subject: object, plan: ScanPlan, *rest: object) -> object:
        if plan.scan.subject == "02":
            raise ValueError("no graph")
        return add_preproc_wf(subject, plan, *rest)

    monkeypatch.setattr(base, "add_preproc_wf", fail)
    failures: dict[str, Exception] = {}
    workflow = init_cmbprep_wf([broken, plan], settings=settings, method=method, failures=failures)
    assert str(failures["02"]) == "no graph"
    names = {name.partition(".")[0] for name in workflow.list_node_names()}
    assert names == {subject_wf_name(plan, scope=work_scope(settings))}
    with pytest.raises(ValueError, match="no graph"):
        init_cmbprep_wf([broken], settings=settings, method=method)


def test_a_scan_with_its_t1w_image_takes_a_dozen_nodes(
    bids: Path, settings: Settings, method: Method
) -> None:
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    workflow = init_cmbprep_wf([plan], settings=settings, method=method)
    nodes = [name.partition(".")[2] for name in workflow.list_node_names()]
    image = ["correct", "draw", "read", "register"]
    parts = {part: [] for part in ("T1w", "swi_preproc", "swi_lesions")}
    for part, found in parts.items():
        found += sorted(name.partition(".")[2] for name in nodes if f"{part}_wf." in name)
    assert parts == {
        "T1w": sorted([*image, "ds_anatomy"]),
        "swi_preproc": sorted([*image, "ds_preproc"]),
        "swi_lesions": ["detect", "draw", "ds_lesions", "place"],
    }


def test_the_nodes_of_a_run_can_be_sent_to_other_processes(
    bids: Path, settings: Settings, method: Method
) -> None:
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    workflow = init_cmbprep_wf([plan], settings=settings, method=method)
    for node in workflow._create_flat_graph().nodes():
        copy = pickle.loads(pickle.dumps(node))
        assert copy.inputs.get_hashval() == node.inputs.get_hashval()
        assert copy.outputs.copyable_trait_names() == node.outputs.copyable_trait_names()


def test_a_crash_is_laid_at_the_right_scans(bids: Path, settings: Settings, method: Method) -> None:
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    scope = work_scope(settings)
    owner = f"cmbprep_wf.{subject_wf_name(plan, scope=scope)}"
    one = Crash(f"{owner}.sub_01_run_2_swi_lesions_wf.detect", "m", "t")
    assert set(crashed_scans([plan], [one], scope=scope)) == {"sub-01_run-2_swi"}
    shared = Crash(f"{owner}.sub_01_T1w_wf.register", "m", "t")
    assert set(crashed_scans([plan], [shared], scope=scope)) == {
        "sub-01_run-1_T2starw",
        "sub-01_run-2_swi",
    }
    foreign = Crash("cmbprep_wf.sub_02_0a_wf.sub_01_T1w_wf.register", "m", "t")
    assert crashed_scans([plan], [foreign], scope=scope) == {}
    for name in ("cmbprep_wf", f"cmbprep_wf.{shared_name('bridge')}.register"):
        assert len(crashed_scans([plan], [Crash(name, "m", "t")], scope=scope)) == 2


def test_studies_that_share_a_work_folder_share_no_folder_of_a_node(
    bids: Path, settings: Settings, method: Method, tmp_path: Path
) -> None:
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)

    def name(one: Settings) -> str:
        return subject_wf_name(plan, scope=work_scope(one))

    assert name(settings) == name(replace(settings, nprocs=2))
    assert name(settings) != name(replace(settings, output_dir=tmp_path / "other"))
    (tmp_path / "bids2").mkdir()
    assert name(settings) != name(replace(settings, bids_dir=tmp_path / "bids2"))
    # In a container, another dataset has the same path.
    before = name(settings)
    bids.rename(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", bids)
    assert name(settings) != before


def test_folders_of_shared_nodes_belong_to_one_run(tmp_path: Path) -> None:
    host, child = shared_name("bridge").rpartition("_")[0], subprocess.Popen(["true"])
    child.wait()
    own, dead = tmp_path / shared_name("bridge"), tmp_path / f"{host}_{child.pid}"
    alive, elsewhere = tmp_path / f"{host}_{os.getppid()}", tmp_path / "bridge_elsewhere_1"
    atlas = tmp_path / shared_name("draw_atlas")
    for folder in (own, dead, alive, elsewhere, atlas):
        folder.mkdir()
    assert shared_folders(tmp_path) == sorted([own, dead, atlas])


def test_sessions_of_one_participant_work_in_different_folders(
    bids: Path, settings: Settings, method: Method
) -> None:
    labels = set()
    for session in ("a", "b"):
        base = unit(bids, t1w=False)
        scans = tuple(
            replace(scan, entities={**scan.entities, "ses": session}) for scan in base.scans
        )
        one = replace(base, session=session, scans=scans)
        plan = plan_subject([one], root=settings.output_dir, method=method)
        labels.add(subject_wf_name(plan, scope=work_scope(settings)))
    assert len(labels) == 2


def test_another_model_in_the_same_file_is_another_node(
    bids: Path, settings: Settings, method: Method
) -> None:
    hashes = []
    for version in ("1", "1", "2"):
        network = replace(
            method, detector=str(bids / "net.onnx"), detector_parameters={"version": version}
        )
        plan = plan_subject([unit(bids, t1w=False)], root=settings.output_dir, method=network)
        workflow = init_cmbprep_wf([plan], settings=settings, method=network)
        nodes = [n for n in workflow._create_flat_graph().nodes() if n.name == "detect"]
        hashes.append(nodes[0].inputs.get_hashval()[1])
    assert hashes[0] == hashes[1] != hashes[2]


def test_another_threshold_repeats_detection_and_nothing_before_it(
    bids: Path, settings: Settings, method: Method
) -> None:
    plan = plan_subject([unit(bids, t1w=True)], root=settings.output_dir, method=method)
    hashes = [
        {
            node.fullname: node.inputs.get_hashval()[1]
            for node in init_cmbprep_wf([plan], settings=settings, method=one)
            ._create_flat_graph()
            .nodes()
        }
        for one in (method, replace(method, threshold=0.3))
    ]
    changed = {name.rpartition(".")[2] for name in hashes[0] if hashes[0][name] != hashes[1][name]}
    # The sink is always run; its parameters name the threshold.
    assert changed == {"detect", "ds_lesions"}


def test_echoes_and_phase_reach_the_detector(
    bids: Path, settings: Settings, method: Method
) -> None:
    (bids / "phase.nii.gz").touch()
    plain = unit(bids, t1w=False)
    first, second = plain.scans
    echo = replace(first.echoes[0], echo_time=0.02, phase=bids / "phase.nii.gz", phase_units="rad")
    scans = (replace(first, echoes=(echo,)), second)
    plan = plan_subject([replace(plain, scans=scans)], root=settings.output_dir, method=method)
    workflow = init_cmbprep_wf([plan], settings=settings, method=method)
    with_phase, without = (
        workflow.get_node(name)
        for name in sorted(n for n in workflow.list_node_names() if n.endswith(".detect"))
    )
    assert with_phase.inputs.phases == [str(bids / "phase.nii.gz")]
    assert with_phase.inputs.phase_units == ["rad"]
    assert with_phase.inputs.magnitudes == [str(bids / "t2s.nii.gz")]
    assert without.inputs.phases == [] and without.inputs.magnitudes == []
    sinks = [
        workflow.get_node(name)
        for name in sorted(n for n in workflow.list_node_names() if n.endswith(".ds_lesions"))
    ]
    named = ["bids:raw:phase.nii.gz" in sink.inputs.sources for sink in sinks]
    assert named == [True, False]
