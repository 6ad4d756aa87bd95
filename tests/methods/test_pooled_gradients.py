"""The references: federated averaging after every step, and so training on the gradient of all rows together."""

import functools
import math

import numpy as np
import pytest
import torch

from pfmsmt.config import Train
from pfmsmt.core.types import NEVER_LEAVES, Role
from pfmsmt.methods.averaging import SHARED, averaging
from pfmsmt.methods.catalogue import build_method, method_facts
from pfmsmt.methods.declaration import MethodFacts
from pfmsmt.methods.pooled_gradients import CENTRALIZED, DecayingStep, pooled_gradients
from pfmsmt.methods.server_optimizer import PLAIN_STEP, FedOpt
from tests.support.quadratic import (
    TEMPLATE,
    assert_close,
    blocks,
    federation,
    quadratic_train,
    run,
    same,
    values,
)

ADAM = FedOpt("adam", 0.05, 0.9, 0.999, 0.1)
RATES = {"learning_rate": 0.1, "private_learning_rate": 0.1, "private_weight_decay": 0.0}
STEPS = 4


def pooled(shared, optimizer=PLAIN_STEP, steps=STEPS, **rates):
    return pooled_gradients("x", quadratic_train, TEMPLATE, shared, optimizer, steps=steps, **{**RATES, **rates})


@pytest.mark.parametrize("optimizer", [PLAIN_STEP, ADAM])
@pytest.mark.parametrize("name", ["fedavg", "fedbn", "fedper", "local"])
def test_exchanges_are_rounds_of_one_step(name, optimizer):
    """Bit for bit, whatever is shared."""
    start, data = values(0), federation(3)
    one_step = functools.partial(quadratic_train, steps=1)
    rounds = run(averaging(name, one_step, TEMPLATE, **RATES, optimizer=optimizer), start, data, rounds=2 * STEPS)
    exchanges = run(pooled(SHARED[name], optimizer), start, data, rounds=2)
    assert same(exchanges.served, rounds.served)
    assert same(exchanges.server, rounds.server)


def test_shared_roles_follow_the_gradient_of_all_rows_together():
    """sum_k n_k |w - t_k|^2 / 2 N has the gradient w - sum_k p_k t_k; private roles follow their own client's."""
    start, data = values(0), federation(3)
    served = run(pooled(CENTRALIZED), start, data, rounds=2).served
    shares = {"ES": 10 / 60, "FR": 20 / 60, "NL": 30 / 60}
    for n, slot in TEMPLATE.items():
        common = sum(shares[k] * data[k].target[n] for k in data)
        for k in data:
            target = common if slot.role in CENTRALIZED else data[k].target[n]
            expected = target + 0.9 ** (2 * STEPS) * (start[n] - target)
            np.testing.assert_allclose(served[k][n], expected, rtol=0, atol=1e-14, err_msg=n)


def test_one_client_trains_alone():
    start, data = values(0), federation(1)
    alone = run(averaging("local", quadratic_train, TEMPLATE, **RATES), start, data, rounds=STEPS).served["ES"]
    assert_close(run(pooled(CENTRALIZED, steps=3), start, data, rounds=STEPS).served["ES"], alone)


@pytest.mark.parametrize("decay", ["cosine", "none"])
def test_the_server_is_adam_with_a_rate_that_falls_over_rounds(decay):
    """As torch's own, on the same gradients; clients' rate, which falls as well, has no say."""
    budget = Train(rounds=5, local_steps=STEPS, learning_rate_decay=decay)
    start, data = values(0), federation(1)

    def decaying(parameters, optimizer, rows, stream, *, learning_rate, **settings):
        rate = learning_rate * budget.rate_share(stream.round)
        return quadratic_train(parameters, optimizer, rows, stream, learning_rate=rate, **settings)

    step = DecayingStep(ADAM, budget.rate_share, STEPS)
    rates = {**RATES, "learning_rate": 1.0}
    method = pooled_gradients("x", decaying, TEMPLATE, CENTRALIZED, step, steps=STEPS, **rates)
    served = run(method, start, data, rounds=5).served["ES"]
    names = [n for n, slot in TEMPLATE.items() if slot.role in CENTRALIZED]
    found = {n: torch.nn.Parameter(torch.tensor(start[n])) for n in names}
    adam = torch.optim.AdamW(found.values(), lr=ADAM.rate, betas=(0.9, 0.999), weight_decay=ADAM.decay)
    for round_ in range(1, 6):
        for group in adam.param_groups:
            group["lr"] = ADAM.rate * budget.rate_share(round_)
        for _ in range(STEPS):
            adam.zero_grad()
            sum(((theta - torch.tensor(data["ES"].target[n])) ** 2).sum() / 2 for n, theta in found.items()).backward()
            adam.step()
    for n in names:
        np.testing.assert_allclose(served[n], found[n].detach().numpy(), rtol=0, atol=1e-8, err_msg=n)
    assert math.isclose(budget.rate_share(5), 1.0 if decay == "none" else 0.1859, abs_tol=1e-4)


@pytest.mark.parametrize("gate", ["private", "federated"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_joint_is_pf_msmtrecs_model_and_shares_what_that_shares(gate, batch_norm):
    ours = {"gate": gate, "federated_batch_norm": batch_norm, "private_experts": 3, "linear_experts": 2, "rank": 2}
    methods = blocks(pf_msmtrec={**ours, "tower_steps": 0}, joint=ours)
    one, joint = (build_method(name, methods, quadratic_train, TEMPLATE) for name in ("pf_msmtrec", "joint"))
    assert {phase.uploads for phase in joint.phases} == {phase.uploads for phase in one.phases}
    assert method_facts("joint", methods).model_parts == method_facts("pf_msmtrec", methods).model_parts
    assert method_facts("centralized", methods).model_parts == MethodFacts(CENTRALIZED).model_parts


def test_centralized_keeps_what_tells_scenarios_apart():
    assert set(Role) - NEVER_LEAVES - {Role.NORM, Role.GATE, Role.TOWER} == CENTRALIZED


@pytest.mark.parametrize("name", ["joint", "centralized"])
def test_a_round_has_as_many_exchanges_as_steps(name):
    budget = Train(local_steps=5)
    for steps, expected in ((None, 5), (2, 2)):
        method = build_method(name, blocks(**{name: {"steps": steps}}), quadratic_train, TEMPLATE, budget)
        assert [phase.name for phase in method.phases] == ["round"] * expected
