"""FedProx, FedBN, FedPer and Ditto against their equations, on closed-form clients."""

import numpy as np
import pytest

from pfmsmt.core import arrays
from pfmsmt.core.types import NEVER_LEAVES, Role
from tests.support.quadratic import (
    PLAIN,
    RATES,
    TEMPLATE,
    Quadratic,
    assert_close,
    build,
    federation,
    run,
    same,
    values,
)

ADAM = {"server_optimizer": "adam", "server_learning_rate": 0.05, "server_beta1": 0.9, "server_beta2": 0.99}
SHARED = {n for n, slot in TEMPLATE.items() if slot.role not in NEVER_LEAVES}
SHARES = {"ES": 10 / 60, "FR": 20 / 60, "NL": 30 / 60}
each_server = pytest.mark.parametrize("server", [PLAIN, ADAM])


def descend(start, target, anchor, pull, steps=3):
    """theta <- theta - 0.1 ((theta - target) + pull (theta - anchor)), for names of the anchor alone."""
    result = {}
    for n, theta in start.items():
        for _ in range(steps):
            theta = theta - 0.1 * ((theta - target[n]) + (pull * (theta - anchor[n]) if n in anchor else 0))
        result[n] = theta
    return result


def mean(trained):
    return {n: sum(SHARES[k] * trained[k][n] for k in SHARES) for n in SHARED}


@each_server
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fedprox_without_its_term_is_fedavg_bit_for_bit(server, dtype):
    start, data = values(0, dtype=dtype), federation(4, dtype=dtype)
    prox = run(build("fedprox", **RATES, **server, regularizer=0.0), start, data)
    plain = run(build("fedavg", **RATES, **server), start, data)
    assert same(prox.served, plain.served)
    assert same(prox.server, plain.server)
    assert same(prox.states, plain.states)
    assert not same(run(build("fedprox", **RATES, **server, regularizer=0.1), start, data).served, plain.served)


def test_two_rounds_of_fedprox():
    """In the second round the pull is towards what the first one arrived at; private arrays are not pulled."""
    start, data = values(0), federation(3)
    served = run(build("fedprox", **RATES, **PLAIN, regularizer=0.5), start, data, rounds=2).served
    received, held = start, dict.fromkeys(data, start)
    for _ in range(2):
        anchor = {n: received[n] for n in SHARED}
        trained = {k: descend({**held[k], **anchor}, data[k].target, anchor, 0.5) for k in data}
        received, held = mean(trained), trained
    for k in data:
        assert_close(served[k], {**held[k], **received})


@pytest.mark.parametrize(
    ("name", "own"),
    [("fedbn", {Role.NORM}), ("fedper", {Role.TOWER, Role.GATE}), ("fedavg", set()), ("fedprox", set())],
)
@each_server
def test_what_is_shared_is_fedavgs_and_the_rest_is_trained_locally(name, own, server):
    """The coordinates of a quadratic client do not see each other, so both halves agree bit for bit."""
    start, data = values(0), federation(3)
    off = {"regularizer": 0.0} if name == "fedprox" else {}
    served = run(build(name, **RATES, **server, **off), start, data).served
    plain = run(build("fedavg", **RATES, **server), start, data).served
    alone = run(build("local", learning_rate=0.1), start, data).served
    private = own | NEVER_LEAVES
    for k in data:
        shared = arrays.select(plain[k], TEMPLATE, set(Role) - private)
        assert same(served[k], shared | arrays.select(alone[k], TEMPLATE, private))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ditto_without_its_term_is_local_training_bit_for_bit(dtype):
    start, data = values(0, dtype=dtype), federation(4, dtype=dtype)
    ditto = run(build("ditto", **RATES, **ADAM, regularizer=0.0), start, data)
    assert same(ditto.served, run(build("local", learning_rate=0.1), start, data).served)


@each_server
@pytest.mark.parametrize("regularizer", [0.0, 0.7])
def test_the_federation_under_ditto_is_fedavg_bit_for_bit(server, regularizer):
    start, data = values(0), federation(4)
    ditto = run(build("ditto", **RATES, **server, regularizer=regularizer), start, data)
    plain = run(build("fedavg", **RATES, **server), start, data)
    assert same(ditto.server, plain.server)
    assert ditto.sent == plain.sent


def test_two_rounds_of_ditto():
    """v_k is pulled towards what client k received: the start, then the mean; private arrays are not pulled."""
    start, data = values(0), federation(3)
    served = run(build("ditto", **RATES, **PLAIN, regularizer=0.5), start, data, rounds=2).served
    common = {n: start[n] for n in SHARED}
    average = mean({k: descend(start, data[k].target, {}, 0.0) for k in data})
    for k in data:
        first = descend(start, data[k].target, common, 0.5)
        assert_close(served[k], descend(first, data[k].target, average, 0.5))


def test_ditto_serves_the_personal_model_whatever_it_receives():
    start, data = values(0), federation(2)
    method = build("ditto", **RATES, **PLAIN)
    outcome = run(method, start, data)
    assert same(method.personalise(values(9), outcome.states["ES"]), outcome.served["ES"])
    assert same(method.personalise({}, method.init_client(start)), start)


IDENTICAL = {k: Quadratic(values(1), 10 + i) for i, k in enumerate(("ES", "FR", "NL"))}


@pytest.mark.parametrize("data", [federation(1), IDENTICAL], ids=["one client", "identical clients"])
@pytest.mark.parametrize("name", ["fedprox", "fedbn", "fedper", "ditto"])
def test_one_client_or_identical_ones_train_locally(name, data):
    start = values(0)
    off = {"regularizer": 0.0} if name in ("fedprox", "ditto") else {}
    served = run(build(name, **RATES, **PLAIN, **off), start, data).served
    alone = run(build("local", learning_rate=0.1), start, data).served
    for k in data:
        assert_close(served[k], alone[k])
