"""The last stage of a site from reviews: a made-up cohort whose readers say what they are told."""

import json

import numpy as np
import pytest

from cmbprep.detectors.learned import LearnedDetector
from cmbprep.errors import UsageError
from cmbprep.lab.cli import main
from cmbprep.lab.training.ratings import read_ratings
from cmbprep.lab.training.site import worse
from cmbprep.ratings.acts import Act, Add, Finish, Merge, Move, Split, Verdict, format_act
from cmbprep.ratings.outline import Outline
from cmbprep.ratings.store import Reader, log_path
from cmbprep.reports.reviewed import automatic_result
from cmbprep.reports.usable import usable_results
from tests.lab.training.test_ratings import candidate, write_ratings, write_scan

#: Where the lesions that :func:`write_scan` lists lie.
LISTED_AT = (10.0, -20.0, 30.0)


def review(root, subject, payloads, *, reader="Anna", number=1, finish=True):
    """Write the log of a reader; a payload with a position comes with a lesion at it."""
    (scan,) = usable_results(root, subject=subject).complete.values()
    automatic = automatic_result(scan.scan)
    acts = []
    for item in [*payloads, *([Finish()] if finish else [])]:
        payload, places = item if isinstance(item, tuple) else (item, {})
        outlines = {
            key: Outline(
                centre_ras=place,
                runs=(0, 1),
                volume_mm3=10.0,
                diameter_mm=2.7,
                contrast=0.5,
                segmented=True,
            )
            for key, place in places.items()
        }
        acts.append(
            Act(
                payload=payload,
                outlines=outlines,
                reader=reader,
                round=number,
                scan=automatic.src,
                based_on=automatic.based_on,
            )
        )
    path = log_path(automatic.folder, automatic.src, Reader(name=reader, round=number))
    path.write_text("".join(f"{format_act(act)}\n" for act in acts))


def at(x, y=0.0, z=0.0):
    return (float(x), y, z)


def judge(key, verdict):
    return Verdict(lesion=key, verdict=verdict)


ROWS = [
    {**candidate(10, lesion=1, odds=1), "y": -20, "z": 30},
    {**candidate(11, lesion=1, odds=3), "y": -20, "z": 30},  # the better of the two of lesion 1
    {**candidate(12, lesion=2, odds=2), "y": -20, "z": 30},
    candidate(40, odds=-2),
    candidate(43, odds=-4),
    candidate(80, odds=-3),
]


def test_verdicts_reach_the_right_candidates(tmp_path):
    write_scan(tmp_path, "01", ROWS)
    acts = [
        judge("L1", "possible"),
        judge("L2", "rejected"),
        # Candidate 4 is surer and within reach, but it is number 5 that the reader has accepted.
        (judge("C5", "definite"), {"C5": at(43.5)}),
        (Add(lesion="N1", centre_ras=at(60)), {"N1": at(60)}),
    ]
    review(tmp_path, "01", acts)
    rated = read_ratings([tmp_path])
    # The other candidate of lesion 1, and number 4, are the same microbleeds again.
    assert rated.column("x").tolist() == [11, 12, 43, 80]
    assert rated.target.tolist() == [True, False, True, False]
    assert (rated.scans, rated.reviewed, rated.people, rated.beyond) == (1, 1, 1, 1)


def test_what_is_rejected_is_no_microbleed_however_near_an_added_one_is(tmp_path):
    write_scan(tmp_path, "01", ROWS)
    near = at(12, -20.0, 30.0)
    acts = [judge("L1", "rejected"), judge("L2", "rejected")]
    review(tmp_path, "01", [*acts, (Add(lesion="N1", centre_ras=near), {"N1": near})])
    rated = read_ratings([tmp_path])
    assert not rated.target.any()
    assert rated.beyond == 1


def microbleeds(root):
    """Return where the candidates lie that the reader calls microbleeds."""
    rated = read_ratings([root])
    return rated.column("x")[rated.target].tolist()


def test_merged_split_and_moved_lesions_reach_the_candidates_at_their_place(tmp_path):
    write_scan(tmp_path, "01", ROWS)
    merged = (Merge(lesions=("L1", "L2"), lesion="N1"), {"N1": at(12.2, -20.0, 30.0)})
    review(tmp_path, "01", [judge("L1", "definite"), judge("L2", "rejected"), merged])
    assert microbleeds(tmp_path) == [12]
    places = {"N1": at(11.2, -20.0, 30.0), "N2": at(79)}
    split = Split(lesion="L1", centres=tuple(places.values()), lesions=("N1", "N2"))
    review(tmp_path, "01", [judge("L1", "definite"), (split, places), judge("L2", "rejected")])
    assert microbleeds(tmp_path) == [11, 80]
    moved = (Move(lesion="L2", centre_ras=at(41)), {"L2": at(41)})
    review(tmp_path, "01", [judge("L1", "rejected"), moved, judge("L2", "definite")])
    assert microbleeds(tmp_path) == [40]


def test_only_finished_reviews_of_the_present_result_count(tmp_path, caplog):
    for subject in ("01", "02", "03"):
        write_scan(tmp_path, subject, [candidate(0, lesion=1), candidate(20)])
        review(tmp_path, subject, [judge("L1", "definite")], finish=subject != "02")
    sidecar = tmp_path / "sub-03" / "anat" / "sub-03_seg-CMB_dseg.json"
    content = json.loads(sidecar.read_text())
    content["Cmbprep"]["Fingerprint"] = "another"
    sidecar.write_text(json.dumps(content))
    with caplog.at_level("WARNING", logger="cmbprep"):
        assert read_ratings([tmp_path]).scans == 1
    assert "sub-02_T2starw: the review of Anna, round 1, is not used: it was not" in caplog.text
    assert "sub-03_T2starw: the review of Anna, round 1, is not used: it is of an" in caplog.text


def test_a_reviewed_scan_counts_as_it_was_reviewed_and_others_by_the_table(tmp_path, caplog):
    tables = [write_scan(tmp_path, subject, [candidate(0, lesion=1)]) for subject in ("01", "02")]
    write_ratings(tmp_path, [{"table": t, "verdict": "accepted", "index": 1} for t in tables])
    review(tmp_path, "01", [judge("L1", "rejected")])
    with caplog.at_level("WARNING", logger="cmbprep"):
        rated = read_ratings([tmp_path])
    assert rated.target.tolist() == [True, False], "the one of the table comes first"
    assert (rated.scans, rated.reviewed) == (2, 1)
    assert f"the ratings of {tables[0]} are not used: the scan was reviewed" in caplog.text


def test_several_readers_need_a_name_or_a_rule(tmp_path):
    write_scan(tmp_path, "01", [candidate(0, lesion=1), candidate(20, lesion=2)])
    review(tmp_path, "01", [judge("L1", "definite"), judge("L2", "definite")])
    review(tmp_path, "01", [judge("L1", "definite"), judge("L2", "rejected")], reader="Bob")
    with pytest.raises(UsageError, match="was read by Anna, Bob"):
        read_ratings([tmp_path])
    assert read_ratings([tmp_path], reader="anna").target.tolist() == [True, True]
    assert read_ratings([tmp_path], reader="Bob").target.tolist() == [True, False]
    assert read_ratings([tmp_path], rule="any").target.tolist() == [True, True]
    assert read_ratings([tmp_path], rule="all").target.tolist() == [True, False]
    with pytest.raises(UsageError, match="no scan was read to the end by 'Carla'"):
        read_ratings([tmp_path], reader="Carla")


def test_the_last_round_of_a_reader_counts(tmp_path):
    write_scan(tmp_path, "01", [candidate(0, lesion=1)])
    review(tmp_path, "01", [judge("L1", "definite")])
    review(tmp_path, "01", [judge("L1", "rejected")], number=2)
    assert read_ratings([tmp_path]).target.tolist() == [False]


def make_cohort(root, *, people=12, truth=None):
    """Listed candidates of which the reader accepts what ``truth`` (odds -> bool) says."""
    rng = np.random.default_rng(0)
    sha256 = LearnedDetector().sha256
    for number in range(people):
        odds = rng.normal(0, 2, 6)
        bleed = rng.random(6) < 1 / (1 + np.exp(-odds)) if truth is None else truth(rng, odds)
        rows = [candidate(20 * i, lesion=i + 1, odds=odds[i]) for i in range(6)]
        write_scan(root, f"{number:02d}", rows, sha256)
        verdicts = [judge(f"L{i + 1}", "definite" if bleed[i] else "rejected") for i in range(6)]
        review(root, f"{number:02d}", verdicts)


def test_the_command_learns_from_reviews_without_any_table(tmp_path, capsys):
    make_cohort(tmp_path / "out")
    assert main(["train", str(tmp_path / "model"), "--ratings", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "rated: 12 scans of 12 people (12 scans in the review)" in printed
    assert "f1 at" in printed
    assert "these are few ratings" in printed
    content = json.loads((tmp_path / "model" / "site.json").read_text())
    assert content["ratings"]["scans_reviewed"] == 12
    before, after = (content["held_out"][name] for name in ("before", "after"))
    assert after["log_loss"] < before["log_loss"]


def test_a_fit_that_makes_things_worse_is_refused_and_nothing_is_written(
    tmp_path, capsys, monkeypatch
):
    make_cohort(tmp_path / "out")
    found = {
        "before": {"log_loss": 0.3, "f1": 0.8},
        "after": {"log_loss": 0.2, "f1": 0.7},
    }
    monkeypatch.setattr("cmbprep.lab.training.site.assess", lambda *_: found)
    assert main(["train", str(tmp_path / "model"), "--ratings", str(tmp_path / "out")]) == 1
    output = capsys.readouterr()
    assert "0.800    0.700" in output.out, "the figures are shown"
    assert "would make the detector worse on people left out of it (f1)" in output.err
    assert not (tmp_path / "model").exists()


def test_too_few_reviews_are_refused_with_their_numbers(tmp_path, capsys):
    make_cohort(tmp_path / "out", people=3)
    assert main(["train", str(tmp_path / "model"), "--ratings", str(tmp_path / "out")]) == 2
    assert "in 3 people; at least 10, 10 and 5 are needed" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("log_loss", "f1", "names"),
    [(0.2, 0.9, []), (0.3, 0.8, []), (0.4, 0.9, ["log_loss"]), (0.2, 0.7, ["f1"])],
)
def test_what_is_worse(log_loss, f1, names):
    found = {
        "before": {"log_loss": 0.3, "f1": 0.8},
        "after": {"log_loss": log_loss, "f1": f1},
    }
    assert worse(found) == names
