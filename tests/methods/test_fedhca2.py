"""FedHCA2 against its equations, on closed-form clients."""

import numpy as np
import pytest
from scipy.optimize import minimize

from pfmsmt.core.types import NEVER_LEAVES, Role
from pfmsmt.tracking.logged_metrics import OF_FEDHCA2
from tests.support.quadratic import RATES, TEMPLATE, Quadratic, assert_close, build, federation, run, same, values

STILL = {**RATES, "alpha": 0.0, "beta": 0.0, "hyper_rate": 0.0}
ENCODER = sorted(n for n, slot in TEMPLATE.items() if slot.role in (Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER))
TOWERS = [n for n, slot in TEMPLATE.items() if slot.role is Role.TOWER]
C = 0.4


def flat(parts, names):
    return np.concatenate([parts[n].ravel() for n in names])


def cagrad(rows):
    """Maximise min_k <D_k, g> within the ball around the plain mean, by the dual's own definition; / (1 + c^2)."""
    mean, size = rows.mean(axis=0), len(rows)
    radius = C * np.linalg.norm(mean)

    def dual(w):
        return (w @ rows) @ mean + radius * np.linalg.norm(w @ rows)

    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    found = minimize(dual, np.full(size, 1 / size), bounds=[(0, 1)] * size, constraints=simplex, tol=1e-14)
    along = found.x @ rows
    return (mean + radius / np.linalg.norm(along) * along) / (1 + C**2)


def attention(own, everyone):
    """softmax_j(<D_i, D_j> / sqrt d) D_j."""
    logits = np.array([own @ other for other in everyone]) / np.sqrt(len(own))
    shares = np.exp(logits) / np.exp(logits).sum()
    return sum(share * other for share, other in zip(shares, everyone, strict=True))


def moved(received, data):
    """Three steps at rate 0.1: D = (0.9^3 - 1) (theta - target)."""
    return {k: {n: (0.9**3 - 1) * (received[k][n] - c.target[n]) for n in received[k]} for k, c in data.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_with_both_weights_0_clients_train_alone_bit_for_bit(dtype):
    start, data = values(0, dtype=dtype), federation(3, dtype=dtype)
    alone = run(build("local", learning_rate=0.1), start, data).served
    assert same(run(build("fedhca2", **STILL), start, data).served, alone)


def test_a_round_adds_the_conflict_averse_update_to_clients_own():
    start, data = values(0), federation(3)
    served = run(build("fedhca2", **{**STILL, "alpha": 0.3, "conflict": C}), start, data, rounds=1).served
    updates = moved(dict.fromkeys(data, start), data)
    common = cagrad(np.stack([flat(update, ENCODER) for update in updates.values()]))
    for k, update in updates.items():
        expected = flat(start, ENCODER) + flat(update, ENCODER) + 0.3 * common
        np.testing.assert_allclose(flat(served[k], ENCODER), expected, rtol=0, atol=1e-5)
        for n in set(TEMPLATE) - {*ENCODER}:
            np.testing.assert_allclose(served[k][n], start[n] + update[n], rtol=0, atol=1e-14)


def test_examples_do_not_count():
    start, data = values(0), federation(3)
    other = {k: Quadratic(client.target, 1000 // client.examples) for k, client in data.items()}
    method = build("fedhca2", **RATES)
    assert same(run(method, start, data).served, run(method, start, other).served)


def test_identical_clients_add_their_own_update():
    """g = (1 + c) / (1 + c^2) D for whoever moves alike, and for one client alone."""
    start = values(0)
    factor = 1 + 0.5 * (1 + C) / (1 + C**2)
    for data in (federation(1), {k: Quadratic(values(1), 10) for k in ("ES", "FR", "NL")}):
        served = run(build("fedhca2", **{**STILL, "alpha": 0.5, "conflict": C}), start, data, rounds=1).served
        update = moved(dict.fromkeys(data, start), data)
        for k in data:
            for n in ENCODER:
                np.testing.assert_allclose(served[k][n], start[n] + factor * update[k][n], rtol=0, atol=1e-12)


def test_towers_attend_to_those_of_all_clients_and_tasks_of_the_same_shape():
    """Layer 0 of ctr has a bias, that of ctcvr has none; without it both tasks' towers hear each other."""
    bias = "tower/ctr/layers.0.bias"
    for template in (TEMPLATE, {n: slot for n, slot in TEMPLATE.items() if n != bias}):
        start, data = values(0, template), federation(3, template)
        served = run(build("fedhca2", template, **{**STILL, "beta": 0.7}), start, data, rounds=1).served
        updates = moved(dict.fromkeys(data, start), data)
        ctr, ctcvr = ([n for n in sorted(template) if n.startswith(f"tower/{task}/")] for task in ("ctr", "ctcvr"))
        layers = {(k, task): flat(updates[k], names) for k in data for task, names in (("ctr", ctr), ("ctcvr", ctcvr))}
        for (k, task), own in layers.items():
            heard = attention(own, [other for other in layers.values() if len(other) == len(own)])
            names = ctr if task == "ctr" else ctcvr
            expected = flat(start, names) + own + 0.7 * heard
            np.testing.assert_allclose(flat(served[k], names), expected, rtol=0, atol=1e-12)


def test_both_weights_learn_from_the_next_rounds_progress():
    """v <- 0.9 v + <D, what was added before>, weight <- clip(weight + rate v); nothing before the second round."""
    start, data = values(0), federation(2)
    method = build("fedhca2", **RATES, alpha=0.1, beta=0.2, hyper_rate=0.03, conflict=C)
    found = run(method, start, data, rounds=3)
    received = dict.fromkeys(data, start)
    keys = [(k, unit) for k in data for unit in ("encoder", "tower/ctr/layers.0", "tower/ctcvr/layers.0")]
    names = {
        unit: ENCODER if unit == "encoder" else sorted(n for n in TOWERS if n.startswith(unit)) for _, unit in keys
    }
    weight = {(k, unit): 0.1 if unit == "encoder" else 0.2 for k, unit in keys}
    velocity, added = dict.fromkeys(keys, 0.0), {}
    for number in range(3):
        updates = moved(received, data)
        for k, unit in keys:
            if number:
                velocity[k, unit] = 0.9 * velocity[k, unit] + flat(updates[k], names[unit]) @ added[k, unit]
                weight[k, unit] = min(max(weight[k, unit] + 0.03 * velocity[k, unit], 0.0), 1.0)
        rows = {key: flat(updates[key[0]], names[key[1]]) for key in keys}
        common = cagrad(np.stack([rows[k, "encoder"] for k in data]))
        for key in keys:
            alike = [rows[k, key[1]] for k in data]
            added[key] = common if key[1] == "encoder" else attention(rows[key], alike)
        received = {k: {n: received[k][n] + updates[k][n] for n in TEMPLATE} for k in data}
        for k, unit in keys:
            step, place = weight[k, unit] * added[k, unit], 0
            for n in names[unit]:
                size = start[n].size
                received[k][n] = received[k][n] + step[place : place + size].reshape(start[n].shape)
                place += size
    for k, unit in keys:
        assert float(found.server["weights"][k][unit]) == pytest.approx(weight[k, unit], abs=1e-5)
        assert weight[k, unit] not in (0.0, 0.1, 0.2, 1.0)
    for k in data:
        assert_close(found.served[k], received[k], atol=1e-5)
        assert found.metrics[-1][f"{k}/alpha"] == float(found.server["weights"][k]["encoder"])


def test_weights_stay_within_their_bounds():
    outcome = run(build("fedhca2", **RATES, hyper_rate=1e4), values(0), federation(3), rounds=4)
    found = {float(weight) for weights in outcome.server["weights"].values() for weight in weights.values()}
    assert found <= {0.0, 1.0}


def test_an_absent_clients_weights_wait_for_it():
    """It missed the second round: in the third it learns from what the first one added to it."""
    method, start, data = build("fedhca2", **RATES, hyper_rate=0.03), values(0), federation(3)
    first = run(method, start, data, rounds=1)
    second = run(method, start, data, rounds=2, absent={(2, 0, "FR")})
    for part in ("clients", "added", "weights", "velocities"):
        assert same(second.server[part]["FR"], first.server[part]["FR"])
        assert not same(second.server[part]["ES"], first.server[part]["ES"])
    assert NEVER_LEAVES.isdisjoint(TEMPLATE[n].role for n in second.server["clients"]["FR"])


def test_metrics_are_those_that_are_listed():
    (metrics,) = run(build("fedhca2", **RATES), values(0), federation(2), rounds=1).metrics
    assert all(any(listed.matches(f"server/{name}") for name in metrics) for listed in OF_FEDHCA2)
    assert all(any(listed.matches(f"server/{name}") for listed in OF_FEDHCA2) for name in metrics)
