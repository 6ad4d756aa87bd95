"""Who listens to whom, on hand-sized updates of two numbers: A and what is remembered, round by round."""

import numpy as np
import pytest

from pfmsmt.methods.attention import AttentionRule
from tests.support.quadratic import locked

START = np.ones((3, 2))
SHARES = np.array([0.2, 0.3, 0.5])
ROOT = np.sqrt(0.5)


def listen(rule, memory, places, updates, received=None, shares=None, cosines=None):
    """A and the new memory; the old one is read-only."""
    updates = np.array(updates, np.float64)
    received = np.zeros_like(updates) if received is None else np.array(received, np.float64)
    shares = np.full(len(places), 1 / len(places)) if shares is None else np.array(shares)
    cosines = np.eye(len(places)) if cosines is None else np.array(cosines, np.float64)
    matrices = locked({"cosines": cosines, "updates": updates, "received": received, "sent": received + updates})
    return rule.rows(locked(memory), places, shares, **matrices)


def softmax(logits, shares):
    """Rows proportional to share x e^logit, in plain words."""
    rows = np.array([[p * np.exp(x) for x, p in zip(row, shares, strict=True)] for row in logits])
    return rows / rows.sum(axis=1, keepdims=True)


def test_uniform_is_the_shares_in_every_row_and_remembers_nothing():
    rule = AttentionRule("uniform", 0.5, 0.1)
    assert rule.start(START) == {}
    rows, memory = listen(rule, {}, [0, 1, 2], np.eye(3, 2), shares=SHARES)
    np.testing.assert_array_equal(rows, [SHARES] * 3)
    assert memory == {}


def test_identity_is_the_client_alone_and_remembers_nothing():
    rule = AttentionRule("identity", 0.5, 0.1)
    assert rule.start(START) == {}
    rows, memory = listen(rule, {}, [0, 2], np.eye(2), shares=[0.25, 0.75])
    np.testing.assert_array_equal(rows, np.eye(2))
    assert memory == {}


def test_similarity_weighs_shares_by_the_cosines_of_directions_and_remembers_nothing():
    """tau 1/2; the third is unknown: cosine 0 with everybody, itself as well."""
    cosines = np.array([[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 0]])
    rule = AttentionRule("similarity", 0.5, 0.1)
    assert rule.start(START) == {}
    rows, memory = listen(rule, {}, [0, 1, 2], np.eye(3, 2), shares=SHARES, cosines=cosines)
    np.testing.assert_allclose(rows, softmax(2 * cosines, SHARES), rtol=1e-13)
    np.testing.assert_allclose(rows[2], SHARES, rtol=1e-13)
    assert memory == {}


@pytest.mark.parametrize(("temperature", "expected"), [(1e9, [[0.25, 0.75]] * 2), (1e-3, np.eye(2))])
def test_temperature_goes_from_the_identity_to_the_shares(temperature, expected):
    rows, _ = listen(AttentionRule("similarity", temperature, 0.1), {}, [0, 1], [[1, 0], [0, 1]], shares=[0.25, 0.75])
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-8)


ROUND_1 = {"updates": [[1, 0], [0, 2]], "received": [[0, 0], [2, 0]]}
"""A uploads (1, 0), B (2, 2)."""
ROUND_2 = {"updates": [[0, 3], [-2, -2], [5, 0]], "received": [[0, 0], [2, 1], [0, 2]]}
"""A uploads (0, 3), B (0, -1), C, here for the first time, (5, 2)."""
AFTER_2 = 0.5 * np.array([[0, ROOT, 0], [1, -ROOT, 0], [1 / np.sqrt(5), 1, 0]])
"""cos(D_s, W'_j - W_s) at a rate of 1/2, of what was uploaded in round 1; C had uploaded nothing.

A, D (0, 3):    to A's (1, 0): 0                           to B's (2, 2): 1 / sqrt 2
B, D (-2, -2):  to A's (1, 0) - (2, 1) = (-1, -1): 1       to B's (2, 2) - (2, 1) = (0, 1): -1 / sqrt 2
C, D (5, 0):    to A's (1, 0) - (0, 2) = (1, -2): 1/sqrt 5 to B's (2, 2) - (0, 2) = (2, 0): 1
"""


def test_learned_rows_are_the_shares_before_anything_is_known():
    rule = AttentionRule("learned", 1e-3, 0.5)
    start = rule.start(START)
    assert {name: array.tolist() for name, array in start.items()} == {
        "logits": [[0] * 3] * 3, "sent": [[0] * 2] * 3, "seen": [0] * 3,
    }  # fmt: skip
    rows, memory = listen(rule, start, [0, 1], **ROUND_1, shares=[0.25, 0.75])
    np.testing.assert_allclose(rows, [[0.25, 0.75]] * 2, rtol=1e-15)
    np.testing.assert_array_equal(memory["logits"], np.zeros((3, 3)))
    np.testing.assert_array_equal(memory["sent"], [[1, 0], [2, 2], [0, 0]])
    np.testing.assert_array_equal(memory["seen"], [1, 1, 0])


def test_learned_logits_move_with_how_far_an_update_points_to_what_others_uploaded():
    """Temperature has no say."""
    for temperature in (1e-3, 50.0):
        rule = AttentionRule("learned", temperature, 0.5)
        _, memory = listen(rule, rule.start(START), [0, 1], **ROUND_1)
        rows, memory = listen(rule, memory, [0, 1, 2], **ROUND_2, shares=SHARES)
        np.testing.assert_allclose(memory["logits"], AFTER_2, rtol=0, atol=1e-15)
        np.testing.assert_allclose(rows, softmax(AFTER_2, SHARES), rtol=1e-13)
        np.testing.assert_array_equal(memory["sent"], [[0, 3], [0, -1], [5, 2]])
        np.testing.assert_array_equal(memory["seen"], [1, 1, 1])


def test_learned_logits_add_up_over_rounds_and_rest_for_absentees():
    """Round 3 without B: its row and column stay, and so does its upload.

    A, W (0, 3), D (5, -1):  to A's own (0, 3): nothing, 0     to C's (5, 2) - (0, 3) = (5, -1): 1
    C, W (4, 2), D (0, 1):   to A's (0, 3) - (4, 2) = (-4, 1): 1/sqrt 17     to C's (5, 2) - (4, 2) = (1, 0): 0
    """
    rule = AttentionRule("learned", 0.5, 0.5)
    _, memory = listen(rule, rule.start(START), [0, 1], **ROUND_1)
    _, memory = listen(rule, memory, [0, 1, 2], **ROUND_2)
    rows, memory = listen(rule, memory, [0, 2], [[5, -1], [0, 1]], [[0, 3], [4, 2]], shares=[0.25, 0.75])
    expected = AFTER_2 + 0.5 * np.array([[0, 0, 1], [0, 0, 0], [1 / np.sqrt(17), 0, 0]])
    np.testing.assert_allclose(memory["logits"], expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(rows, softmax(expected[np.ix_([0, 2], [0, 2])], [0.25, 0.75]), rtol=1e-13)
    np.testing.assert_array_equal(memory["sent"], [[5, 2], [0, -1], [4, 3]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_keeps_the_precision_of_the_parameters_and_rows_are_double(dtype):
    listening = AttentionRule("learned", 0.5, 0.1)
    start = listening.start(START.astype(dtype))
    rng = np.random.default_rng(0)
    memory = start
    for _ in range(2):
        received, updates = rng.normal(size=(2, 3, 2)).astype(dtype)
        sent = received + updates
        matrices = {"cosines": np.eye(3), "updates": updates, "received": received, "sent": sent}
        rows, memory = listening.rows(memory, [0, 1, 2], SHARES, **matrices)
        assert rows.dtype == np.float64
        np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-14)
    assert {name: array.dtype for name, array in memory.items()} == {n: array.dtype for n, array in start.items()}
    assert memory["sent"].dtype == dtype
