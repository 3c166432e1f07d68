"""Names of the files of the output dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbprep.bids.model import ENTITY_ORDER, SEQUENCES, Echo, Scan
from cmbprep.outputs.names import MARKS, Names, output_table, plan_names
from cmbprep.outputs.stages import StageFiles
from tests.stages import NAMES


def scan(suffix: str, **entities: str) -> Scan:
    return Scan(
        entities={"sub": "01", **entities},
        suffix=suffix,
        datatype="anat",
        echoes=(Echo(magnitude=Path(f"sub-01_{suffix}.nii.gz")),),
    )


def plan(scan: Scan) -> Names:
    return plan_names(scan, template="T", reference="T", scheme="mars", anatomy=None)


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


def test_a_name_depends_on_its_own_source_alone() -> None:
    assert plan(scan("T2starw")).src == "sub-01"
    assert plan(scan("T2starw", acq="highres", run="2")).src == "sub-01_acq-highres_run-2"
    assert plan(scan("swi")).src == "sub-01_acq-swi"
    assert plan(scan("swi", run="1")).src == "sub-01_acq-swi_run-1"
    assert plan(scan("MEGRE", ses="a", acq="fast")).src == "sub-01_ses-a_acq-fastMEGRE"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(SEQUENCES)),
            st.lists(st.sampled_from(["", "a", "ME", "GRE", *MARKS.values()]), max_size=3),
        ),
        min_size=2,
        max_size=12,
        unique_by=lambda source: (source[0], "".join(source[1])),
    )
)
def test_no_two_sources_share_a_name(sources: list[tuple[str, list[str]]]) -> None:
    # Labels of acq that look like the marks of suffixes are where names could meet.
    scans = [
        scan(suffix, **({"acq": label} if (label := "".join(parts)) else {}))
        for suffix, parts in sources
    ]
    stems = [plan(one).src for one in scans]
    assert len(set(stems)) == len(stems)


def test_every_suffix_of_a_scan_has_a_mark_that_ends_no_other() -> None:
    assert set(MARKS) == set(SEQUENCES)
    for one in MARKS.values():
        assert not any(other != one and other.endswith(one) for other in MARKS.values())
        assert one.isalnum()
    assert "acq" in ENTITY_ORDER


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": "../../etc"},
        {"subject": ""},
        {"session": "a/b"},
        {"src": "sub-01_ses-a/../../x"},
        {"src": "sub-02_ses-a"},
        {"src": "sub-01_ses-ab"},
        {"suffix": "../T2starw"},
        {"scheme": "MARS/.."},
        {"template": "a b"},
        {"subject": 1},
    ],
)
def test_labels_that_could_lead_elsewhere_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"cannot be part|does not belong"):
        replace(NAMES, **wrong)
