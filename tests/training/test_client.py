import copy

import numpy as np
import pytest

from pfmsmt.core.errors import CheckpointError
from pfmsmt.training.client import Request
from pfmsmt.training.scores import Score, score
from pfmsmt.training.validate import positives, validate

METHODS = ["pf_msmtrec", "fedavg", "local", "joint"]
PRIVATE = {"data.private_fields": ["categorical_3"]}


def requests(federation, client, round=1):
    """The server's request in a round in which it changes nothing."""
    parameters = federation.clients[client].initial_parameters
    server = federation.method.init(parameters, federation.names)
    train = [Request("train", round, i, p.broadcast(server, client)) for i, p in enumerate(federation.method.phases)]
    return [*train, Request("validate", round, 0, federation.method.broadcast(server, client))]


@pytest.mark.slow(1)
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


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", METHODS)
def test_a_whole_round_can_be_repeated(make_federation, equal_arrays, method):
    """A server that was killed after the clients had trained asks for the round again, from its first phase."""
    once, twice, fresh = (make_federation(method) for _ in range(3))
    answers = {}
    for name, federation, rounds in (("once", once, (1, 2)), ("twice", twice, (1, 1, 2, 2))):
        for round_ in rounds:
            answers[name] = [federation.clients["ES"].answer(request) for request in requests(fresh, "ES", round_)]
    for expected, found in zip(answers["once"][:-1], answers["twice"][:-1], strict=True):
        assert equal_arrays(expected.arrays, found.arrays)
    assert answers["once"][-1] == answers["twice"][-1]


@pytest.mark.slow(1)
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


@pytest.mark.slow(3)
def test_best_is_the_round_with_the_best_validation(make_federation, equal_arrays):
    federation = make_federation("local", {"methods.local.learning_rate": 0.02})
    client = federation.clients["NL"]
    scores, models = [], []
    for round_ in range(1, 7):
        *train, last = requests(federation, "NL", round_)
        for request in train:
            client.answer(request)
        validation = client.answer(last)
        scores.append(score(validation, positives(client.learner.data.validation, ("ctr", "ctcvr"))))
        models.append(client.learner.binding.read())
    best = max(range(6), key=lambda i: scores[i])
    assert client.best.round == best + 1
    assert client.best.score == scores[best]
    assert equal_arrays(client.best.parameters, models[best])
    # The parameters that are kept give the validation that is kept.
    client.learner.binding.write(client.best.parameters)
    learner = client.learner
    assert validate(learner.model, learner.data.validation, learner.device) == client.best.validation


@pytest.mark.slow(1)
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


@pytest.mark.slow(1)
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


def test_states_do_not_add_up_over_the_phases_of_a_round(make_federation):
    """After the last round, after the phase before, and the new one."""
    federation = make_federation("joint", {"methods.joint.steps": 5})
    client = federation.clients["ES"]
    for round_ in (1, 2):
        for request in requests(federation, "ES", round_)[:-1]:
            client.answer(request)
    assert list(client._states) == [(1, 4), (2, 3), (2, 4)]


@pytest.mark.slow(1)
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


@pytest.mark.slow(2)
def test_private_tables_stay_with_the_client(make_config, make_data, tmp_path):
    import torch

    from pfmsmt.data.schema import read_schema
    from pfmsmt.training.federation import build_federation

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


# The n-th of the parameters averaged so far: beta^(n - i) (1 - beta) / (1 - beta^n), e.g. 0.81, 0.9, 1 over 2.71.
WEIGHTS = {
    0.9: {1: [1], 2: [0.9 / 1.9, 1 / 1.9], 3: [0.81 / 2.71, 0.9 / 2.71, 1 / 2.71]},
    0.5: {1: [1], 2: [1 / 3, 2 / 3], 3: [1 / 7, 2 / 7, 4 / 7]},
    0.0: {1: [1], 2: [0, 1], 3: [0, 0, 1]},
}


def averaging(beta):
    return {"train.averaging": beta, "methods.local.learning_rate": 0.02}


def play(federation, fresh, round_, client="NL"):
    """One round; return the parameters that were validated, and their validation."""
    *train, last = requests(fresh, client, round_)
    for request in train:
        federation.clients[client].answer(request)
    validation = federation.clients[client].answer(last)
    return federation.clients[client].learner.binding.read(), validation


def mean(found, weights):
    return {n: sum(w * a[n].astype(np.float64) for w, a in zip(weights, found, strict=True)) for n in found[0]}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for n, array in expected.items():
        assert found[n].dtype == np.float32
        np.testing.assert_allclose(found[n], array, rtol=1e-5, atol=1e-6, err_msg=n)


@pytest.fixture(scope="module")
def own(make_federation):
    """method -> the parameters of three rounds, each on its own; averaging does not reach into training."""
    known = {}

    def get(method):
        if method not in known:
            federation, fresh = (make_federation(method, averaging(0.0)) for _ in range(2))
            known[method] = [play(federation, fresh, round_)[0] for round_ in (1, 2, 3)]
        return known[method]

    return get


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", ["pf_msmtrec", "ditto", "local"])  # fedavg: the server changes nothing here
@pytest.mark.parametrize("beta", WEIGHTS)
def test_what_is_validated_is_an_average_over_rounds(make_federation, equal_arrays, own, method, beta):
    federation, fresh = (make_federation(method, averaging(beta)) for _ in range(2))
    client, models = federation.clients["NL"], []
    for round_ in (1, 2, 3):
        found, validation = play(federation, fresh, round_)
        models.append(found)
        assert_close(found, mean(own(method)[:round_], WEIGHTS[beta][round_]))
        if beta == 0:
            assert equal_arrays(found, own(method)[round_ - 1])
        assert validate(client.learner.model, client.learner.data.validation, client.learner.device) == validation
    # What is kept, and served, is an average, too.
    assert equal_arrays(client.best.parameters, models[client.best.round - 1])
    distance = max(np.abs(models[2][n] - own(method)[2][n]).max() for n in models[2])
    assert (distance > 1e-3) == (beta > 0)


def test_an_average_of_what_did_not_change_is_that_bit_for_bit(make_federation, equal_arrays):
    """As of a client that fails in training: its model, its validation and so its best round stay as they are."""
    federation, fresh = (make_federation("local", averaging(0.9)) for _ in range(2))
    expected = play(federation, fresh, 1)
    client = federation.clients["NL"]
    for round_ in (2, 3, 4):
        assert client.answer(requests(fresh, "NL", round_)[-1]) == expected[1]
        assert equal_arrays(client.learner.binding.read(), expected[0])
    assert client.best.round == 1


@pytest.mark.slow(1)
@pytest.mark.parametrize("beta", [0.9, 0.0])
def test_a_repeated_validation_enters_the_average_once(make_federation, equal_arrays, own, tmp_path, beta):
    once, twice, fresh = (make_federation("local", averaging(beta)) for _ in range(3))
    for round_ in (1, 2, 3):
        expected = play(once, fresh, round_)
        *train, last = requests(fresh, "NL", round_)
        for request in train:
            twice.clients["NL"].answer(request)
        for _ in range(3):
            assert twice.clients["NL"].answer(copy.deepcopy(last)) == expected[1]
            assert equal_arrays(twice.clients["NL"].learner.binding.read(), expected[0])
        for name, federation in (("once", once), ("twice", twice)):
            federation.clients["NL"].save(tmp_path / name, round_)
        one, two = ((tmp_path / name / "NL.safetensors").read_bytes() for name in ("once", "twice"))
        assert one == two
    assert_close(expected[0], mean(own("local"), WEIGHTS[beta][3]))


@pytest.mark.slow(2)
@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("beta", [0.9, 0.0])
def test_an_average_goes_on_where_it_was_saved(make_federation, equal_arrays, tmp_path, beta, stop):
    whole, first, second, fresh = (make_federation("pf_msmtrec", averaging(beta)) for _ in range(4))
    for round_ in range(1, stop + 1):
        play(first, fresh, round_)
    first.clients["NL"].save(tmp_path, stop)
    second.clients["NL"].load(tmp_path)
    for round_ in (1, 2, 3):
        expected = play(whole, fresh, round_)
        if round_ > stop:
            found = play(second, fresh, round_)
            assert equal_arrays(found[0], expected[0])
            assert found[1] == expected[1]
    assert second.clients["NL"].best.round == whole.clients["NL"].best.round
    assert equal_arrays(second.clients["NL"].best.parameters, whole.clients["NL"].best.parameters)


@pytest.mark.slow(1)
def test_the_average_of_the_last_complete_round_is_saved_in_the_next_one(make_federation, equal_arrays, tmp_path):
    """Round 3 has been validated, but the state after round 2 is asked for: round 3 is then done anew."""
    federation, second, fresh = (make_federation("local", averaging(0.9)) for _ in range(3))
    for round_ in (1, 2, 3):
        expected = play(federation, fresh, round_)
    federation.clients["NL"].save(tmp_path, 2)
    second.clients["NL"].load(tmp_path)
    found = play(second, fresh, 3)
    assert found[1] == expected[1]
    assert equal_arrays(found[0], expected[0])


@pytest.mark.slow(1)
def test_loading_forgets_what_was_averaged_before(make_federation, equal_arrays, tmp_path):
    untrained, used, fresh = (make_federation("local", averaging(0.9)) for _ in range(3))
    untrained.clients["NL"].save(tmp_path, 0)
    expected = play(untrained, fresh, 1)[0]
    play(used, fresh, 1, "NL")
    used.clients["NL"].load(tmp_path)
    assert equal_arrays(play(used, fresh, 1)[0], expected)


def test_a_round_is_scored_by_auc_with_positives_as_weights():
    """(30 x 0.8 + 10 x 0.6) / 40 = 0.75; a task of one class has no AUC, and all log-losses count alike."""
    cells = {"ctr": {"auc": 0.8, "logloss": 0.2}, "ctcvr": {"auc": 0.6, "logloss": 0.1}}
    weights = {"NL": {"ctr": 30, "ctcvr": 10}}
    assert score({"NL": cells}, weights) == pytest.approx(Score(0.75, -0.15))
    assert score({"NL": cells}) == pytest.approx(Score(0.7, -0.15))
    cells["ctcvr"]["auc"] = None
    assert score({"NL": cells}, weights) == pytest.approx(Score(0.8, -0.15))
    cells["ctr"]["auc"] = None
    assert score({"NL": cells}, weights) == pytest.approx(Score(0.0, -0.15))
