import numpy as np
import pytest
import torch

from pfmsmt.core.errors import TrainingError
from pfmsmt.training.client import Client
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.rounds import run_rounds
from tests.support.broken_clients import broken_in

METHODS = ["pf_msmtrec", "fedavg", "local"]


def run(federation, rounds=3, workers=1, quorum=0.5, exchange=None, names=None):
    """Run to the end in this process; return the rounds."""
    server = federation.method.init(next(iter(federation.clients.values())).initial_parameters, federation.names)
    with InProcess(federation.clients, workers, 1) as in_process:
        rounds_ = run_rounds(
            federation.method, exchange(in_process) if exchange else in_process, server, names or federation.names,
            rounds=rounds, quorum=quorum,
        )  # fmt: skip
        return list(rounds_)


def parameters(federation, results, client):
    return federation.method.broadcast(results[-1].server, client)


def steady(metrics):
    return {key: value for key, value in metrics.items() if "seconds" not in key}


def assert_same(equal_arrays, first, second):
    """Two federations that ran agree bit for bit: server, validation, losses, best models."""
    (one, results), (two, others) = first, second
    for a, b in zip(results, others, strict=True):
        assert (a.round, a.validation, steady(a.metrics)) == (b.round, b.validation, steady(b.metrics))
        assert (a.clients, a.transfers) == (b.clients, b.transfers)
        assert a.diagnostics.keys() == b.diagnostics.keys()
        assert all(equal_arrays(a.diagnostics[group], b.diagnostics[group]) for group in a.diagnostics)
    for name in one.names:
        assert equal_arrays(parameters(one, results, name), parameters(two, others, name))
        assert equal_arrays(one.clients[name].best.parameters, two.clients[name].best.parameters)
        assert one.clients[name].best.round == two.clients[name].best.round


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", [*METHODS, "joint", "centralized"])
def test_repeated_and_in_parallel_the_result_is_the_same(make_federation, equal_arrays, method):
    first = make_federation(method)
    expected = first, run(first)
    for workers in (1, 3):
        other = make_federation(method)
        assert_same(equal_arrays, expected, (other, run(other, workers=workers)))


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_clients_does_not_matter(make_federation, equal_arrays, method):
    first, other = (make_federation(method) for _ in range(2))
    turned = other._replace(clients=dict(reversed(other.clients.items())))

    def backwards(exchange):
        def send(requests):
            answers, failures = exchange(dict(reversed(requests.items())))
            return dict(reversed(answers.items())), failures

        return send

    names = tuple(reversed(other.names))
    assert_same(equal_arrays, (first, run(first)), (turned, run(turned, exchange=backwards, names=names)))


def test_what_a_round_reports(make_federation):
    federation = make_federation("pf_msmtrec")
    results = run(federation, rounds=2)
    assert [result.round for result in results] == [1, 2]
    result = results[1]
    assert result.failures == {}
    assert list(result.validation) == ["ES", "NL", "US"]
    assert {scenario: list(tasks) for scenario, tasks in result.validation["NL"].items()} == {"NL": ["ctr", "ctcvr"]}
    metrics = result.metrics
    assert {f"train/{k}/loss{s}" for k in federation.names for s in ("", "_towers")} <= metrics.keys()
    assert metrics["server/failures"] == 0
    template = federation.clients["NL"].learner.binding.template
    received = parameters(federation, results, "NL")
    size = {roles: sum(a.nbytes for n, a in received.items() if (template[n].role in ("tower", "gate")) is roles)
            for roles in (True, False)}  # fmt: skip
    # Up: experts and tables in phase 1, towers and gates in phase 2, each once; two counts, two losses, four metrics.
    assert metrics["server/NL/bytes_up"] == size[True] + size[False] + 8 * 8
    assert metrics["server/bytes_up"] == 3 * metrics["server/NL/bytes_up"]
    # Down: all of it before either phase and before validation.
    assert metrics["server/NL/bytes_down"] == 3 * (size[True] + size[False])
    assert metrics["server/bytes_down"] == 3 * metrics["server/NL/bytes_down"]
    assert result.clients == ("ES", "NL", "US")
    assert set(result.diagnostics) == {"expert/0", "expert/1", "embedding", "first_order", "tower/ctr", "tower/ctcvr",
                                       "gate/ctr", "gate/ctcvr"}  # fmt: skip
    for found in result.diagnostics.values():
        np.testing.assert_allclose(found["listening"].sum(axis=1), 1)
        assert {name: value.shape for name, value in found.items()} == {
            "listening": (3, 3), "cosine": (3, 3), "coefficients": (3,), "drift": (3,),
        }  # fmt: skip


@pytest.mark.slow(1)
@pytest.mark.parametrize("phase", [0, 1])
def test_a_client_that_fails_keeps_its_parameters(make_federation, equal_arrays, phase):
    federation = broken_in(make_federation("pf_msmtrec"), "ES", rounds=(2, 3), phase=phase)
    first, second, third = run(federation)
    for result in (second, third):
        assert result.failures == {"ES": "OSError: the disk of this site is gone"}
        assert result.metrics["server/failures"] == 1
        assert 0 < result.metrics["server/ES/bytes_up"] < result.metrics["server/NL/bytes_up"]
        assert result.metrics["server/ES/bytes_down"] == result.metrics["server/NL/bytes_down"]
        absent = {group for group, found in result.diagnostics.items() if np.isnan(found["drift"][0])}
        heads = {group for group in result.diagnostics if group.startswith(("tower", "gate"))}
        assert absent == (heads if phase == 1 else set(result.diagnostics) - heads)
        assert set(result.validation) == {"ES", "NL", "US"}
    assert first.failures == {}
    template = federation.clients["ES"].learner.binding.template
    heads = {n for n, slot in template.items() if slot.role in ("tower", "gate")}
    for name in ("ES", "NL"):
        before, after = (federation.method.broadcast(result.server, name) for result in (first, second))
        same = {n for n in before if np.array_equal(before[n], after[n])}
        if name == "NL":
            assert not same & {n for n in before if n.startswith(("expert", "tower"))}
        else:
            # It takes part in the phase in which it answered.
            assert same == (heads if phase == 1 else set(before) - heads)


@pytest.mark.slow(1)
def test_others_are_not_disturbed_by_a_failing_client(make_federation, equal_arrays):
    """Local training: nobody hears of anybody else."""
    healthy = make_federation("local")
    expected = run(healthy)
    federation = broken_in(make_federation("local"), "ES", rounds=(2,))
    results = run(federation)
    for name in ("NL", "US"):
        assert [r.validation[name] for r in results] == [r.validation[name] for r in expected]
        assert equal_arrays(federation.clients[name].best.parameters, healthy.clients[name].best.parameters)
    assert results[1].validation["ES"] == results[0].validation["ES"]


@pytest.mark.slow(1)
def test_a_failing_client_is_the_same_with_a_model_that_held_something_else(make_federation, equal_arrays):
    """A client after a failure depends on its state and what it is sent, not on what its model held."""
    results = []
    for disturb in (False, True):
        federation = broken_in(make_federation("pf_msmtrec"), "ES", rounds=(1,))
        if disturb:
            with torch.no_grad():
                for parameter in federation.clients["ES"].learner.model.parameters():
                    parameter.fill_(0.123)
        server = federation.method.init(federation.clients["NL"].initial_parameters, federation.names)
        with InProcess(federation.clients, 1, 1) as exchange:
            rounds = run_rounds(federation.method, exchange, server, federation.names, rounds=2, quorum=0.5)
            results.append(list(rounds)[-1].server["clients"])
    assert all(equal_arrays(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize(("quorum", "needed"), [(1.0, 3), (0.67, 3), (0.7, 3)])
def test_below_the_quorum_the_training_ends(make_federation, quorum, needed):
    federation = broken_in(make_federation("fedavg"), "US", rounds=(2,))
    with pytest.raises(TrainingError) as error:
        run(federation, quorum=quorum)
    assert str(error.value) == (
        f"round 2: 2 clients answered, the quorum is {needed}. US: OSError: the disk of this site is gone"
    )


@pytest.mark.parametrize("quorum", [0.01, 0.5, 2 / 3])
def test_with_the_quorum_it_goes_on(make_federation, quorum):
    assert len(run(broken_in(make_federation("fedavg"), "US", rounds=(1, 2, 3)), quorum=quorum)) == 3


def test_a_client_that_never_answers_anything(make_federation):
    federation = make_federation("fedavg")
    learner = federation.clients["US"].learner
    shard = learner.data.train._replace(codes=learner.data.train.codes + 10_000)
    data = learner.data._replace(train=shard, validation={"US": shard})
    dead = Client("US", federation.method, learner._replace(data=data), 0)
    federation = federation._replace(clients={**federation.clients, "US": dead})
    results = run(federation)
    assert dead.best is None
    for result in results:
        assert list(result.failures) == ["US"]
        assert result.metrics["server/US/bytes_up"] == 0
        assert "IndexError" in result.failures["US"]
        assert set(result.validation) == {"ES", "NL"}


@pytest.mark.parametrize(
    ("method", "rate"), [("pf_msmtrec", "learning_rate"), ("fedavg", "learning_rate"), ("local", "learning_rate")]
)
def test_a_diverging_loss_ends_the_training_whatever_the_quorum(make_federation, method, rate):
    federation = make_federation(method, {f"methods.{method}.{rate}": 1e30, "methods.local.weight_decay": 0.0})
    with pytest.raises(TrainingError, match=r"^round 1, client ES: the training loss became (nan|inf)") as error:
        run(federation, quorum=0.01)
    assert len(str(error.value).splitlines()) == 3  # all three clients are named


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_an_upload_that_is_not_finite_is_refused(make_federation):
    """The last step of a round may blow up after its loss was still finite: at the client, or at the server."""
    federation = make_federation("fedavg", {"methods.fedavg.learning_rate": 1e38, "train.local_steps": 1})
    pattern = r"round 1, client ES: (upload '.*' is not finite|the training loss became|scenario ES: a pred)"
    with pytest.raises(TrainingError, match=pattern):
        run(federation)


def test_private_parameters_that_blow_up_in_the_last_step_are_refused(make_federation):
    """Nothing of them is uploaded, and there is no next loss that would show it."""
    changes = {"methods.local.learning_rate": 3e38, "methods.local.weight_decay": 0.0, "train.local_steps": 1}
    federation = make_federation("local", changes)
    with pytest.raises(TrainingError, match=r"^round 1, client ES: scenario ES: a predicted probability is nan; lower"):
        run(federation, rounds=1, quorum=0.01)
