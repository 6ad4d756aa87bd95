"""The server's step: plain, and Adam with decoupled decay, against the textbook and against torch."""

import numpy as np
import pytest
import torch

from pfmsmt.methods.server_optimizer import FedOpt
from tests.support.quadratic import locked


def test_plain_adds_rate_times_update():
    optimizer = FedOpt("plain", 0.5, 0.9, 0.99)
    start = {"a": np.array([1.0, 2.0])}
    moved, _ = optimizer.step(start, {"a": np.array([4.0, -2.0])}, optimizer.start(start))
    np.testing.assert_array_equal(moved["a"], [3.0, 1.0])


def test_adam_by_hand():
    """Step 1: m / (1 - b1) = d, v / (1 - b2) = d^2: a step of rate * sign(d). Step 2 with d = 0:
    m = 0.9 * 0.1 * d, corrected by 1 - 0.81; v = 0.5 * 0.5 * d^2, corrected by 1 - 0.25."""
    optimizer = FedOpt("adam", 0.1, 0.9, 0.5)
    start = {"a": np.array([1.0, 1.0])}
    first, state = optimizer.step(start, {"a": np.array([2.0, -4.0])}, optimizer.start(start))
    np.testing.assert_allclose(first["a"], [1.1, 0.9], rtol=0, atol=1e-9)
    second, state = optimizer.step(first, {"a": np.zeros(2)}, state)
    step = 0.1 * (0.09 / 0.19) / np.sqrt(0.25 / 0.75)
    np.testing.assert_allclose(second["a"], [1.1 + step, 0.9 - step], rtol=0, atol=1e-8)
    assert state["steps"]["count"] == 2


def test_plain_decay_shrinks_parameters_by_rate_times_decay():
    """1 - 0.5 * 0.25 = 7/8, and half of the update: (7/8 * 8 + 2, 7/8 * -16 - 1); then without an update."""
    optimizer = FedOpt("plain", 0.5, 0.9, 0.99, 0.25)
    start = {"a": np.array([8.0, -16.0])}
    first, state = optimizer.step(start, {"a": np.array([4.0, -2.0])}, optimizer.start(start))
    np.testing.assert_array_equal(first["a"], [9, -15])
    second, _ = optimizer.step(first, {"a": np.zeros(2)}, state)
    np.testing.assert_array_equal(second["a"], [7.875, -13.125])


def test_adams_decay_is_decoupled_from_its_moments():
    """The same update d again and again moves by rate * sign(d), as without decay; on top, theta shrinks by 1 - 0.01:
    theta_t = 0.99 theta_(t-1) + 0.1, so theta_t = 10 + 0.99^t (theta_0 - 10) where d > 0, and -10 + ... where d < 0."""
    optimizer = FedOpt("adam", 0.1, 0.9, 0.99, 0.1)
    theta, update = {"a": np.array([1.0, 1.0, 1.0])}, {"a": np.array([3.0, -0.2, 0.0])}
    state = optimizer.start(theta)
    for steps in (1, 2, 3, 4):
        theta, state = optimizer.step(theta, update, state)
        kept = 0.99**steps
        np.testing.assert_allclose(theta["a"], [10 - 9 * kept, -10 + 11 * kept, kept], rtol=0, atol=1e-7)
    np.testing.assert_allclose(state["first"]["a"], (1 - 0.9**4) * update["a"], rtol=1e-14)
    np.testing.assert_allclose(state["second"]["a"], (1 - 0.99**4) * update["a"] ** 2, rtol=1e-14)


@pytest.mark.parametrize("kind", ["plain", "adam"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_decay_of_zero_is_none(kind, dtype):
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=5).astype(dtype)}
    update = {"a": rng.normal(size=5).astype(dtype)}
    moved = []
    for optimizer in (FedOpt(kind, 0.3, 0.9, 0.99), FedOpt(kind, 0.3, 0.9, 0.99, 0.0)):
        theta, _ = optimizer.step(start, update, optimizer.start(start))
        moved.append(theta["a"])
    np.testing.assert_array_equal(*moved)
    if kind == "plain":
        np.testing.assert_array_equal(moved[0], start["a"] + dtype(0.3) * update["a"])


def test_a_counter_for_every_row_is_every_row_on_its_own():
    """Rows [S, P] with counters [S, 1]: here after 3, 1 and 0 steps, as clients that were absent have them."""
    optimizer = FedOpt("adam", 0.1, 0.9, 0.99, 0.05)
    rng = np.random.default_rng(0)
    alone, states = [], []
    for steps in (3, 1, 0):
        theta = {"a": rng.normal(size=4)}
        state = optimizer.start(theta)
        for _ in range(steps):
            theta, state = optimizer.step(theta, {"a": rng.normal(size=4)}, state)
        alone.append(theta["a"])
        states.append(state)
    update = rng.normal(size=(3, 4))
    rows = {"a": np.stack(alone)}
    state = optimizer.start(rows, (3, 1))
    assert state["steps"]["count"].tolist() == [[0], [0], [0]]
    state = {
        **{part: {"a": np.stack([s[part]["a"] for s in states])} for part in ("first", "second")},
        "steps": {"count": np.array([[3], [1], [0]])},
    }
    moved, after = optimizer.step(rows, {"a": update}, state)
    assert after["steps"]["count"].tolist() == [[4], [2], [1]]
    for row, (theta, before) in enumerate(zip(alone, states, strict=True)):
        expected, own = optimizer.step({"a": theta}, {"a": update[row]}, before)
        np.testing.assert_allclose(moved["a"][row], expected["a"], rtol=1e-15)
        np.testing.assert_array_equal(after["second"]["a"][row], own["second"]["a"])


def test_state_stays_arrays_and_inputs_stay_as_they_are():
    optimizer = FedOpt("adam", 0.1, 0.9, 0.99, 0.1)
    theta = locked({"a": np.ones((2, 2), np.float32)})
    for steps in ((), (2, 1)):
        state = locked(optimizer.start(theta, steps))
        for _ in range(2):
            moved, state = locked(optimizer.step(theta, locked({"a": np.ones((2, 2), np.float32)}), state))
        leaves = [moved["a"], *(array for part in state.values() for array in part.values())]
        assert all(isinstance(array, np.ndarray) for array in leaves)
        assert state["steps"]["count"].shape == steps


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-6), (np.float64, 1e-13)])
def test_adam_is_torch_adamw_on_the_negative_update(dtype, atol, decay):
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=(3, 2)).astype(dtype), "b": rng.normal(size=4).astype(dtype)}
    optimizer = FedOpt("adam", 0.01, 0.9, 0.99, decay)
    theirs = {n: torch.tensor(a, requires_grad=True) for n, a in start.items()}
    adam = torch.optim.AdamW(theirs.values(), lr=0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=decay)
    ours, state = start, optimizer.start(start)
    for step in range(8):
        update = {n: (rng.normal(size=a.shape) * 10.0 ** (step - 4)).astype(dtype) for n, a in start.items()}
        ours, state = optimizer.step(ours, update, state)
        for n, tensor in theirs.items():
            tensor.grad = torch.tensor(-update[n])
        adam.step()
    for n, tensor in theirs.items():
        assert ours[n].dtype == dtype
        np.testing.assert_allclose(ours[n], tensor.detach().numpy(), rtol=0, atol=atol)
