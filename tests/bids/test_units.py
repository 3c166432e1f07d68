"""Finding scans in BIDS datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmbprep.bids.derivatives import DerivativeFolder
from cmbprep.bids.index import FEW_PARTICIPANTS
from cmbprep.bids.model import Refusal, Scan, Unit
from cmbprep.bids.selection import read_filter_file
from cmbprep.bids.units import find_units
from cmbprep.errors import UsageError
from tests.bidsdata import GRE_SIDECAR, make_dataset

PLAIN = "sub-01/anat/sub-01_T2starw.nii.gz"


def names(units: list[Unit]) -> list[str]:
    return [scan.name for unit in units for scan in unit.scans]


def only_scan(root: Path, **options: object) -> Scan:
    (unit,) = find_units(root, **options)
    (scan,) = unit.scans
    return scan


def only_refusal(root: Path, participants: list[str] | None = None) -> Refusal:
    (unit,) = find_units(root, participants=participants or ["01"])
    (refusal,) = unit.refused
    return refusal


# --- what is found ---------------------------------------------------------------------


def test_all_accepted_names_are_found(tmp_path: Path) -> None:
    images = [
        "sub-01/anat/sub-01_T2starw.nii.gz",
        "sub-02/anat/sub-02_rec-norm_T2starw.nii",
        "sub-03/anat/sub-03_echo-1_MEGRE.nii.gz",
        "sub-04/anat/sub-04_swi.nii.gz",
        "sub-05/anat/sub-05_SWI.nii.gz",
        "sub-06/swi/sub-06_swi.nii.gz",
        "sub-07/swi/sub-07_part-mag_GRE.nii.gz",
        "sub-08/anat/sub-08_acq-swi_T2starw.nii.gz",
        "sub-09/anat/sub-09_acq-swi_echo-1_part-mag_MEGRE.nii.gz",
    ]
    units = find_units(make_dataset(tmp_path, images))
    assert names(units) == [
        "sub-01_T2starw",
        "sub-02_rec-norm_T2starw",
        "sub-03_MEGRE",
        "sub-04_swi",
        "sub-05_SWI",
        "sub-06_swi",
        "sub-07_GRE",
        "sub-08_acq-swi_T2starw",
        "sub-09_acq-swi_MEGRE",
    ]
    assert [unit.scans[0].source for unit in units] == [tmp_path / image for image in images]
    assert [unit.scans[0].datatype for unit in units] == ["anat"] * 5 + ["swi"] * 2 + ["anat"] * 2
    assert not any(unit.refused or unit.scans[0].warnings for unit in units)


def test_sessions_runs_and_acquisitions_are_scans_of_their_own(tmp_path: Path) -> None:
    root = make_dataset(
        tmp_path,
        [
            f"sub-01/ses-{session}/anat/sub-01_ses-{session}_acq-{acq}_run-{run}_T2starw.nii.gz"
            for session in ("b", "a")
            for acq in ("thin", "thick")
            for run in ("02", "01")
        ],
    )
    units = find_units(root)
    assert [unit.label for unit in units] == ["sub-01_ses-a", "sub-01_ses-b"]
    assert names(units)[:4] == [
        "sub-01_ses-a_acq-thick_run-01_T2starw",
        "sub-01_ses-a_acq-thick_run-02_T2starw",
        "sub-01_ses-a_acq-thin_run-01_T2starw",
        "sub-01_ses-a_acq-thin_run-02_T2starw",
    ]


def test_echoes_are_grouped_in_the_order_of_their_times(tmp_path: Path) -> None:
    times = {1: 0.03, 2: 0.01, 3: 0.02}
    root = make_dataset(
        tmp_path,
        {
            f"sub-01/anat/sub-01_echo-{echo}_part-{part}_MEGRE.nii.gz": {
                **GRE_SIDECAR,
                "EchoTime": time,
                "Units": "arbitrary",
            }
            for echo, time in times.items()
            for part in ("mag", "phase")
        },
    )
    scan = only_scan(root)
    assert [echo.echo_time for echo in scan.echoes] == [0.01, 0.02, 0.03]
    assert [echo.magnitude.name for echo in scan.echoes] == [
        f"sub-01_echo-{number}_part-mag_MEGRE.nii.gz" for number in (2, 3, 1)
    ]
    assert all(
        echo.phase is not None
        and echo.phase.name == echo.magnitude.name.replace("part-mag", "part-phase")
        and echo.phase_units == "arbitrary"
        for echo in scan.echoes
    )
    assert scan.metadata["EchoTime"] == 0.01
    assert scan.warnings == (
        "the echo times do not rise with the echo numbers; the times are used",
    )


def test_phase_is_paired_with_a_magnitude_that_does_not_say_part(tmp_path: Path) -> None:
    root = make_dataset(
        tmp_path, {PLAIN: GRE_SIDECAR, "sub-01/anat/sub-01_part-phase_T2starw.nii.gz": None}
    )
    (echo,) = only_scan(root).echoes
    assert echo.magnitude.name == "sub-01_T2starw.nii.gz"
    assert echo.phase is not None


def test_other_files_and_folders_are_never_looked_at(tmp_path: Path) -> None:
    scan = "sub-01/anat/sub-01_T2starw.nii.gz"
    root = make_dataset(
        tmp_path,
        [
            scan,
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "sub-01/func/sub-01_task-rest_bold.nii.gz",
            "sub-01/func/deeper/sub-01_T2starw.nii.gz",
            "sub-01/anat/extra/sub-01_acq-x_T2starw.nii.gz",
            *(f"{folder}/{scan}" for folder in ("derivatives/a", "sourcedata", "code", ".git")),
        ],
    )
    (unit,) = find_units(root)
    assert unit.scans[0].source == root / scan
    assert unit.scans[0].files == (root / scan,)
    assert not unit.refused


def test_the_path_to_the_dataset_may_hold_anything(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "sub-99/ses-x/anat/run-3_part-phase_minip", [PLAIN])
    (unit,) = find_units(root)
    assert names([unit]) == ["sub-01_T2starw"]


def test_links_are_followed_and_keep_their_names(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "study")
    store = make_dataset(tmp_path / "store", ["a/sub-01_T2starw.nii.gz", "b/anat/sub-02_swi.nii"])
    (root / "sub-01").mkdir()
    (root / "sub-01/anat").symlink_to(store / "a")
    (root / "sub-02").symlink_to(store / "b")
    (root / "sub-03/anat").mkdir(parents=True)
    dangling = root / "sub-03/anat/sub-03_T2starw.nii.gz"
    dangling.symlink_to("../../.git/annex/objects/not-fetched")
    assert [unit.scans[0].source for unit in find_units(root)] == [
        root / "sub-01/anat/sub-01_T2starw.nii.gz",
        root / "sub-02/anat/sub-02_swi.nii",
        dangling,
    ]


@pytest.mark.parametrize("extra", [-8, 3])
def test_only_the_participants_asked_for_are_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    numbers = range(2 * FEW_PARTICIPANTS)
    root = make_dataset(tmp_path, [f"sub-{n:02}/anat/sub-{n:02}_T2starw.nii.gz" for n in numbers])
    import bids.layout.index as index

    seen = []
    original = index.BIDSLayoutIndexer._index_file
    monkeypatch.setattr(
        index.BIDSLayoutIndexer,
        "_index_file",
        lambda self, path, entities: (
            seen.append(Path(str(path)).name),
            original(self, path, entities),
        )[1],
    )
    asked = [f"{n:02}" for n in numbers[: FEW_PARTICIPANTS + extra]]
    units = find_units(root, participants=[f"sub-{label}" for label in asked[::-1]])
    assert [unit.subject for unit in units] == asked
    assert all(unit.scans for unit in units)
    assert sorted(seen) == [f"sub-{label}_T2starw.nii.gz" for label in asked]


def test_the_order_on_disk_changes_nothing(tmp_path: Path) -> None:
    images = [
        f"sub-{n}/anat/sub-{n}_{rest}.nii.gz"
        for n in ("b", "a", "10", "9")
        for rest in ("T2starw", "swi", "T1w", "acq-mip_swi")
    ]
    one = find_units(make_dataset(tmp_path / "one", images))
    two = find_units(make_dataset(tmp_path / "two", images[::-1]))
    assert [unit.subject for unit in one] == ["10", "9", "a", "b"]

    def without_root(units: list[Unit], name: str) -> str:
        return repr(units).replace(str(tmp_path / name), "")

    assert without_root(one, "one") == without_root(two, "two")


# --- anatomy ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        (["ses-2/anat/sub-01_ses-2_T1w", "ses-1/anat/sub-01_ses-1_T1w"], "sub-01_ses-2_T1w"),
        (
            ["ses-1/anat/sub-01_ses-1_acq-a_T1w", "ses-3/anat/sub-01_ses-3_T1w"],
            "sub-01_ses-1_acq-a_T1w",
        ),
        (["ses-3/anat/sub-01_ses-3_T1w", "ses-4/anat/sub-01_ses-4_T1w"], "sub-01_ses-3_T1w"),
        (
            [
                "ses-2/anat/sub-01_ses-2_ce-gadolinium_T1w",
                "ses-2/anat/sub-01_ses-2_acq-mprage_run-2_T1w",
            ],
            "sub-01_ses-2_acq-mprage_run-2_T1w",
        ),
        (
            [
                "ses-2/anat/sub-01_ses-2_acq-a_T1w",
                "ses-2/anat/sub-01_ses-2_run-10_T1w",
                "ses-2/anat/sub-01_ses-2_run-2_T1w",
            ],
            "sub-01_ses-2_run-2_T1w",
        ),
        (
            ["ses-2/anat/sub-01_ses-2_part-phase_T1w", "ses-1/anat/sub-01_ses-1_T1w"],
            "sub-01_ses-1_T1w",
        ),
    ],
)
def test_choice_of_the_anatomy(tmp_path: Path, given: list[str], chosen: str) -> None:
    scan = "sub-01/ses-2/anat/sub-01_ses-2_T2starw.nii.gz"
    root = make_dataset(tmp_path, [scan, *(f"sub-01/{path}.nii.gz" for path in given)])
    (unit,) = find_units(root, sessions=["2"])
    assert unit.anatomy is not None
    assert unit.anatomy.name == chosen
    spares = [anatomy.path for anatomy in unit.spare_anatomies]
    others = {root / f"sub-01/{path}.nii.gz" for path in given if "part-phase" not in path}
    assert len(spares) == len(set(spares)) == len(others) - 1
    assert {unit.anatomy.path, *spares} == others
    noted = any(chosen in warning for warning in unit.scans[0].warnings)
    same_session = [path for path in given if "ses-2" in path and "part-phase" not in path]
    assert noted == ("ses-2" not in chosen or len(same_session) > 1)


def test_spare_anatomies_are_in_the_order_of_the_choice(tmp_path: Path) -> None:
    images = [
        "ses-2/anat/sub-01_ses-2_T2starw",
        "ses-2/anat/sub-01_ses-2_ce-gd_T1w",
        "ses-2/anat/sub-01_ses-2_run-10_T1w",
        "ses-2/anat/sub-01_ses-2_run-2_T1w",
        "ses-2/anat/sub-01_ses-2_part-real_T1w",
        "ses-2/anat/sub-03_ses-2_T1w",
        "ses-4/anat/sub-01_ses-4_T1w",
        "ses-1/anat/sub-01_ses-1_T1w",
    ]
    root = make_dataset(tmp_path, {f"sub-01/{path}.nii": {"EchoTime": 0.003} for path in images})
    (unit,) = find_units(root)
    assert unit.anatomy is not None
    ranked = [unit.anatomy, *unit.spare_anatomies]
    assert [anatomy.name for anatomy in ranked] == [
        "sub-01_ses-2_run-2_T1w",
        "sub-01_ses-2_run-10_T1w",
        "sub-01_ses-2_ce-gd_T1w",
        "sub-01_ses-1_T1w",
        "sub-01_ses-4_T1w",
    ]
    assert all(anatomy.metadata["EchoTime"] == 0.003 for anatomy in ranked)


def test_derivatives_leave_the_spare_anatomies(tmp_path: Path) -> None:
    images = [PLAIN, *(f"sub-01/anat/sub-01_run-{n}_T1w.nii.gz" for n in (1, 2, 3))]
    root = make_dataset(tmp_path / "raw", images)
    (tmp_path / "fmriprep/sub-01/anat").mkdir(parents=True)
    folder = DerivativeFolder("fmriprep", tmp_path / "fmriprep")
    (plain,) = find_units(root)
    (unit,) = find_units(root, derivatives=[folder])
    assert len(unit.spare_anatomies) == 2
    assert unit.spare_anatomies == plain.spare_anatomies


def test_a_participant_without_t1w_has_no_anatomy(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, [PLAIN, "sub-02/anat/sub-02_T1w.nii.gz"])
    (unit,) = find_units(root, participants=["01"])
    assert unit.anatomy is None
    assert unit.spare_anatomies == ()


# --- metadata --------------------------------------------------------------------------


def test_sidecars_are_inherited_from_all_levels(tmp_path: Path) -> None:
    root = make_dataset(
        tmp_path, {"sub-01/ses-1/anat/sub-01_ses-1_acq-a_T2starw.nii.gz": {"EchoTime": 0.04}}
    )
    sidecars = {
        "T2starw.json": {"EchoTime": 0.01, "MagneticFieldStrength": 3, "Manufacturer": "A"},
        "acq-a_T2starw.json": {"Manufacturer": "B", "FlipAngle": 15},
        "acq-b_T2starw.json": {"Manufacturer": "wrong"},
        "T1w.json": {"Manufacturer": "wrong"},
        "sub-01/sub-01_T2starw.json": {"EchoTime": 0.02, "FlipAngle": 20},
        "sub-01/ses-1/sub-01_ses-1_T2starw.json": {"RepetitionTime": 0.7},
    }
    for name, content in sidecars.items():
        (root / name).write_text(json.dumps(content))
    scan = only_scan(root)
    assert scan.metadata == {
        "EchoTime": 0.04,
        "MagneticFieldStrength": 3,
        "Manufacturer": "B",
        "FlipAngle": 20,
        "RepetitionTime": 0.7,
    }
    assert scan.warnings == ()


def test_one_sidecar_for_all_echoes_and_parts(tmp_path: Path) -> None:
    root = make_dataset(
        tmp_path,
        {
            f"sub-01/anat/sub-01_echo-{echo}_part-mag_MEGRE.nii.gz": {"EchoTime": echo / 100}
            for echo in (1, 2)
        },
    )
    (root / "sub-01/anat/sub-01_MEGRE.json").write_text('{"MagneticFieldStrength": 7}')
    scan = only_scan(root)
    assert scan.metadata["MagneticFieldStrength"] == 7
    assert scan.warnings == ()


@pytest.mark.parametrize(
    ("sidecar", "time", "warning"),
    [
        ({"EchoTime": 25}, 0.025, "milliseconds"),
        ({"EchoTime": "0.025"}, 0.025, "is a text and is read as 0.025 seconds"),
        ({"EchoTime": 0}, None, "left out"),
        ({"EchoTime": [0.02, 0.03]}, None, "left out"),
        ({"EchoTime": float("nan")}, None, "left out"),
        ({"EchoTime": True}, None, "left out"),
        ({}, None, "EchoTime is unknown"),
    ],
)
def test_echo_times_are_seconds(
    tmp_path: Path, sidecar: dict[str, object], time: float | None, warning: str | None
) -> None:
    root = make_dataset(tmp_path, {PLAIN: {"MagneticFieldStrength": 3, **sidecar}})
    scan = only_scan(root)
    assert scan.echoes[0].echo_time == time
    assert len(scan.warnings) == (warning is not None)
    if warning is not None:
        assert warning in scan.warnings[0]
    if time is not None:
        assert scan.metadata["EchoTime"] == time


def test_a_missing_sidecar_is_a_warning(tmp_path: Path) -> None:
    warnings = only_scan(make_dataset(tmp_path, {PLAIN: None})).warnings
    assert "sub-01_T2starw.nii.gz has no sidecar" in warnings


def test_a_scan_with_a_broken_sidecar_is_refused(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, [PLAIN])
    (root / "sub-01/anat/sub-01_T2starw.json").write_text('{"EchoTime": 0.0')
    refusal = only_refusal(root)
    assert refusal.path == root / PLAIN
    assert "sub-01/anat/sub-01_T2starw.json cannot be used" in refusal.reason
    assert "sub-01_T2starw.json: correct it" in refusal.hint


# --- refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sidecar", "reason"),
    [
        ("anat/sub-01_acq-minIP_swi", {}, "projection"),
        ("anat/sub-01_acq-mip_T2starw", {}, "projection"),
        ("anat/sub-01_rec-swiMIP_swi", {}, "projection"),
        ("anat/sub-01_acq-mIP8mm_swi", {}, "projection"),
        ("swi/sub-01_minIP", {}, "projection"),
        ("anat/sub-01_minIP", {}, "projection"),
        ("anat/sub-01_swi", {"ImageType": ["DERIVED", "PRIMARY", "M", "MNIP"]}, "projection"),
        ("anat/sub-01_swi", {"ImageType": ["DERIVED", "PROJECTION IMAGE"]}, "projection"),
        ("anat/sub-01_swi", {"SeriesDescription": "mIP_Images(SW)"}, "projection"),
        ("anat/sub-01_swi", {"SliceThickness": 16, "SpacingBetweenSlices": 2}, "projection"),
        ("anat/sub-01_part-phase_T2starw", {}, "without a magnitude image"),
        ("anat/sub-01_swi", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase image"),
        ("anat/sub-01_part-mag_swi", {"ImageType": "ORIGINAL\\PRIMARY\\PHASE"}, "says magnitude"),
        ("anat/sub-01_rec-phase_swi", {}, "phase image"),
        ("swi/sub-01_acq-pha_GRE", {}, "phase image"),
        ("swi/sub-01_phase", {}, "phase image"),
        ("anat/sub-01_part-real_T2starw", {}, "one half"),
        ("anat/sub-01_part-imag_T2starw", {}, "one half"),
        ("anat/sub-01_Chimap", {}, "maps"),
        ("anat/sub-01_R2starmap", {}, "maps"),
        ("anat/sub-01_T2starmap", {}, "maps"),
        ("anat/sub-01_T2star", {}, "does not say"),
        ("swi/sub-01_veno", {}, "no suffix"),
        ("anat/sub-02_T2starw", {}, "another participant"),
        ("anat/sub-01_ses-1_T2starw", {}, "another participant or session"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, name: str, sidecar: dict[str, object], reason: str
) -> None:
    root = make_dataset(tmp_path, {f"sub-01/{name}.nii.gz": {**GRE_SIDECAR, **sidecar}})
    refusal = only_refusal(root)
    assert refusal.path == root / f"sub-01/{name}.nii.gz"
    assert reason in refusal.reason
    assert refusal.hint


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [
        ("sub-mip01/anat/sub-mip01_T2starw", {}),
        ("sub-01/anat/sub-01_acq-shrimp_T2starw", {}),
        ("sub-01/anat/sub-01_acq-emiphase_swi", {}),
        ("sub-01/anat/sub-01_swi", {"ProtocolName": "swi_mIP", "SeriesDescription": "SWI_Images"}),
        ("sub-01/anat/sub-01_swi", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "SWI"]}),
        ("sub-01/anat/sub-01_swi", {"SliceThickness": 2, "SpacingBetweenSlices": 1}),
        ("sub-01/anat/sub-01_swi", {"SliceThickness": 10, "SpacingBetweenSlices": 10}),
    ],
)
def test_what_is_not_refused(tmp_path: Path, name: str, sidecar: dict[str, object]) -> None:
    scan = only_scan(make_dataset(tmp_path, {f"{name}.nii.gz": {**GRE_SIDECAR, **sidecar}}))
    assert scan.warnings == ()


@pytest.mark.parametrize(
    ("kept", "refused"),
    [
        ("anat/sub-01_swi.nii.gz", "anat/sub-01_swi.nii"),
        ("anat/sub-01_swi.nii.gz", "swi/sub-01_swi.nii.gz"),
        ("anat/sub-01_part-mag_SWI.nii.gz", "anat/sub-01_SWI.nii.gz"),
        ("anat/sub-01_swi.nii.gz", "anat/sub-01_combined_swi.nii.gz"),
        ("anat/sub-01_flip-1_swi.nii.gz", "anat/sub-01_flip-2_swi.nii.gz"),
        ("anat/sub-01_echo-1_swi.nii.gz", "anat/sub-01_swi.nii.gz"),
        ("anat/sub-01_echo-1_swi.nii.gz", "anat/sub-01_echo-01_swi.nii.gz"),
        ("anat/sub-01_desc-a_T2starw.nii", "anat/sub-01_desc-b_T2starw.nii"),
        ("anat/sub-01_desc-a_T2starw.nii.gz", "swi/sub-01_desc-a_T2starw.nii"),
        ("anat/sub-01_acq-0.8mm_T2starw.nii.gz", "anat/sub-01_acq-0.8mm_extra_T2starw.nii.gz"),
        ("swi/sub-01_GRE.nii.gz", "swi/sub-01_combined_GRE.nii"),
    ],
)
def test_one_of_two_files_with_the_same_entities_is_refused(
    tmp_path: Path, kept: str, refused: str
) -> None:
    if "echo-01" in refused:  # either will do; the order of names decides
        kept, refused = refused, kept
    root = make_dataset(tmp_path, [f"sub-01/{refused}", f"sub-01/{kept}"])
    (unit,) = find_units(root)
    assert [scan.source for scan in unit.scans] == [root / "sub-01" / kept]
    (refusal,) = unit.refused
    assert refusal.path == root / "sub-01" / refused
    if "echo-1_" not in kept or "echo-01" in refused:
        assert kept in refusal.reason


def test_a_phase_image_of_an_echo_without_magnitude_is_refused(tmp_path: Path) -> None:
    root = make_dataset(
        tmp_path,
        {
            "sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz": {**GRE_SIDECAR, "EchoTime": 0.01},
            "sub-01/anat/sub-01_echo-3_part-mag_MEGRE.nii.gz": {**GRE_SIDECAR, "EchoTime": 0.03},
            "sub-01/anat/sub-01_echo-2_part-phase_MEGRE.nii.gz": {"Units": "rad"},
        },
    )
    (unit,) = find_units(root)
    assert [refusal.path.name for refusal in unit.refused] == [
        "sub-01_echo-2_part-phase_MEGRE.nii.gz"
    ]
    assert unit.scans[0].warnings == ("echo 2 is not there",)


def test_parts_of_the_name_that_bids_does_not_know_are_warned_of(tmp_path: Path) -> None:
    scan = only_scan(make_dataset(tmp_path, ["sub-01/anat/sub-01_acq-0.8mm_desc-x_swi.nii.gz"]))
    assert scan.stem == "sub-01"
    (warning,) = scan.warnings
    assert "desc-x" in warning
    assert "acq-0.8mm" in warning


# --- what was asked for ----------------------------------------------------------------


@pytest.mark.parametrize("label", ["1", "sub-01x", "O1"])
def test_a_participant_that_does_not_exist(tmp_path: Path, label: str) -> None:
    root = make_dataset(tmp_path, [PLAIN, "sub-77/anat/sub-77_T2starw.nii.gz"])
    with pytest.raises(UsageError, match=f"no participant sub-{label.removeprefix('sub-')}") as e:
        find_units(root, participants=["77", label])
    assert e.value.hint is not None
    assert e.value.hint.startswith("the nearest labels are sub-01")


def test_sessions_are_chosen(tmp_path: Path) -> None:
    root = make_dataset(
        tmp_path,
        [
            f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_T2starw.nii.gz"
            for subject, session in (("01", "bl"), ("01", "fu"), ("02", "bl"))
        ],
    )
    assert names(find_units(root, sessions=["ses-fu"])) == ["sub-01_ses-fu_T2starw"]
    asked = find_units(root, participants=["01", "02"], sessions=["fu"])
    assert [(unit.label, len(unit.scans)) for unit in asked] == [
        ("sub-01_ses-fu", 1),
        ("sub-02_ses-fu", 0),
    ]
    assert asked[1].refused[0].reason == "there is no such session"
    with pytest.raises(UsageError, match="no session ses-f") as e:
        find_units(root, sessions=["f"])
    assert "ses-fu" in str(e.value)


def test_sessions_of_a_dataset_without_any(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sessions"):
        find_units(make_dataset(tmp_path, [PLAIN]), sessions=["1"])


def test_a_participant_without_scans_is_told_of(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, [PLAIN, "sub-02/anat/sub-02_T1w.nii.gz"])
    _, empty = find_units(root)
    assert (empty.label, empty.scans) == ("sub-02", ())
    (refusal,) = empty.refused
    assert refusal.path == root / "sub-02"
    assert "_T2starw" in refusal.hint
    assert find_units(root, participants=["02"]) == [empty]


def test_a_session_with_only_a_t1w_is_no_unit(tmp_path: Path) -> None:
    root = make_dataset(
        tmp_path,
        [
            "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
            "sub-01/ses-2/anat/sub-01_ses-2_T2starw.nii.gz",
        ],
    )
    assert [unit.label for unit in find_units(root)] == ["sub-01_ses-2"]


def test_a_dataset_without_any_scan(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no blood-sensitive scan"):
        find_units(make_dataset(tmp_path, ["sub-01/anat/sub-01_T1w.nii.gz"]))


def test_a_dataset_with_nothing_but_refused_scans_names_one(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, ["sub-01/anat/sub-01_acq-mip_swi.nii.gz"])
    with pytest.raises(UsageError, match=r"sub-01_acq-mip_swi.nii.gz.*projection"):
        find_units(root)


def test_the_path_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_units(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        find_units(tmp_path / "file")


def test_no_participants(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no participants"):
        find_units(make_dataset(tmp_path))
    (tmp_path / "sub-A_1").mkdir()
    with pytest.raises(UsageError, match="sub-A_1 have labels that BIDS does not allow"):
        find_units(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no dataset_description.json"),
        ("{", "cannot be read as JSON"),
        ('{"BIDSVersion": "1.10.0"}', "Name is missing"),
        ('{"Name": "x"}', "BIDSVersion is missing"),
        (
            '{"Name": "x", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}',
            "derivative dataset",
        ),
    ],
)
def test_the_description_is_checked_unless_told_not_to(
    tmp_path: Path, content: str | None, message: str
) -> None:
    root = make_dataset(tmp_path, [PLAIN])
    if content is None:
        (root / "dataset_description.json").unlink()
    else:
        (root / "dataset_description.json").write_text(content)
    with pytest.raises(UsageError, match=message) as e:
        find_units(root)
    assert "--skip-bids-validation" in str(e.value)
    assert names(find_units(root, validate=False)) == ["sub-01_T2starw"]


def test_a_description_that_is_no_object(tmp_path: Path) -> None:
    (make_dataset(tmp_path, [PLAIN]) / "dataset_description.json").write_text("[1]")
    with pytest.raises(UsageError, match="not a JSON object"):
        find_units(tmp_path)
    assert names(find_units(tmp_path, validate=False)) == ["sub-01_T2starw"]


def test_a_participants_folder_given_as_the_dataset(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "study", [PLAIN])
    with pytest.raises(UsageError) as e:
        find_units(root / "sub-01")
    assert f"give {root} as BIDS_DIR" in str(e.value)


# --- filters ---------------------------------------------------------------------------


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    return make_dataset(
        tmp_path,
        [
            "sub-01/anat/sub-01_T2starw.nii.gz",
            "sub-01/anat/sub-01_acq-a_run-01_T2starw.nii.gz",
            "sub-01/anat/sub-01_acq-b_run-02_T2starw.nii.gz",
            "sub-01/anat/sub-01_swi.nii.gz",
            "sub-01/anat/sub-01_T1w.nii.gz",
            "sub-01/anat/sub-01_rec-x_T1w.nii.gz",
        ],
    )


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"acquisition": "a"}, ["sub-01_acq-a_run-01_T2starw"]),
        ({"acquisition": None}, ["sub-01_T2starw"]),
        (
            {"acquisition": "*"},
            ["sub-01_acq-a_run-01_T2starw", "sub-01_acq-b_run-02_T2starw"],
        ),
        ({"acquisition": ["a", None]}, ["sub-01_T2starw", "sub-01_acq-a_run-01_T2starw"]),
        ({"run": 2}, ["sub-01_acq-b_run-02_T2starw"]),
        ({"run": "02"}, ["sub-01_acq-b_run-02_T2starw"]),
        ({"extension": "nii"}, []),
        ({"extension": ["nii", "nii.gz"], "run": 1}, ["sub-01_acq-a_run-01_T2starw"]),
        ({"suffix": "swi"}, []),
    ],
)
def test_filters_choose_scans(varied: Path, wanted: dict[str, object], found: list[str]) -> None:
    (unit,) = find_units(varied, filters={"t2starw": wanted})
    assert sorted(names([unit])) == sorted([*found, "sub-01_swi"])
    assert not unit.refused


def test_filters_choose_the_anatomy(varied: Path) -> None:
    (unit,) = find_units(varied, filters={"t1w": {"reconstruction": "x"}})
    assert unit.anatomy is not None
    assert unit.anatomy.name == "sub-01_rec-x_T1w"


def test_a_filter_that_matches_nothing_is_named_with_its_kind(
    varied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filters = {
        "t2starw": {"acquisition": "c"},
        "swi": {"acquisition": None},
        "megre": {"run": 1},
        "t1w": {"reconstruction": "y"},
    }
    (unit,) = find_units(varied, filters=filters)
    assert names([unit]) == ["sub-01_swi"]
    assert [record.getMessage() for record in caplog.records] == [
        "the filter for 't2starw' matches none of the 3 images of that kind",
        "the filter for 't1w' matches none of the 2 images of that kind",
    ]


@pytest.mark.parametrize("size", [1, FEW_PARTICIPANTS + 1])
def test_images_are_counted_over_all_participants(
    tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    images = [f"sub-{n:02}/anat/sub-{n:02}_run-{r}_swi.nii" for n in range(size) for r in (1, 2)]
    root = make_dataset(tmp_path, images)
    filters = {"swi": {"run": 3}, "megre": {"run": 3}}
    with pytest.raises(UsageError) as e:
        find_units(root, filters=filters)
    wanted = f"the filter for 'swi' matches none of the {2 * size} images of that kind"
    assert wanted in e.value.message
    assert "there is no image of the kind 'megre'" in e.value.message
    assert wanted in caplog.text
    assert "megre" not in caplog.text


def test_filters_that_leave_nothing(varied: Path) -> None:
    nothing = {kind: {"session": "9"} for kind in ("t2starw", "swi")}
    with pytest.raises(UsageError, match="passes the filter file"):
        find_units(varied, filters=nothing)
    (unit,) = find_units(varied, participants=["01"], filters=nothing)
    assert [refusal.reason for refusal in unit.refused] == ["no scan passes the filter file"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "not a JSON object"),
        ('{"brain": {}}', "'brain'.*t2starw, megre, swi, t1w"),
        ('{"swi": "x"}', "'swi' is not an object"),
        ('{"swi": {"aquisition": "x"}}', "'aquisition'.*did you mean 'acquisition'"),
        ('{"swi": {"run": {"a": 1}}}', "'run' has the value"),
        ('{"swi": {"run": true}}', "'run' has the value"),
        ('{"swi": {"run": []}}', "'run' is an empty list"),
    ],
)
def test_filter_files_are_checked(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "filter.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as e:
        read_filter_file(path)
    assert str(path) in str(e.value)


def test_a_filter_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "filter.json"
    path.write_text('{"swi": {"acquisition": null, "run": [1, "02"]}}')
    assert read_filter_file(path) == {"swi": {"acquisition": None, "run": [1, "02"]}}
    with pytest.raises(UsageError, match="no such filter file"):
        read_filter_file(tmp_path / "other.json")


# --- real scans ------------------------------------------------------------------------


def test_real_scans_are_found(real_bids: Path) -> None:
    units = find_units(real_bids, participants=["s1", "niivue", "forrest"])
    assert [(unit.subject, unit.anatomy is not None) for unit in units] == [
        ("forrest", True),
        ("niivue", False),
        ("s1", True),
    ]
    assert [scan.suffix for unit in units for scan in unit.scans] == ["T2starw"] * 3
    assert units[0].scans[0].echoes[0].echo_time == 0.03
