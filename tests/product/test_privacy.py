"""Nothing private leaves a client: proven for every method from its messages, over two rounds of real training."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pytest
import torch

from pfmsmt.config import METHOD_NAMES
from pfmsmt.core.types import ANCHOR, NEVER_LEAVES, NamedArrays, Role
from pfmsmt.data.schema import read_schema
from pfmsmt.methods import Method, Upload
from pfmsmt.methods.catalogue import declaration_of
from pfmsmt.methods.ditto import GLOBAL
from pfmsmt.training.client import Client, Request
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import Federation, build_federation
from pfmsmt.training.rounds import RoundResult, run_rounds
from tests.support.quadratic import REFERENCES
from tests.support.wiretap import Exchanged, Wiretap, leaves, pairs

ROUNDS = 2
PRIVATE_FIELDS = ("categorical_3", "categorical_5")
CHANGES = {"data.private_fields": list(PRIVATE_FIELDS), "train.rounds": ROUNDS}

LEARNED = {Role.EXPERT, Role.TOWER, Role.GATE, Role.EMBEDDING, Role.FIRST_ORDER}
MAY_LEAVE = {
    "pf_msmtrec": LEARNED,
    "fedavg": {*LEARNED, Role.NORM},
    "fedprox": {*LEARNED, Role.NORM},
    "fedbn": LEARNED,
    "fedper": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER, Role.NORM},
    "ditto": {*LEARNED, Role.NORM},
    "fedrep": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER, Role.NORM},
    "fedavg_finetune": {*LEARNED, Role.NORM},
    "apfl": {*LEARNED, Role.NORM},
    "fedamp": LEARNED,
    "fedhca2": LEARNED - {Role.GATE},
    "pf_msmtrec_paper": LEARNED - {Role.GATE},
    "local": set(),
    "linear": set(),
    "joint": LEARNED - {Role.GATE},
    "centralized": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER},
}
KEPT = ("private", "adapter", "scenario_down", "scenario_up")
"""In the names of tensors that never leave."""
for _later in METHOD_NAMES:
    # Of a method that came after this table, its declaration says it.
    MAY_LEAVE.setdefault(_later, declaration_of(_later).facts(declaration_of(_later).block()).shared)
SILENT = [name for name, roles in MAY_LEAVE.items() if not roles]
each_method = pytest.mark.parametrize("name", METHOD_NAMES)


class Overheard(NamedTuple):
    federation: Federation
    start: dict[str, NamedArrays]
    exchanged: list[Exchanged]
    kept: list[tuple[str, dict]]
    """(client, its private state and best model), after every exchange"""
    rounds: list[RoundResult]

    def role(self, client: str, name: str) -> Role:
        """Of an anchor, that of what it is the anchor of."""
        return self.federation.clients[client].learner.binding.template[name.removeprefix(ANCHOR)].role


@pytest.fixture(scope="module")
def shards(make_data):
    return make_data(private_fields=PRIVATE_FIELDS) / "data/clients"


@pytest.fixture(scope="module")
def listen(make_config, shards, tmp_path_factory):
    """Return a function that runs a method, noting all messages; `change` may replace the method by a worse one."""

    def run(name, changes=None, change=lambda method: method) -> Overheard:
        config, schema = make_config({**CHANGES, **(changes or {})}), read_schema(shards / "schema.json")
        federation = build_federation(config, schema, shards, name, 0, torch.device("cpu"))
        start = {k: client.initial_parameters for k, client in federation.clients.items()}
        method = change(federation.method)
        clients = {k: Client(k, method, client.learner, 0) for k, client in federation.clients.items()}
        server = method.init(start[federation.names[0]], federation.names)
        with InProcess(clients, 1, 1) as exchange:
            tap = Wiretap(exchange, clients, tmp_path_factory.mktemp(name))
            rounds = list(run_rounds(method, tap, server, federation.names, rounds=ROUNDS, quorum=1.0))
        return Overheard(federation, start, tap.exchanged, tap.kept, rounds)

    return run


@pytest.fixture(scope="module")
def overheard(listen):
    """Return a function that gives what passed with a method of the configuration; run once each."""
    known: dict[str, Overheard] = {}

    def get(name) -> Overheard:
        if name not in known:
            known[name] = listen(name)
        return known[name]

    return get


def tables(found: Overheard) -> dict[str, list[np.ndarray]]:
    """Every value that private tables and adapters had, of both of Ditto's models, and Adam's moments of them."""
    secrets: dict[str, list[np.ndarray]] = {}
    for k, parameters in found.start.items():
        secrets[k] = [a for n, a in parameters.items() if found.role(k, n) in NEVER_LEAVES]
    for k, tree in found.kept:
        state = tree["state"]
        named = [*state["private"].items(), *tree["best"].items()]
        secrets[k] += [a for n, a in named if found.role(k, n.removeprefix(GLOBAL)) in NEVER_LEAVES]
        secrets[k] += [a for n, a in state["optimizer"].items() if any(part in n for part in KEPT)]
    return secrets


def rows(found: Overheard) -> dict[str, list[np.ndarray]]:
    """Features, category codes and search ids of every client, training and validation."""
    return {
        k: [x for shard in (client.learner.data.train, *client.learner.data.validation.values())
            for x in (shard.values.numpy(), shard.codes.numpy(), shard.groups)]
        for k, client in found.federation.clients.items()
    }  # fmt: skip


def numbers(server: Mapping, steps: int) -> list[np.ndarray]:
    """Leave out the server's counters: a number of its steps equals many a category's code."""
    found = list(leaves(server))
    counters = [array for array in found if np.issubdtype(array.dtype, np.integer)]
    assert all(np.isin(array, (0, steps)).all() for array in counters)
    return [array for array in found if np.issubdtype(array.dtype, np.floating)]


def leaked(found: Overheard, secrets: dict[str, list[np.ndarray]]) -> int:
    """Count the pairs of secret numbers that the server or another client got to see."""
    seen = [array for message in found.exchanged for _, array in message.arrays]
    # The server of a reference takes a step in every exchange.
    each = len(found.federation.method.phases) if found.federation.method.name in REFERENCES else 1
    seen += [array for result in found.rounds for array in numbers(result.server, each * result.round)]
    hidden = pairs(array for arrays in secrets.values() for array in arrays)
    return len(np.intersect1d(hidden, pairs(seen), assume_unique=True))


@pytest.mark.slow(0.2)
@each_method
def test_messages_are_parameters_counts_and_metrics(overheard, name):
    """Nothing but arrays, the number of training rows and the loss goes up in training; metrics in validation."""
    assert Upload._fields == ("arrays", "examples", "loss", "by_task", "releases")
    assert Request._fields == ("kind", "round", "phase", "arrays")
    found = overheard(name)
    phases = len(found.federation.method.phases)
    assert len(found.exchanged) == ROUNDS * (phases + 1) * len(found.federation.clients)
    for k, request, answer in found.exchanged:
        assert type(request) is Request
        assert request.kind in ("train", "validate")
        assert (type(request.round), type(request.phase)) == (int, int)
        if request.kind == "train":
            assert type(answer) is Upload
            assert (type(answer.examples), type(answer.loss)) == (int, float)
            assert answer.examples == found.federation.clients[k].learner.data.train.rows
            reported = found.federation.method.phases[request.phase].reported
            assert bool(reported) == (name == "pf_msmtrec_paper" and request.phase == 0)
            assert answer.by_task.keys() == ({"ctr", "ctcvr"} if reported else set())
            assert answer.releases == 0, "no noise, so nothing is counted"
            continue
        assert answer.keys() == found.federation.clients[k].learner.data.validation.keys()
        for tasks in answer.values():
            assert list(tasks) == ["ctr", "ctcvr"]
            assert all(list(cell) == ["auc", "logloss"] for cell in tasks.values())
            assert all(type(x) in (float, type(None)) for cell in tasks.values() for x in cell.values())


def assert_only(found: Overheard, allowed: set[Role]) -> None:
    """Whatever travels is a tensor of the template, of an allowed role, with exactly its shape and type."""
    travelled = set()
    for message in found.exchanged:
        own = found.start[message.client]
        for n, array in message.arrays:
            assert type(array) is np.ndarray
            assert (array.shape, array.dtype) == (own[n.removeprefix(ANCHOR)].shape, np.float32), n
            travelled.add(found.role(message.client, n))
    assert travelled == allowed


@each_method
def test_only_shared_tensors_travel_in_their_own_shape(overheard, name):
    found = overheard(name)
    held = {
        slot.role for client in found.federation.clients.values() for slot in client.learner.binding.template.values()
    }
    assert held == ({Role.TASK, Role.PRIVATE} if name == "linear" else set(Role))
    assert_only(found, MAY_LEAVE[name])


@pytest.mark.parametrize("name", SILENT)
def test_without_federation_no_tensor_moves_at_all(overheard, name):
    found = overheard(name)
    assert len(found.federation.clients) == 3
    assert all(message.arrays == [] for message in found.exchanged)
    assert not [array for result in found.rounds for array in leaves(result.server)]


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"federated_batch_norm": False}, {*LEARNED, Role.NORM}),
        ({"gate": "private"}, LEARNED - {Role.GATE}),
        ({"tower_steps": 0}, LEARNED),
        ({"coordinate": "clients_and_tasks"}, LEARNED),
        ({"scenario_rank": 2}, LEARNED),
        ({"anchor": "global", "regularizer": 0.1}, LEARNED),
        ({"aggregation": "fedhca2", "coordinate_towers": False}, LEARNED),
    ],
)
def test_pf_msmtrec_sends_what_its_block_says(listen, changes, allowed):
    found = listen("pf_msmtrec", {f"methods.pf_msmtrec.{key}": value for key, value in changes.items()})
    assert_only(found, allowed)
    assert leaked(found, tables(found)) == 0
    told = {found.role(m.client, n) for m in found.exchanged for n in m.told}
    assert told == ({Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER} if "coordinate" in changes else set())
    anchored = {n for m in found.exchanged for n in m.request.arrays if n.startswith(ANCHOR)}
    assert {found.role("NL", n) for n in anchored} == (allowed if "anchor" in changes else set())
    if "scenario_rank" in changes:
        assert {n for k, tree in found.kept for n in tree["state"]["private"] if n.startswith("scenario/")}
        assert all(not n.startswith("scenario/") for m in found.exchanged for n, _ in m.arrays)


def test_anchors_go_down_and_never_up(overheard):
    """The paper's preset pulls towards the global part: a client receives it, and sends nothing of it back."""
    found = overheard("pf_msmtrec_paper")
    down = {n for m in found.exchanged for n in m.request.arrays if n.startswith(ANCHOR)}
    assert {found.role("NL", n) for n in down} == MAY_LEAVE["pf_msmtrec_paper"]
    sent = [m.answer for m in found.exchanged if isinstance(m.answer, Upload)]
    assert all(not n.startswith(ANCHOR) for upload in sent for n in upload.arrays)


@each_method
def test_private_tables_and_adapters_are_in_no_message(overheard, name):
    found = overheard(name)
    secrets = tables(found)
    assert all(len(pairs(arrays)) > 100 for arrays in secrets.values())
    assert leaked(found, secrets) == 0


@each_method
def test_rows_ids_and_labels_are_in_no_message(overheard, name):
    found = overheard(name)
    assert leaked(found, rows(found)) == 0
    # Apart from each other: the end of one and the beginning of the next could look like labels.
    sent = b"\xff\xff\xff\xff".join(array.tobytes() for message in found.exchanged for _, array in message.arrays)
    for client in found.federation.clients.values():
        labels = client.learner.data.train.labels.numpy()
        chunks = [np.ascontiguousarray(labels[i : i + 24, t]) for t in (0, 1) for i in range(0, len(labels) - 24, 24)]
        assert not [chunk for chunk in chunks if 0 < chunk.sum() < 24 and chunk.tobytes() in sent]


@each_method
def test_what_a_client_keeps_of_other_roles_is_in_no_message(overheard, name):
    """BatchNorm with FedBN, heads with FedPer, everything of Ditto's personal models, Adam's moments."""
    found = overheard(name)
    sent = {array.tobytes() for message in found.exchanged for _, array in message.arrays}
    kept = 0
    for k, tree in found.kept:
        state = tree["state"]
        own = {
            n: a for n, a in state["private"].items()
            if n.startswith(GLOBAL) or name == "ditto" or found.role(k, n) not in MAY_LEAVE[name]
        }  # fmt: skip
        moments = {n: a for n, a in state["optimizer"].items() if a.size > 1}
        # A single zero is no secret: links of first-order weights start at it.
        told = {n: array for n, array in {**own, **moments}.items() if array.any()}
        for n, array in told.items():
            kept += 1
            assert array.tobytes() not in sent, (k, n)
    assert kept > 0


# The proofs can fail: each of these methods gives something away, and is found out.


def uploading(take):
    """Return what makes a method write take(client state, learner) over the first numbers of the first expert's."""

    def change(method: Method) -> Method:
        phase = method.phases[0]

        def client_update(received, state, data, stream):
            upload, kept = phase.client_update(received, state, data, stream)
            name = next(n for n in sorted(upload.arrays) if n.startswith("expert"))
            array = upload.arrays[name].copy()
            secret = np.asarray(take(kept, data), dtype=np.float32).ravel()[: array.size]
            array.ravel()[: secret.size] = secret
            return upload._replace(arrays={**upload.arrays, name: array}), kept

        return method._replace(phases=(phase._replace(client_update=client_update), *method.phases[1:]))

    return change


@pytest.mark.slow(1)
@pytest.mark.parametrize("name", ["fedavg", "pf_msmtrec"])
def test_a_table_hidden_in_an_experts_weights_is_found(listen, name):
    found = listen(name, change=uploading(lambda state, data: state.private["private/table"]))
    assert_only(found, MAY_LEAVE[name])
    assert leaked(found, tables(found)) > 0
    assert leaked(found, rows(found)) == 0


@pytest.mark.slow(1)
def test_adapters_and_moments_hidden_in_an_experts_weights_are_found(listen):
    for take in (
        lambda state, data: state.private["task/layers.0.adapter_up"],
        lambda state, data: state.optimizer["private_embedding.table/exp_avg"],
    ):
        found = listen("pf_msmtrec", change=uploading(take))
        assert leaked(found, tables(found)) > 0


@pytest.mark.slow(0.4)
@pytest.mark.parametrize("part", ["values", "codes"])
def test_rows_hidden_in_an_experts_weights_are_found(listen, part):
    found = listen("fedavg", change=uploading(lambda state, data: getattr(data.data.train, part).numpy()))
    assert leaked(found, rows(found)) > 0


def test_a_table_that_is_sent_under_its_own_name_is_found(listen):
    def change(method: Method) -> Method:
        (phase,) = method.phases

        def client_update(received, state, data, stream):
            upload, kept = phase.client_update(received, state, data, stream)
            return upload._replace(arrays={**upload.arrays, **kept.private}), kept

        def server_update(server, uploads):
            def known(upload):
                return upload._replace(arrays={n: upload.arrays[n] for n in server["global"]})

            return phase.server_update(server, {k: known(u) for k, u in uploads.items()})

        return method._replace(phases=(phase._replace(client_update=client_update, server_update=server_update),))

    with pytest.raises(AssertionError):
        assert_only(listen("fedavg", change=change), MAY_LEAVE["fedavg"])


def test_every_client_has_private_tables_of_its_own(overheard):
    start = overheard("fedavg").start
    assert not np.array_equal(start["ES"]["private/table"][:2], start["NL"]["private/table"][:2])
