import copy

import numpy as np
import pytest

from pfmsmt.client import Request
from pfmsmt.errors import CheckpointError
from pfmsmt.evaluation import score, validate

METHODS = ["pf_msmtrec", "fedavg", "local"]
PRIVATE = {"data.private_fields": ["categorical_3"]}


def requests(federation, client, round=1):
    """What the server would ask for in a round in which it changes nothing."""
    parameters = federation.clients[client].initial_parameters
    server = federation.method.init(parameters, federation.names)
    train = [Request("train", round, i, p.broadcast(server, client)) for i, p in enumerate(federation.method.phases)]
    return [*train, Request("validate", round, 0, federation.method.broadcast(server, client))]


@pytest.mark.parametrize("method", METHODS)
def test_a_repeated_request_has_the_same_answer_and_effect(make_federation, equal_arrays, method):
    once, twice = (make_federation(method) for _ in range(2))
    for round_ in (1, 2, 3):
        for request in requests(once, "ES", round_):
            expected = once.clients["ES"].answer(request)
            answers = [twice.clients["ES"].answer(copy.deepcopy(request)) for _ in range(3)]
            for answer in answers:
                if request.kind == "train":
                    assert equal_arrays(expected.arrays, answer.arrays)
                    assert (expected.loss, expected.examples) == (answer.loss, answer.examples)
                else:
                    assert expected == answer


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_round_can_be_repeated(make_federation, equal_arrays, method):
    """A server that was killed after the clients had trained asks for the round again, from its first phase."""
    once, twice = (make_federation(method) for _ in range(2))
    answers = {}
    for name, federation, rounds in (("once", once, (1, 2)), ("twice", twice, (1, 1, 2, 2))):
        for round_ in rounds:
            answers[name] = [federation.clients["ES"].answer(request) for request in requests(once, "ES", round_)]
    for expected, found in zip(answers["once"][:-1], answers["twice"][:-1], strict=True):
        assert equal_arrays(expected.arrays, found.arrays)
    assert answers["once"][-1] == answers["twice"][-1]


@pytest.mark.parametrize("method", METHODS)
def test_requests_change_neither_themselves_nor_earlier_answers(make_federation, equal_arrays, method):
    client = make_federation(method).clients["ES"]
    seen = []
    for round_ in (1, 2):
        for request in requests(make_federation(method), "ES", round_):
            before = copy.deepcopy(request.arrays)
            answer = client.answer(request)
            assert equal_arrays(before, request.arrays)
            if request.kind == "train":
                seen.append((answer.arrays, copy.deepcopy(answer.arrays)))
    assert all(equal_arrays(now, then) for now, then in seen)


def test_best_is_the_round_with_the_best_validation(make_federation, equal_arrays):
    federation = make_federation("local", {"methods.local.learning_rate": 0.02})
    client = federation.clients["NL"]
    scores, models = [], []
    for round_ in range(1, 7):
        *train, last = requests(federation, "NL", round_)
        for request in train:
            client.answer(request)
        validation = client.answer(last)
        scores.append(score(validation))
        models.append(client.learner.binding.read())
    best = max(range(6), key=lambda i: scores[i])
    assert client.best.round == best + 1
    assert client.best.score == scores[best]
    assert equal_arrays(client.best.parameters, models[best])
    # The parameters that are kept give the validation that is kept.
    client.learner.binding.write(client.best.parameters)
    learner = client.learner
    assert validate(learner.model, learner.data.validation, learner.device) == client.best.validation


@pytest.mark.parametrize("method", METHODS)
def test_what_was_saved_goes_on_bit_for_bit(make_federation, equal_arrays, tmp_path, method):
    whole, first, second = (make_federation(method) for _ in range(3))
    for federation in (whole, first):
        for round_ in (1, 2):
            for request in requests(federation, "US", round_):
                federation.clients["US"].answer(request)
    first.clients["US"].save(tmp_path, 2)
    second.clients["US"].load(tmp_path)
    assert second.clients["US"].best._replace(parameters={}) == first.clients["US"].best._replace(parameters={})
    assert equal_arrays(second.clients["US"].best.parameters, first.clients["US"].best.parameters)
    for request in requests(make_federation(method), "US", 3):
        expected, found = (f.clients["US"].answer(request) for f in (whole, second))
        if request.kind == "train":
            assert equal_arrays(expected.arrays, found.arrays)
        else:
            assert expected == found
    second.clients["US"].save(tmp_path / "b", 3)
    whole.clients["US"].save(tmp_path / "a", 3)
    assert (tmp_path / "a/US.safetensors").read_bytes() == (tmp_path / "b/US.safetensors").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_the_state_after_the_last_round_can_be_saved_in_the_middle_of_the_next(
    make_federation, equal_arrays, tmp_path, method
):
    whole, broken, fresh = (make_federation(method) for _ in range(3))
    for request in requests(whole, "ES", 1):
        for federation in (whole, broken):
            federation.clients["ES"].answer(request)
    for request in requests(whole, "ES", 2)[:-1]:
        broken.clients["ES"].answer(request)
    whole.clients["ES"].save(tmp_path / "whole", 1)
    broken.clients["ES"].save(tmp_path / "broken", 1)
    assert (tmp_path / "whole/ES.safetensors").read_bytes() == (tmp_path / "broken/ES.safetensors").read_bytes()
    fresh.clients["ES"].load(tmp_path / "broken")
    for request in requests(whole, "ES", 2)[:-1]:
        expected, found = (f.clients["ES"].answer(request) for f in (whole, fresh))
        assert equal_arrays(expected.arrays, found.arrays)


def test_a_client_that_never_trained_can_be_saved(make_federation, equal_arrays, tmp_path):
    federation, fresh = (make_federation("pf_msmtrec") for _ in range(2))
    federation.clients["NL"].save(tmp_path, 0)
    fresh.clients["NL"].load(tmp_path)
    assert fresh.clients["NL"].best is None
    request = requests(fresh, "NL")[0]
    assert equal_arrays(fresh.clients["NL"].answer(request).arrays, federation.clients["NL"].answer(request).arrays)


def test_loading_what_is_not_there(make_federation, tmp_path):
    with pytest.raises(CheckpointError, match=r"NL\.safetensors cannot be read"):
        make_federation("local").clients["NL"].load(tmp_path)


def test_private_tables_stay_with_the_client(make_config, make_data, tmp_path):
    import torch

    from pfmsmt.data.schema import read_schema
    from pfmsmt.federation import build_federation

    shards = make_data(private_fields=("categorical_3",)) / "data/clients"
    schema = read_schema(shards / "schema.json")
    config = make_config(PRIVATE)
    for method in ("pf_msmtrec", "fedavg"):
        federation = build_federation(config, schema, shards, method, 0, torch.device("cpu"))
        for request in requests(federation, "ES")[:-1]:
            upload = federation.clients["ES"].answer(request)
            assert not [name for name in upload.arrays if name.startswith(("private", "task"))]
        tables = [client.initial_parameters["private/table"] for client in federation.clients.values()]
        assert not np.array_equal(tables[0][:2], tables[1][:2])
