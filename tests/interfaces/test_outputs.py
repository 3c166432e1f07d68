"""The sink: files that only some inputs give."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from cmbprep.interfaces.outputs import SaveStage
from cmbprep.outputs import BLOCK, Names, StageFiles

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


def _save(root: Path, folder: Path, *, swi: bool, leave_out: str = "") -> StageFiles:
    files = StageFiles(root, "lesions", NAMES)
    keys = (*files.keys, *files.optional)
    given = {}
    for key in keys:
        if key in (leave_out, "candidates") or (key == "swi" and not swi):
            continue
        source = folder / f"{key}.nii.gz"
        source.write_text(key)
        given[key] = str(source)
    node = SaveStage(
        keys=keys,
        root=str(root),
        stage="lesions",
        names=asdict(NAMES),
        fingerprint="mark",
        sources=["bids:raw:x"],
        parameters={},
        details={"swi": {"PhaseSign": -1}} if swi else {},
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
