"""Files: which are found, how scans are paired, what is read from them."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import UsageError
from cmbprep.lab.evaluate.collect import find_dataset, read_sites, scan_groups
from cmbprep.lab.evaluate.files import find_scans, pair_scans, parse_name
from cmbprep.lab.evaluate.reading import read_lesion_set, read_marks, read_mimics, with_hidden
from cmbprep.lesions import Lesion, format_lesions


def save(path, data, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cubes(dtype=np.uint8, values=(1, 1)):
    """Two cubes of 2 x 2 x 2 voxels, that touch at an edge, and nothing else."""
    data = np.zeros((10, 10, 10), dtype=dtype)
    data[2:4, 2:4, 2:4] = values[0]
    data[4:6, 4:6, 2:4] = values[1]
    return data


def only(folder, **values):
    (scan,) = find_scans(folder, **values).scans
    return scan


def test_names_are_split(tmp_path):
    entities, suffix, extension = parse_name(tmp_path / "sub-1_run-02_label-CMB_mask.nii.gz")
    assert (entities["sub"], entities["run"], suffix, extension) == ("1", "02", "mask", ".nii.gz")


def test_subject_from_the_folder(tmp_path):
    save(tmp_path / "sub-7" / "ses-b" / "prediction.nii.gz", cubes())
    assert only(tmp_path).entities == {"sub": "7", "ses": "b"}


def test_bids_names_win_over_other_images(tmp_path):
    save(tmp_path / "sub-1" / "anat" / "sub-1_label-CMB_mask.nii.gz", cubes())
    save(tmp_path / "sub-1" / "anat" / "sub-1_desc-preproc_T2starw.nii.gz", cubes())
    save(tmp_path / "sub-1" / "anat" / "sub-1_space-MNI_label-CMB_mask.nii.gz", cubes())
    assert set(only(tmp_path).roles) == {"mask"}


@pytest.mark.parametrize("label", ["reviewed1anna", "followupses01"])
def test_results_of_readers_and_of_two_visits_are_not_the_detectors(tmp_path, label):
    folder = tmp_path / "sub-1" / "ses-02" / "anat"
    for desc in ("", f"_desc-{label}"):
        save(folder / f"sub-1_ses-02_seg-CMB{desc}_dseg.nii.gz", cubes())
    (path,) = only(tmp_path).roles.values()
    assert path.name == "sub-1_ses-02_seg-CMB_dseg.nii.gz"


def test_pattern_picks_files(tmp_path):
    for name in ("sub-101_space-T2S_CMB.nii.gz", "sub-101_space-T2S_desc-masked_T2S.nii.gz"):
        save(tmp_path / "sub-101" / name, cubes())
    with pytest.raises(UsageError, match="two files"):
        find_scans(tmp_path)
    scan = only(tmp_path, pattern="*_CMB.nii.gz")
    assert scan.name == "sub-101"
    assert len(read_lesion_set(scan).marks) == 2


@pytest.mark.parametrize("folder", ["absent", "."])
def test_nothing_to_read(tmp_path, folder):
    with pytest.raises(UsageError, match=r"no such folder|no lesion table"):
        find_scans(tmp_path / folder)


def test_subjects_are_chosen(tmp_path):
    for label in ("1", "2"):
        save(tmp_path / f"sub-{label}_label-CMB_mask.nii.gz", cubes())
    assert only(tmp_path, subjects=["sub-2"]).name == "sub-2"


def named(tmp_path, side, *names):
    for name in names:
        save(tmp_path / side / f"{name}_label-CMB_mask.nii.gz", cubes())
    return list(find_scans(tmp_path / side).scans)


def test_pairs(tmp_path):
    truth = named(
        tmp_path, "t", "sub-1", "sub-2_run-1", "sub-2_run-2", "sub-3", "sub-4", "sub-5_echo-1"
    )
    found = named(
        tmp_path,
        "p",
        "sub-1_acq-swi",
        "sub-2_run-2",
        "sub-3_run-1",
        "sub-3_run-2",
        "sub-9",
        "sub-5_echo-2",
    )
    pairing = pair_scans(truth, found)
    assert [(a.name, b.name, how) for a, b, how in pairing.pairs] == [
        ("sub-1", "sub-1_acq-swi", "shared entities"),
        ("sub-2_run-2", "sub-2_run-2", "same entities"),
    ]
    # sub-3 fits two runs and so neither; echoes differ.
    assert [scan.name for scan in pairing.truth_only] == [
        "sub-2_run-1",
        "sub-3",
        "sub-4",
        "sub-5_echo-1",
    ]
    assert [scan.name for scan in pairing.predicted_only] == [
        "sub-3_run-1",
        "sub-3_run-2",
        "sub-5_echo-2",
        "sub-9",
    ]


def test_mask_becomes_components_in_scanner_coordinates(tmp_path):
    affine = np.array([[0, 0, 3.0, -10], [-1, 0, 0, 20], [0, 2, 0, 5], [0, 0, 0, 1]])
    save(tmp_path / "sub-1_label-CMB_mask.nii.gz", cubes(), affine)
    lesions = read_lesion_set(only(tmp_path))
    assert lesions.origin == "mask"
    # Voxel centre (2.5, 2.5, 2.5) -> (3 * 2.5 - 10, 20 - 2.5, 2 * 2.5 + 5).
    assert lesions.marks[0].centre == pytest.approx((-2.5, 17.5, 10))
    assert lesions.marks[0].volume_mm3 == pytest.approx(8 * 6)
    assert len(lesions.marks) == 2
    assert len(read_lesion_set(only(tmp_path), connectivity=18).marks) == 1


def test_the_same_lesions_however_the_image_is_stored(tmp_path):
    oblique = np.array([[0.9, -0.3, 0, 4], [0.3, 0.9, 0.1, -7], [0, -0.1, 2, 1], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(cubes(np.int16), oblique)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    nib.save(image, tmp_path / "a" / "sub-1_label-CMB_mask.nii.gz")
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("P", "I", "L")))
    nib.save(turned, tmp_path / "b" / "sub-1_label-CMB_mask.nii.gz")
    one, other = (read_lesion_set(only(tmp_path / side)) for side in "ab")
    assert one.labels.shape == (10, 10, 10)
    np.testing.assert_allclose(
        sorted(m.centre for m in one.marks), sorted(m.centre for m in other.marks), atol=1e-5
    )


def test_probability_map(tmp_path):
    save(tmp_path / "sub-1_label-CMB_probseg.nii.gz", cubes(np.float32, (0.6, 0.3)))
    assert [m.probability for m in read_lesion_set(only(tmp_path)).marks] == pytest.approx([0.6])
    low = read_lesion_set(only(tmp_path), threshold=0.2)
    assert [m.probability for m in low.marks] == pytest.approx([0.6, 0.3])


def test_mask_with_a_probability_map(tmp_path):
    save(tmp_path / "sub-1_label-CMB_mask.nii.gz", cubes())
    save(tmp_path / "sub-1_label-CMB_probseg.nii.gz", cubes(np.float32, (0.9, 0.25)))
    assert [m.probability for m in read_lesion_set(only(tmp_path)).marks] == [
        pytest.approx(0.9),
        pytest.approx(0.25),
    ]
    assert len(read_lesion_set(only(tmp_path), threshold=0.5).marks) == 1


@pytest.mark.parametrize(
    ("data", "origin", "count"),
    [
        (cubes(), "mask", 2),
        (cubes(np.int16, (255, 255)), "mask", 2),
        (cubes(np.int16, (4, 9)), "labelled image", 2),
        (cubes(np.float32, (0.7, 0.8)), "probability map", 2),
        (np.zeros((4, 4, 4), np.uint8), "mask", 0),
    ],
)
def test_unnamed_images_are_what_their_values_say(tmp_path, data, origin, count):
    save(tmp_path / "sub-1_result.nii.gz", data)
    lesions = read_lesion_set(only(tmp_path))
    assert (lesions.origin, len(lesions.marks)) == (origin, count)


def test_own_table_with_labels(tmp_path):
    rows = [
        Lesion(index=4, name="a", x=2.5, y=2.5, z=2.5, volume_mm3=8.0, diameter_mm=2.5,
               probability=0.9, rating="definite", zone="deep", region="thalamus"),
        Lesion(index=9, name="b", x=4.5, y=4.5, z=2.5, volume_mm3=8.0, diameter_mm=2.5,
               probability=0.2, rating="possible"),
    ]  # fmt: skip
    write(tmp_path / "sub-1_seg-CMB_dseg.tsv", format_lesions(rows))
    save(tmp_path / "sub-1_seg-CMB_dseg.nii.gz", cubes(np.int16, (4, 9)))
    lesions = read_lesion_set(only(tmp_path))
    assert lesions.origin == "table with labels"
    first, second = lesions.marks
    assert (first.index, first.zone, first.region, first.probability) == (
        4,
        "deep",
        "thalamus",
        0.9,
    )
    assert second.zone is None
    assert len(read_lesion_set(only(tmp_path), threshold=0.5).marks) == 1


def test_label_without_a_row(tmp_path):
    write(tmp_path / "sub-1_seg-CMB_dseg.tsv", "index\tx\ty\tz\n4\t2.5\t2.5\t2.5\n")
    save(tmp_path / "sub-1_seg-CMB_dseg.nii.gz", cubes(np.int16, (4, 9)))
    with pytest.raises(UsageError, match="label 9 has no row"):
        read_lesion_set(only(tmp_path))


def test_foreign_table(tmp_path):
    write(
        tmp_path / "sub-1_lesions.tsv",
        "z\ty\tx\tvisible\tkind\tscore\n3\t2\t1\tfalse\tvein\t7\n6\t5\t4\tTrue\tn/a\t7\n",
    )
    one, two = read_lesion_set(only(tmp_path)).marks
    assert (one.index, one.centre, one.visible, one.kind) == (1, (1, 2, 3), False, "vein")
    assert (two.index, two.visible, two.kind, two.volume_mm3) == (2, True, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x\ty\n1\t2\n", "no column z"),
        ("x\ty\tz\n1\t2\tn/a\n", "line 2"),
        ("x\ty\tz\n1\t2\tthree\n", "line 2"),
        ("x\ty\tz\tprobability\n1\t2\t3\t1.5\n", "outside 0..1"),
        ("index\tx\ty\tz\n1\t1\t2\t3\n1\t4\t5\t6\n", "same index"),
        ("x\ty\tz\tvisible\n1\t2\t3\tperhaps\n", "neither true nor false"),
        ("", "empty"),
        ("\n\n", "empty"),
        ("x;y;z\n1;2;3\n", "semicolons"),
        ("x,y,z\n", "commas"),
        ("x\ty\tz\tprobability\n1\t2\t3\t0.5\n4\t5\t6\n", "line 3 has 3 cells"),
        ("x\ty\tz\n1\t2\t3\t4\n", "line 2 has 4 cells"),
        ("x\ty\tz\tX\n1\t2\t3\t4\n", "'x' and 'X'"),
        ("X\ty\tz\n1\t2\t3\n", "no column x .*'X'"),
        ("x\ty\tz\nnan\t2\t3\n", "x is missing"),
        ("x\ty\tz\n1\t2\t3\0\n", "not text"),
    ],
)
def test_wrong_tables_are_named(tmp_path, text, message):
    write(tmp_path / "t.tsv", text)
    with pytest.raises(UsageError, match=message) as caught:
        read_marks(tmp_path / "t.tsv")
    assert "t.tsv" in str(caught.value)


def test_tables_as_r_and_spreadsheets_write_them(tmp_path):
    write(tmp_path / "t.tsv", '\ufeff"x"\t"y"\t"z"\t"kind"\r\n1\t2\t3\t"a ""b"""\r\n\r\n')
    (mark,) = read_marks(tmp_path / "t.tsv")
    assert (mark.centre, mark.kind) == ((1, 2, 3), 'a "b"')
    # One mark is text, and does not swallow the rows up to the next one.
    write(tmp_path / "t.tsv", 'x\ty\tz\tkind\n1\t2\t3\t"a\n4\t5\t6\tb"\n')
    assert [mark.kind for mark in read_marks(tmp_path / "t.tsv")] == ['"a', 'b"']


def own_result(folder, lesions):
    """Write table, labelled image and sidecar as the participant level leaves them."""
    table = folder / "sub-1_seg-CMB_dseg.tsv"
    write(table, format_lesions(lesions))
    save(folder / "sub-1_seg-CMB_dseg.nii.gz", cubes(np.int16, (1, 2)))
    save(folder / "sub-1_label-CMB_mask.nii.gz", cubes())
    write(folder / "sub-1_seg-CMB_dseg.json", json.dumps({"Cmbprep": {"Stage": "lesions"}}))
    return table


ROWS = [
    Lesion(index=n, name=f"CMB-{n}", x=2.5, y=2.5, z=2.5, volume_mm3=8.0, diameter_mm=2.5,
           probability=0.9, rating="definite", zone="deep", region="thalamus")
    for n in (1, 2)
]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:0], "empty"),
        (lambda text: text.splitlines()[0] + "\n", "0 rows .* 2 labels"),
        (lambda text: text[: text.rindex("2\tCMB")], "1 row .* 2 labels"),
        (lambda text: text + text.splitlines()[1].replace("1\tCMB-1", "3\tCMB-3") + "\n",
         "3 rows .* 2 labels"),
        (lambda text: text.replace("rating", "grade"), "no column rating"),
        (lambda text: text.replace("definite", "certain"), "rating 'certain'"),
        (lambda text: text.replace("susceptibility", "Susceptibility"), "no column suscept"),
        (lambda text: text[:-3], "susceptibility 'unkno'"),
    ],
)  # fmt: skip
def test_a_damaged_result_of_ours_is_no_result_without_lesions(tmp_path, damage, message):
    table = own_result(tmp_path, ROWS)
    assert len(read_lesion_set(only(tmp_path)).marks) == 2
    table.write_text(damage(table.read_text()))
    with pytest.raises(UsageError, match=message) as caught:
        read_lesion_set(only(tmp_path))
    assert table.name in str(caught.value)


def test_a_result_of_ours_without_its_table_is_not_read_from_its_image(tmp_path):
    own_result(tmp_path, ROWS).unlink()
    with pytest.raises(UsageError, match="lesion table of this result is missing") as caught:
        read_lesion_set(only(tmp_path))
    assert "sub-1_seg-CMB_dseg.tsv" in str(caught.value)
    # The labelled image of another tool needs none.
    (tmp_path / "sub-1_seg-CMB_dseg.json").write_text("{}")
    assert len(read_lesion_set(only(tmp_path)).marks) == 2


def test_a_truth_in_our_format_is_checked_and_may_list_what_has_no_voxels(tmp_path):
    table = own_result(tmp_path, [*ROWS, replace(ROWS[0], index=3, name="CMB-3")])
    (tmp_path / "sub-1_seg-CMB_dseg.json").unlink()
    assert len(read_lesion_set(only(tmp_path)).marks) == 3
    table.write_text(table.read_text().replace("deep", "deeep"))
    with pytest.raises(UsageError, match="zone 'deeep'"):
        read_lesion_set(only(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe broken", b"participant_id;site\nsub-1;a\n"])
def test_damaged_participants_cost_a_split_and_not_the_evaluation(tmp_path, content):
    (tmp_path / "participants.tsv").write_bytes(content)
    assert read_sites(tmp_path) == {}


def test_labels_beyond_32_bits_do_not_become_others(tmp_path):
    save(tmp_path / "sub-1_seg-CMB_dseg.nii.gz", cubes(np.float64, (1, 2**32 + 1)))
    with pytest.raises(UsageError, match="whole numbers"):
        read_lesion_set(only(tmp_path))


def test_wrong_images_are_named(tmp_path):
    write(tmp_path / "sub-1_label-CMB_mask.nii.gz", "not an image")
    save(tmp_path / "sub-2_label-CMB_mask.nii.gz", np.zeros((3, 3, 3, 2), np.uint8))
    save(tmp_path / "sub-3_label-CMB_probseg.nii.gz", np.full((3, 3, 3), 7.0))
    save(tmp_path / "sub-4_seg-CMB_dseg.nii.gz", np.full((3, 3, 3), 0.5))
    save(tmp_path / "sub-5_label-CMB_mask.nii.gz", np.full((3, 3, 3), np.nan))
    whole = tmp_path / "sub-6_label-CMB_mask.nii.gz"
    save(whole, np.random.default_rng(0).integers(0, 2, (20, 20, 20)).astype(np.uint8))
    whole.write_bytes(whole.read_bytes()[:-200])
    messages = (
        "cannot be read",
        "4 dimensions",
        "0..1",
        "whole numbers",
        "not finite",
        "cannot be read",
    )
    scans = find_scans(tmp_path).scans
    assert len(scans) == len(messages)
    for scan, message in zip(scans, messages, strict=True):
        with pytest.raises(UsageError, match=message) as caught:
            read_lesion_set(scan)
        assert scan.name in str(caught.value)


@pytest.mark.parametrize(("shift", "same"), [(1e-3, True), (0.3, False)])
def test_a_probability_map_on_another_grid_than_its_mask_is_named(tmp_path, shift, same):
    affine = np.eye(4)
    save(tmp_path / "sub-1_label-CMB_mask.nii.gz", cubes(), affine.copy())
    affine[0, 3] = shift
    probability = cubes(np.float32, (0.9, 0.25))
    save(tmp_path / "sub-1_label-CMB_probseg.nii.gz", probability, affine)
    if same:
        marks = read_lesion_set(only(tmp_path)).marks
        assert sorted(mark.probability for mark in marks) == pytest.approx([0.25, 0.9])
        return
    with pytest.raises(UsageError, match=r"not on the grid.*0\.3 mm"):
        read_lesion_set(only(tmp_path))


def test_a_mask_whose_voxels_begin_in_its_header_is_corrected(tmp_path, caplog):
    """nibabel takes an offset of 0 as it is, and reads the header as lesions."""
    path = tmp_path / "sub-1_label-CMB_mask.nii"
    save(path, cubes())
    content = bytearray(path.read_bytes())
    content[108:112] = bytes(4)
    path.write_bytes(content)
    assert len(read_lesion_set(only(tmp_path)).marks) == 2
    assert "read from byte 352" in caplog.text


def test_trailing_dimensions_of_one_are_dropped(tmp_path):
    save(tmp_path / "sub-1_label-CMB_mask.nii.gz", cubes()[..., None])
    assert len(read_lesion_set(only(tmp_path)).marks) == 2


def test_mimics(tmp_path):
    save(tmp_path / "sub-1_label-CMB_mask.nii.gz", cubes())
    assert read_mimics(only(tmp_path)) == (None, ())
    write(tmp_path / "sub-1_seg-mimic_dseg.tsv", "index\tx\ty\tz\tkind\n1\t0\t0\t0\tvein\n")
    mimics, hidden = read_mimics(only(tmp_path))
    assert [m.kind for m in mimics.marks] == ["vein"]
    assert hidden == ()
    assert len(read_lesion_set(only(tmp_path)).marks) == 2


def test_hidden_microbleeds_among_the_mimics_belong_to_the_truth(tmp_path):
    save(tmp_path / "sub-1_label-CMB_mask.nii.gz", cubes())
    write(
        tmp_path / "sub-1_seg-mimics_dseg.tsv",
        "index\tx\ty\tz\tkind\tvisible\textent\n"
        "1\t0\t0\t0\tcalcification\ttrue\tcompact\n"
        "2\t9\t0\t0\tmicrobleed\tfalse\tcompact\n"
        "3\t0\t9\t0\tcavernoma\tfalse\tn/a\n"
        "4\t0\t9\t0\tvein\ttrue\textended\n",
    )
    mimics, hidden = read_mimics(only(tmp_path))
    assert [(m.kind, m.extended) for m in mimics.marks] == [
        ("calcification", False),
        ("vein", True),
    ]
    truth = with_hidden(read_lesion_set(only(tmp_path)), hidden)
    assert [(m.index, m.visible) for m in truth.marks] == [(1, True), (2, True), (3, False)]


@pytest.mark.parametrize("entity", ["mod", "acq"])
def test_a_truth_stands_for_all_images_that_it_names(tmp_path, entity):
    (truth,) = named(tmp_path, "t", "sub-1")
    found = named(tmp_path, "p", f"sub-1_{entity}-T2starw", f"sub-1_{entity}-swi", "sub-1_acq-b")
    assert pair_scans([truth], found).pairs == ()
    names = ["bids:raw:sub-1/anat/sub-1_part-mag_T2starw.nii.gz", "sub-1/anat/sub-1_swi.nii.gz"]
    write(tmp_path / "t" / "sub-1_label-CMB_mask.json", json.dumps({"Sources": names}))
    pairing = pair_scans(list(find_scans(tmp_path / "t").scans), found)
    assert [(b.name, how) for _, b, how in pairing.pairs] == [
        (f"sub-1_{entity}-T2starw", "named source"),
        (f"sub-1_{entity}-swi", "named source"),
    ]
    assert [scan.name for scan in pairing.predicted_only] == ["sub-1_acq-b"]
    assert pairing.truth_only == ()


def test_groups_of_images_told_apart_by_modality(tmp_path):
    anat = tmp_path / "sub-1" / "anat"
    save(anat / "sub-1_part-mag_T2starw.nii.gz", cubes())
    save(anat / "sub-1_swi.nii.gz", cubes())
    (truth,) = named(tmp_path, "t", "sub-1")
    for scan in named(tmp_path, "p", "sub-1_mod-T2starw", "sub-1_mod-swi"):
        groups = scan_groups(truth, scan, dataset=tmp_path, output=tmp_path / "p", sites={})
        assert groups["sequence"] == scan.entities["mod"]


def test_groups_from_the_raw_dataset(tmp_path):
    write(
        tmp_path / "participants.tsv",
        "participant_id\tage\tsite\nsub-1\t70\tnorth\nsub-2\t60\tn/a\n",
    )
    anat = tmp_path / "sub-1" / "anat"
    save(anat / "sub-1_acq-fast_part-phase_T2starw.nii.gz", cubes())
    save(anat / "sub-1_acq-fast_T2starw.nii.gz", cubes())
    save(anat / "sub-1_acq-fast_T1w.nii.gz", cubes())
    write(anat / "sub-1_acq-fast_T2starw.json", '{"MagneticFieldStrength": 1.5}')
    write(tmp_path / "T2starw.json", '{"MagneticFieldStrength": 3, "ProtocolName": "clinical 2D"}')
    truth = tmp_path / "derivatives" / "truth"
    save(truth / "sub-1" / "anat" / "sub-1_acq-fast_label-CMB_mask.nii.gz", cubes())
    save(truth / "sub-2" / "anat" / "sub-2_acq-slow_label-CMB_mask.nii.gz", cubes())
    assert find_dataset(truth) == tmp_path
    sites = read_sites(tmp_path)
    one, two = (
        scan_groups(scan, None, dataset=tmp_path, output=None, sites=sites)
        for scan in find_scans(truth).scans
    )
    assert one == {
        "protocol": "clinical 2D",
        "sequence": "T2starw",
        "field": "1.5 T",
        "site": "north",
    }
    assert two == {"protocol": "slow", "sequence": "n/a", "field": "n/a", "site": "n/a"}


def test_groups_from_the_prediction_where_there_is_no_raw_dataset(tmp_path):
    save(tmp_path / "t" / "sub-1_label-CMB_mask.nii.gz", cubes())
    anat = tmp_path / "p" / "sub-1" / "anat"
    save(anat / "sub-1_run-1_label-CMB_mask.nii.gz", cubes())
    save(anat / "sub-1_run-1_desc-preproc_swi.nii.gz", cubes())
    write(anat / "sub-1_run-1_desc-preproc_swi.json", '{"MagneticFieldStrength": 7}')
    (truth,), (found,) = find_scans(tmp_path / "t").scans, find_scans(tmp_path / "p").scans
    groups = scan_groups(truth, found, dataset=None, output=tmp_path / "p", sites={})
    assert (groups["sequence"], groups["field"]) == ("swi", "7 T")


def test_the_table_of_candidates_is_not_taken_for_lesions(tmp_path):
    from cmbprep.lab.evaluate.files import find_scans

    folder = tmp_path / "sub-1" / "anat"
    folder.mkdir(parents=True)
    for name in ("sub-1_seg-CMB_dseg.tsv", "sub-1_seg-candidates_dseg.tsv"):
        (folder / name).write_text("index\tname\n")
    (scan,) = find_scans(tmp_path).scans
    assert [path.name for path in scan.roles.values()] == ["sub-1_seg-CMB_dseg.tsv"]
