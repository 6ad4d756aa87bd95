"""The exact identities, most of them bit for bit, with real models, data and training: whole short federations."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from pfmsmt.core import arrays
from pfmsmt.core.types import NEVER_LEAVES, NamedArrays, Role
from pfmsmt.data.schema import read_schema
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import Federation, build_federation
from pfmsmt.training.rounds import RoundResult, run_rounds
from tests.support.quadratic import EVERYTHING_OFF, PLAIN

ROUNDS = 3
ADAM = {
    "server_optimizer": "adam", "server_learning_rate": 0.02, "server_beta1": 0.9, "server_beta2": 0.99,
    "server_weight_decay": 0.1,
}  # fmt: skip
RATES = {"learning_rate": 0.1, "private_learning_rate": 0.01, "private_weight_decay": 0.1}
# In `local` as in the others, first-order weights have shared parts, which nobody shares.
RIDGES = {"ridge": 6.0, "private_ridge": 60.0}
RATES |= RIDGES
ALONE = {"learning_rate": 0.01, "weight_decay": 0.1, **RIDGES}
PRIVATE_FIELD = {"data.private_fields": ["categorical_3"]}


class Run(NamedTuple):
    """A federation that has been trained; arrays are those of each client."""

    start: dict[str, NamedArrays]
    served: dict[str, NamedArrays]
    rounds: list[RoundResult]
    federation: Federation

    @property
    def heard(self):
        """The driver's knowledge: losses and validation."""
        losses = [{key: x for key, x in r.metrics.items() if key.startswith("train/")} for r in self.rounds]
        return losses, [r.validation for r in self.rounds]

    def learned(self, roles):
        """Names of parameters of these roles; running statistics are none."""
        template = self.federation.clients["ES"].learner.binding.template
        statistics = ("norm_mean", "norm_variance")
        return {n for n, slot in template.items() if slot.role in roles and not n.endswith(statistics)}


@pytest.fixture(scope="module")
def train(make_config, make_data):
    """Return a function that trains a method on the tiny data, with one private field."""
    shards = make_data(private_fields=("categorical_3",)) / "data/clients"
    schema = read_schema(shards / "schema.json")

    def run(name, rounds=ROUNDS, **knobs):
        changes = {f"methods.{name}.{key}": value for key, value in knobs.items()}
        # What is served is what the method holds after the last round, not an average over rounds.
        config = make_config({"train.rounds": ROUNDS, "train.averaging": 0.0, **PRIVATE_FIELD, **changes})
        federation = build_federation(config, schema, shards, name, 0, torch.device("cpu"))
        start = {k: client.initial_parameters for k, client in federation.clients.items()}
        server = federation.method.init(start["ES"], federation.names)
        with InProcess(federation.clients, 1, 1) as exchange:
            run_ = run_rounds(federation.method, exchange, server, federation.names, rounds=rounds, quorum=1.0)
            results = list(run_)
        # After a round's validation, a client's model holds what it would serve.
        served = {k: client.learner.binding.read() for k, client in federation.clients.items()}
        return Run(start, served, results, federation)

    return run


@pytest.fixture
def assert_same(equal_arrays):
    def check(first, second):
        for k in first:
            assert equal_arrays(first[k], second[k]), k

    return check


@pytest.mark.slow(1)
@pytest.mark.parametrize("server", [PLAIN, ADAM])
def test_fedprox_without_its_term_is_fedavg(train, assert_same, server):
    prox = train("fedprox", **RATES, **server, regularizer=0.0)
    plain = train("fedavg", **RATES, **server)
    assert_same(prox.served, plain.served)
    assert prox.heard == plain.heard


@pytest.mark.slow(0.4)
def test_a_huge_mu_keeps_fedprox_where_it_starts(train):
    prox = train("fedprox", **RATES, **PLAIN, regularizer=1e6, rounds=1)
    for n in prox.learned(set(Role) - NEVER_LEAVES):
        np.testing.assert_allclose(prox.served["ES"][n], prox.start["ES"][n], rtol=0, atol=1e-4, err_msg=n)
    moved = prox.served["ES"]["private/table"] - prox.start["ES"]["private/table"]
    assert np.abs(moved).max() > 1e-3


@pytest.mark.slow(1)
def test_ditto_without_its_term_is_local(train, assert_same):
    ditto = train("ditto", **RATES, **ADAM, regularizer=0.0)
    alone = train("local", **ALONE)
    assert_same(ditto.served, alone.served)
    assert ditto.heard[1] == alone.heard[1]
    assert_same(*({k: c.best.parameters for k, c in run.federation.clients.items()} for run in (ditto, alone)))


@pytest.mark.slow(1)
def test_the_federation_under_ditto_is_fedavg(train, equal_arrays):
    ditto = train("ditto", **RATES, **ADAM, regularizer=1.0)
    plain = train("fedavg", **RATES, **ADAM)
    assert ditto.heard[0] == plain.heard[0]
    for one, other in zip(ditto.rounds, plain.rounds, strict=True):
        assert equal_arrays(one.server["global"], other.server["global"])
    assert not equal_arrays(ditto.served["ES"], plain.served["ES"])


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    ("name", "changes", "other"),
    [("fedavg_finetune", {"finetune_steps": 0}, "fedavg"), ("apfl", {"alpha": 0.0, "alpha_rate": 0.0}, "fedavg"),
     ("apfl", {"alpha": 1.0, "alpha_rate": 0.0}, "local"), ("fedamp", {"regularizer": 0.0}, "local")],
)  # fmt: skip
def test_rivals_without_what_is_their_own_are_plain_methods(train, assert_same, name, changes, other):
    private = {key: value for key, value in RATES.items() if key.startswith("private") or key in RIDGES}
    rates = private if name == "fedamp" else {**RATES, **ADAM}
    rival = train(name, **rates, **changes)
    plain = train(other, **(ALONE if other == "local" else {**RATES, **ADAM}))
    assert_same(rival.served, plain.served)
    assert rival.heard[1] == plain.heard[1]


@pytest.mark.slow(1)
@pytest.mark.parametrize("name", ["fedavg_finetune", "apfl"])
def test_the_federation_under_a_rival_with_two_models_is_fedavg(train, equal_arrays, name):
    rival, plain = train(name, **RATES, **ADAM), train("fedavg", **RATES, **ADAM)
    assert rival.heard[0] == plain.heard[0]
    for one, other in zip(rival.rounds, plain.rounds, strict=True):
        assert equal_arrays(one.server["global"], other.server["global"])
    assert not equal_arrays(rival.served["ES"], plain.served["ES"])


def test_fine_tuning_for_a_rounds_steps_serves_what_is_uploaded(train):
    """With a plain server at rate 1, the mean of what clients serve is the server's model."""
    run = train("fedavg_finetune", **RATES, **PLAIN, finetune_steps=3, finetune_rate=0.1, rounds=1)
    counts = {k: client.learner.data.train.rows for k, client in run.federation.clients.items()}
    for n, array in run.rounds[0].server["global"].items():
        mean = sum(counts[k] / sum(counts.values()) * run.served[k][n].astype(float) for k in counts)
        np.testing.assert_allclose(array, mean, rtol=0, atol=1e-6, err_msg=n)


def test_fedreps_body_and_heads_train_by_turns(train):
    """Without steps of its own, a part is as it was at the start, and the other is not."""
    for share, still in (
        (0.0, {Role.TOWER, Role.GATE}),
        (1.0, {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER, Role.NORM}),
    ):
        run = train("fedrep", **RATES, **PLAIN, head_share=share, rounds=1)
        template = run.federation.clients["ES"].learner.binding.template
        for n, slot in template.items():
            moved = not np.allclose(run.served["ES"][n], run.start["ES"][n], rtol=0, atol=1e-7)
            assert moved == (slot.role not in still and not (share == 0.0 and slot.role in NEVER_LEAVES)), n


def test_fedhca2_with_weights_of_0_federates_nothing(train, equal_arrays):
    """Every client's served model is then of its own rows alone: the others' rows may as well not be there."""
    still = {"alpha": 0.0, "beta": 0.0, "hyper_rate": 0.0}
    rates = {**RATES, **still}
    quiet, loud = train("fedhca2", **rates), train("fedhca2", **{**rates, "alpha": 0.1})
    for result in quiet.rounds:
        assert {value for name, value in result.metrics.items() if name.endswith(("/alpha", "/beta"))} == {0.0}
    assert not equal_arrays(quiet.served["ES"], loud.served["ES"])
    for result in loud.rounds:
        assert result.metrics["server/encoder_solver_fallbacks"] == 0.0


def test_a_huge_lambda_makes_dittos_models_what_was_received_last(train):
    ditto = train("ditto", **RATES, **ADAM, regularizer=1e6)
    received = ditto.rounds[-2].server["global"]
    for k, parameters in ditto.served.items():
        for n in ditto.learned(set(Role) - NEVER_LEAVES):
            np.testing.assert_allclose(parameters[n], received[n], rtol=0, atol=1e-4, err_msg=n)
        assert np.abs(parameters["private/table"] - ditto.start[k]["private/table"]).max() > 1e-3


@pytest.mark.slow(0.4)
@pytest.mark.parametrize(("server", "rounds", "atol"), [(PLAIN, 3, 1e-6), (ADAM, 1, 1e-5)])
def test_pf_msmtrec_with_everything_off_is_fedavg(train, server, rounds, atol):
    """Up to rounding: one matrix product is not summed as a mean is. Where nobody trained a number, Adam makes a step
    of the rounding alone: these are left out, and one round is compared, as the next ones would start apart.
    """
    off = train("pf_msmtrec", rounds=rounds, **{**EVERYTHING_OFF, **RATES, **server})
    plain = train("fedavg", rounds=rounds, **RATES, **server)
    squares = plain.rounds[-1].server["optimizer"].get("second", {})
    trained = {n: squares[n] > 1e-12 if n in squares else np.full(a.shape, True) for n, a in plain.served["ES"].items()}
    for k in plain.served:
        for n, expected in plain.served[k].items():
            found = np.where(trained[n], off.served[k][n], expected)
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=n)
    assert all(numbers.mean() > 0.2 for numbers in trained.values())
    for found, expected in zip(off.heard[0], plain.heard[0], strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("name", "kept"), [("fedbn", {Role.NORM}), ("fedper", {Role.TOWER, Role.GATE})])
def test_fedbn_and_fedper_share_all_but_what_they_keep(train, name, kept):
    run = train(name, rounds=1)
    template = run.federation.clients["ES"].learner.binding.template
    shared = set(Role) - NEVER_LEAVES - kept
    assert {template[n].role for n in run.rounds[0].server["global"]} == shared
    first, second = (run.served[k] for k in ("ES", "NL"))
    assert all(np.array_equal(second[n], a) for n, a in arrays.select(first, template, shared).items())
    assert not any(np.array_equal(second[n], a) for n, a in arrays.select(first, template, kept).items())


@pytest.mark.slow(0.4)
@pytest.mark.parametrize("conflict", [0.0, 0.4])
def test_tasks_told_apart_add_up_to_the_update(train, conflict):
    """Without a pull, what the tasks moved is the update; with c = 0 coordination of both is the clients' mean.

    Where nobody trained a number of a private expert, Adam makes a step of the rounding alone: none here.
    """
    knobs = {
        **PLAIN,
        "conflict": conflict,
        "tower_steps": 0,
        "regularizer": 0.0,
        "private_experts": 0,
        "linear_experts": 1,
    }
    # The first round is the mean in any case: nothing has a direction yet.
    rounds = 1 if conflict == 0.0 else 3
    apart = train("pf_msmtrec", rounds=rounds, coordinate="clients_and_tasks", **knobs)
    together = train("pf_msmtrec", rounds=rounds, coordinate="clients", **knobs)
    name = "expert/0/layers.0.weight"
    got, plain = (run.rounds[-1].server["global"][name] for run in (apart, together))
    if conflict == 0.0:
        np.testing.assert_allclose(got, plain, rtol=0, atol=1e-6)
    else:
        assert np.abs(got - plain).max() > 1e-5
