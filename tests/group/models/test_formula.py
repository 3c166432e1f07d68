"""Formulas are read as statsmodels does, and call nothing but a few functions of columns."""

from __future__ import annotations

import pytest

from cmbprep.errors import UsageError
from cmbprep.group.models.formula import Outcome, parse_model, parse_models


def test_a_formula_names_its_columns() -> None:
    model = parse_model("n_definite ~ age*hypertension + C(site) + np.log(mmse)")
    assert model.outcome == Outcome(column="n_definite")
    assert model.columns == ("age", "hypertension", "site", "mmse")
    assert (model.kind, model.zero_terms, model.offsets) == (None, None, ())


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("n_definite > 0 ~ age", Outcome(column="n_definite", operator=">", value=0.0)),
        ("n_definite >= 5 ~ age", Outcome(column="n_definite", operator=">=", value=5.0)),
        (
            "pattern_definite == strictly lobar ~ age",
            Outcome(column="pattern_definite", operator="==", value="strictly lobar"),
        ),
        (
            "pattern_definite == 'strictly lobar' ~ age",
            Outcome(column="pattern_definite", operator="==", value="strictly lobar"),
        ),
        ('Q("falls, last year") ~ age', Outcome(column="falls, last year")),
    ],
)
def test_an_outcome_is_a_column_or_its_comparison(text: str, outcome: Outcome) -> None:
    assert parse_model(text).outcome == outcome


def test_a_kind_stands_before_the_outcome() -> None:
    assert parse_model("NB: n_any_lobar ~ age").kind == "nb"
    model = parse_model("zip: n_definite ~ age | hypertension")
    assert (model.kind, model.terms, model.zero_terms) == ("zip", "(age)", "(hypertension)")


def test_offsets_are_taken_out_of_the_terms() -> None:
    model = parse_model("n_new_any ~ age + offset(log(follow_up_years)) - 1")
    assert model.terms == "(age) - (1)"
    assert model.offsets == ("log ( follow_up_years )",)
    assert model.columns == ("age", "follow_up_years")
    assert parse_model("n_new_any ~ offset(age)").terms == "1"


def test_an_interaction_keeps_its_brackets() -> None:
    # The colon binds closer than the star, for patsy but not for Python.
    assert parse_model("n ~ (a*b):c").terms == "(( a * b ) : c)"
    assert parse_model('n ~ Q("a@b"):c + Q("x:y")').terms == '(Q ( "a@b" ) : c) + (Q ( "x:y" ))'


@pytest.mark.parametrize(
    "right",
    [
        "__import__('os').system('true')",
        "np.load(age)",
        "np.random.rand(3)",
        "age.to_csv(1)",
        "eval('1')",
        "open(age)",
        "(lambda: 1)()",
        "[1, 2]",
        "{1}",
        "age if site else 1",
        "age and site",
        "not age",
        "age == 1",
        "f'{age}'",
        "C(site, eval('1'))",
        "C(site, Treatment(open('x')))",
        "C(site, levels=1)",
        "Q(site)",
        "bs(age)",
        "log(age, 2)",
        "I(9**9**9)",
        "I(9**99)",
        "I(True)",
        "True",
        "2",
        "age / 10",
        "age ** site",
        "age; site",
        "age # site",
        "",
        "age +",
        "MMSE total",
        "age ~ site",
        "a" + "+a" * 600,
        "(" * 300 + "a" + ")" * 300,
        "offset(age) - offset(site)",
        "age:offset(site)",
    ],
)
def test_anything_else_is_refused(right: str) -> None:
    with pytest.raises(UsageError, match=r"n_definite"):
        parse_model(f"n_definite ~ {right}")


@pytest.mark.parametrize(
    "left", ["", "n_definite + 1", "log(n_definite)", "a b", "n > lobar", "foo: n", "1"]
)
def test_an_outcome_that_is_none_is_refused(left: str) -> None:
    with pytest.raises(UsageError):
        parse_model(f"{left} ~ age")


def test_terms_of_zeros_need_a_kind_with_zeros() -> None:
    with pytest.raises(UsageError, match="zip and zinb"):
        parse_model("n_definite ~ age | age")


def test_a_model_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_models(("n ~ a", "n  ~  a"))
