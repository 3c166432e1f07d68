"""The table of follow-ups: counts recounted from the tables of the pairs, rates, classes."""

from collections import Counter

import pytest
from scipy.stats import poisson

from cmbprep.followup import step
from cmbprep.followup.pair import pair_visits
from cmbprep.followup.step import follow_pair
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
def pair(tmp_path, monkeypatch):
    """Seven lesions: two stay, one of them possible; three are new; two go."""
    stay = ((20, 0, 0), (-15, 20, 10))
    new = ((10, 25, -10), (-10, -25, 5), (25, -10, 15))
    gone = ((-20, -5, -15), (0, 0, 30))
    places = {"a": (*stay, *gone), "b": (*stay, *new)}
    tree = Tree(tmp_path)
    for session, points in places.items():
        lesions = [
            lesion(
                n,
                at(session, point),
                zone=ZONES[n % 4],
                rating="possible" if n % 2 == 0 else "definite",
                region=None,
            )
            for n, point in enumerate(points, start=1)
        ]
        add_visit(tree, session, lesions)
    root = tree.finish()

    monkeypatch.setattr(step, "register_visits", register_by_truth)
    (found,) = pair_visits(root, followed_scans(result(root)), ("a", "b"))
    return found


def line_of(pair, *, days=YEAR_DAYS * 2, found="compute", comparison="both"):
    done = follow_pair(pair) if found == "compute" else found
    one = ComparedVisits(pair=pair, comparison=comparison, found=done, reason=None, days=days)
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
    numbers = [name for name in line if name.startswith("n_") and "below" not in name]
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
    ends = ComparedVisits(pair=pair, comparison="both", found=found, days=YEAR_DAYS)
    between = ComparedVisits(pair=pair, comparison="next", found=found, days=YEAR_DAYS)
    assert participant_columns([between]) == {}
    columns = participant_columns([ends])["1"]
    assert columns["last_session"] == "ses-b"
    assert (columns["n_new_any"], columns["n_gone_any"], columns["n_new_definite"]) == (3, 2, 2)
    assert columns["aria_new_class"] == "1to4"


def test_every_column_is_described_and_levels_hold(pair):
    one = ComparedVisits(pair=pair, comparison="both", found=follow_pair(pair), days=400.0)
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
    raw = tmp_path / "raw"
    subject = pair.first.detection.files.names.subject
    (raw / f"sub-{subject}").mkdir(parents=True)
    (raw / "participants.tsv").write_text(f"participant_id\nsub-{subject}\n")
    (raw / f"sub-{subject}" / f"sub-{subject}_sessions.tsv").write_text(
        "session_id\tacq_time\nses-a\t2020-01-01T10:00:00\nses-b\t2022-01-01T10:00:00\n"
    )

    result = run_group(pair.root, participants_tsv=raw / "participants.tsv")

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
