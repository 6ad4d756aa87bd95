import numpy as np
import pytest

from pfmsmt.methods.aggregation import conflict_share, progress, shares, similarity_rows


def test_shares_are_in_proportion_to_examples():
    np.testing.assert_array_equal(shares(np.array([30.0, 10.0])), [0.75, 0.25])
    for counts in ([], [1.0, 0.0], [2.0, -1.0]):
        with pytest.raises(ValueError, match="must be positive"):
            shares(np.array(counts))


def test_conflict_share_counts_opposed_pairs():
    assert conflict_share(np.array([[1, -0.1, 0.2], [-0.1, 1, 0.0], [0.2, 0.0, 1]])) == pytest.approx(1 / 3)
    assert conflict_share(np.eye(1)) == 0


def test_rows_by_hand():
    """Row 1: 1/4 e^(1/2) against 3/4 e^(0/2)."""
    rows = similarity_rows(np.eye(2), np.array([0.25, 0.75]), 2.0)
    e = np.exp(0.5)
    np.testing.assert_allclose(rows, [[e / (e + 3), 3 / (e + 3)], [1 / (1 + 3 * e), 3 * e / (1 + 3 * e)]], rtol=1e-14)


def test_temperature_goes_from_the_identity_to_fedavg():
    similarity = np.array([[1.0, 0.3, -0.5], [0.3, 1.0, 0.9], [-0.5, 0.9, 1.0]])
    weights = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(similarity_rows(similarity, weights, 1e9), np.tile(weights, (3, 1)), rtol=1e-8)
    np.testing.assert_allclose(similarity_rows(similarity, weights, 1e-3), np.eye(3), rtol=0, atol=1e-12)
    for temperature in (1e-300, 0.1, 1.0, 1e300):
        np.testing.assert_allclose(similarity_rows(similarity, weights, temperature).sum(axis=1), 1, rtol=1e-14)
    for temperature in (0.0, -1.0):
        with pytest.raises(ValueError, match="not positive"):
            similarity_rows(similarity, weights, temperature)


STARTS = np.array([[0.0, 0.0], [2.0, 1.0], [0.0, 2.0]])
STEPS = np.array([[0.0, 3.0], [-2.0, -2.0], [5.0, 0.0]])
BEFORE = np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
PROGRESS = np.array([[0, np.sqrt(0.5), 1], [1, -np.sqrt(0.5), 1 / np.sqrt(10)], [np.sqrt(0.2), 1, 0]])
"""Client 1 steps to (0, 3), the uploads lie at (1, 0), (2, 2), (0, 2): cosines 0, 1/sqrt 2, 1.
Client 2 steps to (-2, -2), they lie at (-1, -1), (0, 1), (-2, 1): 1, -1/sqrt 2, 2 / (sqrt 8 sqrt 5).
Client 3 steps to (5, 0), they lie at (1, -2), (2, 0), and where it stands: 1/sqrt 5, 1, 0."""


def test_progress_by_hand():
    np.testing.assert_allclose(progress(STEPS, STARTS, BEFORE), PROGRESS, rtol=0, atol=1e-14)


def test_progress_does_not_depend_on_lengths():
    scaled = progress(STEPS * [[1e-6], [1e6], [3.0]], STARTS * 1e-3, BEFORE * 1e-3)
    np.testing.assert_allclose(scaled, PROGRESS, rtol=0, atol=1e-14)


def test_progress_far_from_the_origin_keeps_its_digits():
    """|W|^2 = 2e12 has its last digit at 2e-4: differences of such squares would be wrong in the fourth place."""
    shift = np.array([1e6, -1e6])
    np.testing.assert_allclose(progress(STEPS, STARTS + shift, BEFORE + shift), PROGRESS, rtol=0, atol=1e-13)


def test_progress_of_nothing_or_towards_nothing_is_none():
    assert not progress(np.zeros((3, 2)), STARTS, BEFORE).any()
    assert not progress(np.ones((1, 2)), STARTS[:1], STARTS[:1]).any()
    np.testing.assert_allclose(np.diag(progress(STEPS, STARTS, STARTS)), 0, atol=1e-14)


def test_progress_straight_towards_stays_in_range():
    """Rounding must not give a cosine above 1."""
    starts = np.array([[0.1, 0.7], [0.3, -0.2]])
    found = progress(np.array([[0.1, 0.7]] * 2), starts, starts + np.array([0.3, 2.1]))
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(np.diag(found), 1, rtol=1e-14)
