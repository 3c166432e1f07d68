"""The sink: files that only some inputs give."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.interfaces.outputs import SaveStage
from cmbprep.lesions import format_lesions
from cmbprep.outputs.files import file_digest, write_image
from cmbprep.outputs.names import Names
from cmbprep.outputs.stages import BLOCK, StageFiles, find_records, sidecar_path
from tests.stages import lesion_rows

NAMES = Names(
    subject="01",
    session=None,
    src="sub-01",
    suffix="T2starw",
    template="T",
    reference="T",
    target="T1w",
    scheme="MARS",
)


def _save(
    root: Path,
    folder: Path,
    *,
    swi: bool,
    leave_out: str = "",
    names: Names = NAMES,
    **inputs: object,
) -> StageFiles:
    files = StageFiles(root, "lesions", names)
    keys = (*files.keys, *files.optional)
    given = {}
    for key in keys:
        if key in (leave_out, "candidates") or (key == "swi" and not swi):
            continue
        source = folder / f"{key}.nii.gz"
        source.write_text(key)
        if key == "dseg":
            labels = np.zeros((4, 4, 4), np.int16)
            labels[0, 0, :3] = 1, 0, 3
            write_image(source, nib.Nifti1Image(labels, np.eye(4)))
        if key == "table":
            rows = lesion_rows(3)
            source.write_text(format_lesions([rows[0], rows[2]]))
        given[key] = str(source)
    node = SaveStage(
        keys=keys,
        root=str(root),
        stage="lesions",
        names=asdict(names),
        fingerprint="mark",
        sources=["bids:raw:x"],
        parameters={},
        details={"swi": {"PhaseSign": -1}} if swi else {},
        **inputs,
    )
    for key, path in given.items():
        setattr(node.inputs, key, path)
    node.run(cwd=str(folder))
    return files


def test_an_optional_image_gets_its_sidecar_and_goes_when_it_is_no_more_made(
    tmp_path: Path,
) -> None:
    files = _save(tmp_path / "out", tmp_path, swi=True)
    image = files.path("swi")
    sidecar = image.with_name("sub-01_desc-computed_swi.json")
    content = json.loads(sidecar.read_text())
    assert content["PhaseSign"] == -1 and content["Sources"] == ["bids:raw:x"]
    assert json.loads(files.sidecar.read_text())[BLOCK]["Optional"] == ["swi"]
    _save(tmp_path / "out", tmp_path, swi=False)
    assert not image.exists() and not sidecar.exists()
    assert "Optional" not in json.loads(files.sidecar.read_text())[BLOCK]


def test_any_other_file_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="given no mask"):
        _save(tmp_path / "out", tmp_path, swi=True, leave_out="mask")


def test_the_sidecar_says_what_was_written(tmp_path: Path) -> None:
    missing = {"sub-01_desc-zones_T2starw.svg": "it cannot be drawn"}
    stale = tmp_path / "out" / "sub-01" / "figures" / next(iter(missing))
    stale.parent.mkdir(parents=True)
    stale.write_text("<svg/>")
    files = _save(tmp_path / "out", tmp_path, swi=False, missing_figures=missing)
    block = json.loads(files.sidecar.read_text())[BLOCK]
    sizes = {key: files.path(key).stat().st_size for key in files.keys}
    for key in files.keys:
        if key not in ("table", "dseg"):  # these two share the sidecar that closes the stage
            sizes[f"{key}.json"] = sidecar_path(files.path(key)).stat().st_size
    assert block["Files"] == sizes
    assert files.existing("mark")[0] is not None
    sidecar_path(files.path("mask")).write_text("")
    (record,) = find_records(files.root, "lesions")
    assert record.broken_file() == "sub-01_label-CMB_mask.json is not whole"
    assert block["Labels"] == [1, 3]
    assert block["LabelImage"] == file_digest(files.path("dseg"))
    assert block["Lesions"] == {"1": [1.0, 0.0, 0.0, 10.0], "3": [3.0, 0.0, 0.0, 10.0]}
    assert block["MissingFigures"] == missing
    assert not stale.exists()


def test_nothing_of_another_template_or_scheme_is_left(tmp_path: Path) -> None:
    _save(tmp_path / "out", tmp_path, swi=False)
    other = replace(NAMES, template="Other", scheme="BOMBS")
    files = _save(tmp_path / "out", tmp_path, swi=False, names=other)
    names = {path.name for path in files.sidecar.parent.iterdir()}
    assert "sub-01_space-Other_label-CMB_mask.nii.gz" in names
    assert "sub-01_atlas-BOMBS_dseg.json" in names
    assert not any("space-T_" in name or "MARS" in name for name in names)


def test_figures_of_lesions_that_are_no_longer_found_go(tmp_path: Path) -> None:
    drawn = []
    for number in ("001", "002"):
        path = tmp_path / f"sub-01_desc-lesion{number}_T2starw.svg"
        path.write_text("<svg/>")
        drawn.append(str(path))
    folder = tmp_path / "out" / "sub-01" / "figures"
    folder.mkdir(parents=True)
    others = ("sub-01_desc-lesion009_swi.svg", "sub-01_acq-a_desc-lesion002_T2starw.svg")
    for name in others:
        (folder / name).write_text("<svg/>")
    _save(tmp_path / "out", tmp_path, swi=False, figures=drawn)
    _save(tmp_path / "out", tmp_path, swi=False, figures=drawn[:1])
    assert {path.name for path in folder.iterdir()} == {Path(drawn[0]).name, *others}
