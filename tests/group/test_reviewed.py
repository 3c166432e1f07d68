"""Group tables and maps follow the readers; all numbers are counted by hand.

The detector lists three lesions, all in the thalamus: 1 and 2 definite, 3 possible.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cmbprep.cli.main import main
from cmbprep.config import CONSENSUS
from cmbprep.errors import UsageError
from cmbprep.group import run_group
from cmbprep.group.agreement import read as read_cohort
from cmbprep.group.frequency import write_frequency_maps
from cmbprep.group.rows import make_rows
from cmbprep.lesions import HEMISPHERES
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.ratings.consensus import RULES
from cmbprep.ratings.reviewed import ReviewedFiles, write_reviewed
from cmbprep.ratings.store import Reader
from cmbprep.reports.reviewed import collect_reviewed
from tests.group.cohort import read
from tests.ratings.madeup import AFFINE, MISSED, SHIFT, SPOTS, automatic, make_dataset, ras, save
from tests.ratings.test_reviewed import ANNA, END, READERS, store, verdict

pytestmark = pytest.mark.usefixtures("quick")

ADD = {"type": "add", "centre_ras": list(ras(MISSED)), "verdict": "possible"}
#: One moved to the frontal lobe, one rejected, one with another zone, one added.
READ = [
    verdict("L1", "definite"),
    {"type": "move", "lesion": "L1", "centre_ras": list(ras(SPOTS["C4"]))},
    verdict("L2", "rejected", "vein"),
    verdict("L3", "definite"),
    {"type": "zone", "lesion": "L3", "region": "occipital"},
    ADD,
    {"type": "scan", "siderosis": False, "quality": "good", "findings": ["infarct", "atrophy"]},
    END,
]
NOTHING = [verdict(f"L{number}", "rejected", "artefact") for number in (1, 2, 3)]
SCAN = "sub-01_T2starw"
PLACES = ("frontal", "occipital", "thalamus")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "out")


def group(root: Path, **choice: Any) -> dict[str, str]:
    result = run_group(root, participants_tsv=None, choice=ReaderChoice(**choice))
    (row,) = read(result.scans)
    return row


def lesions(root: Path) -> list[dict[str, str]]:
    return read(root / "group_lesions.tsv")


def values(row: dict[str, str], *names: str) -> list[str]:
    return [row[name] for name in names]


def template_voxel(voxel: tuple[int, int, int]) -> tuple[int, ...]:
    place = np.linalg.solve(AFFINE, [*(np.array(ras(voxel)) + SHIFT), 1])[:3]
    return tuple(np.round(place).astype(int))


def frequency(root: Path) -> np.ndarray:
    (path,) = root.glob("*_desc-frequency_probseg.nii.gz")
    return np.asarray(nib.load(path).dataobj)


def test_counts_are_those_of_the_reader_beside_the_detectors(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    row = group(dataset)
    names = ("source", "reader", "n_readers", "review_status")
    assert values(row, *names) == ["reviewed", "Anna", "1", "done"]
    assert values(row, "n_any", "n_definite", "n_possible") == ["3", "2", "1"]
    assert values(row, "n_any_lobar", "n_any_deep", "n_any_infratentorial") == ["3", "0", "0"]
    sides = {place: sum(int(row[f"n_any_{place}_{x}"]) for x in HEMISPHERES) for place in PLACES}
    assert sides == {"frontal": 2, "occipital": 1, "thalamus": 0}
    assert values(row, "pattern_definite", "burden_count_definite", "burden_caa_definite") == [
        "strictly lobar",
        "2to4",
        "2to4",
    ]
    assert values(row, "n_rejected", "n_added") == ["1", "1"]
    noted = values(row, "reader_siderosis", "reader_quality", "reader_findings")
    assert noted == ["absent", "good", "atrophy; infarct"]
    automatic_names = [f"n_automatic_{x}" for x in ("any", "definite", "any_deep", "any_lobar")]
    assert values(row, *automatic_names) == ["3", "2", "3", "0"]
    assert values(row, "volume_automatic_any_mm3", "pattern_automatic_definite") == [
        "100.5",
        "strictly deep",
    ]
    volumes = [float(item["volume_mm3"]) for item in lesions(dataset) if item["counted"] == "true"]
    assert float(row["volume_any_mm3"]) == pytest.approx(sum(volumes), abs=0.01)


def test_reading_a_scan_does_not_make_it_the_primary_one_and_a_note_says_so(
    tmp_path: Path,
) -> None:
    first, second = "sub-01_run-1_T2starw", "sub-01_run-2_T2starw"
    root = make_dataset(tmp_path / "out", (first, second))

    def primary() -> tuple[str, list[str]]:
        result = run_group(root, participants_tsv=None)
        (row,) = (row for row in read(result.scans) if row["is_primary"] == "true")
        return row["scan"], [note for note in result.notes if "primary" in note]

    assert primary() == (first, [])
    store(root, automatic(root, second), ANNA, *READ)
    scan, (note,) = primary()
    assert scan == first
    assert f"{second}; primary is {first}" in note and "read the primary scan too" in note
    store(root, automatic(root, first), ANNA, *READ)
    assert primary() == (first, [])


def test_rows_of_lesions_say_what_the_reader_decided(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    group(dataset)
    names = ("index", "source", "verdict", "rating", "reject_reason", "change", "counted", "added")
    assert [values(row, *names) for row in lesions(dataset)] == [
        ["1", "reviewed", "definite", "definite", "n/a", "moved", "true", "false"],
        ["2", "reviewed", "rejected", "n/a", "vein", "n/a", "false", "false"],
        ["3", "reviewed", "definite", "definite", "n/a", "zone corrected", "true", "false"],
        ["4", "reviewed", "possible", "possible", "n/a", "added", "true", "true"],
    ]
    assert {row["reader"] for row in lesions(dataset)} == {"Anna"}


@pytest.mark.parametrize("written", [True, False])
def test_the_frequency_map_is_that_of_the_reader(dataset: Path, written: bool) -> None:
    """With the derivative of the reader, and from the log alone, as after a killed server."""
    scan = automatic(dataset)
    acts = store(dataset, scan, ANNA, *READ)
    if written:
        write_reviewed(scan, ANNA, acts)
        assert ReviewedFiles(scan, ANNA).template_mask.is_file()
    group(dataset)
    found = frequency(dataset)
    kept = (SPOTS["C4"], SPOTS["L3"], MISSED)
    assert [found[template_voxel(voxel)] for voxel in kept] == [1, 1, 1]
    assert [found[template_voxel(SPOTS[key])] for key in ("L1", "L2")] == [0, 0]


def test_a_scan_whose_lesions_are_all_rejected_has_zeros(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *NOTHING, END)
    row = group(dataset)
    assert values(row, "n_any", "n_any_deep", "volume_any_mm3", "pattern_definite") == [
        "0",
        "0",
        "0",
        "none",
    ]
    assert values(row, "n_rejected", "n_added", "n_automatic_any") == ["3", "0", "3"]
    assert not frequency(dataset).any()
    assert {item["counted"] for item in lesions(dataset)} == {"false"}


def test_a_lesion_without_a_place_makes_counts_unknown(dataset: Path) -> None:
    scan = automatic(dataset)
    save(scan.detection.files.path("atlas"), np.zeros((40, 48, 24), np.uint8))
    store(dataset, automatic(dataset), ANNA, *NOTHING, ADD, END)
    row = group(dataset)
    assert values(row, "n_any", "n_possible", "n_definite") == ["1", "1", "0"]
    assert values(row, "n_any_lobar", "n_any_deep", "n_any_frontal_left") == ["n/a", "n/a", "n/a"]
    # The detector's own counts stay known.
    assert values(row, "n_automatic_any_deep", "n_automatic_any_lobar") == ["3", "0"]


@pytest.mark.parametrize(
    ("rule", "counts", "n_readers", "rejected"),
    [
        ("any", ["4", "3", "1"], "3", []),
        ("all", ["1", "0", "1"], "3", ["2", "3"]),
        ("majority", ["3", "3", "0"], "3", ["3"]),
        ("first", ["3", "3", "0"], "1", ["3"]),
    ],
)
def test_rules_of_consensus(
    dataset: Path, rule: str, counts: list[str], n_readers: str, rejected: list[str]
) -> None:
    """Three readers; lesion 1 is seen by three, 2 and the added one by two, 3 by one."""
    scan = automatic(dataset)
    for name, contents in READERS.items():
        store(dataset, scan, Reader(name=name), *contents, END)
    row = group(dataset, rule=rule)
    assert values(row, "n_any", "n_definite", "n_possible") == counts
    assert row["n_readers"] == n_readers
    assert row["reader"] == ("Anna" if rule == "first" else "Anna, Ben, Cleo")
    assert [item["index"] for item in lesions(dataset) if item["counted"] == "false"] == rejected
    found = frequency(dataset)
    for key in ("L1", "L2", "L3"):
        assert found[template_voxel(SPOTS[key])] == (key[1:] not in rejected)
    assert found[template_voxel(MISSED)] == (rule != "all")


@pytest.mark.parametrize(("reader", "total"), [("Anna", "3"), ("ben", "2"), ("CLEO", "3")])
def test_one_of_several_readers(dataset: Path, reader: str, total: str) -> None:
    scan = automatic(dataset)
    for name, contents in READERS.items():
        store(dataset, scan, Reader(name=name), *contents, END)
    row = group(dataset, reader=reader)
    assert (row["n_any"], row["reader"].lower()) == (total, reader.lower())
    assert row["n_readers"] == "1"


def test_reviews_can_be_ignored(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    row = group(dataset, automatic=True)
    assert values(row, "source", "reader", "n_readers") == ["automatic", "n/a", "0"]
    assert values(row, "review_status", "n_any", "n_any_deep") == ["done", "3", "3"]
    assert values(row, "n_rejected", "n_added") == ["n/a", "n/a"]


@pytest.mark.parametrize("level", [("group",), ("participant", "--reports-only")])
def test_several_readers_need_a_choice_before_anything_is_written(
    dataset: Path, capsys: pytest.CaptureFixture[str], level: tuple[str, ...]
) -> None:
    scan = automatic(dataset)
    for name in ("Anna", "Ben"):
        store(dataset, scan, Reader(name=name), *READERS[name], END)
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    command = [str(dataset.parent / "raw"), str(dataset), *level]
    for more in ([], ["--dry-run"]):
        assert main([*command, *more]) == 2
        told = capsys.readouterr().err
        for word in ("Anna (1 scan)", "Ben (1 scan)", "--reader NAME", "--consensus"):
            assert word in told
        assert all(rule in told for rule in CONSENSUS) and "--automatic" in told
    assert main([*command, "--reader", "Dora"]) == 2
    assert "there is no review by 'Dora'" in (told := capsys.readouterr().err)
    assert "the readers are anna, ben" in told
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before
    assert main([*command, "--reader", "1"]) == 2
    assert "does not begin with a Latin letter" in capsys.readouterr().err
    assert main([*command, "--consensus", "all"]) == 0
    told = capsys.readouterr().err
    assert ("1 scan with the lesions of readers" in told) == (level == ("group",))


def test_readers_of_other_scans_need_a_choice_too(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "out", ("sub-01_ses-a_T2starw", "sub-02_T2starw"))
    store(root, automatic(root, "sub-01_ses-a_T2starw"), ANNA, *READ)
    store(root, automatic(root, "sub-02_T2starw"), Reader(name="Ben"), *NOTHING, END)
    with pytest.raises(UsageError, match="several readers"):
        run_group(root, participants_tsv=None)
    result = run_group(root, participants_tsv=None, choice=ReaderChoice(rule="first"))
    assert [row["reader"] for row in read(result.scans)] == ["Anna", "Ben"]
    result = run_group(root, participants_tsv=None, choice=ReaderChoice(reader="Anna"))
    rows = read(result.scans)
    assert [row["source"] for row in rows] == ["reviewed", "automatic"]
    assert [row["review_status"] for row in rows] == ["done", "unread"]


def test_a_reader_who_has_not_finished_needs_no_choice(dataset: Path) -> None:
    scan = automatic(dataset)
    store(dataset, scan, ANNA, *READ)
    store(dataset, scan, Reader(name="Ben"), *READERS["Ben"])
    assert values(group(dataset), "reader", "review_status") == ["Anna", "done"]


def test_an_unfinished_review_is_not_applied(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ[:-1])
    row = group(dataset)
    assert values(row, "source", "review_status", "n_any") == ["automatic", "partly read", "3"]
    assert values(row, "n_any_deep", "n_warnings") == ["3", "0"]
    assert [item["verdict"] for item in lesions(dataset)] == ["n/a"] * 3
    page = (dataset / "group.html").read_text()
    assert "Readers" in page and "partly read" in page


@pytest.mark.parametrize("same", [True, False])
def test_a_review_of_an_older_result_is_never_applied_in_silence(
    dataset: Path, capsys: pytest.CaptureFixture[str], same: bool
) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    make_dataset(dataset, fingerprint="f2", listed=3 if same else 2)
    assert main([str(dataset.parent / "raw"), str(dataset), "group"]) == 0
    (row,) = read(dataset / "group_cmb.tsv")
    assert values(row, "source", "review_status") == ["automatic", "of an older result"]
    assert values(row, "n_any", "n_warnings") == ["3" if same else "2", "1"]
    told = "the review by Anna (round 1) was made for an older result and is not used"
    remedy = "finish it again" if same else "in another round"
    for text in (row["warnings"], capsys.readouterr().err, (dataset / "group.html").read_text()):
        assert told in text and remedy in text


def test_a_second_round_takes_the_place_of_a_review_of_an_older_result(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    make_dataset(dataset, fingerprint="f2")
    store(dataset, automatic(dataset), Reader(name="Anna", round=2), *NOTHING, END)
    row = group(dataset)
    assert values(row, "source", "review_status", "n_any") == ["reviewed", "done", "0"]
    assert row["n_warnings"] == "0"


def test_a_log_that_cannot_be_read_is_named_and_not_used(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    (log,) = dataset.rglob("*_acts.jsonl")
    monkeypatch.setattr("cmbprep.ratings.store.MAX_LOG_BYTES", 10)
    row = group(dataset)
    assert values(row, "source", "n_any", "n_warnings") == ["automatic", "3", "1"]
    said = "the review by anna (round 1) is damaged and not used"
    assert f"{said} (its log {log.name} is larger than any review)" in row["warnings"]
    assert str(dataset) not in row["warnings"]


def test_a_lesion_outside_of_the_scheme_makes_the_review_unusable(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    (log,) = dataset.rglob("*_acts.jsonl")
    log.write_text(log.read_text().replace('"occipital"', '"no such region"'))
    row = group(dataset)
    assert values(row, "source", "n_any", "n_warnings") == ["automatic", "3", "1"]
    assert "the review by Anna (round 1) is damaged and not used" in row["warnings"]


def test_a_lost_line_of_a_log_is_no_rejection(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    (log,) = dataset.rglob("*_acts.jsonl")
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if '"lesion":"L3"' not in line))
    row = group(dataset)
    assert values(row, "source", "review_status", "n_any") == ["automatic", "damaged", "3"]
    assert "there is no verdict on L3" in row["warnings"]
    assert {item["verdict"] for item in lesions(dataset)} == {"n/a"}
    assert read_cohort(dataset).left_out["damaged"] == ["sub-01_T2starw (Anna, round 1)"]


def test_a_table_without_its_log_is_named(dataset: Path) -> None:
    scan = automatic(dataset)
    write_reviewed(scan, ANNA, store(dataset, scan, ANNA, *READ))
    (log,) = dataset.rglob("*_acts.jsonl")
    log.unlink()
    row = group(dataset)
    assert values(row, "source", "review_status", "n_any") == ["automatic", "unread", "3"]
    assert log.name in row["warnings"] and "missing" in row["warnings"]


def test_voxels_outside_of_the_scan_make_a_review_unusable(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    (log,) = dataset.rglob("*_acts.jsonl")
    log.write_text(re.sub(r'"runs":\[\d+', '"runs":[99999999', log.read_text()))
    row = group(dataset)
    assert values(row, "source", "review_status", "n_any") == ["automatic", "damaged", "3"]
    assert "outside the scan" in row["warnings"]


def test_a_scan_without_a_result_has_no_reviewed_counts(dataset: Path) -> None:
    scan = automatic(dataset)
    store(dataset, scan, ANNA, *READ)
    scan.preproc.files.sidecar.unlink()
    row = group(dataset)
    assert row["status"] == "incomplete"
    names = ("source", "reader", "n_readers", "review_status", "n_any", "n_automatic_any")
    assert values(row, *names) == ["n/a"] * 6
    assert lesions(dataset) == []


def test_without_reviews_the_other_columns_keep_their_bytes(dataset: Path) -> None:
    """The columns of reviews say so; the rest is the same as with reviews ignored."""
    row = group(dataset)
    assert values(row, "source", "reader", "n_readers", "review_status") == [
        "automatic",
        "n/a",
        "0",
        "unread",
    ]
    page = (dataset / "group.html").read_text()
    assert "Readers" not in page and "have not been read by a person" in page
    store(dataset, automatic(dataset), ANNA, *READ)
    ignored = group(dataset, automatic=True)
    assert {name for name in row if row[name] != ignored[name]} == {"review_status"}


def test_the_levels_of_the_dictionary_are_those_that_occur(dataset: Path) -> None:
    group(dataset)
    dictionary = json.loads((dataset / "group_cmb.json").read_text())
    assert set(dictionary["source"]["Levels"]) == {"automatic", "reviewed"}
    assert list(dictionary["review_status"]["Levels"]) == [
        "unread",
        "partly read",
        "done",
        "damaged",
        "of an older result",
    ]
    assert CONSENSUS == RULES


def test_the_page_counts_readers_and_reasons(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "out", ("sub-01_T2starw", "sub-02_T2starw", "sub-03_T2starw"))
    store(root, automatic(root), ANNA, *READ)
    store(root, automatic(root, "sub-02_T2starw"), Reader(name="<b>Ben</b>"), *NOTHING, END)
    run_group(root, participants_tsv=None, choice=ReaderChoice(rule="any"))
    page = (root / "group.html").read_text()
    assert "Counts of 2 of 3 scans are those of a person" in page
    assert 'rejected: vein</th><td class="number">1<' in page
    assert 'rejected: artefact</th><td class="number">3<' in page
    assert 'listed by the detector</th><td class="number">6<' in page
    assert 'microbleeds as read</th><td class="number">3<' in page
    assert "&lt;b&gt;Ben&lt;/b&gt;" in page and "<b>Ben</b>" not in page


def test_another_output_template_leaves_a_read_scan_out_of_the_map(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    monkeypatch.setattr("cmbprep.ratings.reading.template_mask", lambda *_: None)
    rows = make_rows(collect_reviewed(dataset, ReaderChoice()))
    maps, notes = write_frequency_maps(dataset, rows)
    assert maps == [] and "no mask in template space" in notes[0]


def test_a_mask_that_cannot_be_made_costs_the_vote_alone(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("broken")

    store(dataset, automatic(dataset), ANNA, *READ)
    monkeypatch.setattr("cmbprep.ratings.reading.template_mask", fail)
    row = group(dataset)
    assert row["n_any"] == "3"
    assert "that of the review cannot be made, ValueError" in (dataset / "group.html").read_text()


def test_automatic_lesions_stay_what_they_are(dataset: Path) -> None:
    scan: Automatic = automatic(dataset)
    store(dataset, scan, ANNA, *READ)
    (person,) = collect_reviewed(dataset, ReaderChoice())
    assert person.scans[0].automatic_lesions == scan.lesions
    assert person.scans[0].lesions != scan.lesions
