"""FedAvg with fine-tuning: what clients serve beside FedAvg, and that FedAvg does not notice."""

import numpy as np
import pytest

from pfmsmt.core import arrays
from pfmsmt.core.types import NEVER_LEAVES, Stream
from tests.support.quadratic import PLAIN, RATES, TEMPLATE, build, federation, run, same, values

ADAM = {"server_optimizer": "adam", "server_learning_rate": 0.05}
each_server = pytest.mark.parametrize("server", [PLAIN, ADAM])


@each_server
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_steps_it_is_fedavg_bit_for_bit(server, dtype):
    start, data = values(0, dtype=dtype), federation(4, dtype=dtype)
    none = run(build("fedavg_finetune", **RATES, **server, finetune_steps=0), start, data)
    assert same(tuple(none), tuple(run(build("fedavg", **RATES, **server), start, data)))


@each_server
def test_the_federation_under_it_is_fedavg_bit_for_bit(server):
    start, data = values(0), federation(4)
    tuned = run(build("fedavg_finetune", **RATES, **server, finetune_steps=5, finetune_rate=0.3), start, data)
    plain = run(build("fedavg", **RATES, **server), start, data)
    assert same(tuned.server, plain.server)
    assert tuned.sent == plain.sent


@pytest.mark.parametrize("steps", [1, 5])
def test_a_client_serves_fedavgs_model_of_the_round_before_fine_tuned(steps):
    """theta' = target + (1 - rate)^steps (theta - target), from what FedAvg served before the round."""
    start, data = values(0), federation(3)
    served = run(
        build("fedavg_finetune", **RATES, **PLAIN, finetune_steps=steps, finetune_rate=0.2), start, data, rounds=3
    ).served
    before = run(build("fedavg", **RATES, **PLAIN), start, data, rounds=2).served
    for k, client in data.items():
        for n, target in client.target.items():
            # What stays trains with Adam's rate.
            rest = 0.9 if TEMPLATE[n].role in NEVER_LEAVES else 0.8
            expected = target + rest**steps * (before[k][n] - target)
            np.testing.assert_allclose(served[k][n], expected, rtol=0, atol=1e-12)


def test_with_a_rounds_steps_a_client_serves_what_it_uploads():
    method, start, data = (
        build("fedavg_finetune", **RATES, **PLAIN, finetune_steps=3, finetune_rate=0.1),
        values(0),
        federation(2),
    )
    (phase,) = method.phases
    server = method.init(start, tuple(data))
    received, state = phase.broadcast(server, "ES"), method.init_client(start)
    upload, after = phase.client_update(received, state, data["ES"], Stream(0, "ES", 1))
    served = method.personalise(received, after)
    assert same({n: served[n] for n in upload.arrays}, upload.arrays)
    plain = build("fedavg", **RATES, **PLAIN)
    _, common = plain.phases[0].client_update(received, plain.init_client(start), data["ES"], Stream(0, "ES", 1))
    assert same(served, arrays.merge(common.private, upload.arrays))
