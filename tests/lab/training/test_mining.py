"""Rare looks at plain candidates, weighed so that nothing changes on average."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.lab.training.mining import LEAST, FitOptions, Passes, chances, draw


@pytest.fixture
def loss():
    """Most candidates are plain, a few are not."""
    return np.exp(np.random.default_rng(5).normal(-5, 2.5, 4000)).astype(np.float32)


@pytest.mark.parametrize("share", [LEAST, 0.2, 0.55, 1.0])
def test_the_share_is_kept_within_the_bounds(loss, share):
    chance = chances(loss, share)
    assert chance.mean() == pytest.approx(share, abs=1e-6)
    assert chance.min() >= LEAST
    assert chance.max() <= 1


def test_what_surprises_more_is_looked_at_more_often(loss):
    chance = chances(loss, 0.2)
    assert (np.diff(chance[np.argsort(loss)]) >= 0).all()
    # Four times the loss, twice the chance, where no bound is met.
    assert chances(np.array([0.1, 0.4, 0.1, 0.4]), 0.45)[:2] == pytest.approx([0.3, 0.6])


def test_what_was_not_seen_counts_as_the_average():
    chance = chances(np.array([0.1, 0.3, np.nan, 0.2]), 0.4)
    assert chance[2] == pytest.approx(chance[3])
    assert chances(np.full(7, np.nan), 0.3) == pytest.approx(np.full(7, 0.3))


def test_a_share_below_the_least_chance_is_refused(loss):
    with pytest.raises(ValueError, match="share"):
        chances(loss, LEAST / 2)


def test_rows_are_drawn_as_often_as_their_chances_say(loss):
    chance = chances(loss[:50], 0.3)
    rng = np.random.default_rng(0)
    counted = np.zeros(50)
    for _ in range(4000):
        rows = draw(chance, rng)
        assert len(rows) == len(set(rows.tolist()))
        assert len(rows) in (int(chance.sum()), int(chance.sum()) + 1)
        counted[rows] += 1
    # Five standard deviations of a share of 4000 draws.
    assert np.abs(counted / 4000 - chance).max() < 5 * 0.5 / np.sqrt(4000)


def test_weighed_by_the_inverse_a_sum_is_unbiased(loss):
    chance = chances(loss, 0.2)
    rng = np.random.default_rng(1)
    sums = []
    for _ in range(400):
        rows = draw(chance, rng)
        sums.append(float((loss[rows] / chance[rows]).sum()))
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - loss.sum()) < 4 * error
    # And it varies less than if all had the same chance.
    plain = [float(rng.choice(loss, 800, replace=False).sum() * 5) for _ in range(400)]
    assert np.std(sums) < 0.5 * np.std(plain)


def test_every_pass_has_all_spots_and_counts_the_rest_alike(loss):
    spot = np.where(np.arange(len(loss)) % 8 == 0, 3, -1)
    passes = Passes(spot, FitOptions(epochs=4, whole=1, easy=0.6, surprising=0.2))
    rng = np.random.default_rng(2)
    rest = np.count_nonzero(spot < 0)
    sizes = []
    for number, most in enumerate(passes.lengths()):
        rows, counts = passes.draw(number, rng)
        assert len(set(rows.tolist())) == len(rows) <= most
        assert set(np.flatnonzero(spot >= 0)) <= set(rows.tolist())
        assert (counts[spot >= 0] == 1).all()
        own = rows[spot[rows] < 0]
        # On average the rest counts as three fifths of it; a single draw is near.
        assert counts[own].sum() == pytest.approx(0.6 * rest, rel=0.15)
        passes.loss[rows] = loss[rows]
        sizes.append(len(own))
    assert sizes == [int(0.6 * rest)] + [pytest.approx(0.2 * rest, abs=1)] * 3
