"""The cut by group and by place, vocabularies and moments, against plain computations."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfmsmt.data.split import in_last_part, in_validation
from pfmsmt.data.statistics import CategoryCounts, Moments

WORD = 2**64


def splitmix64(state):
    """The published reference, in Python integers."""
    state = (state + 0x9E3779B97F4A7C15) % WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % WORD
    return state ^ (state >> 31)


@given(group=st.integers(-(2**63), 2**63 - 1), seed=st.integers(0, 2**31 - 1), fraction=st.floats(0.01, 0.99))
def test_a_search_falls_by_its_hash(group, seed, fraction):
    uniform = (splitmix64((group % WORD) ^ splitmix64(seed)) >> 11) / 2**53
    assert in_validation(np.asarray([group]), fraction, seed).tolist() == [uniform < fraction]


def test_splitmix64_reference_value():
    """First output of SplitMix64 from state 0, as published with the algorithm."""
    assert splitmix64(0) == 0xE220A8397B1DCDAF


def test_the_cut_has_the_fraction_and_depends_on_the_seed():
    searches = np.arange(100_000)
    first, second = (in_validation(searches, 0.2, seed) for seed in (0, 1))
    assert first.mean() == pytest.approx(0.2, abs=0.005)
    assert (first & second).mean() == pytest.approx(0.04, abs=0.004)


@given(rows=st.integers(1, 3000), percent=st.integers(1, 99))
def test_the_last_part_of_a_group_is_rounded_down(rows, percent):
    """By exact fractions, although 1 - 0.7 is more than 3 / 10 in floating point."""
    held_out = int(Fraction(percent, 100) * rows)
    expected = [False] * (rows - held_out) + [True] * held_out
    assert in_last_part(np.arange(rows) / rows, percent / 100).tolist() == expected


def test_the_last_part_by_hand():
    places = np.asarray([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    for fraction, rows in ((0.05, 0), (0.1, 1), (0.2, 2), (0.25, 2), (0.7, 7), (0.99, 9)):
        assert np.count_nonzero(in_last_part(places, fraction)) == rows


def test_vocabulary_is_sorted_and_counts_over_batches():
    counts = CategoryCounts()
    for batch in ([5, -1, 5], [], [9, -1, 7]):
        counts.add(np.asarray(batch, np.int64))
    assert counts.vocabulary(1) == (-1, 5, 7, 9)
    assert counts.vocabulary(2) == (-1, 5)
    assert counts.vocabulary(3) == ()


def test_moments_by_hand():
    """Column one is 1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 4; column two is 0.1 four times."""
    moments = Moments(2)
    moments.add(np.asarray([[1.0, 2.0, 3.0], [0.1, 0.1, 0.1]]))
    moments.add(np.zeros((2, 0)))
    moments.add(np.asarray([[6.0], [0.1]]))
    mean, std = moments.result()
    assert mean == pytest.approx([3.0, 0.1])
    assert std[0] == pytest.approx(np.sqrt(14 / 4))
    assert mean[1] == 0.1
    assert std[1] == 0.0


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=6), min_size=1, max_size=5))
def test_moments_do_not_depend_on_batches(batches):
    whole = np.concatenate([np.asarray(batch, np.float64) for batch in batches])
    moments = Moments(1)
    for batch in batches:
        moments.add(np.asarray([batch], np.float64).reshape(1, -1))
    if whole.size:
        mean, std = moments.result()
        assert mean[0] == pytest.approx(whole.mean(), abs=1e-6)
        assert std[0] == pytest.approx(whole.std(), abs=1e-3)
