"""Clients whose private tables are trained in place keep every promise that clients with copied state keep."""

import copy

import numpy as np
import pytest
import torch

from pfmsmt.core.errors import CheckpointError
from pfmsmt.data.encoder import Encoded
from pfmsmt.data.schema import read_schema
from pfmsmt.data.shards.resident import load_shard
from pfmsmt.models.saved import load_model
from pfmsmt.training.client import Request
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import build_federation
from pfmsmt.training.history import History
from pfmsmt.training.local import PRIVATE_TABLE, TABLE_VERSION
from pfmsmt.training.rounds import run_rounds
from pfmsmt.training.trial import run_trial

METHODS = ["pf_msmtrec", "fedavg", "fedrep", "fedamp", "local"]
FIELDS = ("categorical_3", "categorical_9")
NAME = "private/table"


@pytest.fixture(scope="module")
def build(make_data, make_config):
    shards = make_data(private_fields=FIELDS) / "data/clients"
    schema = read_schema(shards / "schema.json")

    def make(name, changes=None):
        config = make_config({"data.private_fields": list(FIELDS), "train.large_table_rows": 1, **(changes or {})})
        return build_federation(config, schema, shards, name, 0, torch.device("cpu"))

    make.schema, make.shards = schema, shards
    return make


def requests(federation, client, round):
    parameters = federation.clients[client].initial_parameters
    server = federation.method.init(parameters, federation.names)
    train = [Request("train", round, i, p.broadcast(server, client)) for i, p in enumerate(federation.method.phases)]
    return [*train, Request("validate", round, 0, federation.method.broadcast(server, client))]


def table(client):
    return client.learner.large.table.detach().clone()


@pytest.mark.parametrize("method", METHODS)
def test_the_table_is_in_no_message_and_no_copied_state(build, method):
    client = build(method).clients["NL"]
    assert NAME not in client.initial_parameters
    for request in requests(build(method), "NL", 1):
        answer = client.answer(request)
        assert NAME not in request.arrays
        assert request.kind == "validate" or NAME not in answer.arrays
    for state in client._states.values():
        assert NAME not in state.private
        assert {name for name in state.optimizer if name.startswith(PRIVATE_TABLE)} <= {TABLE_VERSION}
    assert NAME in client.best_parameters()


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", METHODS)
def test_requests_and_rounds_can_be_repeated(build, equal_arrays, method):
    once, twice, fresh = (build(method) for _ in range(3))
    for round_ in (1, 2, 3):
        *_, last = asked = requests(fresh, "ES", round_)
        expected = [once.clients["ES"].answer(request) for request in asked]
        for request in asked[:-1]:  # a server that was killed after the clients had trained begins again
            twice.clients["ES"].answer(copy.deepcopy(request))
        for request, answer in zip(asked, expected, strict=True):
            for found in [twice.clients["ES"].answer(copy.deepcopy(request)) for _ in range(2)]:
                if request is last:
                    assert found == answer
                else:
                    assert equal_arrays(found.arrays, answer.arrays)
                    assert found.loss == answer.loss
        assert torch.equal(table(once.clients["ES"]), table(twice.clients["ES"]))
    assert not torch.equal(table(once.clients["ES"]), table(fresh.clients["ES"]))


@pytest.mark.slow(2)
@pytest.mark.parametrize("method", METHODS)
def test_what_was_saved_in_the_middle_of_a_round_goes_on_bit_for_bit(build, equal_arrays, tmp_path, method):
    whole, broken, second = (build(method) for _ in range(3))
    for round_ in (1, 2):
        for request in requests(second, "US", round_):
            whole.clients["US"].answer(request)
            broken.clients["US"].answer(request)
    whole.clients["US"].save(tmp_path / "whole", 2)
    for request in requests(second, "US", 3)[:-1]:
        broken.clients["US"].answer(request)
    broken.clients["US"].save(tmp_path / "broken", 2)
    for suffix in (".safetensors", ".table.npz"):
        assert (tmp_path / f"whole/US{suffix}").read_bytes() == (tmp_path / f"broken/US{suffix}").read_bytes()
    asked = requests(build(method), "US", 3)
    second.clients["US"].load(tmp_path / "broken")
    assert equal_arrays(second.clients["US"].best_parameters(), whole.clients["US"].best_parameters())
    for request in asked:
        expected, found = (f.clients["US"].answer(request) for f in (whole, second))
        assert found == expected if request.kind == "validate" else equal_arrays(found.arrays, expected.arrays)
    assert torch.equal(table(whole.clients["US"]), table(second.clients["US"]))
    (tmp_path / "broken/US.table.npz").unlink()
    with pytest.raises(CheckpointError, match=r"US\.table\.npz cannot be read .*remove .*broken to start anew"):
        build(method).clients["US"].load(tmp_path / "broken")


@pytest.mark.slow(3)
@pytest.mark.parametrize("method", METHODS)
def test_each_step_from_what_the_one_before_has_saved(build, tmp_path, method):
    """As at a site of its own, where every request is a process."""
    whole = build(method).clients["NL"]
    for round_ in (1, 2):
        for step, request in enumerate(requests(build(method), "NL", round_)):
            whole.answer(request)
            single = build(method).clients["NL"]
            if (round_, step) != (1, 0):
                single.load(tmp_path / "step")
            single.answer(request)
            single.save(tmp_path / "step", round_)
    whole.save(tmp_path / "whole", 2)
    for suffix in (".safetensors", ".table.npz"):
        assert (tmp_path / f"whole/NL{suffix}").read_bytes() == (tmp_path / f"step/NL{suffix}").read_bytes()


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", [*METHODS, "joint"])
def test_the_model_that_is_kept_is_the_best_rounds(build, tmp_path, method):
    """The written model predicts what the best round predicted on validation rows, large table included."""
    federation = build(method, {"train.averaging": 0.0})
    server = federation.method.init(federation.clients[federation.names[0]].initial_parameters, federation.names)
    history, seen = History(), {}
    with InProcess(federation.clients, 1, 1) as exchange:
        for result in run_rounds(federation.method, exchange, server, federation.names, rounds=4, quorum=1.0):
            history.add(result)
            for name, client in federation.clients.items():
                seen[name, result.round] = table(client)
    for name, client in federation.clients.items():
        np.testing.assert_array_equal(client.best_parameters()[NAME], seen[name, client.best.round].numpy())
    federation._replace(calibration="none").save_models(tmp_path / "models", history)
    for name in build.schema.scenarios:
        client = federation.clients[name]
        rows = load_shard(build.shards, "val", build.schema.scenario(name))
        saved = load_model(tmp_path / "models" / name)
        found = saved.probabilities(Encoded(rows.codes.numpy(), rows.values.numpy()))
        labels = rows.labels[:, 0].numpy()
        logloss = -np.mean(np.where(labels == 1, np.log(found[:, 0]), np.log1p(-found[:, 0])))
        assert logloss == pytest.approx(client.best.validation[name]["ctr"]["logloss"], rel=1e-6)


def test_tables_are_dense_below_the_limit_and_for_two_models(build):
    rows = {name: sum(f.codes for f in build.schema.scenario(name).categorical if not f.federated)
            for name in build.schema.scenarios}  # fmt: skip
    limit = sorted(rows.values())[1]
    clients = build("local", {"train.large_table_rows": limit}).clients
    assert {name: client.learner.large is not None for name, client in clients.items()} == {
        name: count >= limit for name, count in rows.items()
    }
    for method in ("ditto", "apfl", "fedavg_finetune"):
        assert all(client.learner.large is None for client in build(method).clients.values())


def test_one_training_beside_a_dense_one(build, make_config):
    """After one step all is the same but for rows that the batch did not hold: only dense ones decay."""
    lazy, dense = (
        build("local", {"train.large_table_rows": limit, "train.local_steps": 1, "model.dropout": 0.0})
        for limit in (1, 10**9)
    )
    before = dense.clients["NL"].initial_parameters[NAME]
    for federation in (lazy, dense):
        federation.clients["NL"].answer(requests(federation, "NL", 1)[0])
    one, two = lazy.clients["NL"], dense.clients["NL"]
    for name, array in one._states[1, 0].private.items():
        np.testing.assert_allclose(array, two._states[1, 0].private[name], rtol=1e-6, atol=1e-7)
    lazily, densely = table(one).numpy(), two._states[1, 0].private[NAME]
    met = (lazily != before).any(1)
    assert 0 < met.sum() < len(met)
    np.testing.assert_allclose(lazily[met], densely[met], rtol=1e-4, atol=1e-6)
    block = make_config().methods.local
    decay = 1 - block.learning_rate * block.weight_decay
    np.testing.assert_allclose(densely[~met], before[~met] * decay, rtol=1e-5)


@pytest.mark.slow(3)
@pytest.mark.parametrize("method", ["pf_msmtrec", "joint"])
def test_a_trial_is_scored_with_the_best_table(build, make_config, method):
    config = make_config({"data.private_fields": list(FIELDS), "train.large_table_rows": 1})
    trial = run_trial(config, build.schema, build.shards, method, 0, torch.device("cpu"), workers=2, threads=1)
    again = run_trial(config, build.schema, build.shards, method, 0, torch.device("cpu"), workers=1, threads=1)
    assert trial.validation == again.validation
    assert trial.test(build.schema, build.shards) == again.test(build.schema, build.shards)
