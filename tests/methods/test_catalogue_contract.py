"""The contract of every method with the driver: pure functions, no order, state that survives the disk."""

import copy
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pfmsmt.core.types import NEVER_LEAVES, Role, Stream
from pfmsmt.methods import ClientState
from pfmsmt.methods.catalogue import build_method, declaration_of, method_facts
from pfmsmt.methods.declaration import faults_of
from pfmsmt.methods.ditto import GLOBAL
from pfmsmt.training.tree import read_tree, write_tree
from tests.support.quadratic import (
    EVERY_METHOD,
    REFERENCES,
    TEMPLATE,
    blocks,
    build,
    federation,
    quadratic_train,
    role_of,
    run,
    same,
    values,
)

VARIANTS = [
    *((name, {}) for name in EVERY_METHOD),
    ("fedavg", {"server_optimizer": "plain"}),
    ("ditto", {"regularizer": 0.0}),
    ("fedavg_finetune", {"finetune_steps": 0}),
    ("apfl", {"server_optimizer": "plain", "alpha": 1.0}),
    ("fedhca2", {"conflict": 0.0, "hyper_rate": 1.0}),
    ("pf_msmtrec", {"server_optimizer": "plain", "tower_steps": 0, "gate": "private"}),
    ("pf_msmtrec", {"aggregation": "uniform", "federated_batch_norm": False, "regularizer": 0.5}),
    ("pf_msmtrec", {"aggregation": "identity", "conflict": 0.0, "tower_steps": 1}),
    ("pf_msmtrec", {"aggregation": "learned", "private_weight_decay": 0.1, "server_weight_decay": 0.1}),
    ("pf_msmtrec", {"coordinate": "clients_and_tasks", "regularizer": 0.1}),
    ("pf_msmtrec", {"aggregation": "fedhca2", "coupling": 0.5, "coordinate_towers": False}),
    ("pf_msmtrec", {"anchor": "global", "regularizer": 0.5, "federated_batch_norm": False}),
    ("pf_msmtrec_paper", {"tower_steps": 0, "gate": "federated"}),
]
each_variant = pytest.mark.parametrize(("name", "changes"), VARIANTS)
each_method = pytest.mark.parametrize("name", EVERY_METHOD)


def said(name):
    return f"the declaration of {name!r} says"


def words(roles):
    return ", ".join(sorted(roles)) or "nothing"


@each_method
def test_the_declaration_is_whole(name):
    declared = declaration_of(name)
    assert faults_of(declared) == []
    block = getattr(blocks(), name)
    method = build(name)
    assert method.name == name, f"{said(name)} name={name!r}; the method that it builds is called {method.name!r}"
    facts = method_facts(name, blocks())
    exchanges = 1 if name in REFERENCES else len(method.phases)
    assert facts.phases == exchanges, f"{said(name)} phases={facts.phases}; the method has {exchanges}"
    for key, parameter in declared.search.items():
        # Round values of a float's range, or all choices.
        for value in parameter.choices or (parameter.low, parameter.high):
            try:
                type(block).model_validate({**block.model_dump(), key: value})
            except ValidationError as error:
                pytest.fail(f"{said(name)} search[{key!r}] with {value!r}, which its block refuses: {error}")


@each_variant
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_are_not_changed(name, changes, dtype):
    method = build(name, **changes)
    start, data = values(0, dtype=dtype), federation(3, dtype=dtype)
    originals = copy.deepcopy((start, data))
    server = method.init(start, tuple(data))  # `run` makes all arrays read-only; here they are also compared
    states = {k: method.init_client(start) for k in data}
    for number in (1, 2):
        for index, phase in enumerate(method.phases):
            uploads = {}
            for k in data:
                received = phase.broadcast(server, k)
                before = copy.deepcopy((server, received, states[k]))
                uploads[k], new = phase.client_update(received, states[k], data[k], Stream(0, k, number, index))
                assert same((server, received, states[k]), before)
                states[k] = new
            before = copy.deepcopy((server, uploads))
            update = phase.server_update(server, uploads)
            assert same((server, uploads), before)
            server = update.server
    before = copy.deepcopy((server, states))
    for k in data:
        served = method.personalise(method.broadcast(server, k), states[k])
        absent = words(TEMPLATE.keys() - served.keys())
        assert served.keys() == TEMPLATE.keys(), f"{name}: `personalise` must return every tensor; absent: {absent}"
        assert all(array.dtype == dtype for array in served.values())
    assert same((server, states), before)
    assert same((start, data), originals)
    run(method, start, data)


@each_variant
def test_order_of_clients_is_irrelevant_bit_for_bit(name, changes):
    method, start, data = build(name, **changes), values(0, dtype=np.float32), federation(4, dtype=np.float32)
    forward = run(method, start, data, order=["ES", "FR", "NL", "US"])
    for order in (["US", "NL", "FR", "ES"], ["FR", "US", "ES", "NL"]):
        other = run(method, start, data, order=order)
        assert same(other.served, forward.served)
        assert same(other.server, forward.server)
        assert same(tuple(other.diagnostics), tuple(forward.diagnostics))
        assert same(tuple(other.metrics), tuple(forward.metrics))


@each_variant
def test_repeated_calls_give_the_same(name, changes):
    method, start, data = build(name, **changes), values(0), federation(3)
    assert same(run(method, start, data)[:3], run(method, start, data)[:3])


@each_variant
def test_states_survive_the_disk(name, changes, tmp_path: Path):
    """Stop after every round, write server and clients, read them, go on: nothing differs from going straight on."""
    method, start, data = build(name, **changes), values(0), federation(3)
    straight = run(method, start, data, rounds=3)
    server, states = method.init(start, tuple(data)), {k: method.init_client(start) for k in data}
    for number in (1, 2, 3):
        for index, phase in enumerate(method.phases):
            uploads = {}
            for k in data:
                received = phase.broadcast(server, k)
                uploads[k], states[k] = phase.client_update(received, states[k], data[k], Stream(0, k, number, index))
            server = phase.server_update(server, uploads).server
        write_tree(tmp_path / "server", server, {})
        server = read_tree(tmp_path / "server")[0]
        for k in data:
            write_tree(tmp_path / k, states[k]._asdict(), {})
            tree = read_tree(tmp_path / k)[0]
            states[k] = ClientState(tree.get("private", {}), tree.get("optimizer", {}))
    served = {k: method.personalise(method.broadcast(server, k), states[k]) for k in data}
    assert same(served, straight.served)
    assert same(server, straight.server)


@each_variant
def test_private_arrays_stay_at_the_client(name, changes):
    """Neither adapters nor private tables in any message; all else as the declaration says."""
    method, data = build(name, **changes), federation(3)
    facts = method_facts(name, blocks(**{name: changes}))
    allowed = set(facts.shared)
    outcome = run(method, values(0), data)
    travelled = {role_of(n) for _, _, names in outcome.sent for n in names}
    assert travelled == allowed, f"{said(name)} shared={words(allowed)}; its messages hold {words(travelled)}"
    assert not travelled & NEVER_LEAVES, (
        f"{name}: its messages hold {words(travelled & NEVER_LEAVES)}: these never leave"
    )
    up = {n for _, way, names in outcome.sent if way == "up" for n in names}
    assert up <= TEMPLATE.keys(), "anchors go down alone"
    held = {n for k in data for n in method.broadcast(outcome.server, k)}
    assert {TEMPLATE[n].role for n in held} == allowed, (
        f"{name}: Method.broadcast must hold all shared roles, no others"
    )
    # Some have two models: all of the personal one stays, and of the global one what FedAvg keeps.
    kept = {(n.startswith(GLOBAL), TEMPLATE[n.removeprefix(GLOBAL)].role) for n in outcome.states["ES"].private}
    own = set(Role) if facts.keeps == "all" else set(Role) - allowed
    found = {role for is_global, role in kept if not is_global}
    assert found == own, f"{said(name)} keeps={facts.keeps!r}, so {words(own)}; clients' states hold {words(found)}"
    beside = {role for is_global, role in kept if is_global}
    assert beside == (set(Role) - allowed if facts.two_models else set()), (
        f"{said(name)} two_models={facts.two_models}; under {GLOBAL!r} clients' states hold {words(beside)}"
    )
    assert all(state.private.keys() == outcome.states["ES"].private.keys() for state in outcome.states.values())


@each_variant
def test_the_shared_roles_of_the_methods_of_this_package(name, changes):
    """BatchNorm only where it is federated; declarations say what methods do, and this table what they ought to."""
    learned = {Role.EXPERT, Role.TOWER, Role.GATE, Role.EMBEDDING, Role.FIRST_ORDER}
    allowed = {
        "local": frozenset(),
        "linear": frozenset(),
        "joint": learned - {Role.GATE},
        "centralized": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER},
        "fedavg": {*learned, Role.NORM},
        "fedprox": {*learned, Role.NORM},
        "ditto": {*learned, Role.NORM},
        "fedbn": learned,
        "fedper": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER, Role.NORM},
        "fedrep": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER, Role.NORM},
        "fedavg_finetune": {*learned, Role.NORM},
        "apfl": {*learned, Role.NORM},
        "fedamp": learned,
        "fedhca2": {Role.EXPERT, Role.TOWER, Role.EMBEDDING, Role.FIRST_ORDER},
        "pf_msmtrec_paper": {Role.EXPERT, Role.TOWER, Role.EMBEDDING, Role.FIRST_ORDER}
        | ({Role.GATE} if changes.get("gate") == "federated" else set()),
        "pf_msmtrec": {Role.EXPERT, Role.TOWER, Role.EMBEDDING, Role.FIRST_ORDER}
        | ({Role.GATE} if changes.get("gate") != "private" else set())
        | ({Role.NORM} if changes.get("federated_batch_norm") is False else set()),
    }
    facts = method_facts(name, blocks(**{name: changes}))
    # A method that came later need not be in the table.
    assert facts.shared == allowed.get(name, facts.shared)
    two = name in ("ditto", "apfl") or (name == "fedavg_finetune" and changes.get("finetune_steps") != 0)
    if name in allowed:
        assert facts.two_models == two
        assert facts.keeps == ("all" if two or name == "fedamp" else "rest")


@pytest.mark.parametrize("gate", ["federated", "private"])
def test_pf_msmtrec_uploads_experts_first_then_towers(gate):
    outcome = run(build("pf_msmtrec", gate=gate, tower_steps=2), values(0), federation(2), rounds=1)
    heads = {Role.TOWER, Role.GATE} if gate == "federated" else {Role.TOWER}
    up = {phase: {TEMPLATE[n].role for n in names} for phase, way, names in outcome.sent if way == "up"}
    assert up == {"experts": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER}, "towers": heads}


@each_method
def test_every_method_learns(name):
    """The sum of squared distances to the targets falls, or the contract would hold for a method that does nothing."""
    data, start = federation(3), values(0)
    served = run(build(name), start, data, rounds=20).served

    def distance(parameters, k):
        return sum(float(np.sum((parameters[n] - data[k].target[n]) ** 2)) for n in parameters)

    assert sum(distance(served[k], k) for k in data) < sum(distance(start, k) for k in data)


def test_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"no method 'fedsgd'; there are {', '.join(EVERY_METHOD)}"):
        build_method("fedsgd", blocks(), quadratic_train, TEMPLATE)
