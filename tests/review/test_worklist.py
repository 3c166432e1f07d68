"""Which scans are read, and in which state they are."""

from __future__ import annotations

import pytest

from cmbprep.errors import UsageError
from cmbprep.lab.cli import main
from cmbprep.ratings.automatic import ReplacedResultError
from cmbprep.ratings.store import Reader
from cmbprep.review.scans import find_scans
from cmbprep.review.session import OlderResultError, ReviewSession
from cmbprep.review.worklist import choose
from tests.ratings.madeup import make_dataset
from tests.ratings.reviewing import read_scan

NAMES = ("sub-01_T2starw", "sub-02_ses-a_T2starw", "sub-02_ses-b_T2starw", "sub-020_T2starw")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("list") / "out", NAMES)


def test_scans_are_chosen_by_name_list_and_sample(root, tmp_path):
    scans = find_scans(root)
    assert list(scans) == list(NAMES)
    assert list(choose(scans, names=["sub-02"])) == list(NAMES[1:3])
    assert list(choose(scans, names=["sub-02_ses-b", "sub-01_T2starw"])) == [NAMES[2], NAMES[0]]
    listed = tmp_path / "list.txt"
    listed.write_text("# of the second reader\nsub-020\n\n sub-01 \n")
    assert list(choose(scans, list_file=listed)) == [NAMES[3], NAMES[0]]
    drawn = [list(choose(scans, sample=2, seed=seed)) for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1] and len({tuple(one) for one in drawn}) > 1


@pytest.mark.parametrize("wrong", [{"names": ["sub-0"]}, {"sample": 5}, {"sample": 0}])
def test_what_is_not_there_is_an_error(root, wrong):
    with pytest.raises(UsageError):
        choose(find_scans(root), **wrong)


def test_other_visits_are_shown_beside_a_scan(root):
    scans = find_scans(root)
    session = ReviewSession(root, Reader(name="Anna"), scans)
    images = {item["id"]: item for item in session.scan(NAMES[1])["images"]}
    assert images["earlier-1"]["kind"] == "earlier"
    here, other = (session.image(NAMES[1], name) for name in ("preproc", "earlier-1"))
    assert here.header["shape"] == other.header["shape"]
    assert session.next_unread(NAMES[3]) == NAMES[0]
    session.close()


@pytest.mark.parametrize("changes", [{"listed": 2}, {"fingerprint": "f2"}])
@pytest.mark.parametrize("begun", [True, False])
def test_a_result_that_is_replaced_while_it_is_read_takes_no_act(tmp_path, changes, begun):
    root = make_dataset(tmp_path / "out", NAMES[:2])
    session = ReviewSession(root, Reader(name="Anna"), find_scans(root))
    act = {"type": "verdict", "lesion": "L1", "verdict": "definite"}
    if begun:
        session.act(NAMES[0], act)
    before = {path: path.read_bytes() for path in root.rglob("*_acts.jsonl")}
    make_dataset(root, NAMES[:1], **changes)
    with pytest.raises(ReplacedResultError, match="was replaced since"):
        session.scan(NAMES[0])
    with pytest.raises(ReplacedResultError, match="was replaced since"):
        session.act(NAMES[0], act)
    assert {path: path.read_bytes() for path in root.rglob("*_acts.jsonl")} == before
    session.act(NAMES[1], act)
    assert len(session.rows()) == 2
    session.close()


def test_a_review_of_an_older_result_is_stale_and_next_with_word_of_another_round(tmp_path):
    root = make_dataset(tmp_path / "out", NAMES[:2])
    verdicts = {"L1": "definite", "L2": "rejected", "L3": "possible"}
    for name in NAMES[:2]:
        read_scan(root, name, "Anna", verdicts)
    make_dataset(root, NAMES[:1], listed=2, fingerprint="f2")
    session = ReviewSession(root, Reader(name="Anna"), find_scans(root))
    session.catch_up()
    older, current = session.rows()
    assert older["stale"] and older["status"] == "partly" and older["n_reviewed"] == 0
    assert not current["stale"] and current["status"] == "done"
    assert session.next_unread(None) == session.next_unread(NAMES[1]) == NAMES[0]
    with pytest.raises(OlderResultError, match="start another round with --round"):
        session.scan(NAMES[0])
    session.close()


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_name_with_the_file_names_of_another_reader_is_refused_at_the_start(
    tmp_path, number, capsys
):
    root = make_dataset(tmp_path / "out", NAMES[:2])
    read_scan(root, NAMES[1], "Anna B", {"L1": "definite"}, finish=False)
    options = ["--scan", "sub-01", "--round", number, "--static"]
    assert main(["review", str(root), "--reader", "Änna-B", *options]) == 2
    err = capsys.readouterr().err
    assert "the reader 'Anna B' has the same file names as 'Änna-B'" in err
    assert "use the same spelling, or another name" in err
    assert not (root / "review").exists()
    assert main(["review", str(root), "--reader", "Anna B", *options]) == 0


def test_a_reader_who_comes_back_to_a_scan_finds_it_open(tmp_path):
    """Only the last scans are kept open; those before are written and freed meanwhile."""
    names = [f"sub-{number:02d}_T2starw" for number in range(6)]
    root = make_dataset(tmp_path / "out", names)
    session = ReviewSession(root, Reader(name="Anna"), find_scans(root))
    act = {"type": "verdict", "lesion": "L1", "verdict": "definite"}
    for name in (*names, *names):
        session.act(name, act)
        assert session.scan(name)["locked"] is None
    session.close()
    assert len(list(root.rglob("*_mask.json"))) == 6 * (2 + 1 + 2)
    assert not list((root / "logs" / "review").iterdir())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--reader", "1"], "Latin letter"),
        (["--reader", "Anna", "--round", "0"], "round"),
        (["--reader", "Anna", "--scan", "sub-77"], "no scan"),
        (["--reader", "Anna", "--list", "/none"], "cannot be read"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(root, options, text, capsys):
    before = sorted(root.rglob("*"))
    assert main(["review", str(root), "--no-browser", *options]) == 2
    assert text in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_a_folder_that_is_no_output_is_refused(tmp_path, capsys):
    assert main(["review", str(tmp_path), "--no-browser"]) == 2
    assert "not an output folder" in capsys.readouterr().err


def test_a_scan_that_cannot_be_read_is_named(tmp_path, capsys):
    root = make_dataset(tmp_path / "out", ("sub-01_T2starw", "sub-02_T2starw"))
    next(root.glob("sub-02/anat/*_seg-CMB_dseg.nii.gz")).unlink()
    assert main(["review", str(root), "--reader", "Anna", "--static", str(tmp_path / "s")]) == 0
    assert "sub-02 cannot be read: failed" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "s").glob("*.html")] != []


@pytest.mark.parametrize("port", ["70000", "-5", "http"])
def test_a_port_that_is_none_is_an_error(tmp_path, capsys, port):
    root = make_dataset(tmp_path / "out")
    with pytest.raises(SystemExit) as ended:
        main(["review", str(root), f"--port={port}"])
    assert ended.value.code == 2
    assert "from 0 to 65535" in capsys.readouterr().err


def test_an_empty_name_is_no_reader(tmp_path, capsys):
    root = make_dataset(tmp_path / "out")
    assert main(["review", str(root), "--reader", "", "--static", str(tmp_path / "s")]) == 2
    assert capsys.readouterr().err
