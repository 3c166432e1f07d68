"""The Methods sentence names who counted, with what, and the rule of the pattern."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmbprep.group.models import fit_models, parse_models
from tests.group.models.cohort import make_cohort

DETECTOR = {"detector": "learned", "detector_version": "7", "threshold": 0.35}


def methods(table: pd.DataFrame, formula: str) -> str:
    (found,) = fit_models(table, parse_models((formula,)))
    return found.methods_sentence


def test_automatic_counts_name_the_detector() -> None:
    words = "Microbleeds were counted automatically (detector learned, version 7, threshold 0.35)."
    table = make_cohort(**DETECTOR)
    assert words in methods(table, "n_definite ~ age")
    assert words in methods(table, "hypertension > 0 ~ n_definite")
    assert words in methods(make_cohort(12, n_definite=0.0, **DETECTOR), "n_definite ~ age")
    assert "Microbleeds" not in methods(table, "hypertension > 0 ~ age")


def test_reviewed_counts_name_people_and_no_detector() -> None:
    text = methods(make_cohort(source="reviewed", **DETECTOR), "n_definite ~ age")
    assert "Microbleeds were counted by people, who have read the whole scan." in text
    assert "learned" not in text


def test_a_mixture_has_both_numbers_of_those_in_the_model() -> None:
    table = make_cohort(source=np.resize(["automatic", "automatic", "reviewed"], 90), **DETECTOR)
    table.loc[0:2, "age"] = np.nan
    table["detector"] = np.resize(["learned", "classical", "learned"], 90)
    text = methods(table, "n_definite ~ age")
    assert "in 29 participants, and automatically (" in text and ") in 58." in text
    assert "detector classical, version 7, threshold 0.35: 29" in text
    table["n_automatic_any"] = table["n_definite"]
    assert "by people" not in methods(table, "n_automatic_any ~ age")


@pytest.mark.parametrize(("rule", "words"), [("boston", "neither as lobar"), ("deep", "as deep")])
def test_a_pattern_names_its_rule(rule: str, words: str) -> None:
    table = make_cohort(pattern_rule=rule, **DETECTOR)
    text = methods(table, "pattern_definite == strictly lobar ~ age")
    assert f"Patterns follow the rule {rule}: cerebellar microbleeds count {words}" in text
    assert "rule" not in methods(table, "n_definite ~ age")
