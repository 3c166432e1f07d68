"""Names, fingerprints and atomic writes of the output dataset."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import CmbprepError
from cmbprep.outputs import (
    BLOCK,
    Names,
    StageFiles,
    file_digest,
    find_records,
    fingerprint,
    output_table,
    plan_names,
    read_json,
    remove_leftovers,
    write_atomically,
    write_image,
    write_json,
)
from cmbprep.scans import Echo, Scan

NAMES = Names(
    subject="01",
    session="a",
    src="sub-01_ses-a_run-2",
    suffix="T2starw",
    template="MNI152NLin6Asym",
    reference="MNI152NLin2009cAsym",
    target="T1w",
    scheme="MARS",
)


def scan(suffix: str, **entities: str) -> Scan:
    return Scan(
        entities={"sub": "01", **entities},
        suffix=suffix,
        datatype="anat",
        echoes=(Echo(magnitude=Path(f"sub-01_{suffix}.nii.gz")),),
    )


def plan(root: Path, *scans: Scan) -> dict[str, Names]:
    return plan_names(scans, root=root, template="T", reference="T", scheme="mars", anatomy=None)


def finish(files: StageFiles, mark: str) -> None:
    """Write what a finished stage leaves behind."""
    for key in files.keys:
        path = files.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")
    block = {"Fingerprint": mark, "Stage": files.stage, "Names": vars(files.names)}
    write_json(files.sidecar, {BLOCK: block})


def test_names_follow_the_contract(tmp_path: Path) -> None:
    lesions = StageFiles(tmp_path, "lesions", NAMES)
    folder = "sub-01/ses-a/anat/sub-01_ses-a_run-2_"
    relative = {key: lesions.path(key).relative_to(tmp_path).as_posix() for key in lesions.keys}
    assert relative == {
        "probseg": f"{folder}label-CMB_probseg.nii.gz",
        "mask": f"{folder}label-CMB_mask.nii.gz",
        "dseg": f"{folder}seg-CMB_dseg.nii.gz",
        "table": f"{folder}seg-CMB_dseg.tsv",
        "atlas": f"{folder}atlas-MARS_dseg.nii.gz",
        "template_mask": f"{folder}space-MNI152NLin6Asym_label-CMB_mask.nii.gz",
    }


def test_a_deformation_is_a_field_and_a_rigid_transform_a_text(tmp_path: Path) -> None:
    rigid = StageFiles(tmp_path, "preproc", NAMES).path("to_target").name
    assert rigid == "sub-01_ses-a_run-2_from-T2starw_to-T1w_mode-image_xfm.txt"
    names = replace(NAMES, target=NAMES.reference)
    field = StageFiles(tmp_path, "preproc", names).path("from_target").name
    assert field.endswith("from-MNI152NLin2009cAsym_to-T2starw_mode-image_xfm.nii.gz")


def test_no_two_files_of_the_table_share_a_name(tmp_path: Path) -> None:
    # A scan and its T1w image often have the same entities: only the suffix differs.
    for target in ("T1w", NAMES.reference):
        names = replace(NAMES, target=target)
        paths = [
            StageFiles(tmp_path, stage, names).path(key)
            for stage in ("anatomy", "preproc", "lesions")
            for key in output_table()[stage]
        ]
        assert len(set(paths)) == len(paths)


def test_a_stage_is_reused_only_when_it_is_whole_and_the_same(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    assert files.existing("f")[0] is None
    finish(files, "f")
    found, _ = files.existing("f")
    assert found is not None
    assert found["table"] == files.path("table")
    assert files.existing("other")[0] is None
    files.path("mask").unlink()
    missing, reason = files.existing("f")
    assert missing is None
    assert "label-CMB_mask" in reason
    files.sidecar.write_text("{ half a fi")
    assert files.existing("f")[0] is None


def test_records_are_found_by_stage_subject_and_session(tmp_path: Path) -> None:
    finish(StageFiles(tmp_path, "lesions", NAMES), "f")
    finish(StageFiles(tmp_path, "preproc", NAMES), "f")
    finish(StageFiles(tmp_path, "preproc", replace(NAMES, session=None, src="sub-01")), "f")
    other = replace(NAMES, subject="012", session=None, src="sub-012")
    finish(StageFiles(tmp_path, "preproc", other), "f")
    t1w = replace(NAMES, suffix="T1w", src="sub-01_ses-a")
    finish(StageFiles(tmp_path, "anatomy", t1w), "f")
    sources = [r.files.names.src for r in find_records(tmp_path, "preproc", subject="01")]
    assert sources == ["sub-01", "sub-01_ses-a_run-2"]
    assert len(find_records(tmp_path, "preproc")) == 3
    assert len(find_records(tmp_path, "preproc", subject="01", session="a")) == 1
    assert [r.files.names.suffix for r in find_records(tmp_path, "anatomy")] == ["T1w"]


def test_two_scans_with_the_same_entities_get_different_names(tmp_path: Path) -> None:
    names = plan(tmp_path, scan("T2starw"), scan("swi"), scan("swi", run="1"))
    assert {n.src for n in names.values()} == {
        "sub-01_acq-T2starw",
        "sub-01_acq-swi",
        "sub-01_run-1",
    }


def test_a_later_run_with_another_filter_overwrites_nothing(tmp_path: Path) -> None:
    first = plan(tmp_path, scan("swi"))["sub-01_swi"]
    assert first.src == "sub-01"
    finish(StageFiles(tmp_path, "preproc", first), "f")
    assert plan(tmp_path, scan("swi"))["sub-01_swi"].src == "sub-01"
    assert plan(tmp_path, scan("T2starw"))["sub-01_T2starw"].src == "sub-01_acq-T2starw"


def test_telling_apart_does_not_run_into_another_scan(tmp_path: Path) -> None:
    names = plan(tmp_path, scan("T2starw"), scan("swi"), scan("T2starw", acq="swi"))
    assert len({n.src for n in names.values()}) == 3
    assert names["sub-01_acq-swi_T2starw"].src == "sub-01_acq-swi"
    assert names["sub-01_swi"].src == "sub-01_acq-swi2"


def test_only_the_leftovers_of_the_unit_are_removed(tmp_path: Path) -> None:
    anat = tmp_path / "sub-01" / "ses-a" / "anat"
    anat.mkdir(parents=True)
    for name in (
        ".part-x1-sub-01_ses-a_T2starw.json",
        ".part-x2-sub-01_ses-b_T2starw.json",
        "sub-01_ses-a_T2starw.json",
    ):
        (anat / name).touch()
    remove_leftovers(tmp_path / "sub-01", "sub-01_ses-a")
    assert sorted(path.name for path in anat.iterdir()) == [
        ".part-x2-sub-01_ses-b_T2starw.json",
        "sub-01_ses-a_T2starw.json",
    ]


def test_the_fingerprint_sees_every_input_and_parameter() -> None:
    base = fingerprint("preproc", inputs={"a": "1", "b": "2"}, parameters={"p": 1})
    assert base == fingerprint("preproc", inputs={"b": "2", "a": "1"}, parameters={"p": 1})
    others = [
        fingerprint("lesions", inputs={"a": "1", "b": "2"}, parameters={"p": 1}),
        fingerprint("preproc", inputs={"a": "2", "b": "1"}, parameters={"p": 1}),
        fingerprint("preproc", inputs={"a": "1", "b": "2"}, parameters={"p": 2}),
    ]
    assert len({base, *others}) == 4


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("old")

    def lose_power() -> None:
        with write_atomically(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        lose_power()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"x": 1})
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.eye(4))
    first = write_image(tmp_path / "first.nii.gz", image)
    second = write_image(tmp_path / "second.nii.gz", image)
    assert file_digest(first) == file_digest(second)
    assert np.array_equal(np.asanyarray(nib.load(first).dataobj), image.get_fdata())


@pytest.mark.parametrize("content", ["[1]", "{", ""])
def test_what_is_no_json_object_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sidecar.json"
    path.write_text(content)
    with pytest.raises(CmbprepError, match=r"sidecar\.json"):
        read_json(path)


def test_an_optional_file_is_missed_only_where_it_was_written(tmp_path: Path) -> None:
    files = StageFiles(tmp_path, "lesions", NAMES)
    finish(files, "mark")
    found, _ = files.existing("mark")
    assert found is not None and "swi" not in found
    block = {"Fingerprint": "mark", "Stage": "lesions", "Names": vars(NAMES), "Optional": ["swi"]}
    write_json(files.sidecar, {BLOCK: block})
    found, reason = files.existing("mark")
    assert found is None and "swi" in reason
    files.path("swi").touch()
    found, _ = files.existing("mark")
    assert found is not None and found["swi"] == files.path("swi")
