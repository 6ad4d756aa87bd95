"""Divergence between samples of a column, and what chance alone makes of it."""

import math

import numpy as np
import pytest

from pfmsmt.data.card.drift import (
    CATEGORIES,
    CHANCE_FACTOR,
    NOTABLE,
    QUANTILES,
    Drift,
    category_bins,
    drift,
    quantile_bins,
    rebin,
)


def test_equal_shares_have_no_divergence_and_disjoint_ones_one_bit():
    assert drift(np.array([2, 6]), np.array([10, 30]), (8, 40)).divergence == pytest.approx(0, abs=1e-12)
    assert drift(np.array([5, 0, 0]), np.array([0, 3, 4]), (5, 7)).divergence == pytest.approx(1)


def test_a_divergence_by_hand():
    """p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): half of KL(p, m) + KL(q, m)."""
    expected = 0.5 * math.log2(4 / 3) + 0.5 * (0.5 * math.log2(2 / 3) + 0.5 * math.log2(2))
    found = drift(np.array([7, 0]), np.array([5, 5]), (7, 10))
    assert found.divergence == pytest.approx(expected)
    assert found.chance == pytest.approx((1 / 7 + 1 / 10) / (8 * math.log(2)))


def test_chance_is_what_samples_of_one_distribution_show():
    rng = np.random.default_rng(0)
    shares = np.arange(1, 21) / 210
    samples = [drift(rng.multinomial(2000, shares), rng.multinomial(1000, shares), (2000, 1000)) for _ in range(400)]
    assert np.mean([one.divergence for one in samples]) == pytest.approx(samples[0].chance, rel=0.1)
    assert not any(one.notable for one in samples)


def test_notable_is_neither_small_nor_chance():
    assert Drift(NOTABLE * 1.01, 0).notable
    assert not Drift(NOTABLE, 0).notable
    assert not Drift(0.5, 0.5 / CHANCE_FACTOR * 1.01).notable


def test_no_rows_do_not_drift():
    assert drift(np.array([0, 0]), np.array([1, 2]), (1, 3)) == Drift(0.0, 0.0)


def test_frequent_categories_have_bins_of_their_own():
    counts = np.arange(CATEGORIES + 30)
    bins = category_bins(counts)
    assert sorted(bins[-CATEGORIES:]) == list(range(CATEGORIES))
    assert set(bins[:-CATEGORIES]) == {CATEGORIES}
    assert rebin(counts, bins).tolist() == [*sorted(counts[-CATEGORIES:], reverse=True), sum(range(30))]
    assert sorted(category_bins(np.array([4, 0, 9]))) == [0, 1, 2]


def test_quantile_bins_hold_equally_many_rows_as_far_as_ties_allow():
    assert rebin(np.full(100, 3), quantile_bins(np.full(100, 3))).tolist() == [15] * QUANTILES
    tied = np.array([1, 97, 1, 1])
    assert len(set(quantile_bins(tied)[:2].tolist())) == 1 or quantile_bins(tied)[1] == 0
    assert quantile_bins(tied).tolist() == [0, 0, 98 * QUANTILES // 100, 99 * QUANTILES // 100]
    assert quantile_bins(np.zeros(4, np.int64)).tolist() == [0, 0, 0, 0]
