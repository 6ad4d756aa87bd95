"""FedAMP against its equations, on closed-form clients."""

import numpy as np
import pytest

from pfmsmt.core.types import NEVER_LEAVES, Role
from tests.support.quadratic import TEMPLATE, Quadratic, assert_close, build, federation, run, same, values

RATE = {"private_learning_rate": 0.1}
SENT = [n for n, slot in TEMPLATE.items() if slot.role not in NEVER_LEAVES | {Role.NORM}]


def trained(start, target, anchor, mu, steps=3):
    """theta <- theta - 0.1 ((theta - target) + mu (theta - anchor)), for what is sent; the rest is not pulled."""
    for _ in range(steps):
        start = {
            n: theta - 0.1 * ((theta - target[n]) + (mu * (theta - anchor[n]) if n in SENT else 0.0))
            for n, theta in start.items()
        }
    return start


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_its_term_it_is_local_training_bit_for_bit(dtype):
    start, data = values(0, dtype=dtype), federation(4, dtype=dtype)
    amp = run(build("fedamp", **RATE, regularizer=0.0), start, data)
    assert same(amp.served, run(build("local", learning_rate=0.1), start, data).served)
    assert not same(run(build("fedamp", **RATE, regularizer=0.1), start, data).served, amp.served)


def test_two_rounds_of_the_cloud_models_and_the_pull_towards_them():
    start, data = values(0), federation(3)
    found = run(build("fedamp", **RATE, regularizer=0.5, attraction=0.6, sigma=20.0), start, data, rounds=2)
    first = {k: trained(start, client.target, start, 0.5) for k, client in data.items()}
    flat = {k: np.concatenate([first[k][n].ravel() for n in SENT]) for k in data}
    cloud = {}
    for i in data:
        xi = {j: 0.3 * np.exp(-np.sum((flat[i] - flat[j]) ** 2) / 20.0) for j in data if j != i}
        xi[i] = 1 - sum(xi.values())
        cloud[i] = {n: sum(xi[j] * first[j][n] for j in data) for n in SENT}
    for k, client in data.items():
        assert_close(found.served[k], trained(first[k], client.target, cloud[k], 0.5))


@pytest.mark.parametrize(
    ("sigma", "attraction", "weights"),
    [(1e12, 2 / 3, np.full((3, 3), 1 / 3)), (1e12, 1.0, (np.ones((3, 3)) - np.eye(3)) / 2), (1e-6, 1.0, np.eye(3)),
     (1.0, 0.0, np.eye(3))],
)  # fmt: skip
def test_cloud_models_are_the_mean_of_all_that_are_near_and_ones_own_where_none_is(sigma, attraction, weights):
    start, data = values(0), federation(3)
    method = build("fedamp", **RATE, regularizer=0.5, attraction=attraction, sigma=sigma)
    outcome = run(method, start, data, rounds=1)
    for k, row in zip(data, weights, strict=True):
        cloud = method.broadcast(outcome.server, k)
        for n in SENT:
            expected = sum(w * outcome.served[j][n] for w, j in zip(row, data, strict=True))
            np.testing.assert_allclose(cloud[n], expected, rtol=0, atol=1e-11)


def test_the_nearer_of_two_clients_draws_more():
    near = {n: t + 0.01 for n, t in values(1).items()}
    data = {"ES": Quadratic(values(1), 10), "FR": Quadratic(near, 10), "NL": Quadratic(values(2), 10)}
    method = build("fedamp", **RATE, regularizer=0.5, attraction=0.9, sigma=1.0)
    outcome = run(method, values(0), data, rounds=3)
    cloud = method.broadcast(outcome.server, "ES")
    name = "expert/0/layers.0.weight"
    gaps = {k: float(np.abs(cloud[name] - outcome.served[k][name]).max()) for k in data}
    assert gaps["FR"] < gaps["NL"] / 10


def test_one_client_is_drawn_to_itself():
    outcome = run(build("fedamp", **RATE, regularizer=0.5), values(0), federation(1), rounds=2)
    assert same({n: outcome.served["ES"][n] for n in SENT}, dict(outcome.server["clients"]["ES"]))
