"""The table of follow-ups: counts recounted from the tables of the pairs, rates, classes."""

from collections import Counter

import pytest
from scipy.stats import poisson

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.followup import step
from cmbprep.followup.pair import pair_visits
from cmbprep.followup.step import follow_pair
from cmbprep.followup.table import read_followup
from cmbprep.group.followup_table import (
    YEAR_DAYS,
    ComparedVisits,
    followup_table,
    participant_columns,
    poisson_interval,
)
from cmbprep.group.run import run_group
from cmbprep.reports.followup import followed_scans
from tests.followup.madeup import lesion
from tests.followup.twovisits import add_visit, at, register_by_truth, result
from tests.group.cohort import read
from tests.reports.outputtree import Tree

ZONES = ("lobar", "deep", "infratentorial", None)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "register_visits", register_by_truth)
    return Tree(tmp_path)


def add_visits(tree, **recorded):
    """Seven lesions: two stay, one of them possible; three are new; two go.

    ``recorded`` is what a run has recorded of the second visit.
    """
    stay = ((20, 0, 0), (-15, 20, 10))
    new = ((10, 25, -10), (-10, -25, 5), (25, -10, 15))
    gone = ((-20, -5, -15), (0, 0, 30))
    for session, points in {"a": (*stay, *gone), "b": (*stay, *new)}.items():
        lesions = [
            lesion(
                n,
                at(session, point),
                zone=ZONES[n % 4],
                rating="possible" if n % 2 == 0 else "definite",
                region=None,
                # Compared with the atlas; the one without a zone lies outside of it.
                boundary_distance_mm=5.0,
            )
            for n, point in enumerate(points, start=1)
        ]
        add_visit(tree, session, lesions, **(recorded if session == "b" else {}))


def paired(tree):
    root = tree.finish()
    (found,) = pair_visits(root, followed_scans(result(root)), ("a", "b"))
    return found


@pytest.fixture
def pair(tree):
    add_visits(tree)
    return paired(tree)


def line_of(pair, *, days=YEAR_DAYS * 2, found="compute", comparison="both"):
    done = follow_pair(pair) if found == "compute" else found
    one = ComparedVisits.of(pair, comparison, done, days=days)
    table = followup_table([one])
    header, cells = (text.split("\t") for text in table.to_tsv().splitlines())
    return dict(zip(header, cells, strict=True))


def test_counts_are_those_of_the_pairs_own_table(pair):
    line = line_of(pair)
    rows = read(pair.table)
    counted = Counter()
    for row in rows:
        name = f"n_{row['status'].replace(' ', '_')}"
        zone = row["zone"] if row["zone"] != "n/a" else "zone_unknown"
        for rating in ("any", *(("definite",) if row["rating"] == "definite" else ())):
            counted[f"{name}_{rating}"] += 1
            counted[f"{name}_{rating}_{zone}"] += 1
    own = ("n_new", "n_persistent", "n_gone", "n_not_assessable")
    apart = ("_first_", "_second_")
    numbers = [
        name for name in line if name.startswith(own) and not any(part in name for part in apart)
    ]
    assert len(numbers) == 4 * 2 * 5
    assert {name: int(line[name]) for name in numbers} == {name: counted[name] for name in numbers}
    assert (line["n_new_any"], line["n_persistent_any"], line["n_gone_any"]) == ("3", "2", "2")


def test_rates_and_classes(pair):
    line = line_of(pair)
    assert float(line["years_between"]) == 2
    assert float(line["new_any_per_year"]) == 1.5
    low, high = poisson_interval(3, 2.0)
    assert float(line["new_any_per_year_low"]) == pytest.approx(low, rel=1e-5)
    assert float(line["new_any_per_year_high"]) == pytest.approx(high, rel=1e-5)
    assert line["rdes291_new_any"] == line["aria_h_new_any"] == "1to4"


def test_without_dates_there_is_no_rate(pair):
    line = line_of(pair, days=None)
    assert line["new_any_per_year"] == line["years_between"] == "n/a"
    assert line["n_new_any"] == "3"


def test_a_pair_without_follow_up_has_a_line_and_no_counts(pair):
    line = line_of(pair, found=None)
    assert line["status"] == "not_computed"
    assert {line[name] for name in line if name.startswith("n_")} == {"n/a"}


@pytest.mark.parametrize(("count", "exposure"), [(0, 1.0), (1, 2.5), (7, 3.0), (40, 0.5)])
def test_the_interval_is_exact(count, exposure):
    low, high = poisson_interval(count, exposure)
    # At either end, what was seen or more (or less) has a probability of 2.5 %.
    assert poisson.cdf(count, high * exposure) == pytest.approx(0.025)
    if count:
        assert poisson.sf(count - 1, low * exposure) == pytest.approx(0.025)
    else:
        assert low == 0


@pytest.mark.parametrize(("count", "exposure"), [(-1, 1.0), (1, 0.0), (1, float("nan"))])
def test_no_rate_without_time(count, exposure):
    with pytest.raises(ValueError, match="no rate"):
        poisson_interval(count, exposure)


def test_participants_have_the_comparison_with_the_baseline(pair):
    found = follow_pair(pair)
    ends = ComparedVisits.of(pair, "both", found, days=YEAR_DAYS)
    columns = participant_columns([ends])["1"]
    assert columns["last_session"] == "ses-b"
    assert (columns["n_new_any"], columns["n_gone_any"], columns["n_new_definite"]) == (3, 2, 2)
    assert columns["aria_h_new_any"] == "1to4"


def test_what_a_scan_does_not_show_is_no_zero(tree):
    add_visits(tree, coverage={"lobar": 1.0, "deep": 0.2, "infratentorial": None})
    line = line_of(paired(tree))
    assert line["coverage_lobar"] == "1"
    assert (line["coverage_deep"], line["coverage_infratentorial"]) == ("0.2", "n/a")
    # What was seen is counted, and what was listed is told.
    assert line["n_new_any_lobar"] == "1"
    for name in ("new", "gone", "persistent"):
        assert line[f"n_{name}_any"] == line[f"n_{name}_definite"] == "n/a"
        assert line[f"n_{name}_any_deep"] == line[f"n_{name}_any_infratentorial"] == "n/a"
    assert line["n_listed_new_any"] == "3"
    assert line["n_not_assessable_any"] == "0"
    classes = ("rdes291_new_any", "aria_h_new_any", "new_any_per_year", "new_any_per_year_low")
    assert {line[name] for name in classes} == {"n/a"}
    assert "second visit may not show all of the zones deep, infratentorial" in line["limits"]


def test_a_change_of_settings_is_a_limit_of_every_line(tree):
    add_visits(tree, parameters={"detector": "classical", "threshold": 0.25}, version="1.2.4")
    pair = paired(tree)
    line = line_of(pair)
    assert line["settings_changed"] == "true"
    assert line["protocol_changed"] == "false"
    assert line["limits"] == "threshold 0.35 to 0.25; version of cmbprep 1.2.3 to 1.2.4"
    assert {row["limits"] for row in read(pair.table)} == {line["limits"]}
    person = participant_columns([ComparedVisits.of(pair, "both", follow_pair(pair))])["1"]
    assert person["follow_up_settings_changed"] is True
    assert person["follow_up_limits"] == line["limits"]


def test_settings_that_agree_are_no_limit(pair):
    line = line_of(pair)
    assert (line["settings_changed"], line["limits"]) == ("false", "n/a")


def test_a_table_that_a_person_has_changed_is_used_and_named(pair, tmp_path):
    follow_pair(pair)
    text = pair.table.read_text()
    # Of the same size and of another one.
    pair.table.write_text(text.replace("\tgone\t", "\tpersistent\t", 1))

    line = line_of(pair)
    assert (line["n_persistent_any"], line["n_gone_any"]) == ("3", "1")
    assert "changed after the program wrote it" in line["limits"]
    raw = write_raw(tmp_path)
    result = run_group(pair.root, participants_tsv=raw)
    assert any(pair.table.name in note for note in result.notes)
    with pytest.raises(UsageError, match="changed after the program wrote it"):
        run_group(pair.root, participants_tsv=raw, strict=True)


def test_a_table_that_lacks_a_lesion_is_made_again_and_the_changed_one_is_kept(pair, caplog):
    before = line_of(pair)
    text = pair.table.read_text()
    changed = text.removesuffix("\n").rpartition("\n")[0] + "\n"
    pair.table.write_text(changed)
    assert line_of(pair) == before
    assert pair.table.read_text() == text
    kept = pair.root / "logs" / f"{pair.table.stem}_edited.tsv"
    assert kept.read_text() == changed
    assert kept.name in caplog.text


@pytest.mark.parametrize(
    ("status", "impossible", "why"),
    [
        ("gone", "new", "a lesion that is new is listed at the second visit only"),
        ("new", "gone", "a lesion that is gone is listed at the first visit only"),
        ("persistent", "new", "a lesion that is listed at both visits is not new"),
    ],
)
def test_an_impossible_status_is_refused(pair, status, impossible, why):
    follow_pair(pair)
    text = pair.table.read_text()
    pair.table.write_text(text.replace(f"\t{status}\t", f"\t{impossible}\t", 1))
    with pytest.raises(CmbprepError, match=why):
        read_followup(pair.table)


def write_raw(tmp_path, sessions="ab"):
    raw = tmp_path / "raw"
    (raw / "sub-1").mkdir(parents=True)
    (raw / "participants.tsv").write_text("participant_id\nsub-1\n")
    lines = [f"ses-{name}\t{2020 + 2 * n}-01-01T10:00:00\n" for n, name in enumerate(sessions)]
    (raw / "sub-1" / "sub-1_sessions.tsv").write_text("session_id\tacq_time\n" + "".join(lines))
    return raw / "participants.tsv"


def test_a_visit_without_a_result_has_a_line_with_the_reason(tree, tmp_path):
    add_visit(tree, "a", [])
    tree.fail("sub-1_ses-b_T2starw", "the registration broke")
    root = tree.finish()

    result = run_group(root, participants_tsv=write_raw(tmp_path))

    (line,) = read(result.tables["group_followup"])
    assert (line["session_first"], line["session_second"]) == ("ses-a", "ses-b")
    assert (line["status"], line["comparison"]) == ("no_result", "next")
    assert "the registration broke" in line["reason"]
    assert line["days_between"] == "731"
    assert {line[name] for name in line if name.startswith("n_")} == {"n/a"}
    (person,) = read(result.tables["group_participants"])
    assert (person["status"], person["follow_up_status"]) == ("complete", "no_result")
    assert "no result of ses-b" in person["follow_up_reason"]
    assert person["n_new_any"] == "n/a"


def test_a_missing_visit_between_two_others_is_told(tree, tmp_path):
    add_visits(tree)
    tree.fail("sub-1_ses-c_T2starw", "it broke")
    root = tree.finish()

    result = run_group(root, participants_tsv=write_raw(tmp_path, "acb"))

    lines = {line["session_second"]: line for line in read(result.tables["group_followup"])}
    assert (lines["ses-b"]["comparison"], lines["ses-b"]["status"]) == ("both", "complete")
    assert (lines["ses-c"]["session_first"], lines["ses-c"]["status"]) == ("ses-a", "no_result")
    (person,) = read(result.tables["group_participants"])
    assert (person["follow_up_status"], person["n_new_any"]) == ("complete", "3")
    assert "no result of ses-c" in person["follow_up_reason"]


def test_every_column_is_described_and_levels_hold(pair):
    one = ComparedVisits.of(pair, "both", follow_pair(pair), days=400.0)
    table = followup_table([one])
    (values,) = table.values
    assert set(values) <= set(table.dictionary)
    for name, entry in table.dictionary.items():
        assert entry["Description"]
        levels, value = entry.get("Levels"), values.get(name)
        assert not levels or value is None or value in levels, name
    assert "no advice on treatment" in table.dictionary["aria_h_new_any"]["Description"]


def test_the_group_level_writes_the_table_the_participants_columns_and_the_page(pair, tmp_path):
    follow_pair(pair)
    result = run_group(pair.root, participants_tsv=write_raw(tmp_path))

    (line,) = read(result.tables["group_followup"])
    assert (line["comparison"], line["status"]) == ("both", "complete")
    assert (line["n_new_any"], line["n_persistent_any"], line["n_gone_any"]) == ("3", "2", "2")
    (person,) = read(result.tables["group_participants"])
    assert (person["last_session"], person["n_new_any"]) == ("ses-b", "3")
    assert float(person["follow_up_years"]) == pytest.approx(731 / YEAR_DAYS)
    assert "3 new microbleeds, definite or possible, in 2.0 person-years" in result.page.read_text()


def test_without_dates_there_is_no_rate_and_no_direction(pair):
    follow_pair(pair)

    result = run_group(pair.root, participants_tsv=None)

    lines = read(result.tables["group_followup"])
    assert {line["comparison"] for line in lines} == {"order_unknown"}
    assert {line["new_any_per_year"] for line in lines} == {"n/a"}
    (person,) = read(result.tables["group_participants"])
    assert person["n_new_any"] == "n/a"
    assert person["follow_up_status"] == "order_unknown"
    # New or gone: three and two.
    (line,) = lines
    assert (line["n_one_visit_any"], line["n_persistent_any"]) == ("5", "2")
