"""The server's personalised step on hand-sized updates: one expert of two numbers, two or three clients."""

import numpy as np

from pfmsmt.core import arrays
from pfmsmt.core.types import Role, Slot
from pfmsmt.methods import Upload
from pfmsmt.methods.attention import AttentionRule
from pfmsmt.methods.coordination import conflict_averse
from pfmsmt.methods.directions import Directions
from pfmsmt.methods.personalised_step import ROWS, PersonalisedStep
from pfmsmt.methods.server_optimizer import FedOpt
from tests.support.quadratic import locked

NAME = "expert/0/w"
TEMPLATE = {NAME: Slot(Role.EXPERT, "expert/0")}
START = {NAME: np.array([1.0, 1.0])}
PLAIN = FedOpt("plain", 1.0, 0.0, 0.0)


def step_of(*, conflict=0.0, aggregation="similarity", temperature=0.5, smoothing=0.7, coupling=0.5, optimizer=PLAIN):
    listening = AttentionRule(aggregation, temperature, 0.1)
    return PersonalisedStep(TEMPLATE, conflict, coupling, Directions(smoothing), listening, optimizer)


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
    """Shares 4/5 and 1/5, A (1, 0) and B (0, 1), twice; c = 0.4. Nothing is known at first: the mean (0.8, 0.2). Then
    g goes straight up from it by c |m|, as min(g_1, g_2) = g_2 (test_coordination.py), and all is divided by 1 + c."""
    step = step_of(conflict=0.4, coupling=1.0)
    server = step.start(START, ("A", "B"))
    first = step(server, uploads(server, RIGHT_UP, {"A": 4, "B": 1}))
    second = step(first.server, uploads(first.server, RIGHT_UP, {"A": 4, "B": 1}))
    mean = np.array([0.8, 0.2])
    coordinated = np.array([0.8, 0.2 + 0.4 * np.sqrt(0.68)]) / 1.4
    for update, expected in ((first, 1 + mean), (second, 1 + mean + coordinated)):
        for theta in (*clients_of(update).values(), update.server["global"][NAME]):
            np.testing.assert_allclose(theta, expected, rtol=0, atol=1e-5)


def test_next_to_opposition_the_common_part_moves_for_the_worse_off():
    """A moves by 1, B by -(1 - e), e = 1e-5, twice; c = 0.4. The mean is m = e / 2. In round 1 nobody's direction is
    known, and the common part moves by m; in round 2 by (m - c m) / (1 + c), the least that harms B."""
    step = step_of(conflict=0.4, coupling=1.0)
    server = step.start(START, ("A", "B"))
    updates, mean = {"A": [1.0, 0.0], "B": [-(1 - 1e-5), 0.0]}, 5e-6
    first = step(server, uploads(server, updates))
    second = step(first.server, uploads(first.server, updates))
    assert first.metrics == second.metrics == {"expert_solver_fallbacks": 0.0}
    expected = 1 + mean + mean * (1 - 0.4) / (1 + 0.4)
    for theta in (*clients_of(second).values(), second.server["global"][NAME]):
        np.testing.assert_allclose(theta, [expected, 1], rtol=0, atol=1e-10)


def test_where_nothing_can_be_solved_the_mean_is_taken_and_counted():
    """Squares of 1e160 are above all floats: in round 2, when directions could be told, their products are infinite."""
    step = step_of(conflict=0.4, coupling=1.0, aggregation="uniform")
    server = step.start(START, ("A", "B"))
    updates = {"A": [1e160, 0.0], "B": [0.0, 1e160]}
    with np.errstate(over="ignore", invalid="ignore"):
        first = step(server, uploads(server, updates))
        second = step(first.server, uploads(first.server, updates))
    assert first.metrics == {"expert_solver_fallbacks": 0.0}
    assert second.metrics == {"expert_solver_fallbacks": 1.0}
    for theta in (*clients_of(second).values(), second.server["global"][NAME]):
        np.testing.assert_allclose(theta, [1e160, 1e160], rtol=1e-15)


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
    """Orthogonal updates, twice the same: after one round nothing is known, half and half; then A_AA = e^2 / (e^2 + 1)
    at tau 0.5. Both hold (3/2, 3/2) then, and add their mix of (1, 0) and (0, 1)."""
    step = step_of(coupling=0.0)
    server = step.start(START, ("A", "B"))
    first = step(server, uploads(server, RIGHT_UP))
    np.testing.assert_allclose(first.diagnostics["expert/0"]["listening"], [[0.5, 0.5]] * 2, rtol=1e-13)
    np.testing.assert_allclose(list(clients_of(first).values()), [[1.5, 1.5]] * 2, rtol=1e-13)
    second = step(first.server, uploads(first.server, RIGHT_UP))
    own = np.exp(2) / (np.exp(2) + 1)
    listening = second.diagnostics["expert/0"]["listening"]
    np.testing.assert_allclose(listening, [[own, 1 - own], [1 - own, own]], rtol=1e-14)
    np.testing.assert_allclose(clients_of(second)["A"], [1.5 + own, 2.5 - own], rtol=1e-14)
    assert second.metrics == {"expert_solver_fallbacks": 0.0}


def test_rows_mix_what_was_received_and_the_updates_alike():
    """Plain, from clients that stand apart: A_AA W'_A + A_AB W'_B, W' what was uploaded."""
    step = step_of(coupling=0.0)
    server = step.start(START, ("A", "B"))
    for _ in range(3):
        sent = uploads(server, RIGHT_UP)
        update = step(server, sent)
        server = update.server
        uploaded = np.stack([upload.arrays[NAME] for upload in sent.values()])
        found = np.stack(list(clients_of(update).values()))
        np.testing.assert_allclose(found, update.diagnostics["expert/0"]["listening"] @ uploaded, rtol=1e-14)
    assert np.abs(found[0] - found[1]).max() > 0.5


def test_adam_is_given_the_mixed_updates_alone():
    """Shares 1/4, 3/4 from A (5, 1), B (1, 5): both start from (2, 4). Updates (4, 0) and (0, -4) mix to (1, -3), and
    Adam's first step is rate * sign: however far apart A and B stand. G goes the same way, from (1, 1)."""
    step = step_of(aggregation="uniform", coupling=0.0, optimizer=FedOpt("adam", 0.1, 0.9, 0.99))
    server = step.start(START, ("A", "B"))
    server["clients"] = {"A": {NAME: np.array([5.0, 1.0])}, "B": {NAME: np.array([1.0, 5.0])}}
    update = step(server, uploads(server, {"A": [4.0, 0.0], "B": [0.0, -4.0]}, {"A": 1, "B": 3}))
    np.testing.assert_allclose(list(clients_of(update).values()), [[2.1, 3.9]] * 2, rtol=0, atol=1e-8)
    np.testing.assert_allclose(update.server["global"][NAME], [1.1, 0.9], rtol=0, atol=1e-8)
    first = update.server["client_optimizer"]["expert/0"]["first"][ROWS]
    np.testing.assert_allclose(first, [[0.1, -0.3]] * 2, rtol=1e-14)


def test_cosines_coefficients_and_drift_are_reported_with_nan_for_absentees():
    """Twice (1, 0) and (-3, 4): unknown, then cos -3/5; c = 0: coefficients are the shares 1/4, 3/4;
    G = (1, 1) + 2 (-2, 3) = (-3, 7). Kept to themselves, A = (3, 1) and C = (-5, 9) are |(6, -6)| and |(-2, 2)| away
    from it; |G| is sqrt(58)."""
    step = step_of(aggregation="identity", coupling=0.0)
    server, nan = step.start(START, ("A", "B", "C")), np.nan
    for cosines in ([[0, nan, 0], [nan, nan, nan], [0, nan, 0]], [[1, nan, -0.6], [nan, nan, nan], [-0.6, nan, 1]]):
        update = step(server, uploads(server, {"A": [1.0, 0.0], "C": [-3.0, 4.0]}, {"A": 1, "C": 3}))
        server, found = update.server, update.diagnostics["expert/0"]
        np.testing.assert_allclose(found["cosine"], cosines, rtol=1e-12)
    assert set(found) == {"listening", "cosine", "coefficients", "drift"}
    np.testing.assert_array_equal(found["listening"], np.eye(3))
    np.testing.assert_array_equal(found["coefficients"], [0.25, nan, 0.75])
    np.testing.assert_allclose(found["drift"] * np.sqrt(58), [np.sqrt(72), nan, np.sqrt(8)], rtol=1e-15)


def test_drift_from_nothing_is_undefined():
    """G = (1, 1) + (-1, -1) = 0 has no length to compare with."""
    step = step_of(aggregation="identity", coupling=0.0)
    server = step.start(START, ("A", "B"))
    update = step(server, uploads(server, {"A": [-2.0, 0.0], "B": [0.0, -2.0]}))
    assert np.isnan(update.diagnostics["expert/0"]["drift"]).all()


def test_similarity_is_remembered_by_client_and_group():
    """B misses round 2, so that round 3 is its second one: its even one."""
    step = step_of(coupling=0.0, temperature=1.0)
    server = step.start(START, ("A", "B", "C"))
    for present in ("ABC", "AC", "ABC"):
        directions = {"A": [1.0, 0.0], "B": [0.0, 1.0], "C": [0.0, 1.0]}
        update = step(server, uploads(server, {k: directions[k] for k in present}))
        server = update.server
    e = np.e
    np.testing.assert_array_equal(server["directions"]["expert/0"]["rounds"], [3, 2, 3])
    # A to the right, B and C upwards: cosines 0 and 1.
    expected = np.array([[e, 1, 1], [1, e, e], [1, e, e]])
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(update.diagnostics["expert/0"]["listening"], expected, rtol=1e-13)


def test_a_group_of_several_arrays_is_one_vector():
    """cos of ((3), (4, 0)) and ((0), (4, 3)) is 16/25; each array comes back in its own shape."""
    template = {"expert/0/b": Slot(Role.EXPERT, "expert/0"), "expert/0/w": Slot(Role.EXPERT, "expert/0")}
    step = step_of(aggregation="uniform", coupling=0.0)._replace(template=template)
    start = {"expert/0/b": np.ones(1), "expert/0/w": np.zeros((2, 1))}
    server = step.start(start, ("A", "B"))
    updates = {"A": ([4.0], [[4.0], [0.0]]), "B": ([1.0], [[4.0], [3.0]])}
    sent = {k: Upload({"expert/0/w": np.array(w), "expert/0/b": np.array(b)}, 1, 0.0) for k, (b, w) in updates.items()}
    update = step(server, sent)
    for part in (*update.server["clients"].values(), update.server["global"]):
        np.testing.assert_array_equal(part["expert/0/b"], [2.5])
        np.testing.assert_array_equal(part["expert/0/w"], [[4.0], [1.5]])
    # Both hold the same now; the same updates once more.
    held = update.server["clients"]
    sent = {
        k: Upload({"expert/0/w": held[k]["expert/0/w"] + w, "expert/0/b": held[k]["expert/0/b"] + b - 1}, 1, 0.0)
        for k, (b, w) in updates.items()
    }
    again = step(update.server, sent)
    np.testing.assert_allclose(again.diagnostics["expert/0"]["cosine"], [[1, 0.64], [0.64, 1]], rtol=1e-12)


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
    step = step_of(aggregation="identity", coupling=0.0, optimizer=FedOpt("adam", 0.1, 0.9, 0.99))
    server = step.start(START, ("A", "B"))
    update = step(server, uploads(server, {"A": [5.0, -1.0], "B": [-0.1, -9.0]}))
    np.testing.assert_allclose(clients_of(update)["A"], [1.1, 0.9], rtol=0, atol=1e-7)
    np.testing.assert_allclose(clients_of(update)["B"], [0.9, 0.9], rtol=0, atol=1e-7)
    np.testing.assert_allclose(update.server["global"][NAME], [1.1, 0.9], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(update.server["client_optimizer"]["expert/0"]["steps"]["count"], [[1], [1]])


def test_adam_corrects_each_client_for_its_own_number_of_steps():
    """d in every step: m = (1 - b1^t) d and v = (1 - b2^t) d^2, corrected d and d^2: a step of rate * sign(d).
    B misses round 2. Corrected in round 3 for 3 steps instead of its 2, it would move by 0.19 / 0.271 / sqrt(6/7)."""
    step = step_of(aggregation="identity", coupling=0.0, optimizer=FedOpt("adam", 0.1, 0.9, 0.5))
    server, found = step.start(START, ("A", "B")), {"A": [1], "B": [1]}
    for present in ("AB", "A", "AB"):
        update = step(server, uploads(server, {k: [3.0, -2.0] for k in present}))
        server = update.server
        for k, theta in clients_of(update).items():
            steps = len(found[k]) - 1 + (k in present)
            found[k] += [1] * (k in present)
            np.testing.assert_allclose(theta, [1 + 0.1 * steps, 1 - 0.1 * steps], rtol=0, atol=1e-8)
    state = server["client_optimizer"]["expert/0"]
    np.testing.assert_array_equal(state["steps"]["count"], [[3], [2]])
    np.testing.assert_allclose(state["first"][ROWS], [[0.271 * 3, -0.271 * 2], [0.19 * 3, -0.19 * 2]], rtol=1e-14)
    assert server["global_optimizer"]["expert/0"]["steps"]["count"] == 3


def test_decay_is_of_every_clients_part_and_the_global_one():
    """Plain, rate 1, decay 1/4: 3/4 theta + update; A (1, 0), B (0, 1), and their mean for the global part."""
    step = step_of(aggregation="identity", coupling=0.0, optimizer=PLAIN._replace(decay=0.25))
    server = step.start(START, ("A", "B", "C"))
    update = step(server, uploads(server, RIGHT_UP))
    np.testing.assert_array_equal(list(clients_of(update).values()), [[1.75, 0.75], [0.75, 1.75], [1, 1]])
    np.testing.assert_array_equal(update.server["global"][NAME], [1.25, 1.25])


def test_clients_that_tell_their_tasks_count_as_one_vector_for_each_task():
    """With T tasks client s stands for T D_st + (what no task moved), shares p_s / T each: here 4 vectors. The same
    in every round, so that the second one knows their inner products."""
    step = step_of(conflict=0.4, coupling=1.0, aggregation="identity")
    moved = {"A": ([1.0, 0.5], [-0.25, 1.0]), "B": ([0.5, -1.0], [0.25, 0.0])}
    rest = {"A": np.array([0.0, 0.0]), "B": np.array([0.125, 0.25])}

    def round_of(server, tell):
        plain = uploads(server, {k: np.sum(parts, axis=0) + rest[k] for k, parts in moved.items()}, {"A": 3, "B": 1})
        parts = {k: {t: {NAME: np.array(d)} for t, d in zip(("ctr", "ctcvr"), moved[k], strict=True)} for k in moved}
        return step(server, {k: upload._replace(by_task=parts[k]) for k, upload in plain.items()} if tell else plain)

    start = step.start(START, ("A", "B"))
    first = round_of(start, tell=True)
    update = round_of(first.server, tell=True)
    vectors = np.array([2 * np.array(d) + rest[k] for k in moved for d in moved[k]])
    mean = np.array([3, 3, 1, 1]) / 8 @ vectors
    found = conflict_averse(arrays.products(vectors, vectors), np.array([3, 3, 1, 1]) / 8, 0.4)
    expected = START[NAME] + mean + found.coefficients @ vectors
    for theta in (*clients_of(update).values(), update.server["global"][NAME]):
        np.testing.assert_allclose(theta, expected, rtol=0, atol=1e-6)
    coefficients = found.coefficients.reshape(2, 2).sum(axis=1)
    np.testing.assert_allclose(update.diagnostics["expert/0"]["coefficients"], coefficients, rtol=0, atol=1e-6)
    plainly = round_of(round_of(start, tell=False).server, tell=False)
    assert not np.allclose(update.server["global"][NAME], plainly.server["global"][NAME])
