"""Where updates point over rounds, on hand-sized updates of two numbers: what is remembered, and its inner products."""

import numpy as np
import pytest

from pfmsmt.methods.directions import Directions
from tests.support.quadratic import locked

HALF = Directions(0.5)


def remember(directions, memory, places, updates):
    """The memory after a round of one vector a client; the old one is read-only."""
    return directions.update(locked(memory), places, np.array(updates, np.float64)[:, None])


def begin(directions, clients=3):
    return directions.start(clients, np.ones((clients, 1, 2)))


def test_nothing_is_known_after_one_round():
    memory = remember(HALF, begin(HALF), [0, 1, 2], [[4, 0], [0, 4], [4, 4]])
    np.testing.assert_array_equal(memory["odd"][:, 0], [[2, 0], [0, 2], [2, 2]])
    np.testing.assert_array_equal(memory["even"], np.zeros((3, 1, 2)))
    np.testing.assert_array_equal(HALF.compare(memory, [0, 1, 2]).signal, np.zeros((3, 3)))
    np.testing.assert_array_equal(HALF.compare(memory, [0, 1, 2]).cosines, np.zeros((3, 3)))


def test_odd_rounds_meet_even_ones_of_the_same_client_and_of_others():
    """Smoothing 1/2. Clients A, B, C; C misses round 2, what is known of it stays, and round 3 is its second.

    round 1   A (4, 0)   B (0, 4)    C (4, 4)     a: A (4, 0)     B (0, 4)     C (4, 4)
    round 2   A (2, 2)   B (0, 4)                 b: A (2, 2)     B (0, 4)
              N_AA = 8   N_BB = 16   N_AB = (<(4, 0), (0, 4)> + <(0, 4), (2, 2)>) / 2 = 4
              C_AA = 1 / sqrt 2   C_BB = 1   C_AB = (0 + 1 / sqrt 2) / 2; C's even rounds tell nothing yet
    round 3   A (2, 0)   B (2, -2)   C (-2, 4)    a: A (2, 0) / 0.75    B (1, 0) / 0.75    b: C (-2, 4)
              N_AA = 16/3   N_CC = 8   N_AC = (<(8/3, 0), (-2, 4)> + <(4, 4), (2, 2)>) / 2 = 16/3
              N_AB = (<(8/3, 0), (0, 4)> + <(4/3, 0), (2, 2)>) / 2 = 4/3
              N_BC = (<(4/3, 0), (-2, 4)> + <(4, 4), (0, 4)>) / 2 = 20/3
              N_BB = <(4/3, 0), (0, 4)> = 0: B shows no direction any more
    """
    memory = remember(HALF, begin(HALF), [0, 1, 2], [[4, 0], [0, 4], [4, 4]])
    memory = remember(HALF, memory, [0, 1], [[2, 2], [0, 4]])
    np.testing.assert_array_equal(memory["odd"][:, 0], [[2, 0], [0, 2], [2, 2]])
    np.testing.assert_array_equal(memory["even"][:, 0], [[1, 1], [0, 2], [0, 0]])
    np.testing.assert_array_equal(memory["rounds"], [2, 2, 1])
    np.testing.assert_array_equal(HALF.compare(memory, [0, 1]).signal, [[8, 4], [4, 16]])
    r = np.sqrt(0.5)
    np.testing.assert_allclose(
        HALF.compare(memory, [0, 1, 2]).cosines, [[r, r / 2, 0], [r / 2, 1, 0], [0, 0, 0]], rtol=0, atol=1e-15
    )

    memory = remember(HALF, memory, [0, 1, 2], [[2, 0], [2, -2], [-2, 4]])
    np.testing.assert_array_equal(memory["odd"][:, 0], [[2, 0], [1, 0], [2, 2]])
    np.testing.assert_array_equal(memory["even"][:, 0], [[1, 1], [0, 2], [-1, 2]])
    np.testing.assert_array_equal(memory["rounds"], [3, 3, 2])
    signal = HALF.compare(memory, [0, 1, 2]).signal
    expected = np.array([[16, 4, 16], [4, 0, 20], [16, 20, 24]]) / 3
    np.testing.assert_allclose(signal, expected, rtol=1e-15)


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("rounds", [2, 3, 4, 7])
def test_steady_updates_have_their_own_inner_products_however_long_a_client_is_here(smoothing, rounds):
    """B joins two rounds late; 3-4-5: <A, A> = 9, <A, B> = 9, <B, B> = 25."""
    directions = Directions(smoothing)
    memory = begin(directions, 2)
    for _ in range(2):
        memory = remember(directions, memory, [0], [[3, 0]])
    for _ in range(rounds):
        memory = remember(directions, memory, [0, 1], [[3, 0], [3, 4]])
    np.testing.assert_allclose(directions.compare(memory, [0, 1]).signal, [[9, 9], [9, 25]], rtol=1e-12)
    np.testing.assert_allclose(directions.compare(memory, [0, 1]).cosines, [[1, 0.6], [0.6, 1]], rtol=1e-12)


def test_going_to_and_fro_is_no_direction():
    memory = begin(HALF, 2)
    for sign in (1, -1):
        memory = remember(HALF, memory, [0, 1], [[sign, 0], [0, 1]])
    np.testing.assert_array_equal(HALF.compare(memory, [0, 1]).signal, [[-1, 0], [0, 1]])
    np.testing.assert_array_equal(HALF.compare(memory, [0, 1]).cosines, [[-1, 0], [0, 1]])


def test_noise_that_is_drawn_anew_meets_nobody_else_nor_itself():
    """Two clients with the direction e_1 and e_1 + e_2, 4,000 numbers, noise 50 times as long: the true products come
    out, where those of single updates are 2,500 on the diagonal. Means of half of 2,000 rounds: a deviation of
    sd(noise)^2 sqrt(4000) / 1000 = 0.04 in each of the halves' products.

    Weights (1 - b) b^k of 1,000 rounds, b = 0.999, leave of the noise's 2,500 the share v = sum of squared weights /
    (sum of weights)^2. The cosines are the true ones, 1 and 1/sqrt 2, shrunk by sqrt(r_s r_j), where
    r = d^2 / (d^2 + 2500 v) and the directions' squared lengths d^2 are 1 and 2."""
    rng, directions = np.random.default_rng(0), Directions(0.999)
    truth = np.zeros((2, 4000))
    truth[:, 0], truth[1, 1] = 1, 1
    memory = directions.start(2, truth[:, None])
    for _ in range(2000):
        noise = rng.normal(scale=50 / np.sqrt(4000), size=truth.shape)
        memory = directions.update(memory, [0, 1], (truth + noise)[:, None])
    np.testing.assert_allclose(directions.compare(memory, [0, 1]).signal, [[1, 1], [1, 2]], rtol=0, atol=0.25)
    weights = 0.999 ** np.arange(1000)
    left = 2500 * (weights**2).sum() / weights.sum() ** 2
    known = np.array([1, 2]) / (np.array([1, 2]) + left)
    expected = np.sqrt(np.outer(known, known)) * [[1, np.sqrt(0.5)], [np.sqrt(0.5), 1]]
    np.testing.assert_allclose(directions.compare(memory, [0, 1]).cosines, expected, rtol=0, atol=0.05)


def test_pure_noise_is_like_nobody_not_even_itself():
    """4,000 numbers: cosines of independent vectors have a deviation of 1/sqrt(4000) = 0.016, whatever their length."""
    rng, directions = np.random.default_rng(0), Directions(0.9)
    memory = directions.start(3, np.zeros((3, 1, 4000)))
    for _ in range(41):
        memory = directions.update(memory, [0, 1, 2], rng.normal(size=(3, 1, 4000)) * [[[1]], [[10]], [[0.1]]])
    assert np.abs(directions.compare(memory, [0, 1, 2]).cosines).max() < 0.06


def test_cosines_are_of_the_means_of_a_clients_vectors():
    """Two tasks a client: the cosines of half the sums of each client's vectors."""
    rng = np.random.default_rng(0)
    rounds = rng.normal(size=(4, 3, 2, 5))
    apart, together = HALF.start(3, rounds[0]), HALF.start(3, rounds[0].mean(axis=1, keepdims=True))
    for vectors in rounds:
        apart = HALF.update(apart, [0, 1, 2], vectors)
        together = HALF.update(together, [0, 1, 2], vectors.mean(axis=1, keepdims=True))
    assert HALF.compare(apart, [0, 2]).signal.shape == (4, 4)
    np.testing.assert_allclose(HALF.compare(apart, [0, 2]).cosines, HALF.compare(together, [0, 2]).cosines, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_keeps_the_precision_of_the_parameters_and_products_are_double(dtype):
    vectors = np.random.default_rng(0).normal(size=(3, 1, 2)).astype(dtype)
    start = HALF.start(3, vectors)
    memory = HALF.update(start, [0, 1, 2], vectors)
    assert {name: array.dtype for name, array in memory.items()} == {n: array.dtype for n, array in start.items()}
    assert memory["odd"].dtype == dtype
    assert HALF.compare(memory, [0, 1, 2]).signal.dtype == HALF.compare(memory, [0, 1, 2]).cosines.dtype == np.float64
