"""Models from the request to rows, warnings and words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmbprep.errors import UsageError
from cmbprep.group.models import FittedModel, ModelOptions, fit_models, parse_models
from cmbprep.group.models.page import model_sections
from cmbprep.group.models.tables import checks_table, models_table, participants_frame
from cmbprep.reports.figures.canvas import check_figure
from tests.group.models.cohort import burden, make_cohort


def model(table: pd.DataFrame, formula: str, redraw: Any = None, **options: Any) -> FittedModel:
    (found,) = fit_models(table, parse_models((formula,)), ModelOptions(**options), redraw=redraw)
    return found


def row(found: FittedModel, term: str) -> dict[str, Any]:
    (one,) = [item for item in found.rows if item["term"] == term]
    return one


def warned(found: FittedModel, words: str) -> bool:
    return any(words in warning for warning in found.warnings)


def test_rows_have_ratio_interval_and_p() -> None:
    found = model(make_cohort(), "n_definite ~ age + C(site)")
    age = row(found, "age")
    assert age["ratio"] == pytest.approx(np.exp(age["estimate"]))
    assert age["ratio_low"] < age["ratio"] < age["ratio_high"]
    # The interval excludes 1 where p is below 0.05, and 95 % is two-sided.
    for item in found.rows:
        if item["ratio_type"]:
            excludes = item["ratio_low"] > 1 or item["ratio_high"] < 1
            assert excludes == (item["p"] < 0.05)
    assert (age["n"], age["n_left_out"], age["df"], age["kind"]) == (90, 0, 86, "nb")
    assert [item["role"] for item in found.rows] == ["constant", *["term"] * 3, "dispersion"]
    assert row(found, "alpha")["ratio"] is None
    assert row(found, "C(site)[T.B]")["label"] == "site: B against A"


@pytest.mark.parametrize(
    "formula",
    [
        "n_definite ~ age",
        "poisson: n_definite ~ age",
        "zip: n_definite ~ age | hypertension",
        "zinb: n_definite ~ age",
        "hurdle: n_definite ~ age",
        "n_definite > 0 ~ age",
        "pattern_definite == strictly lobar ~ age",
        "burden_count_definite ~ age + C(site)",
        "n_definite ~ 1",
    ],
)
def test_every_kind_has_rows_words_and_a_plot(formula: str) -> None:
    found = model(make_cohort(120, seed=3), formula)
    assert found.fit is not None
    check_figure(found.forest_svg())
    assert f"{len(found.design.y)} participants" in found.methods_sentence
    tables = models_table([found]), checks_table([found])
    for table in tables:
        lines = table.to_tsv().splitlines()
        assert len({line.count("\t") for line in lines}) == 1 and len(lines) > 1
        used = {name for values in table.values for name in values}
        assert used <= set(table.dictionary)
    for name in ("kind", "part", "role", "ratio_type"):
        levels = tables[0].dictionary[name]["Levels"]
        assert {item[name] for item in found.rows} - {None} <= set(levels)
    assert {check["check"] for check in tables[1].values} <= set(
        tables[1].dictionary["check"]["Levels"]
    )


def test_a_clean_cohort_has_no_warning() -> None:
    assert (
        model(make_cohort(300, seed=11), "n_definite ~ age + hypertension + C(site)").warnings == ()
    )


def test_few_events_are_named() -> None:
    table = make_cohort(60, seed=3, constant=-1.5)
    found = model(table, "n_definite > 0 ~ age + hypertension + C(site)")
    events = int((table["n_definite"] > 0).sum())
    assert warned(found, f"few events: {events} participants")
    assert row(found, "age")["n_events"] == events


def test_separation_is_named_and_has_no_number() -> None:
    table = make_cohort(90, seed=5)
    table.loc[table["site"] == "C", "n_definite"] = 0.0
    found = model(table, "n_definite > 0 ~ age + C(site)")
    assert warned(found, "separation: site: C against A")
    lost = row(found, "C(site)[T.C]")
    assert lost["ratio"] is None and "estimate" not in lost and "separation" in lost["note"]
    assert lost["n"] == 90
    assert row(found, "age")["ratio"] > 0


def test_differences_from_a_level_without_events_have_no_number() -> None:
    table = make_cohort(90, seed=5)
    table.loc[table["site"] == "A", "n_definite"] = 0.0
    found = model(table, "n_definite ~ age + C(site)")
    for term in ("Intercept", "C(site)[T.B]", "C(site)[T.C]"):
        lost = row(found, term)
        assert lost["ratio"] is None and lost.get("estimate") is None
        assert "separation" in lost["note"]
    assert row(found, "age")["ratio"] > 0
    assert {check.column for check in found.checks} & {"C(site)[T.B]", "C(site)[T.C]"} == set()


def test_protocol_and_site_that_go_together_are_named() -> None:
    table = make_cohort()
    table["MagneticFieldStrength"] = np.where(table["site"] == "A", 1.5, 3.0)
    found = model(table, "n_definite ~ age + C(site)", nuisance=("field",))
    assert warned(found, "inseparable: field strength: 3 against 1.5 follows from site")
    without = model(table, "n_definite ~ age + C(site)")
    assert warned(without, "protocol and site inseparable: field strength")
    assert row(found, "C(MagneticFieldStrength)[T.3.0]")["note"] == "follows from other terms"
    plain = model(table, "n_definite ~ age")
    assert warned(plain, "field strength varies (1.5: 30, 3: 60) and is not in the model")
    inside = model(table, "n_definite ~ age", nuisance=("field",))
    assert not warned(inside, "field strength varies")
    assert row(inside, "C(MagneticFieldStrength)[T.3.0]")["role"] == "nuisance"
    assert "field strength as a nuisance term" in inside.methods_sentence


def test_a_nuisance_term_that_does_not_vary_is_named() -> None:
    found = model(make_cohort(), "n_definite ~ age", nuisance=("field", "te"))
    assert warned(found, "field strength is the same for all participants")
    assert warned(found, "echo time, 10 ms more is the same for all participants")
    field = row(found, "C(MagneticFieldStrength)")
    assert (field["role"], field["note"]) == ("nuisance", "the same for all participants")


def test_a_term_with_one_category_is_named() -> None:
    table = make_cohort(mmse_version="2")
    found = model(table, "n_definite ~ age + C(sequence) + mmse_version + offset(0 * EchoTime)")
    assert [item["term"] for item in found.rows if item.get("note")] == ["sequence", "mmse_version"]
    assert row(found, "sequence")["role"] == "term"
    assert row(found, "sequence")["note"] == "the same for all participants"
    assert warned(found, "sequence is the same for all participants and is left out")
    assert not warned(found, "EchoTime")


def test_terms_of_the_zeros_that_go_together_are_named() -> None:
    table = make_cohort(120, seed=3)
    table["twice"] = 2 * table["hypertension"]
    found = model(table, "zip: n_definite ~ age | hypertension + twice")
    assert warned(found, "twice follows from hypertension")


def test_a_mixture_of_sources_is_named() -> None:
    table = make_cohort(source=np.resize(["automatic", "reviewed"], 90))
    assert warned(model(table, "n_definite ~ age"), "automatic: 45, reviewed: 45")
    table["n_automatic_definite"] = table["n_definite"]
    assert not warned(model(table, "n_automatic_definite ~ age"), "mixture")


def test_few_clusters_are_named_and_have_few_degrees_of_freedom() -> None:
    found = model(make_cohort(), "n_definite ~ age", cluster="site")
    assert warned(found, "cluster-robust errors with 3 clusters")
    age = row(found, "age")
    assert (age["df"], age["n_clusters"], age["covariance"]) == (2, 3, "cluster site")
    assert "robust to clusters by site (3 clusters)" in found.methods_sentence
    many = make_cohort(ward=[str(number % 15) for number in range(90)])
    assert not warned(model(many, "n_definite ~ age", cluster="ward"), "cluster")


def test_terms_that_fit_the_clusters_exactly_have_no_error() -> None:
    found = model(make_cohort(), "n_definite ~ age + C(site)", cluster="site")
    assert warned(found, "site: B against A, site: C against A fit the clusters exactly")
    lost = row(found, "C(site)[T.B]")
    assert lost["ratio"] is None and lost["se"] is None and "exactly" in lost["note"]
    assert row(found, "age")["se"] > 0


def test_over_dispersion_and_excess_zeros_are_named() -> None:
    found = model(make_cohort(200, seed=4, alpha=2.0), "poisson: n_definite ~ age")
    assert warned(found, "over-dispersion") and warned(found, "excess zeros")
    checks = {check.check: check for check in found.checks}
    assert checks["over-dispersion"].value is not None and checks["over-dispersion"].value > 1.5


def test_a_simpler_model_is_named() -> None:
    table = make_cohort(100)
    table["n_definite"] = np.resize([1.0, 2.0, 3.0, 2.0], 100)
    found = model(table, "nb: n_definite ~ age")
    assert found.kind == "poisson" and warned(found, "simpler model was fitted: Poisson")
    assert "nb was asked for" in found.methods_sentence


def test_an_influential_person_and_site_are_named() -> None:
    table = make_cohort(90, seed=7)
    table.loc[40, ["age", "n_definite"]] = 105.0, 60.0
    found = model(table, "n_definite ~ age")
    assert warned(found, "age rests on participant sub-041")
    # In one site, the effect is turned round.
    turned = make_cohort(300, seed=7)
    site = turned["site"] == "B"
    turned.loc[site, "age"] = 144.0 - turned.loc[site, "age"]
    assert warned(model(turned, "n_definite ~ age + C(site)"), "age rests on site B")
    subjects = {check.subject for check in found.checks if check.check == "without site"}
    assert subjects == {"A", "B", "C"}


def test_without_estimates_every_term_is_listed_with_the_reason() -> None:
    table = make_cohort(12, seed=1, n_definite=0.0)
    found = model(table, "n_definite ~ age")
    assert found.fit is None
    assert warned(found, "no estimates")
    assert {item["term"] for item in found.rows} == {"Intercept", "age"}
    assert all(item["ratio"] is None and item["note"] for item in found.rows)
    assert "there are no estimates" in found.methods_sentence
    check_figure(found.forest_svg())


def test_an_ordinal_model_needs_a_term() -> None:
    found = model(make_cohort(), "burden_count_definite ~ 1")
    assert found.fit is None and found.rows == () and warned(found, "no term")


def test_missing_rows_are_in_rows_and_words() -> None:
    table = make_cohort()
    table.loc[:4, "age"] = np.nan
    found = model(table, "n_definite ~ age")
    assert (row(found, "age")["n"], row(found, "age")["missing"]) == (85, "age 5")
    assert "5 left out for missing values: age 5" in found.methods_sentence


# --- the detector's doubt ------------------------------------------------------------------------


def redrawn(table: pd.DataFrame, share: float = 0.8) -> Any:
    def redraw(random: np.random.Generator) -> pd.DataFrame:
        counts = random.binomial(table["n_definite"].fillna(0).astype(int), share).astype(float)
        other = table.assign(n_definite=np.where(table["n_definite"].isna(), np.nan, counts))
        return other.assign(burden_count_definite=other["n_definite"].map(burden))

    return redraw


@pytest.mark.parametrize(
    "formula", ["n_definite ~ age", "n_definite > 0 ~ age", "burden_count_definite ~ age"]
)
def test_the_interval_includes_the_detectors_doubt(formula: str) -> None:
    table = make_cohort(120, seed=3)
    table.loc[3, "n_definite"] = np.nan
    table.loc[3, "burden_count_definite"] = None
    found = model(table, formula, redrawn(table, 0.6), n_draws=10)
    age = row(found, "age")
    assert age["detection_draws"] == 10
    assert 0 < age["detection_share"] < 1
    assert age["detection_low"] < age["detection_ratio"] < age["detection_high"]
    assert "10 draws" in found.methods_sentence
    assert "detector" in found.forest_svg()


def test_counts_of_readers_have_no_doubt_of_the_detector() -> None:
    table = make_cohort(source="reviewed")
    found = model(table, "n_definite ~ age", redrawn(table), n_draws=5)
    assert found.sensitivity is None and "detection_se" not in row(found, "age")


def test_a_level_that_a_draw_lacks_loses_the_draw() -> None:
    table = make_cohort(120, seed=3)

    def redraw(random: np.random.Generator) -> pd.DataFrame:
        return table.assign(pattern_definite="none")

    formula = "pattern_definite == strictly lobar ~ age"
    found = model(table, formula, redraw, n_draws=4)
    assert found.sensitivity is not None and found.sensitivity.n_lost == 4
    assert warned(found, "4 of 4 draws")


@pytest.mark.parametrize("outcome", ["n_new_any", "hypertension > 0"])
def test_an_outcome_of_no_single_scan_has_no_sensitivity_analysis(outcome: str) -> None:
    table = make_cohort(120, seed=3)
    table["n_new_any"] = table["n_definite"]

    def redraw(random: np.random.Generator) -> pd.DataFrame:
        raise AssertionError("nothing is drawn")

    found = model(table, f"{outcome} ~ age", redraw, n_draws=4)
    assert warned(found, "no sensitivity analysis for the detector's doubt")
    assert found.sensitivity is None and "detection_se" not in row(found, "age")
    table["source"] = "reviewed"
    assert not warned(model(table, f"{outcome} ~ age", redraw, n_draws=4), "sensitivity")


def test_a_draw_that_loses_participants_is_told() -> None:
    table = make_cohort(120, seed=3)

    def redraw(random: np.random.Generator) -> pd.DataFrame:
        lost = random.random(len(table)) < 0.05
        return table.assign(n_definite=table["n_definite"].where(~lost))

    found = model(table, "n_definite ~ age", redraw, n_draws=4)
    assert found.sensitivity is not None
    most = found.sensitivity.most_unknown
    assert 0 < most < 20
    assert warned(found, "in 4 of 4 draws of the detector's lesions, n_definite is not known")
    assert warned(found, f"for up to {most} of 120 participants")
    assert not warned(model(table, "n_definite ~ age", redrawn(table), n_draws=4), "not known")


def test_a_class_that_appears_in_a_draw_loses_nobody() -> None:
    table = make_cohort(120, seed=3)
    table["n_definite"] = np.resize([0.0, 0.0, 3.0, 4.0, 9.0], 120)
    table["burden_count_definite"] = table["n_definite"].map(burden)
    assert "1" not in set(table["burden_count_definite"])
    found = model(table, "burden_count_definite ~ age", redrawn(table, 0.4), n_draws=6)
    assert found.sensitivity is not None and found.sensitivity.n_short == 0
    assert ("class", "age") in found.sensitivity.pooled


def test_terms_that_are_made_of_lesions_are_named() -> None:
    table = make_cohort(120, seed=3, n_any_deep=np.resize([0.0, 1.0, 2.0, 0.0], 120))
    found = model(table, "n_definite ~ age + n_any_deep", redrawn(table), n_draws=3)
    assert warned(found, "n_any_deep among the terms is computed from lesions")


def test_the_page_has_every_coefficient_with_its_numbers() -> None:
    table = make_cohort(90, seed=5)
    table.loc[table["site"] == "C", "n_definite"] = 0.0
    found = model(table, "n_definite ~ age + C(site)", redrawn(table), n_draws=3)
    (section,) = model_sections([found])
    cells = {line["term"]: line for line in section.rows}
    assert set(cells) == {"constant", "age", "site: B against A", "site: C against A"}
    age = row(found, "age")
    text = f"{age['ratio']:.3g} ({age['ratio_low']:.3g} to {age['ratio_high']:.3g})"
    assert cells["age"]["ratio (95 % interval)"] == text
    assert cells["site: C against A"]["ratio (95 % interval)"] == "n/a"
    assert "separation" in cells["site: C against A"]["note"]
    assert "part" not in section.columns
    assert {"with the detector's doubt", "note"} <= set(section.columns)
    assert (section.methods, section.warnings) == (found.methods_sentence, found.warnings)
    assert all(set(section.columns) <= set(line) for line in section.rows)
    (two,) = model_sections([model(make_cohort(120, seed=3), "hurdle: n_definite ~ age")])
    assert "part" in two.columns and "note" not in two.columns


# --- requests and tables -------------------------------------------------------------------------


def test_columns_are_checked_before_anything_is_fitted() -> None:
    requests = parse_models(("n_definite ~ age", "n_definite ~ agee"))
    with pytest.raises(UsageError, match="did you mean 'age'"):
        fit_models(make_cohort(), requests)
    with pytest.raises(UsageError, match="no column 'ward'"):
        fit_models(make_cohort(), requests[:1], ModelOptions(cluster="ward"))


@pytest.mark.parametrize("options", [{"nuisance": ("coil",)}, {"n_draws": 1}, {"n_draws": -1}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ModelOptions(**options)


def test_the_same_table_gives_the_same_text() -> None:
    table = make_cohort()
    texts = {
        checks_table([model(table, "n_definite ~ age", redrawn(table), n_draws=3)]).to_tsv()
        for _ in range(2)
    }
    assert len(texts) == 1


def test_field_strengths_of_a_frame_are_nominal() -> None:
    given = (2.89362, 3, 1.494, 1.5, 2.0, "n/a")
    rows = [{"participant_id": f"sub-{n}", "MagneticFieldStrength": v} for n, v in enumerate(given)]
    frame = participants_frame(("participant_id", "MagneticFieldStrength"), rows)
    assert frame["MagneticFieldStrength"].tolist()[:5] == [3.0, 3.0, 1.5, 1.5, 2.0]
    assert np.isnan(frame["MagneticFieldStrength"][5])


def test_a_frame_has_numbers_where_all_are_numbers() -> None:
    columns = ("participant_id", "age", "site", "n_definite", "echo_times", "flag")
    rows = [
        {"participant_id": "sub-01", "age": "71.5", "site": "1", "n_definite": 2, "flag": True},
        {"participant_id": "sub-02", "age": "n/a", "site": "x", "echo_times": [0.01, 0.02]},
    ]
    frame = participants_frame(columns, rows)
    assert list(frame.columns) == list(columns)
    assert frame["age"].dtype == float and np.isnan(frame["age"][1])
    assert frame["site"].tolist() == ["1", "x"]
    assert frame["n_definite"].dtype == float
    assert frame["echo_times"][1] == "0.01,0.02"
    assert frame["flag"][0] is True
