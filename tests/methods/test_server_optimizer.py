"""The server's step: plain, and Adam against the textbook and against torch."""

import numpy as np
import pytest
import torch

from pfmsmt.methods.server_optimizer import ServerOptimizer


def test_plain_adds_rate_times_update():
    optimizer = ServerOptimizer("plain", 0.5, 0.9, 0.99)
    start = {"a": np.array([1.0, 2.0])}
    moved, _ = optimizer.step(start, {"a": np.array([4.0, -2.0])}, optimizer.start(start))
    np.testing.assert_array_equal(moved["a"], [3.0, 1.0])


def test_adam_by_hand():
    """Step 1: m / (1 - b1) = d, v / (1 - b2) = d^2: a step of rate * sign(d). Step 2 with d = 0:
    m = 0.9 * 0.1 * d, corrected by 1 - 0.81; v = 0.5 * 0.5 * d^2, corrected by 1 - 0.25."""
    optimizer = ServerOptimizer("adam", 0.1, 0.9, 0.5)
    start = {"a": np.array([1.0, 1.0])}
    first, state = optimizer.step(start, {"a": np.array([2.0, -4.0])}, optimizer.start(start))
    np.testing.assert_allclose(first["a"], [1.1, 0.9], rtol=0, atol=1e-9)
    second, state = optimizer.step(first, {"a": np.zeros(2)}, state)
    step = 0.1 * (0.09 / 0.19) / np.sqrt(0.25 / 0.75)
    np.testing.assert_allclose(second["a"], [1.1 + step, 0.9 - step], rtol=0, atol=1e-8)
    assert state["steps"]["count"] == 2


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-6), (np.float64, 1e-13)])
def test_adam_is_torch_adam_on_the_negative_update(dtype, atol):
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=(3, 2)).astype(dtype), "b": rng.normal(size=4).astype(dtype)}
    optimizer = ServerOptimizer("adam", 0.01, 0.9, 0.99)
    theirs = {n: torch.tensor(a, requires_grad=True) for n, a in start.items()}
    adam = torch.optim.Adam(theirs.values(), lr=0.01, betas=(0.9, 0.99), eps=1e-8)
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
