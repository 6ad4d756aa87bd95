"""The references with real models and data: gradients of all rows together, batch after batch."""

import numpy as np
import pytest
import torch

from pfmsmt.core import arrays
from pfmsmt.core.types import Role, Stream
from pfmsmt.methods.pooled_gradients import CENTRALIZED
from pfmsmt.models.heads import loss
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.rounds import run_rounds

ALIKE = {
    "model.dropout": 0.0, "train.averaging": 0.0, "train.learning_rate_decay": "none",
    "methods.joint.gate": "federated", "methods.joint.private_experts": 0, "methods.joint.rank": 0,
    "methods.joint.linear_experts": 1,
}  # fmt: skip
"""With these, joint shares what fedbn shares, and nothing depends on how steps are cut into rounds."""
PRIVATE = {"private_learning_rate": 0.01, "private_weight_decay": 0.5}


def trained(federation, rounds):
    server = federation.method.init(federation.initial_parameters, federation.names)
    with InProcess(federation.clients, 1, 1) as exchange:
        return list(run_rounds(federation.method, exchange, server, federation.names, rounds=rounds, quorum=1.0))


@pytest.mark.slow(2)
@pytest.mark.parametrize(("steps", "rounds"), [(1, 6), (2, 3), (3, 2)])
def test_joint_is_fedbn_with_an_exchange_at_every_step(make_federation, equal_arrays, steps, rounds):
    """Bit for bit, and the same for any number of steps in a round: batches go on from exchange to exchange."""
    joint = {"steps": steps, "server_learning_rate": 0.02, "server_weight_decay": 0.1, **PRIVATE}
    fedbn = {
        "learning_rate": 1.0, "server_optimizer": "adam", "server_learning_rate": 0.02, "server_beta2": 0.999,
        "server_weight_decay": 0.1, **PRIVATE,
    }  # fmt: skip
    one = make_federation("joint", {**ALIKE, **{f"methods.joint.{key}": value for key, value in joint.items()}})
    other = make_federation(
        "fedbn", {**ALIKE, "train.local_steps": 1, **{f"methods.fedbn.{key}": value for key, value in fedbn.items()}}
    )
    found, expected = trained(one, rounds), trained(other, 6)
    assert equal_arrays(found[-1].server["global"], expected[-1].server["global"])
    assert found[-1].validation == expected[-1].validation
    for name in one.names:
        # Round by round the loss is the mean over its exchanges.
        own, each = ([result.metrics[f"train/{name}/loss"] for result in results] for results in (found, expected))
        np.testing.assert_allclose(own, np.mean(np.reshape(each, (rounds, steps)), axis=1), rtol=1e-12)


def test_the_mean_update_is_the_gradient_of_the_loss_on_all_batches_together(make_federation):
    """Batches of all rows, so that every client's share of the batch is its share of the rows exactly."""
    federation = make_federation("centralized", {"model.dropout": 0.0, "methods.centralized.ridge": 0.0})
    rows = {name: client.learner.data.train.rows for name, client in federation.clients.items()}
    server = federation.method.init(federation.initial_parameters, federation.names)
    phase = federation.method.phases[0]
    received = phase.broadcast(server, "NL")
    uploads = {}
    for name, client in federation.clients.items():
        state = federation.method.init_client(client.initial_parameters)
        learner = client.learner._replace(batch_size=rows[name])
        uploads[name], _ = phase.client_update(received, state, learner, Stream(0, name, 1))
        client.learner.binding.write(arrays.merge(state.private, received))
    total = sum(rows.values())
    moved = arrays.combine([uploads[k].arrays for k in rows], [rows[k] / total for k in rows])
    # One loss, the mean over all rows of all clients, each row by its own client's model.
    whole = torch.zeros(())
    for name, client in federation.clients.items():
        learner = client.learner
        learner.model.train().zero_grad()
        shard = learner.data.train
        weights = torch.ones(shard.labels.shape[1])
        for logits in learner.model.paths(shard.codes, shard.values):
            whole = whole + loss(logits, shard.labels, weights, learner.model.spec) * (rows[name] / total)
    whole.backward()
    gradients = []
    for client in federation.clients.values():
        learner = client.learner
        with torch.no_grad():
            for parameter in learner.model.parameters():
                gradient = parameter.grad
                parameter.copy_(torch.zeros_like(parameter) if gradient is None else gradient)
        gradients.append(learner.binding.read(CENTRALIZED))
    pooled = arrays.combine(gradients, [1.0] * len(gradients))
    assert {federation.template[n].role for n in pooled} == {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER}
    assert moved.keys() == pooled.keys()
    for n, gradient in pooled.items():
        assert np.abs(gradient).max() > 1e-4, n
        np.testing.assert_allclose(received[n] - moved[n], gradient, rtol=0, atol=1e-6, err_msg=n)


def test_exchanges_of_a_round_draw_dropout_of_their_own(make_federation):
    """At the same start and batch the same masks, at another exchange others."""
    federation = make_federation("centralized", {"train.batch_size": 400, "methods.centralized.steps": 2})
    client = federation.clients["NL"]
    server = federation.method.init(federation.initial_parameters, federation.names)
    losses = []
    for index in (0, 0, 1):
        phase = federation.method.phases[index]
        state = federation.method.init_client(client.initial_parameters)
        upload, _ = phase.client_update(phase.broadcast(server, "NL"), state, client.learner, Stream(0, "NL", 1, index))
        losses.append(upload.loss)
        client.learner.binding.write(arrays.merge(state.private, phase.broadcast(server, "NL")))
    assert losses[0] == losses[1] != losses[2]


def test_references_are_not_noised_or_shortened(make_federation):
    """What pooling everything reaches is not limited by what messages may tell."""
    changes = {"privacy.clip": 0.001, "privacy.noise": 1.0, "privacy.wire": "float16"}
    for name in ("joint", "centralized"):
        plain, other = trained(make_federation(name), 2), trained(make_federation(name, changes), 2)
        assert [result.validation for result in plain] == [result.validation for result in other]
        assert not any(key.startswith("privacy/") for result in other for key in result.metrics)
