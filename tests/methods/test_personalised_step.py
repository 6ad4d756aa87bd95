"""The server's personalised step on hand-sized updates: one expert of two numbers, two or three clients."""

import numpy as np
from quadratic import locked

from pfmsmt.methods import Upload
from pfmsmt.methods.personalised_step import PersonalisedStep
from pfmsmt.methods.server_optimizer import ServerOptimizer
from pfmsmt.types import Role, Slot

NAME = "expert/0/w"
TEMPLATE = {NAME: Slot(Role.EXPERT, "expert/0")}
START = {NAME: np.array([1.0, 1.0])}
PLAIN = ServerOptimizer("plain", 1.0, 0.0, 0.0)


def step_of(*, conflict=0.0, aggregation="similarity", temperature=0.5, smoothing=0.7, coupling=0.5, optimizer=PLAIN):
    return PersonalisedStep(TEMPLATE, conflict, aggregation, temperature, smoothing, coupling, optimizer)


def uploads(server, updates, examples=None):
    return {
        k: Upload(locked({NAME: server["clients"][k][NAME] + np.array(d)}), (examples or {}).get(k, 1), 0.0)
        for k, d in updates.items()
    }


def clients_of(update):
    return {k: part[NAME] for k, part in update.server["clients"].items()}


RIGHT_UP = {"A": [1.0, 0.0], "B": [0.0, 1.0]}


def test_identity_without_coupling_keeps_the_own_update():
    step = step_of(aggregation="identity", coupling=0.0)
    server = step.start(START, ("A", "B"))
    update = step(server, uploads(server, RIGHT_UP))
    np.testing.assert_array_equal(clients_of(update)["A"], [2, 1])
    np.testing.assert_array_equal(clients_of(update)["B"], [1, 2])
    np.testing.assert_array_equal(update.server["global"][NAME], [1.5, 1.5])


def test_coupling_one_gives_all_the_coordinated_global_part():
    """Orthogonal unit updates, equal shares: g = mean = (1/2, 1/2) by symmetry, whatever c is."""
    for conflict in (0.0, 0.4):
        step = step_of(conflict=conflict, coupling=1.0)
        server = step.start(START, ("A", "B"))
        update = step(server, uploads(server, RIGHT_UP))
        for theta in (*clients_of(update).values(), update.server["global"][NAME]):
            np.testing.assert_allclose(theta, [1.5, 1.5], rtol=0, atol=1e-7)


def test_uniform_weighs_by_examples():
    step = step_of(aggregation="uniform", coupling=0.0)
    server = step.start(START, ("A", "B"))
    update = step(server, uploads(server, RIGHT_UP, {"A": 3, "B": 1}))
    for theta in clients_of(update).values():
        np.testing.assert_allclose(theta, [1.75, 1.25], rtol=0, atol=1e-15)
    np.testing.assert_allclose(update.diagnostics["expert/0"]["listening"], [[0.75, 0.25]] * 2, rtol=0, atol=1e-15)


def test_half_coupling_lies_between():
    step = step_of(aggregation="identity", coupling=0.5)
    server = step.start(START, ("A", "B"))
    theta = clients_of(step(server, uploads(server, RIGHT_UP)))
    np.testing.assert_allclose(theta["A"], [1.75, 1.25], rtol=0, atol=1e-15)
    np.testing.assert_allclose(theta["B"], [1.25, 1.75], rtol=0, atol=1e-15)


def test_similarity_mixes_parameters_by_softmax_of_cosines():
    """Orthogonal updates: cosines [[1, 0], [0, 1]]; A_AA = e^(1/0.5) / (e^2 + 1)."""
    step = step_of(coupling=0.0)
    server = step.start(START, ("A", "B"))
    update = step(server, uploads(server, RIGHT_UP))
    own = np.exp(2) / (np.exp(2) + 1)
    listening = update.diagnostics["expert/0"]["listening"]
    np.testing.assert_allclose(listening, [[own, 1 - own], [1 - own, own]], rtol=1e-14)
    np.testing.assert_allclose(clients_of(update)["A"], [1 + own, 2 - own], rtol=1e-14)
    assert update.metrics == {"expert_solver_fallbacks": 0.0}


def test_cosines_coefficients_and_drift_are_reported_with_nan_for_absentees():
    """cos((1, 0), (-3, 4)) = -3/5; c = 0: coefficients are the shares 1/4, 3/4; G = (1, 1) + (-2, 3) = (-1, 4).
    Kept to themselves, A = (2, 1) and C = (-2, 5) are |(3, -3)| and |(-1, 1)| away from it; |G| is sqrt(17)."""
    step = step_of(aggregation="identity", coupling=0.0)
    server = step.start(START, ("A", "B", "C"))
    update = step(server, uploads(server, {"A": [1.0, 0.0], "C": [-3.0, 4.0]}, {"A": 1, "C": 3}))
    found, nan = update.diagnostics["expert/0"], np.nan
    assert set(found) == {"listening", "cosine", "coefficients", "drift"}
    np.testing.assert_array_equal(found["listening"], np.eye(3))
    np.testing.assert_allclose(found["cosine"], [[1, nan, -0.6], [nan, nan, nan], [-0.6, nan, 1]], rtol=1e-15)
    np.testing.assert_array_equal(found["coefficients"], [0.25, nan, 0.75])
    np.testing.assert_allclose(found["drift"] * np.sqrt(17), [np.sqrt(18), nan, np.sqrt(2)], rtol=1e-15)


def test_drift_from_nothing_is_undefined():
    """G = (1, 1) + (-1, -1) = 0 has no length to compare with."""
    step = step_of(aggregation="identity", coupling=0.0)
    server = step.start(START, ("A", "B"))
    update = step(server, uploads(server, {"A": [-2.0, 0.0], "B": [0.0, -2.0]}))
    assert np.isnan(update.diagnostics["expert/0"]["drift"]).all()


def test_similarity_is_smoothed_over_rounds_from_a_pairs_first_sight():
    """Round 1: A, B opposed (-1). Round 2: A, B alike (+1) and C first seen, orthogonal to both.
    Then s_AB = 0.7 * -1 + 0.3 * 1 = -0.4, s_AC = 0 taken whole. Round 3: all alike: s_AB = 0.02, s_AC = 0.3."""
    step = step_of(coupling=0.0, temperature=1.0)
    server = step.start(START, ("A", "B", "C"))
    server = step(server, uploads(server, {"A": [1.0, 0.0], "B": [-1.0, 0.0]})).server
    second = step(server, uploads(server, {"A": [1.0, 0.0], "B": [2.0, 0.0], "C": [0.0, 1.0]}))
    third = step(second.server, uploads(second.server, {"A": [1.0, 0.0], "B": [1.0, 0.0], "C": [3.0, 0.0]}))
    for update, similarities in ((second, [1.0, -0.4, 0.0]), (third, [1.0, 0.02, 0.3])):
        row = np.exp(similarities)
        np.testing.assert_allclose(update.diagnostics["expert/0"]["listening"][0], row / row.sum(), rtol=1e-12)
    np.testing.assert_allclose(
        third.server["similarity"]["expert/0"]["matrix"], [[1, 0.02, 0.3], [0.02, 1, 0.3], [0.3, 0.3, 1]], atol=1e-15
    )


def test_groups_are_independent():
    """Two experts: what happens to one does not depend on the other's updates."""
    template = {**TEMPLATE, "expert/1/w": Slot(Role.EXPERT, "expert/1")}
    step = step_of(conflict=0.4)._replace(template=template)
    start = {**START, "expert/1/w": np.zeros(2)}
    rng = np.random.default_rng(0)
    common = {k: rng.normal(size=2) for k in "ABC"}
    moved = []
    for _ in range(2):
        server = step.start(start, tuple("ABC"))
        sent = {k: Upload({NAME: start[NAME] + common[k], "expert/1/w": rng.normal(size=2)}, 1, 0.0) for k in "ABC"}
        moved.append(np.stack(list(clients_of(step(server, sent)).values())))
    np.testing.assert_array_equal(moved[0], moved[1])


def test_adam_moments_are_each_clients_own():
    """Adam's first step is rate * sign(update), for every client and for the global part."""
    step = step_of(aggregation="identity", coupling=0.0, optimizer=ServerOptimizer("adam", 0.1, 0.9, 0.99))
    server = step.start(START, ("A", "B"))
    update = step(server, uploads(server, {"A": [5.0, -1.0], "B": [-0.1, -9.0]}))
    np.testing.assert_allclose(clients_of(update)["A"], [1.1, 0.9], rtol=0, atol=1e-7)
    np.testing.assert_allclose(clients_of(update)["B"], [0.9, 0.9], rtol=0, atol=1e-7)
    np.testing.assert_allclose(update.server["global"][NAME], [1.1, 0.9], rtol=0, atol=1e-7)
    counts = [int(update.server["client_optimizer"][k]["expert/0"]["steps"]["count"]) for k in "AB"]
    assert counts == [1, 1]
