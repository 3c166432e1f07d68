"""Names that are nearly right: each file is named, with the nearest valid name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmbprep.bids.model import SEQUENCES, Refusal, Unit, parse_name
from cmbprep.bids.near_names import free_name, nearest_name, printable, similar_folder
from cmbprep.bids.survey import survey_participant
from cmbprep.bids.units import find_units
from tests.bidsdata import make_dataset

PLAIN = "sub-02/anat/sub-02_T2starw.nii.gz"

#: Name as it was found in anat/ -> nearest valid name.
NEAR = {
    # capitals
    "sub-01_T2Starw.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_t2starw.nii": "sub-01_T2starw.nii",
    "sub-01_T2starW.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_megre.nii.gz": "sub-01_MEGRE.nii.gz",
    "sub-01_Swi.nii.gz": "sub-01_swi.nii.gz",
    "Sub-01_T2starw.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_Acq-fine_T2starw.nii.gz": "sub-01_acq-fine_T2starw.nii.gz",
    "sub-01_Echo-2_Part-phase_MEGRE.nii.gz": "sub-01_echo-2_part-phase_MEGRE.nii.gz",
    "sub-01_T2starw.NII.GZ": "sub-01_T2starw.nii.gz",
    "sub-01_swi.Nii": "sub-01_swi.nii",
    # other words for the suffix
    "sub-01_T2star_w.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_T2s.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_T2*w.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_acq-x_T2*.nii": "sub-01_acq-x_T2starw.nii",
    "sub-01_T2starweighted.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_t2star.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_gre.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_SWAN.nii.gz": "sub-01_swi.nii.gz",
    "sub-01_acq-swi.nii.gz": "sub-01_acq-swi_swi.nii.gz",
    # dcm2niix
    "sub-01_MEGRE_e1.nii.gz": "sub-01_echo-1_MEGRE.nii.gz",
    "sub-01_echo-1_MEGRE_e1.nii.gz": "sub-01_echo-1_MEGRE.nii.gz",
    "sub-01_run-2_T2starw_ph.nii.gz": "sub-01_run-2_part-phase_T2starw.nii.gz",
    "sub-01_MEGRE_e2_ph.nii.gz": "sub-01_echo-2_part-phase_MEGRE.nii.gz",
    "sub-01_T2starw_e1a.nii.gz": "sub-01_echo-1_T2starw.nii.gz",
    # heudiconv
    "sub-01_T2starw__dup-01.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_T2starw_heudiconv057a.nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_T2starw1.nii.gz": "sub-01_T2starw.nii.gz",
    # order, and what follows the suffix
    "sub-01_T2starw_run-2.nii.gz": "sub-01_run-2_T2starw.nii.gz",
    "sub-01_swi_corrected.nii.gz": "sub-01_swi.nii.gz",
    "sub-01_T2starw (1).nii.gz": "sub-01_T2starw.nii.gz",
    "sub-01_T2starw - Copy.nii.gz": "sub-01_T2starw.nii.gz",
    # no label, or one that is not valid
    "T2starw.nii.gz": "sub-01_T2starw.nii.gz",
    "01_T2starw.nii.gz": "sub-01_T2starw.nii.gz",
    "sub01_swi.nii.gz": "sub-01_swi.nii.gz",
    "sub_01_swi.nii.gz": "sub-01_swi.nii.gz",
    "sub-01 T2starw.nii.gz": "sub-01_T2starw.nii.gz",
    # other formats
    "sub-01_swi.img": "sub-01_swi.nii.gz",
    "sub-01_swi.hdr": "sub-01_swi.nii.gz",
    "sub-01_T2starw.mgz": "sub-01_T2starw.nii.gz",
    "sub-01_T2starw.nrrd": "sub-01_T2starw.nii.gz",
    "sub-01_T2starw.dcm": "sub-01_T2starw.nii.gz",
    "sub-01_T2starw.gz": "sub-01_T2starw.nii.gz",
    "sub-01_T2starw": "sub-01_T2starw.nii.gz",
}

#: Names in anat/ that are of other images, or have another message.
OTHER = [
    "sub-01_FLAIR.nii.gz",
    "sub-01_T2w.nii.gz",
    "sub-01_T2starw.json",
    "sub-01_T2starw.txt",
    "sub-01_T2starw_mask.nii.gz",
    "sub-01_T2starw_desc-brain_mask.nii.gz",
    "sub-01_swi_FLAIR.nii.gz",
    "sub-01_acq-swi_FLAIR.nii.gz",
    "sub-01_task-regress_bold.nii.gz",
    "sub-01_T1map.nii.gz",
    "sub-01_T2starmap_x.nii.gz",
    "._sub-01_T2starw.nii.gz",
    ".sub-01_T2Starw.nii.gz.swp",
]


def refusals(root: Path) -> list[Refusal]:
    found = survey_participant(root / "sub-01").refused
    return sorted(
        (refusal for refused in found.values() for refusal in refused),
        key=lambda refusal: refusal.path,
    )


def unit_of(root: Path, subject: str = "01") -> Unit:
    (unit,) = [unit for unit in find_units(root) if unit.subject == subject]
    return unit


@pytest.mark.parametrize(("found", "valid"), NEAR.items())
def test_the_nearest_valid_name_is_named(tmp_path: Path, found: str, valid: str) -> None:
    root = make_dataset(tmp_path, {f"sub-01/anat/{found}": None})
    (refusal,) = refusals(root)
    assert refusal.path == root / "sub-01/anat" / found
    assert valid in refusal.hint.replace(",", " ").split()
    assert refusal.reason
    # The name that is proposed is one that is found.
    assert parse_name(valid).suffix in SEQUENCES
    assert parse_name(valid).oddities == ()
    near = nearest_name(valid, subject="01", session=None)
    assert near is not None
    assert (near.name, near.deviations) == (valid, ())


def test_the_participants_with_such_files_are_told_of_once(tmp_path: Path) -> None:
    images = {
        f"sub-{n:03}/anat/{found.replace('01', f'{n:03}')}": valid.replace("01", f"{n:03}")
        for n, (found, valid) in enumerate(NEAR.items(), start=100)
    }
    root = make_dataset(tmp_path, dict.fromkeys([PLAIN, *images]))
    units = {unit.subject: unit for unit in find_units(root)}
    assert units.pop("02").scans
    for path, valid in images.items():
        unit = units.pop(path[4:7])
        assert unit.scans == ()
        assert [refusal.path for refusal in unit.refused] == [root / path]
        (root / path).rename((root / path).parent / valid)
    assert not units
    # With their valid names, all are found or have another message.
    for unit in find_units(root):
        assert unit.scans or "without a magnitude image" in unit.refused[0].reason


@pytest.mark.parametrize("found", OTHER)
def test_other_images_are_left_alone(tmp_path: Path, found: str) -> None:
    root = make_dataset(tmp_path, {f"sub-01/anat/{found}": None})
    assert refusals(root) == []


def test_what_macos_leaves_behind_is_no_scan(tmp_path: Path) -> None:
    scan = "sub-01/anat/sub-01_T2starw.nii.gz"
    unit = unit_of(make_dataset(tmp_path, [scan, "sub-01/anat/._sub-01_T2starw.nii.gz"]))
    assert [scan.name for scan in unit.scans] == ["sub-01_T2starw"]
    assert (unit.refused, unit.scans[0].warnings) == ((), ())


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("func/sub-01_T2starw.nii.gz", "anat/sub-01_T2starw.nii.gz"),
        ("func/sub-01_task-rest_T2starw.nii.gz", "anat/sub-01_task-rest_T2starw.nii.gz"),
        ("fmap/sub-01_MEGRE.nii.gz", "anat/sub-01_MEGRE.nii.gz"),
        ("perf/sub-01_swi.nii", "anat/sub-01_swi.nii"),
        ("dwi/sub-01_T2starw.nii.gz", "anat/sub-01_T2starw.nii.gz"),
        ("Anat/sub-01_T2starw.nii.gz", "anat/sub-01_T2starw.nii.gz"),
        ("SWI/sub-01_swi.nii.gz", "anat/sub-01_swi.nii.gz"),
        ("sub-01_T2starw.nii.gz", "anat/sub-01_T2starw.nii.gz"),
        ("func/sub-01_T2STARW.NII", "anat/sub-01_T2starw.nii"),
        ("swi/sub-01_Swi.nii.gz", "sub-01_swi.nii.gz"),
        ("swi/sub-01_T2Starw.nii.gz", "sub-01_T2starw.nii.gz"),
    ],
)
def test_other_folders_are_named(tmp_path: Path, path: str, named: str) -> None:
    root = make_dataset(tmp_path, {PLAIN: None, f"sub-01/{path}": None})
    (refusal,) = refusals(root)
    assert refusal.path == root / "sub-01" / path
    assert f" {named}," in refusal.hint
    if not path.startswith("swi"):
        folder = path.partition("/")[0] if "/" in path else "anat"
        assert f"{folder}/" in refusal.reason


@pytest.mark.parametrize(
    "path",
    [
        "fmap/sub-01_gre.nii.gz",
        "fmap/sub-01_GRE.nii.gz",
        "fmap/sub-01_acq-gre_magnitude1.nii.gz",
        "func/sub-01_task-t2star_bold.nii.gz",
        "func/sub-01_T2s.nii.gz",
        "dwi/sub-01_swi.bval",
        "eeg/sub-01_swi.nii.gz",
        "sourcedata/sub-01_swi.nii.gz",
        ".git/sub-01_swi.nii.gz",
        "func/deeper/sub-01_T2starw.nii.gz",
    ],
)
def test_other_folders_hold_other_images(tmp_path: Path, path: str) -> None:
    scan = "sub-01/anat/sub-01_T2starw.nii.gz"
    root = make_dataset(tmp_path, {scan: None, f"sub-01/{path}": None})
    assert refusals(root) == []


def test_in_sessions_the_name_has_the_session(tmp_path: Path) -> None:
    root = make_dataset(
        tmp_path,
        {PLAIN: None, "sub-01/ses-a/anat/t2starw.nii": None, "sub-01/ses-b/sub-01_swi.nii": None},
    )
    units = [unit for unit in find_units(root) if unit.subject == "01"]
    assert [unit.session for unit in units] == ["a", "b"]
    hints = [unit.refused[0].hint for unit in units]
    assert "sub-01_ses-a_T2starw.nii" in hints[0]
    assert "anat/sub-01_ses-b_swi.nii" in hints[1]
    # Only the session that was asked for is spoken of.
    (only,) = find_units(root, participants=["01"], sessions=["b"])
    assert only.session == "b"


@pytest.mark.parametrize(("name", "right"), [("Ses-01", "ses-01"), ("ses_01", "ses-01")])
def test_a_session_folder_with_a_wrong_name(tmp_path: Path, name: str, right: str) -> None:
    root = make_dataset(tmp_path, {PLAIN: None, f"sub-01/{name}/anat/sub-01_T2starw.nii": None})
    (refusal,) = refusals(root)
    assert refusal.path == root / "sub-01" / name
    assert refusal.hint == f"rename the folder to {right}"


def test_a_participant_folder_with_a_wrong_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_dataset(tmp_path, {PLAIN: None, "Sub-01/anat/Sub-01_T2starw.nii": None})
    (root / "subjects").mkdir()
    find_units(root)
    assert "Sub-01 is left out" in caplog.text
    assert "should be sub-01" in caplog.text
    assert "subjects" not in caplog.text


def test_a_name_that_is_taken_gets_a_run(tmp_path: Path) -> None:
    names = ["T2starw", "t2starw", "T2starw__dup-01", "run-1_MEGRE", "run-1_MEGRE_e1"]
    root = make_dataset(tmp_path, {f"sub-01/anat/sub-01_{name}.nii.gz": None for name in names})
    unit = unit_of(root)
    assert [scan.name for scan in unit.scans] == ["sub-01_T2starw", "sub-01_run-1_MEGRE"]
    hints = {refusal.path.name: refusal.hint for refusal in unit.refused}
    assert "sub-01_run-1_echo-1_MEGRE.nii.gz" in hints["sub-01_run-1_MEGRE_e1.nii.gz"]
    assert "sub-01_run-2_T2starw.nii.gz" in hints["sub-01_T2starw__dup-01.nii.gz"]
    assert "sub-01_run-3_T2starw.nii.gz" in hints["sub-01_t2starw.nii.gz"]


def test_companions_of_a_scan_are_left_alone(tmp_path: Path) -> None:
    names = ["swi.nii.gz", "swi.img", "swi.hdr", "swi_corrected.nii.gz", "swi_0001.dcm"]
    root = make_dataset(tmp_path, {f"sub-01/anat/sub-01_{name}": None for name in names})
    assert [scan.name for scan in unit_of(root).scans] == ["sub-01_swi"]
    assert unit_of(root).refused == ()


def test_many_files_of_another_format_are_one_refusal(tmp_path: Path) -> None:
    names = [f"sub-01/anat/sub-01_swi_{n:04}.dcm" for n in range(30)]
    names += ["sub-01/anat/sub-01_T2starw.hdr", "sub-01/anat/sub-01_T2starw.img"]
    found = refusals(make_dataset(tmp_path, dict.fromkeys([PLAIN, *names])))
    assert [refusal.path.name for refusal in found] == [
        "sub-01_T2starw.img",
        "sub-01_swi_0000.dcm",
    ]


@pytest.mark.parametrize("name", ["T1W.nii.gz", "t1w.nii", "T1.nii.gz", "T1w.NII.GZ", "T1w.mgz"])
def test_a_t1w_image_that_is_nearly_right_is_a_warning(tmp_path: Path, name: str) -> None:
    scan = "sub-01/anat/sub-01_T2starw.nii.gz"
    root = make_dataset(tmp_path, [scan, f"sub-01/anat/sub-01_{name}"])
    unit = unit_of(root)
    assert unit.anatomy is None
    assert unit.refused == ()
    (warning,) = unit.scans[0].warnings
    assert f"sub-01_{name} is not used" in warning


def test_a_t1w_image_of_another_session_is_spoken_of_where_there_is_no_other(
    tmp_path: Path,
) -> None:
    images = [f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T2starw.nii.gz" for s in "ab"]
    root = make_dataset(tmp_path, [*images, "sub-01/ses-a/anat/sub-01_ses-a_t1w.nii"])
    assert [len(unit.scans[0].warnings) for unit in find_units(root)] == [1, 1]
    make_dataset(tmp_path, ["sub-01/ses-b/anat/sub-01_ses-b_T1w.nii"])
    first, second = find_units(root)
    assert any("t1w.nii is not used" in text for text in first.scans[0].warnings)
    assert second.scans[0].warnings == ()


PIECES = [
    *("sub-01", "Sub-01", "sub-02", "01", "sub", "ses-a", "acq-x", "ACQ-y", "acq-0.8mm", "run-1"),
    *("echo-2", "Echo-3", "part-phase", "Part-mag", "desc-b", "flip-1", "T2starw", "t2STAR", "T2*"),
    *("w", "MEGRE", "megre", "ME", "GRE", "gre", "SWI", "Swi", "swi2", "T1w", "t1W", "e1", "e2a"),
    *("ph", "Mag", "real", "heudiconv01a", "", "_dup-01", "mask", "FLAIR", "bold", "é", "\udcff"),
    *(" ", "(1)", "- Copy", "minIP", "-", "T2star", "swan", "acq-swi"),
]
ENDINGS = [".nii.gz", ".nii", ".NII", ".NII.gz", ".img", ".hdr", ".mgz", ".gz", "", ".json", ".dcm"]


@settings(max_examples=400)
@given(
    st.lists(st.sampled_from(PIECES), max_size=7),
    st.sampled_from(["_", "__", " ", "-"]),
    st.sampled_from(ENDINGS),
    st.sampled_from([None, "a"]),
    st.booleans(),
)
def test_a_nearest_name_is_always_valid(
    pieces: list[str], between: str, ending: str, session: str | None, own: bool
) -> None:
    filename = between.join(pieces) + ending
    near = nearest_name(filename, subject="01", session=session, own_names_only=own)
    if near is None:
        return
    name = parse_name(near.name)
    assert name.suffix == near.suffix
    assert name.suffix in {*SEQUENCES, "T1w"}
    assert name.extension in {".nii", ".nii.gz"}
    assert name.oddities == ()
    assert name.entities["sub"] == "01"
    assert name.entities.get("ses") == session
    again = nearest_name(near.name, subject="01", session=session)
    assert again is not None
    assert (again.name, again.deviations) == (near.name, ())
    other = free_name(near.name, {near.name})
    assert other != near.name
    assert parse_name(other).oddities == ()
    "; ".join(near.deviations).encode("utf-8")


@pytest.mark.parametrize(
    ("name", "taken", "free"),
    [
        ("sub-1_swi.nii", [], "sub-1_swi.nii"),
        ("sub-1_swi.nii", ["sub-1_swi.nii"], "sub-1_run-2_swi.nii"),
        (
            "sub-1_acq-x_echo-1_part-mag_MEGRE.nii",
            None,
            "sub-1_acq-x_run-2_echo-1_part-mag_MEGRE.nii",
        ),
        ("sub-1_run-02_swi.nii", None, "sub-1_run-3_swi.nii"),
        ("sub-1_swi.nii", ["sub-1_swi.nii", "sub-1_run-2_swi.nii"], "sub-1_run-3_swi.nii"),
    ],
)
def test_free_names(name: str, taken: list[str] | None, free: str) -> None:
    assert free_name(name, [name] if taken is None else taken) == free


def test_names_can_be_printed_everywhere() -> None:
    assert printable("a\udcff\n\x1b[31m é.nii") == "a\\xff\\n\\x1b[31m é.nii"
    printable("a\udcff").encode("utf-8")


@pytest.mark.parametrize(
    ("name", "prefix", "right"),
    [
        ("SUB-7", "sub-", "sub-7"),
        ("sub_7", "sub-", "sub-7"),
        ("sub7", "sub-", "sub-7"),
        ("sub-7", "sub-", None),
        ("subject7", "sub-", None),
        ("substudy", "sub-", None),
        ("derivatives", "sub-", None),
        ("SES 2", "ses-", "ses-2"),
        ("session1", "ses-", None),
    ],
)
def test_similar_folders(name: str, prefix: str, right: str | None) -> None:
    assert similar_folder(name, prefix) == right
