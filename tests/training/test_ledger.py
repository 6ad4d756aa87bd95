"""The ledger against what an exchange that listens really passed on."""

import pandas as pd
import pytest

from pfmsmt.core.types import ANCHOR, Role
from pfmsmt.methods import Upload
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.ledger import LEDGER_COLUMNS, TRAFFIC_COLUMNS, Ledger
from pfmsmt.training.rounds import run_rounds
from tests.support.broken_clients import broken_in


class Listening:
    """Passes messages on and writes down everything in them, in its own words."""

    def __init__(self, exchange, phases):
        self._exchange, self._phases, self.heard = exchange, phases, []

    def __call__(self, requests):
        answers, failures = self._exchange(requests)
        for client, request in requests.items():
            phase = self._phases[request.phase] if request.kind == "train" else "validation"
            route = (request.round, client, phase)
            self.heard += [(*route, "down", n, a.shape, str(a.dtype), a.nbytes) for n, a in request.arrays.items()]
            answer = answers.get(client)
            if isinstance(answer, Upload):
                self.heard += [(*route, "up", n, a.shape, str(a.dtype), a.nbytes) for n, a in answer.arrays.items()]
                numbers = [("examples", "int64"), ("loss", "float64")]
            else:
                numbers = [
                    (f"{scenario}/{task}/{metric}", "float64")
                    for scenario, tasks in (answer or {}).items() for task in tasks for metric in ("auc", "logloss")
                ]  # fmt: skip
            self.heard += [(*route, "up", name, (), kind, 8) for name, kind in numbers]
        return answers, failures


def run(federation, rounds=3):
    """Run to the end; return the ledger and what passed."""
    ledger = Ledger()
    server = federation.method.init(next(iter(federation.clients.values())).initial_parameters, federation.names)
    with InProcess(federation.clients, 1, 1) as in_process:
        exchange = Listening(in_process, [phase.name for phase in federation.method.phases])
        for result in run_rounds(
            federation.method, exchange, server, federation.names, rounds=rounds, quorum=0.5
        ):  # fmt: skip
            ledger.add(result.round, result.transfers)
    return ledger, exchange.heard


def template_of(federation):
    return federation.clients[federation.names[0]].learner.binding.template


def check(federation, ledger, heard):
    """Every item stands in the ledger once, at its first round, and every byte in the traffic."""
    template = template_of(federation)
    first = {}
    for round_, *key, size in heard:
        first.setdefault(tuple(key), (round_, size))
    table = ledger.table(template)
    assert tuple(table) == LEDGER_COLUMNS
    found = {(r.client, r.phase, r.direction, r.name, r.shape, r.dtype): (r.round, r.bytes) for r in itertuples(table)}
    assert len(found) == len(table)
    shown = {(*key[:4], "x".join(map(str, key[4])) or "scalar", key[5]): value for key, value in first.items()}
    assert found == shown
    numbers = {key[3] for key in first if key[4] == () and key[3] not in template}
    for row in itertuples(table):
        assert row.role == ("number" if row.name in numbers else template[row.name].role)
    traffic = ledger.traffic()
    assert tuple(traffic) == TRAFFIC_COLUMNS
    for row in itertuples(traffic):
        for direction in ("up", "down"):
            own = [line for line in heard if line[:2] == (row.round, row.client) and line[3] == direction]
            assert getattr(row, f"bytes_{direction}") == sum(line[-1] for line in own)
            assert getattr(row, f"tensors_{direction}") == sum(line[4] not in numbers for line in own)
    assert len(traffic) == len({line[:2] for line in heard})


def itertuples(table):
    return list(table.itertuples(index=False))


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", ["pf_msmtrec", "fedavg", "local", "joint"])
def test_the_ledger_is_what_passed(make_federation, method):
    federation = make_federation(method)
    ledger, heard = run(federation, rounds=2)
    check(federation, ledger, heard)
    assert set(ledger.table(template_of(federation))["round"]) == {1}


def test_a_client_that_joins_late_stands_in_the_ledger_from_then_on(make_federation):
    federation = broken_in(make_federation("pf_msmtrec"), "ES", rounds=(1,), phase=1)
    ledger, heard = run(federation)
    check(federation, ledger, heard)
    table = ledger.table(template_of(federation))
    late = table[(table["client"] == "ES") & (table["phase"] == "towers") & (table["direction"] == "up")]
    assert len(late)
    assert set(late["round"]) == {2}
    assert set(table.drop(late.index)["round"]) == {1}


def test_the_summary_names_what_left_and_what_never_did(make_federation):
    federation = make_federation("pf_msmtrec")
    ledger, heard = run(federation, rounds=2)
    template = template_of(federation)
    sent = [line for line in heard if line[:2] == (1, "NL") and line[3] == "up" and line[4] in template]
    assert ledger.summary(template) == (
        f"{len(sent)} tensors, {sum(line[-1] for line in sent) / 1024:,.1f} KiB, left each client in a round "
        "(embedding, expert, first_order, gate, tower); never: norm, task"
    )


def test_the_summary_of_local_training(make_federation):
    federation = make_federation("local")
    ledger, _ = run(federation, rounds=1)
    assert ledger.summary(template_of(federation)) == (
        "no tensor left a client, only counts, losses and metrics; never: embedding, expert, first_order, gate, norm, "
        "task, tower"
    )


def test_a_tensor_that_the_template_does_not_know_is_called_unlabelled(make_federation):
    federation = make_federation("fedavg")
    ledger, _ = run(federation, rounds=1)
    short = {name: slot for name, slot in template_of(federation).items() if slot.role is not Role.TOWER}
    roles = set(ledger.table(short)["role"])
    assert "unlabelled" in roles
    assert "unlabelled" in ledger.summary(short)


def test_an_anchor_stands_in_the_ledger_with_the_role_of_its_parameter(make_federation):
    federation = make_federation("pf_msmtrec_paper")
    ledger, _ = run(federation, rounds=1)
    table, template = ledger.table(template_of(federation)), template_of(federation)
    anchors = [row for row in itertuples(table) if row.name.startswith(ANCHOR)]
    assert {row.phase for row in anchors} == {"experts", "towers"}
    assert {row.direction for row in anchors} == {"down"}
    assert all(row.role == template[row.name.removeprefix(ANCHOR)].role for row in anchors)
    assert "unlabelled" not in set(table["role"])


@pytest.mark.slow(1)
def test_what_was_saved_goes_on(make_federation):
    """After a load nothing is entered twice, and what comes later is added."""
    federation = broken_in(make_federation("pf_msmtrec"), "ES", rounds=(1, 2))
    server = federation.method.init(next(iter(federation.clients.values())).initial_parameters, federation.names)
    with InProcess(federation.clients, 1, 1) as exchange:
        results = list(run_rounds(federation.method, exchange, server, federation.names, rounds=3, quorum=0.5))
    whole, first, second = Ledger(), Ledger(), Ledger()
    for result in results:
        whole.add(result.round, result.transfers)
    first.add(1, results[0].transfers)
    second.load(first.save())
    for result in results[1:]:
        second.add(result.round, result.transfers)
    template = template_of(federation)
    pd.testing.assert_frame_equal(second.table(template), whole.table(template))
    pd.testing.assert_frame_equal(second.traffic(), whole.traffic())
