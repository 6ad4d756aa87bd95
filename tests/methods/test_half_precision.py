"""Half precision: what travels, how far it is rounded, and that the server's own parameters are not."""

import numpy as np
import pytest

from pfmsmt.core.errors import TrainingError
from pfmsmt.core.types import Role, Stream
from pfmsmt.methods.half_precision import half_precision, shorten
from tests.support.quadratic import EVERY_METHOD, SHAPES, TEMPLATE, build, federation, locked, role_of, run, values

PLAIN = {"server_optimizer": "plain", "server_learning_rate": 1.0}


def role(name):
    return SHAPES[name][0].role


def one_round(method, start, data):
    """(received, upload) of every client in the first phase, and the server before and after it."""
    server = locked(method.init(start, tuple(data)))
    phase = method.phases[0]
    received = {k: phase.broadcast(server, k) for k in data}
    uploads = {
        k: phase.client_update(received[k], method.init_client(start), data[k], Stream(0, k, 1, 0))[0] for k in data
    }
    return received, uploads, server, phase.server_update(server, uploads).server


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_all_but_batch_norm_travels_in_two_bytes(name):
    method = half_precision(
        build(name, **({"coordinate": "clients_and_tasks"} if name == "pf_msmtrec" else {})), TEMPLATE
    )
    received, uploads, _, _ = one_round(method, values(0, dtype=np.float32), federation(3, dtype=np.float32))
    for k, upload in uploads.items():
        for part in (received[k], upload.arrays, *upload.by_task.values()):
            assert all(a.dtype == (np.float32 if role_of(n) is Role.NORM else np.float16) for n, a in part.items())
    assert method.phases[0].changes == {r for r in method.phases[0].uploads if r is not Role.NORM}


def test_numbers_arrive_as_exactly_as_stated():
    rng = np.random.default_rng(0)
    numbers = (rng.normal(size=20_000) * 10.0 ** rng.uniform(-9, 4, 20_000)).astype(np.float32)
    arrived = shorten({"embedding/table": numbers}, TEMPLATE)["embedding/table"].astype(np.float64)
    bound = np.maximum(2.0**-11 * np.abs(numbers), 2.0**-25)
    assert (np.abs(arrived - numbers) <= bound).all()
    assert (np.abs(arrived - numbers) > bound / 4).any()


def test_a_change_is_added_to_the_servers_own_parameters():
    """Not to the rounded ones that the client started from: where clients stand still, so does the server."""
    start, data = values(0, dtype=np.float32), federation(3, dtype=np.float32)
    still = half_precision(build("fedavg", **PLAIN, learning_rate=1e-12), TEMPLATE)
    received, _, before, after = one_round(still, start, data)
    rounded = received["ES"]["expert/0/layers.0.weight"].astype(np.float32)
    assert (rounded != before["global"]["expert/0/layers.0.weight"]).any()
    for name, array in after["global"].items():
        if role(name) is not Role.NORM:
            np.testing.assert_allclose(array, before["global"][name], rtol=2e-7, atol=0)  # a mean rounds


@pytest.mark.parametrize("name", ["fedavg", "ditto", "pf_msmtrec"])
def test_a_run_ends_near_that_in_full(name):
    start, data = values(0, dtype=np.float32), federation(3, dtype=np.float32)
    changes = {**PLAIN, "learning_rate": 0.1, "private_learning_rate": 0.1}
    whole = run(build(name, **changes), start, data, rounds=5).served
    half = run(half_precision(build(name, **changes), TEMPLATE), start, data, rounds=5).served
    largest = max(float(np.abs(a).max()) for part in whole.values() for a in part.values())
    for k, part in whole.items():
        assert all(a.dtype == np.float32 for a in half[k].values())
        assert all(np.abs(half[k][n] - a).max() < 4 * 2.0**-11 * largest for n, a in part.items())
    assert any((half[k][n] != a).any() for k, part in whole.items() for n, a in part.items())


def test_a_number_beyond_float16_is_named_and_what_is_not_finite_passes_on():
    big = {"tower/ctr/layers.0.bias": np.array([[-70000.0]], np.float32)}
    with pytest.raises(
        TrainingError, match=r"'tower/ctr/layers.0.bias' holds 7e\+04, and float16 at most 65,504; set pr"
    ):
        shorten(big, TEMPLATE)
    broken = {"tower/ctr/layers.0.bias": np.array([[np.nan]], np.float32)}
    assert np.isnan(shorten(broken, TEMPLATE)["tower/ctr/layers.0.bias"]).all()
