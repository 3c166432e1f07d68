"""Tables beside the code say what the code says."""

from dataclasses import MISSING, fields
from importlib import import_module

import pytest

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.lab.cli import build_parser
from cmbprep.lab.evaluate.collect import Request
from cmbprep.lab.evaluate.evaluation import Options
from cmbprep.lab.evaluate.matching import Rule
from cmbprep.lab.evaluate.tables import conventions
from cmbprep.lab.shared import read_data, usage_errors
from cmbprep.lab.simulate.tissue import TISSUES
from cmbprep.lab.simulate.truth import TRUTH_COLUMNS
from cmbprep.lab.simulate.voids import MASK_LOSS, VISIBLE_CNR
from cmbprep.lab.training.brain.contrasts import CONTRASTS
from cmbprep.lab.training.mining import FitOptions


@pytest.mark.parametrize("name", read_data("cmbprep.lab", "options.json"))
def test_every_command_can_be_run(name):
    module = import_module(read_data("cmbprep.lab", "options.json")[name]["module"])
    assert callable(module.run)


@pytest.mark.parametrize("kind", [Rule, Options, Request])
def test_defaults_of_the_options_are_those_of_the_value_objects(kind):
    given = vars(build_parser().parse_args(["evaluate", "x", "y"]))
    for field in fields(kind):
        if field.name in given and field.default is not MISSING:
            default = field.default
            assert given[field.name] == (list(default) if isinstance(default, tuple) else default)


def test_defaults_of_the_fit():
    given = build_parser().parse_args(["train", "x"])
    assert (given.epochs, given.networks) == (FitOptions.epochs, FitOptions.members)


def test_the_dictionary_of_the_truth_names_the_limits_of_what_can_be_seen():
    text = str(TRUTH_COLUMNS["visible"]["Description"])
    assert f"{VISIBLE_CNR:g} times the noise" in text
    assert f"{MASK_LOSS:g} of the signal" in text


def test_contrasts_are_of_all_tissues():
    assert all(list(contrast) == list(TISSUES) for contrast in CONTRASTS)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(distance_mm=3), "at most 3 mm"),
        (Rule(match="overlap", min_overlap=0.5), "at least 0.5"),
        (Rule(match="overlap"), "at least one voxel in common"),
    ],
)
def test_the_rule_stands_in_a_sentence(rule, words, tmp_path):
    request = Request(output=tmp_path, truth=tmp_path, rule=rule)
    sentences = conventions(request, Options(rule=rule))
    assert words in sentences[0]
    assert all(sentence.endswith(".") for sentence in sentences)


def test_errors_of_files_become_errors_of_usage():
    with pytest.raises(UsageError, match="torn") as caught, usage_errors():
        raise CmbprepError("torn", path="a.tsv", hint="mend it")
    assert (caught.value.path, caught.value.hint) == ("a.tsv", "mend it")
