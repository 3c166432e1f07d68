"""Graphs over what other programs have made: what is given is not computed again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from nipype.pipeline import engine as pe

from cmbprep.bids.derivatives import parse_folders
from cmbprep.bids.model import Unit
from cmbprep.bids.units import find_units
from cmbprep.config import Settings
from cmbprep.engine import Crash
from cmbprep.plan import Method, plan_subject
from cmbprep.templates import load_template
from cmbprep.workflows.base import init_cmbprep_wf
from cmbprep.workflows.crashes import crashed_scans
from cmbprep.workflows.names import work_scope
from tests.bids.test_derivatives import fmriprep, freesurfer
from tests.bidsdata import add_image, make_dataset, save


@pytest.fixture
def method() -> Method:
    template = load_template()
    return Method(reference=template, template=template, scheme="mars", detector="classical")


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = make_dataset(tmp_path / "bids")
    add_image(root, "sub-01/anat/sub-01_T2starw.nii.gz")
    add_image(root, "sub-01/anat/sub-01_T1w.nii.gz")
    return root


def build(bids: Path, method: Method, *given: Path) -> pe.Workflow:
    folders = parse_folders([str(path) for path in given])
    settings = Settings(
        bids_dir=bids, output_dir=bids.parent / "out", level="participant", derivatives=folders
    )
    units = find_units(bids, derivatives=folders)
    plan = plan_subject(units, root=settings.output_dir, method=method)
    return init_cmbprep_wf([plan], settings=settings, method=method)


def nodes(workflow: pe.Workflow, part: str) -> set[str]:
    """Names of the nodes of one part of a workflow."""
    found = (name.split(".") for name in workflow.list_node_names())
    return {name[-1] for name in found if part in ".".join(name)}


def node(workflow: pe.Workflow, ending: str) -> pe.Node:
    """Return the only node with such a name."""
    (name,) = (name for name in workflow.list_node_names() if name.endswith(ending))
    return workflow.get_node(name)


def sink(workflow: pe.Workflow, stage: str) -> pe.Node:
    return node(workflow, f".ds_{stage}")


def inputs_of(workflow: pe.Workflow, name: str) -> dict[str, tuple[str, str]]:
    """Return the sources of the inputs of the only node of that name: input -> node, output."""
    graph = workflow._create_flat_graph()
    (node,) = (node for node in graph.nodes() if node.name == name)
    return {
        target: (source.name, output if isinstance(output, str) else output[0])
        for source in graph.predecessors(node)
        for output, target in graph.get_edge_data(source, node)["connect"]
    }


def test_with_all_of_fmriprep_nothing_of_the_t1w_is_computed(
    bids: Path, method: Method, tmp_path: Path
) -> None:
    fmriprep(tmp_path / "fp")
    workflow = build(bids, method, tmp_path / "fp")
    assert nodes(workflow, "T1w_wf") == {
        "read",
        "read_transforms",
        "correct",
        "draw",
        "ds_anatomy",
    }
    correct = node(workflow, "T1w_wf.correct").inputs
    assert correct.corrected and correct.given_mask.endswith("_desc-brain_mask.nii.gz")
    assert inputs_of(workflow, "ds_anatomy")["to_reference"][0] == "read_transforms"
    # The scan is still registered to the T1w image.
    assert {"register", "correct"} <= nodes(workflow, "T2starw_preproc_wf")


def test_with_freesurfer_the_registration_alone_is_computed(
    bids: Path, method: Method, tmp_path: Path
) -> None:
    freesurfer(tmp_path / "fs")
    workflow = build(bids, method, tmp_path / "fs")
    t1w = nodes(workflow, "T1w_wf")
    assert "register" in t1w and "read_transforms" not in t1w
    correct = node(workflow, "T1w_wf.correct").inputs
    assert correct.corrected and correct.given_mask.endswith("brainmask.mgz")


def test_a_mask_of_the_raw_t1w_takes_the_place_of_the_one_made_here(
    bids: Path, method: Method, tmp_path: Path
) -> None:
    save(
        tmp_path / "m/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
        np.ones((24, 28, 20), np.uint8),
    )
    workflow = build(bids, method, tmp_path / "m")
    assert "register" in nodes(workflow, "T1w_wf")
    correct = node(workflow, "T1w_wf.correct").inputs
    assert not correct.corrected and correct.given_mask.endswith("_desc-brain_mask.nii.gz")
    assert sink(workflow, "anatomy").inputs.sources == [
        "bids:raw:sub-01/anat/sub-01_T1w.nii.gz",
        "bids:m:sub-01/anat/sub-01_desc-brain_mask.nii.gz",
    ]


def test_a_mask_of_the_scan_is_used_for_all_that_needs_one(
    bids: Path, method: Method, tmp_path: Path
) -> None:
    (bids / "sub-01/anat/sub-01_T1w.nii.gz").unlink()
    mask = tmp_path / "m/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    save(mask, np.ones((24, 28, 20), np.uint8))
    workflow = build(bids, method, tmp_path / "m")
    assert node(workflow, "preproc_wf.correct").inputs.given_mask == str(mask)
    assert "carried" not in inputs_of(workflow, "correct")
    saved = sink(workflow, "preproc").inputs
    assert saved.sources[-1] == "bids:m:sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    assert saved.parameters["brain_mask"] == "given"


def test_zones_come_from_the_segmentation(bids: Path, method: Method, tmp_path: Path) -> None:
    anat = fmriprep(tmp_path / "fp")
    workflow = build(bids, method, tmp_path / "fp")
    place = inputs_of(workflow, "place")
    assert place["atlas"] == ("sub_01_T1w_zones", "atlas")
    assert node(workflow, "lesions_wf.place").inputs.person_atlas
    zones = inputs_of(workflow, "sub_01_T1w_zones")
    assert zones["brain_mask"][1] == "brain_mask" and zones["to_reference"][1] == "from_reference"
    saved = sink(workflow, "lesions").inputs
    name = (anat / "sub-01_desc-aparcaseg_dseg.nii.gz").relative_to(tmp_path / "fp")
    assert f"bids:fp:{name.as_posix()}" in saved.sources
    assert (saved.parameters["zones"], saved.parameters["zones_from"]) == ("segmentation", "fp")


def test_zones_of_a_person_are_drawn_once_for_all_scans(
    bids: Path, method: Method, tmp_path: Path
) -> None:
    add_image(bids, "sub-01/anat/sub-01_acq-more_swi.nii.gz")
    fmriprep(tmp_path / "fp")
    workflow = build(bids, method, tmp_path / "fp")
    names = workflow.list_node_names()
    assert sum(name.endswith("_zones") for name in names) == 1
    graph = workflow._create_flat_graph()
    sources = [
        {source.name for source in graph.predecessors(node)}
        for node in graph.nodes()
        if node.name == "ds_lesions"
    ]
    assert len(sources) == 2
    plan = plan_subject(units_of(bids, tmp_path / "fp"), root=bids.parent / "out", method=method)
    owner = next(name.split(".")[0] for name in names if name.endswith("_zones"))
    crash = Crash(f"cmbprep_wf.{owner}.sub_01_T1w_zones", "m", "t")
    settings = Settings(bids_dir=bids, output_dir=bids.parent / "out", level="participant")
    assert len(crashed_scans([plan], [crash], scope=work_scope(settings))) == 2


def test_without_derivatives_the_graph_is_as_it_was(bids: Path, method: Method) -> None:
    workflow = build(bids, method)
    assert not {"sub_01_T1w_zones", "draw_atlas"} & nodes(workflow, "")
    assert not isdefined(node(workflow, "T1w_wf.correct").inputs.given_mask)
    assert "zones" not in sink(workflow, "lesions").inputs.parameters
    (place,) = (name for name in workflow.list_node_names() if name.endswith(".place"))
    assert workflow.get_node(place).inputs.atlas == str(method.reference.atlas("mars"))


def test_another_border_has_the_atlas_drawn_once(bids: Path, method: Method) -> None:
    moved = replace(method, border_mm=5.0)
    workflow = build(bids, moved)
    names = workflow.list_node_names()
    (atlas,) = (name for name in names if name.startswith("draw_atlas"))
    assert workflow.get_node(atlas).inputs.border_mm == 5.0
    assert inputs_of(workflow, "place")["atlas"][1] == "atlas"
    assert sink(workflow, "lesions").inputs.parameters["border_mm"] == 5.0
    # The scheme's own border, said aloud, is the packaged atlas.
    same = build(bids, replace(method, border_mm=10.0))
    assert not any(name.startswith("draw_atlas") for name in same.list_node_names())


def test_a_persons_zones_take_the_border_themselves(
    bids: Path, method: Method, tmp_path: Path
) -> None:
    fmriprep(tmp_path / "fp")
    workflow = build(bids, replace(method, border_mm=5.0), tmp_path / "fp")
    names = workflow.list_node_names()
    assert not any(name.startswith("draw_atlas") for name in names)
    (zones,) = (name for name in names if name.endswith("_zones"))
    assert workflow.get_node(zones).inputs.border_mm == 5.0


def units_of(bids: Path, *given: Path) -> list[Unit]:
    return find_units(bids, derivatives=parse_folders([str(path) for path in given]))


def test_what_was_given_is_part_of_the_fingerprints(
    bids: Path, method: Method, tmp_path: Path
) -> None:
    anat = fmriprep(tmp_path / "fp")
    root = tmp_path / "out"

    def prints(*given: Path, border: float | None = None) -> list[str]:
        how = replace(method, border_mm=border)
        (scan,) = plan_subject(units_of(bids, *given), root=root, method=how).scans
        assert scan.anatomy is not None
        stages = (scan.anatomy.stage, scan.preproc, scan.lesions)
        return [stage.fingerprint for stage in stages]

    plain, given = prints(), prints(tmp_path / "fp")
    assert all(one != other for one, other in zip(plain, given, strict=True))
    (anat / "sub-01_desc-aparcaseg_dseg.nii.gz").write_bytes(b"another one")
    changed = prints(tmp_path / "fp")
    assert changed[:2] == given[:2] and changed[2] != given[2]
    (anat / "sub-01_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5").write_bytes(b"other")
    assert prints(tmp_path / "fp")[0] != given[0]
    assert prints(border=10.0) == plain
    moved = prints(border=5.0)
    assert moved[:2] == plain[:2] and moved[2] != plain[2]


def test_a_crash_of_the_shared_atlas_loses_all(bids: Path, method: Method) -> None:
    plan = plan_subject(units_of(bids), root=bids.parent / "out", method=method)
    crash = Crash("cmbprep_wf.draw_atlas", "m", "t")
    assert set(crashed_scans([plan], [crash], scope="")) == {"sub-01_T2starw"}
