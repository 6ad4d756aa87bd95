"""APFL against its equations, on closed-form clients."""

import numpy as np
import pytest

from pfmsmt.core.types import NEVER_LEAVES, Role
from tests.support.quadratic import PLAIN, RATES, TEMPLATE, Quadratic, build, federation, run, same, values

ADAM = {"server_optimizer": "adam", "server_learning_rate": 0.05}
each_server = pytest.mark.parametrize("server", [PLAIN, ADAM])
OWN = NEVER_LEAVES | {Role.NORM}
BLENDED = [n for n, slot in TEMPLATE.items() if slot.role not in OWN]


def weights(outcome):
    return {k: float(state.optimizer["alpha"]) for k, state in outcome.states.items()}


@each_server
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_alpha_0_serves_fedavgs_model_bit_for_bit(server, dtype):
    start, data = values(0, dtype=dtype), federation(4, dtype=dtype)
    none = run(build("apfl", **RATES, **server, alpha=0.0, alpha_rate=0.0), start, data)
    assert same(none.served, run(build("fedavg", **RATES, **server), start, data).served)


@each_server
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_alpha_1_is_local_training_bit_for_bit(server, dtype):
    start, data = values(0, dtype=dtype), federation(4, dtype=dtype)
    alone = run(build("apfl", **RATES, **server, alpha=1.0, alpha_rate=0.0), start, data)
    assert same(alone.served, run(build("local", learning_rate=0.1), start, data).served)


@each_server
def test_the_federation_under_it_is_fedavg_bit_for_bit(server):
    start, data = values(0), federation(4)
    blended = run(build("apfl", **RATES, **server), start, data)
    plain = run(build("fedavg", **RATES, **server), start, data)
    assert same(blended.server, plain.server)
    assert blended.sent == plain.sent


def test_two_rounds_of_both_parts_and_of_alpha():
    """v <- v - 0.1 a (b - t), a <- a - 0.2 <v - w, b - t>, b = a v + (1 - a) w with w as received; the rest plain."""
    start, data = values(0), federation(3)
    found = run(build("apfl", **RATES, **PLAIN, alpha=0.5, alpha_rate=0.2), start, data, rounds=2)
    common = [start, run(build("fedavg", **RATES, **PLAIN), start, data, rounds=1).served["ES"]]
    last = run(build("fedavg", **RATES, **PLAIN), start, data, rounds=2).served["ES"]
    for k, client in data.items():
        v, a = dict(start), 0.5
        for w in common:
            for _ in range(3):
                slopes = {n: a * v[n] + (1 - a) * w[n] - client.target[n] for n in BLENDED}
                along = sum(float(np.sum((v[n] - w[n]) * slopes[n])) for n in BLENDED)
                v |= {n: v[n] - 0.1 * a * slopes[n] for n in BLENDED}
                a = min(max(a - 0.2 * along, 0.0), 1.0)
        assert weights(found)[k] == pytest.approx(a, abs=1e-12)
        for n in TEMPLATE:
            plain = client.target[n] + 0.9**6 * (start[n] - client.target[n])
            expected = a * v[n] + (1 - a) * last[n] if n in BLENDED else plain
            np.testing.assert_allclose(found.served[k][n], expected, rtol=0, atol=1e-12, err_msg=n)


def test_alpha_grows_where_the_common_model_is_wrong_and_stays_within_its_bounds():
    """One client of another world among four alike: its own part is worth more to it than theirs is to them."""
    same_world = {k: Quadratic(values(1), 100) for k in ("ES", "FR", "NL")}
    data = {**same_world, "US": Quadratic(values(2), 10)}
    found = weights(run(build("apfl", **RATES, **PLAIN, alpha=0.5, alpha_rate=0.1), values(0), data, rounds=20))
    assert found["US"] > max(found[k] for k in same_world) + 0.1
    steep = weights(run(build("apfl", **RATES, **PLAIN, alpha=0.5, alpha_rate=1e3), values(0), data, rounds=5))
    assert all(0.0 <= a <= 1.0 for a in steep.values())
    assert steep["US"] == 1.0
