"""Figures of a small set that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.errors import UsageError
from cmbprep.lab.evaluate.evaluation import Options, evaluate, size_class
from cmbprep.lab.evaluate.matching import LesionSet, Mark, Rule
from cmbprep.lab.evaluate.metrics import FIGURES, LESION_FIGURES
from cmbprep.lab.evaluate.scoring import DUPLICATE, ELSEWHERE, score_scan
from cmbprep.lab.evaluate.thresholds import check_floors, parse_floor


def marks(*rows) -> LesionSet:
    """Lesions from rows (x, diameter, zone, region, probability)."""
    return LesionSet(
        marks=tuple(
            Mark(
                index=number,
                centre=(x, 0.0, 0.0),
                diameter_mm=diameter,
                zone=zone,
                region=region,
                probability=probability,
            )
            for number, (x, diameter, zone, region, probability) in enumerate(rows, start=1)
        )
    )


def scan(name, truth, found, **groups):
    return score_scan(truth, found, Rule(), scan=name, subject=name[4], groups=groups)


@pytest.fixture(scope="module")
def results():
    """Six scans of five subjects: 6 true lesions, 7 predictions, 4 hits."""
    a = scan(
        "sub-1",
        marks((0, 1.5, "lobar", "frontal", None), (20, 4, "deep", "thalamus", None)),
        marks((1, 2, "lobar", "frontal", 0.9), (21, 4, "lobar", "insula", 0.8)),
        site="A",
    )
    b = scan(  # one hit, one second mark on it, one miss
        "sub-2_run-1",
        marks((0, 4, "deep", "thalamus", None), (50, 6, "lobar", "frontal", None)),
        marks((1, 4, "deep", "thalamus", 0.7), (-3, 3, "deep", "thalamus", 0.3)),
        site="A",
    )
    c = scan(  # a hit, a false positive elsewhere
        "sub-2_run-2",
        marks((0, 4, "deep", "pallidum", None)),
        marks((0, 4, "deep", "thalamus", 0.6), (70, 1, "lobar", "frontal", 0.6)),
        site="A",
    )
    d = scan("sub-3", marks(), marks((0, 1, "lobar", "frontal", 0.2)), site="B")
    e = scan("sub-4", marks(), marks(), site="B")
    f = scan("sub-5", marks((0, 12, "lobar", "frontal", None)), None, site="B")
    return [a, b, c, d, e, f]


@pytest.fixture(scope="module")
def evaluation(results):
    return evaluate(results, Options(n_draws=200))


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ("sensitivity", 4 / 6),
        ("precision", 4 / 7),
        ("f1", 8 / 13),
        ("fp_per_scan", 3 / 6),
        ("fp_per_scan_without_lesions", 1 / 2),
        ("fp_per_scan_with_lesions", 2 / 4),
        # Scans: 1, 2/4, 2/3, 0, undefined, 0.
        ("f1_scan_mean", (1 + 1 / 2 + 2 / 3) / 5),
        ("f1_scan_median", 1 / 2),
        ("distance_mean_mm", 3 / 4),
        # Diameters 1.5 -> 2 and three times 4 -> 4.
        ("volume_error_median", 0.0),
        ("dice_mean", None),
        ("count_bias", (0 + 0 + 1 + 1 + 0 - 1) / 6),
        # Present in truth 1, 1, 1, 0, 0, 1; in the prediction 1, 1, 1, 1, 0, 0.
        ("presence_kappa", (4 / 6 - (16 + 4) / 36) / (1 - (16 + 4) / 36)),
        ("presence_sensitivity", 3 / 4),
        ("presence_specificity", 1 / 2),
        ("zone_agreement", 3 / 4),
        ("region_agreement", 2 / 4),
        # 0.9 0.8 0.7 hits, 0.6 a hit and not, 0.3 and 0.2 not.
        ("average_precision", (1 + 1 + 1 + 4 / 5) / 6),
        ("sensitivity_at_0.5fp", 4 / 6),
        ("froc_mean", (3 + 6 * 4) / 6 / 7),
        ("ece", (0.1 + 0.2 + 0.3 + abs(2 * 0.6 - 1) + 0.3 + 0.2) / 7),
    ],
)
def test_figures(evaluation, figure, expected):
    value = evaluation.row(figure).value
    if expected is None:
        assert value is None
    else:
        assert value == pytest.approx(expected)


def test_zone_kappa(evaluation):
    # Truth lobar, deep, deep, deep; prediction lobar, lobar, deep, deep.
    chance = (1 * 2 + 3 * 2) / 16
    assert evaluation.row("zone_kappa").value == pytest.approx((3 / 4 - chance) / (1 - chance))


def test_limits_of_agreement(evaluation):
    difference = np.array([0, 0, 1, 1, 0, -1])
    high = evaluation.row("count_limit_high").value
    assert high == pytest.approx(difference.mean() + 1.96 * difference.std(ddof=1))


@pytest.mark.parametrize(
    ("split", "group", "figure", "expected"),
    [
        ("size", "<2 mm", "sensitivity", 1 / 1),
        ("size", "<2 mm", "precision", 1 / 3),  # two false positives of 1 mm
        ("size", "2-5 mm", "sensitivity", 3 / 3),
        ("size", "2-5 mm", "precision", 3 / 4),
        ("size", "5-10 mm", "sensitivity", 0),
        ("size", "5-10 mm", "precision", None),
        ("size", ">=10 mm", "sensitivity", 0),
        ("zone", "deep", "sensitivity", 3 / 3),
        ("zone", "deep", "fp_per_scan", 1 / 6),
        ("zone", "lobar", "sensitivity", 1 / 3),
        ("zone", "lobar", "precision", 1 / 3),
        ("site", "A", "sensitivity", 4 / 5),
        ("site", "B", "sensitivity", 0),
        ("site", "B", "fp_per_scan", 1 / 3),
    ],
)
def test_splits(evaluation, split, group, figure, expected):
    value = evaluation.row(figure, split, group).value
    assert value == (None if expected is None else pytest.approx(expected))


def test_lesion_splits_add_up(evaluation):
    for split in ("size", "zone"):
        rows = [r for r in evaluation.rows if r.split == split and r.figure == "sensitivity"]
        assert sum(row.lesions for row in rows) == 6
    assert {r.figure for r in evaluation.rows if r.split == "zone"} == {
        f.name for f in LESION_FIGURES
    }


def test_unknown_splits_are_left_out(evaluation):
    assert {row.split for row in evaluation.rows} == {"all", "site", "size", "zone"}


def test_origins_of_false_positives(evaluation):
    assert {row.origin: row.false_positives for row in evaluation.origins} == {
        DUPLICATE: 1,
        ELSEWHERE: 2,
    }


def test_intervals_hold_the_figure(evaluation):
    for row in evaluation.rows:
        if row.low is not None:
            assert row.low <= row.high
            if row.split == "all" and row.figure in ("sensitivity", "precision", "f1"):
                assert row.low <= row.value <= row.high


def test_a_single_subject_has_no_interval(results):
    row = evaluate(results[:1]).row("sensitivity")
    assert row.value == 1
    assert row.low is None


def test_interval_is_that_of_resampled_subjects(results):
    """The weights give what evaluating copies of the scans gives."""
    from cmbprep.lab.evaluate.metrics import make_sample
    from cmbprep.ratings.statistics import subject_weights

    weights = subject_weights([r.subject for r in results], 25, 3)
    whole = make_sample(results)
    for row in weights:
        again = [r for r, times in zip(results, row, strict=True) for _ in range(int(times))]
        copy = make_sample(again)
        for figure in FIGURES:
            one = figure.of(whole, row[None, :])[0]
            other = figure.of(copy, np.ones((1, len(again))))[0]
            assert one == pytest.approx(other, nan_ok=True), figure.name


def test_empty_everywhere():
    evaluation = evaluate([scan("sub-1", marks(), marks()), scan("sub-2", marks(), marks())])
    for name in ("sensitivity", "precision", "f1", "average_precision", "count_icc", "ece"):
        assert evaluation.row(name).value is None
    assert evaluation.row("fp_per_scan").value == 0


def test_prediction_without_probabilities_has_no_curves(results):
    plain = scan("sub-6", marks((0, 3, None, None, None)), marks((0, 3, None, None, None)))
    evaluation = evaluate([*results, plain])
    assert evaluation.row("average_precision").value is None
    assert evaluation.row("sensitivity").value == pytest.approx(5 / 7)
    assert evaluation.levels == ()


def test_no_scan():
    with pytest.raises(ValueError, match="no scan"):
        evaluate([])


def test_size_classes():
    edges = (2.0, 5.0)
    assert [size_class(d, edges) for d in (1.9996, 1.999, 2, 4.999, 5, None)] == [
        "2-5 mm",
        "<2 mm",
        "2-5 mm",
        "2-5 mm",
        ">=5 mm",
        "n/a",
    ]


@pytest.mark.parametrize(
    "wrong", [{"n_draws": -1}, {"n_bins": 0}, {"seed": -1}, {"size_edges_mm": (5.0, 2.0)}]
)
def test_options_check_themselves(wrong):
    with pytest.raises(ValueError, match=r"below|rise"):
        Options(**wrong)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("sensitivity=0.66", True),
        ("sensitivity=0.67", False),
        ("fp_per_scan=0.5", True),
        ("fp_per_scan=0.49", False),
        ("sensitivity@zone:deep=1", True),
        ("sensitivity@size:>=10 mm=0.1", False),
        ("dice_mean=0", False),  # undefined
    ],
)
def test_floors(evaluation, text, holds):
    (outcome,) = check_floors(evaluation, [parse_floor(text)])
    assert outcome.holds is holds


@pytest.mark.parametrize(
    "text", ["f1", "f1=", "=1", "f1=nan", "beauty=1", "count_bias=0", "f1@zone=1"]
)
def test_wrong_floors(text):
    with pytest.raises(UsageError, match="floor"):
        parse_floor(text)


def test_floor_of_a_group_that_is_not_there(evaluation):
    with pytest.raises(UsageError, match="zone:deep"):
        check_floors(evaluation, [parse_floor("f1@zone:moon=1")])
