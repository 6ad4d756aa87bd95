"""Conflict coordination against hand-computed updates, and against direct maximisation of its own definition."""

import numpy as np
import pytest
from scipy.optimize import minimize

from pfmsmt.methods.coordination import DUALITY_TOLERANCE, conflict_averse, coordinate, minimise_dual, optimality_gap


def common(updates, shares, radius):
    """Return g before the scaling by 1 / (1 + c)."""
    updates = np.asarray(updates, dtype=float)
    found = conflict_averse(updates @ updates.T, np.asarray(shares, dtype=float), radius)
    assert found.converged
    return (1 + radius) * (found.coefficients @ updates)


def worst(updates, g):
    return float((np.asarray(updates) @ g).min())


def test_two_orthogonal_clients_of_equal_weight_give_a_longer_mean():
    """D = (1, 0), (0, 1): by symmetry D_w = m, so g = (1 + c) m, and the mean itself after scaling."""
    np.testing.assert_allclose(common(np.eye(2), [0.5, 0.5], 0.4), [0.7, 0.7], rtol=0, atol=1e-6)


def test_two_orthogonal_clients_of_unequal_weight_turn_to_the_weaker():
    """m = (0.8, 0.2), c = 0.5: min(g_1, g_2) = g_2 as long as g_2 < g_1, so g moves straight up by c |m|:
    g = (0.8, 0.2 + 0.5 sqrt 0.68), if that is still below the diagonal: 0.612 < 0.8."""
    expected = [0.8, 0.2 + 0.5 * np.sqrt(0.68)]
    np.testing.assert_allclose(common(np.eye(2), [0.8, 0.2], 0.5), expected, rtol=0, atol=1e-5)


def test_two_opposed_clients_shrink_the_step():
    """D = 1, -0.5; m = 0.25; g in [0.25 (1 - c), 0.25 (1 + c)]; the worst is -0.5 g: take the smallest."""
    np.testing.assert_allclose(common([[1.0], [-0.5]], [0.5, 0.5], 0.4), [0.15], rtol=0, atol=1e-7)


def test_exactly_opposed_clients_have_no_common_direction():
    found = conflict_averse(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([0.5, 0.5]), 0.4)
    np.testing.assert_array_equal(found.coefficients @ [1.0, -1.0], 0.0)


def test_three_clients_with_one_against_two():
    """D = (1, 0), (1, 0), (-1, 1), equal shares: m = (1/3, 1/3), |m| = sqrt 2 / 3. With c = 0.5 the worst is
    min(g_1, g_2 - g_1). At the mean it is 0 (client 3), whose value grows fastest along (-1, 1):
    the two meet at g_2 = 2 g_1; along m + s (-1, 1): 1/3 + s = 2/3 - 2 s, s = 1/9, |s (-1, 1)| = 0.157 < c |m| = 0.236.
    So both bind, and g = lam (1, 2) with |g - m| = c |m|: 5 lam^2 - 2 lam + 2/9 (1 - c^2) = 0, larger root."""
    lam = (2 + np.sqrt(4 - 20 * (2 / 9) * 0.75)) / 10
    g = common([[1, 0], [1, 0], [-1, 1]], [1 / 3] * 3, 0.5)
    np.testing.assert_allclose(g, [lam, 2 * lam], rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_no_direction_of_a_fine_fan_in_the_disc_does_better(seed):
    """Two dimensions, brute force: 20,000 points of the disc around the mean."""
    rng = np.random.default_rng(seed)
    updates, shares = rng.normal(size=(2 + seed % 3, 2)), rng.dirichlet(np.ones(2 + seed % 3))
    radius = (0.1, 0.4, 0.9)[seed % 3]
    mean = shares @ updates
    angle, length = np.meshgrid(np.linspace(0, 2 * np.pi, 400), np.linspace(0, 1, 50))
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(-1, 2)
    points = mean + radius * np.linalg.norm(mean) * length.reshape(-1, 1) * circle
    best = (points @ updates.T).min(axis=1).max()
    g = common(updates, shares, radius)
    assert np.linalg.norm(g - mean) <= radius * np.linalg.norm(mean) * (1 + 1e-9)
    assert worst(updates, g) >= best - 1e-5


@pytest.mark.parametrize("seed", range(12))
def test_value_is_that_of_the_dual_on_a_grid_over_the_simplex(seed):
    """Strong duality: max_g min_s <D_s, g> = min_w <D_w, m> + c |m| |D_w|; three clients, a grid of 20,301 weights."""
    rng = np.random.default_rng(100 + seed)
    updates, shares, radius = rng.normal(size=(3, 6)) + rng.normal(size=6), rng.dirichlet(np.ones(3)), 0.4
    first, second = np.meshgrid(np.arange(201), np.arange(201))
    inside = first + second <= 200
    grid = np.stack([first[inside], second[inside], 200 - first[inside] - second[inside]], axis=1) / 200
    mean = shares @ updates
    mixed = grid @ updates
    dual = (mixed @ mean + radius * np.linalg.norm(mean) * np.linalg.norm(mixed, axis=1)).min()
    reached = worst(updates, common(updates, shares, radius))
    assert reached <= dual + 1e-9
    assert reached >= dual - 2e-2 * abs(dual) - 2e-3


@pytest.mark.parametrize("seed", range(6))
def test_direct_maximisation_in_many_dimensions_finds_nothing_better(seed):
    """max t subject to <D_s, g> >= t and |g - m| <= c |m|, over g itself instead of the dual."""
    rng = np.random.default_rng(200 + seed)
    clients = 3 + seed % 3
    updates, shares, radius = rng.normal(size=(clients, 8)), rng.dirichlet(np.ones(clients)), 0.6
    mean = shares @ updates
    limit = radius**2 * mean @ mean
    constraints = [
        {"type": "ineq", "fun": lambda x: updates @ x[:-1] - x[-1]},
        {"type": "ineq", "fun": lambda x: limit - (x[:-1] - mean) @ (x[:-1] - mean)},
    ]
    start = np.append(mean, (updates @ mean).min())
    direct = minimize(lambda x: -x[-1], start, method="SLSQP", constraints=constraints, options={"maxiter": 500})
    assert direct.success
    assert worst(updates, common(updates, shares, radius)) == pytest.approx(direct.x[-1], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("radius", [0.0, 0.4, 0.99])
def test_identical_clients_get_their_own_update(radius):
    own = np.array([0.3, -2.0, 1.7])
    found = conflict_averse(np.full((3, 3), own @ own), np.array([0.5, 0.3, 0.2]), radius)
    np.testing.assert_allclose(found.coefficients @ np.tile(own, (3, 1)), own, rtol=1e-14)


def test_radius_zero_and_a_single_client_give_the_mean():
    gram, shares = np.array([[1.0, -0.5], [-0.5, 2.0]]), np.array([0.3, 0.7])
    np.testing.assert_array_equal(conflict_averse(gram, shares, 0.0).coefficients, shares)
    np.testing.assert_array_equal(conflict_averse(np.array([[3.0]]), np.ones(1), 0.4).coefficients, [1.0])
    np.testing.assert_array_equal(conflict_averse(np.zeros((2, 2)), shares, 0.4).coefficients, shares)


@pytest.mark.parametrize("radius", [0.0, 0.4])
@pytest.mark.parametrize(
    "updates", [np.eye(2), np.array([[1.0, 0.0], [-0.5, 1.0]]), np.array([[1.0, 2.0]]), np.array([[1.0], [1.0]])]
)
def test_a_scale_divides_the_common_update(updates, radius):
    """FedHCA2 has 1 + c^2 in place of 1 + c: whoever moves alike, or alone, gets more than its own update."""
    weights = np.full(len(updates), 1 / len(updates))
    other = conflict_averse(updates @ updates.T, weights, radius, scale=1 + radius**2)
    expected = common(updates, weights, radius) / (1 + radius**2)
    np.testing.assert_allclose(other.coefficients @ updates, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e6])
def test_coefficients_do_not_depend_on_the_scale_of_updates(scale):
    updates, shares = np.random.default_rng(0).normal(size=(4, 9)), np.array([0.4, 0.3, 0.2, 0.1])
    gram = updates @ updates.T
    expected = conflict_averse(gram, shares, 0.4).coefficients
    np.testing.assert_allclose(
        conflict_averse(scale**2 * gram, shares, 0.4).coefficients, expected, rtol=1e-4, atol=1e-5
    )


def test_updates_of_very_different_length_still_converge():
    rng = np.random.default_rng(0)
    for _ in range(50):
        updates = rng.normal(size=(4, 30)) * 10.0 ** rng.uniform(-1, 1, size=(4, 1))
        assert conflict_averse(updates @ updates.T, np.full(4, 0.25), 0.4).converged


@pytest.mark.parametrize("radius", [-0.1, 1.0, 2.0, float("nan")])
def test_radius_out_of_range(radius):
    with pytest.raises(ValueError, match=r"outside \[0, 1\)"):
        conflict_averse(np.eye(2), np.array([0.5, 0.5]), radius)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"products has shape \(2, 2\), expected \(3, 3\)"):
        conflict_averse(np.eye(2), np.full(3, 1 / 3), 0.4)
    with pytest.raises(ValueError, match=r"gram has shape \(2, 2\), expected \(3, 3\)"):
        conflict_averse(np.eye(3), np.full(3, 1 / 3), 0.4, np.eye(2))


def test_next_to_exact_opposition_the_step_shrinks_towards_the_weaker():
    """D = 1 and -(1 - e), e = 1e-5: m = e / 2 and g in m (1 -+ c); the worst is the second's: g = m (1 - c)."""
    updates, opposed = np.array([[1.0], [-(1 - 1e-5)]]), 1e-5
    assert common(updates, [0.5, 0.5], 0.4)[0] == pytest.approx(opposed / 2 * 0.6, rel=1e-4)


def test_a_client_that_stands_still_turns_nobody():
    """D = (1, 0), (0, 1), 0: whatever g, the third gains nothing, so the worst-off gains 0 with any g that harms none,
    and the mean is one of those."""
    updates, shares = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(common(updates, shares, 0.4), [0.5, 0.3], rtol=0, atol=1e-9)


def test_opposed_updates_that_cancel_leave_the_mean_and_say_so():
    """D = (1, 0), (-1, 0), (0, 1), m = (0.1, 0.3): (0, y) costs nobody anything, m costs the second 0.1."""
    updates, shares = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), np.array([0.4, 0.3, 0.3])
    found = conflict_averse(updates @ updates.T, shares, 0.4)
    assert not found.converged
    np.testing.assert_array_equal(found.coefficients, shares)


def test_products_that_are_not_numbers_leave_the_mean_and_say_so():
    products = np.array([[1.0, np.nan], [np.nan, 1.0]])
    found = conflict_averse(products, np.array([0.3, 0.7]), 0.4)
    assert not found.converged
    np.testing.assert_array_equal(found.coefficients, [0.3, 0.7])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("clients", [2, 5, 16, 40])
def test_weights_are_optimal_by_their_gap_on_hard_products(clients, seed):
    """Lengths over six decades, fewer dimensions than clients, the same direction many times, none at all; the gap
    bounds the distance to the optimum by convexity alone. A general solver's best is not below."""
    rng = np.random.default_rng(400 + seed)
    updates = rng.normal(size=(clients, 3 + 20 * (seed % 2))) * 10.0 ** rng.uniform(-3, 3, size=(clients, 1))
    if seed % 4 == 1:
        updates[: clients // 2] = updates[0]
    if seed % 4 == 2:
        updates[-1] = 0.0
    shares, radius = rng.dirichlet(np.ones(clients)), (0.05, 0.4, 0.95)[seed % 3]
    products = updates @ updates.T
    products /= shares @ products @ shares
    weights = minimise_dual(products, shares, radius)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, rel=1e-12)

    def value(w):
        return w @ products @ shares + radius * np.sqrt(max(w @ products @ w, 0.0))

    if np.sqrt(max(weights @ products @ weights, 0.0)) > DUALITY_TOLERANCE:
        assert optimality_gap(products, shares, radius, weights) <= DUALITY_TOLERANCE * (1 + radius)
    on_simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    other = minimize(value, shares, bounds=[(0, 1)] * clients, constraints=on_simplex, method="SLSQP").x.clip(0)
    slack = 1e-6 * max(1.0, np.abs(products @ shares).max())
    assert value(weights) <= value(other / other.sum()) + slack


def test_the_gap_tells_weights_that_are_not_optimal():
    """G = 1, p = (0.8, 0.2) scaled to |m| = 1, c = 0.5: at w = p the slopes are b (1 + c), so the gap is
    1.5 (b' p - min b) = 1.5 (1 - 0.2 / 0.68), relative to the steepest slope 1.5 * 0.8 / 0.68."""
    products, shares = np.eye(2) / 0.68, np.array([0.8, 0.2])
    gap = optimality_gap(products, shares, 0.5, shares)
    assert gap == pytest.approx((1 - 0.2 / 0.68) / (0.8 / 0.68), rel=1e-12)


def test_coordination_of_directions_that_are_all_known_is_that_of_their_products():
    updates, shares = np.random.default_rng(3).normal(size=(4, 6)) + 0.5, np.array([0.4, 0.3, 0.2, 0.1])
    gram = updates @ updates.T
    expected = conflict_averse(gram, shares, 0.4).coefficients
    assert not np.allclose(expected, shares, atol=1e-2)
    np.testing.assert_allclose(coordinate(gram, gram, shares, 0.4).coefficients, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("radius", [0.4, 0.8])
def test_the_radius_holds_for_the_updates_whatever_their_directions_are_thought_to_be(seed, radius):
    """Directions from elsewhere, some nearly opposed: (1 + c) g stays within c |m| of the mean of the updates."""
    rng = np.random.default_rng(300 + seed)
    clients = 2 + seed % 4
    updates, directions = rng.normal(size=(clients, 50)), rng.normal(size=(clients, 2)) * 10.0 ** rng.uniform(-3, 3)
    shares = rng.dirichlet(np.ones(clients))
    found = coordinate(directions @ directions.T, updates @ updates.T, shares, radius)
    mean, turned = shares @ updates, (1 + radius) * found.coefficients @ updates
    away = np.linalg.norm(turned - mean) / np.linalg.norm(mean)
    if found.converged:
        assert away <= radius * (1 + 1e-9)
    else:
        np.testing.assert_array_equal(found.coefficients, shares)


def test_who_shows_no_direction_has_its_share_of_the_mean_and_nobody_turns_for_it():
    """The first and third, with shares 1/4 and 3/4 between them, are coordinated; the second keeps its 3/5."""
    signal = np.array([[1.0, 9.0, -0.2], [9.0, 0.0, 9.0], [-0.2, 9.0, 2.0]])
    gram = np.array([[3.0, 0.1, -0.2], [0.1, 5.0, 0.3], [-0.2, 0.3, 4.0]])
    found = coordinate(signal, gram, np.array([0.1, 0.6, 0.3]), 0.4)
    pair = np.ix_([0, 2], [0, 2])
    coordinated = conflict_averse(signal[pair], np.array([0.25, 0.75]), 0.4, gram[pair])
    np.testing.assert_allclose(found.coefficients[[0, 2]], 0.4 * coordinated.coefficients, rtol=0, atol=1e-6)
    assert found.coefficients[1] == 0.6
    assert found.converged


@pytest.mark.parametrize("signal", [np.zeros((3, 3)), np.diag([-1.0, 2.0, -3.0]), -np.ones((3, 3))])
def test_with_less_than_two_directions_the_mean_is_left(signal):
    shares = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(coordinate(signal, np.eye(3), shares, 0.4).coefficients, shares, rtol=1e-15)


def test_products_that_no_vectors_can_have_give_way_to_the_nearest():
    """[[1, 2], [2, 1]] has eigenvalues 3 and -1; without the second all products are 3/2: two identical clients."""
    shares = np.array([0.3, 0.7])
    found = coordinate(np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones((2, 2)), shares, 0.4)
    vector = np.array([1.0, 1.0])  # either client's update
    assert found.converged
    assert found.coefficients @ vector == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("radius", [-0.1, 1.0])
def test_radius_out_of_range_for_directions(radius):
    with pytest.raises(ValueError, match=r"outside \[0, 1\)"):
        coordinate(np.zeros((2, 2)), np.eye(2), np.array([0.5, 0.5]), radius)
