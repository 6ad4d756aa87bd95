"""The exact identities of docs/explanation/method.md, on closed-form clients."""

import numpy as np
import pytest

from pfmsmt.config import Methods
from pfmsmt.config.methods import WITH_SHARED
from pfmsmt.core.types import ANCHOR, NEVER_LEAVES, Role
from pfmsmt.methods.catalogue import method_facts
from tests.support.quadratic import (
    EVERY_METHOD,
    EVERYTHING_OFF,
    PLAIN,
    RATES,
    TEMPLATE,
    TRAINING_ALONE,
    WITHOUT_TASK,
    Quadratic,
    assert_close,
    blocks,
    build,
    federation,
    role_of,
    run,
    same,
    values,
)

ADAM = {"server_optimizer": "adam", "server_learning_rate": 0.05, "server_beta1": 0.9, "server_beta2": 0.99}


@pytest.mark.parametrize("server", [PLAIN, ADAM])
@pytest.mark.parametrize("coupling", [0.0, 0.5, 1.0])
def test_pf_msmtrec_with_everything_off_is_fedavg(server, coupling):
    start, data = values(0, WITHOUT_TASK), federation(4, WITHOUT_TASK)
    off = build("pf_msmtrec", WITHOUT_TASK, **{**EVERYTHING_OFF, **server, "coupling": coupling})
    plain = build("fedavg", WITHOUT_TASK, **RATES, **server)
    first, second = run(off, start, data, rounds=4), run(plain, start, data, rounds=4)
    for k in data:
        assert_close(first.served[k], second.served[k], atol=1e-9 if server is ADAM else 1e-13)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-6), (np.float64, 1e-12)])
def test_pf_msmtrec_with_everything_off_is_fedavg_up_to_the_order_of_summation(dtype, rtol):
    """Rows are mixed by one matrix product, the mean is summed client by client."""
    start, data = values(0, WITHOUT_TASK, dtype), federation(4, WITHOUT_TASK, dtype)
    off = build("pf_msmtrec", WITHOUT_TASK, **EVERYTHING_OFF)
    plain = build("fedavg", WITHOUT_TASK, **RATES, **PLAIN)
    first, second = run(off, start, data).served, run(plain, start, data).served
    for k in data:
        for n, expected in second[k].items():
            assert first[k][n].dtype == dtype
            # Relative to the array's largest number: a sum that nearly cancels has no digits to agree in.
            np.testing.assert_allclose(first[k][n], expected, rtol=0, atol=rtol * np.abs(expected).max(), err_msg=n)


def test_fedavg_is_the_weighted_mean_of_locally_trained_parameters():
    """One round, 3 steps at rate 0.1: theta' = target + 0.9^3 (theta - target), then sum n_k theta'_k / sum n."""
    start, data = values(0), federation(3)
    served = run(build("fedavg", **RATES, **PLAIN), start, data, rounds=1).served
    shares = {"ES": 10 / 60, "FR": 20 / 60, "NL": 30 / 60}
    for k in data:
        trained = {j: {n: t + 0.9**3 * (start[n] - t) for n, t in data[j].target.items()} for j in data}
        for n, slot in TEMPLATE.items():
            own = slot.role in (Role.TASK, Role.PRIVATE)
            expected = trained[k][n] if own else sum(shares[j] * trained[j][n] for j in data)
            np.testing.assert_allclose(served[k][n], expected, rtol=0, atol=1e-14)


def test_local_is_plain_gradient_descent():
    start, data = values(0), federation(3)
    served = run(build("local", learning_rate=0.1), start, data, rounds=4).served
    for k in data:
        assert_close(served[k], {n: t + 0.9**12 * (start[n] - t) for n, t in data[k].target.items()})


PERSONAL = {**PLAIN, **RATES, "tower_steps": 0, "regularizer": 0.0, "conflict": 0.4}


@pytest.mark.slow(0.1)
@pytest.mark.parametrize("aggregation", ["similarity", "learned", "uniform", "identity"])
@pytest.mark.parametrize("gate", ["federated", "private"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_one_client_trains_locally(aggregation, gate, batch_norm):
    start, data = values(0), federation(1)
    alone = run(build("local", learning_rate=0.1), start, data).served["ES"]
    changes = {**PERSONAL, "aggregation": aggregation, "gate": gate, "federated_batch_norm": batch_norm}
    assert_close(run(build("pf_msmtrec", **changes), start, data).served["ES"], alone)
    assert_close(run(build("fedavg", **RATES, **PLAIN), start, data).served["ES"], alone)


@pytest.mark.parametrize("aggregation", ["similarity", "learned", "uniform", "identity"])
def test_identical_clients_train_locally(aggregation):
    start, target = values(0), values(1)
    data = {k: Quadratic(target, 10 + i) for i, k in enumerate(("ES", "FR", "NL"))}
    alone = run(build("local", learning_rate=0.1), start, data).served["ES"]
    for method in (build("pf_msmtrec", **{**PERSONAL, "aggregation": aggregation}), build("fedavg", **RATES, **PLAIN)):
        for served in run(method, start, data, rounds=3).served.values():
            assert_close(served, alone)


def test_identical_clients_with_two_phases_take_their_own_steps():
    """Bodies move 3 steps a round; heads 3 + 2, as phase 2 goes on where phase 1 left them."""
    start, target = values(0), values(1)
    data = {k: Quadratic(target, 10 + i) for i, k in enumerate(("ES", "FR", "NL"))}
    outcome = run(build("pf_msmtrec", **{**PERSONAL, "tower_steps": 2}), start, data, rounds=2)
    steps = {role: 10 if role in (Role.TOWER, Role.GATE) else 6 for role in Role}
    expected = {n: t + 0.9 ** steps[TEMPLATE[n].role] * (start[n] - t) for n, t in target.items()}
    for served in outcome.served.values():
        assert_close(served, expected)
    assert {float(state.optimizer["count"]) for state in outcome.states.values()} == {10.0}


def test_conflict_zero_is_the_mean():
    """With lambda = 1 and c = 0 every client receives G + mean update: fedavg on the federated roles."""
    start, data = values(0), federation(3)
    coordinated = build("pf_msmtrec", **{**PERSONAL, "conflict": 0.0, "coupling": 1.0, "federated_batch_norm": False})
    served = run(coordinated, start, data).served
    mean = run(build("fedavg", **RATES, **PLAIN), start, data).served
    for k in data:
        assert_close(served[k], mean[k])


def test_identity_without_coupling_is_local_training():
    start, data = values(0), federation(3)
    alone = run(build("local", learning_rate=0.1), start, data).served
    served = run(build("pf_msmtrec", **{**PERSONAL, "aggregation": "identity", "coupling": 0.0}), start, data).served
    for k in data:
        assert_close(served[k], alone[k])


def test_a_regulariser_pulls_federated_arrays_towards_what_was_received():
    """Rate 0.1, mu = 0.5, one step after another from a: theta <- theta - 0.1 ((theta - t) + 0.5 (theta - a))."""
    start, data = values(0), federation(1)
    served = run(build("pf_msmtrec", **{**PERSONAL, "regularizer": 0.5}), start, data, rounds=1).served["ES"]
    for n, slot in TEMPLATE.items():
        theta, target = start[n], data["ES"].target[n]
        mu = 0.5 if slot.role in (Role.EXPERT, Role.TOWER, Role.GATE, Role.EMBEDDING, Role.FIRST_ORDER) else 0.0
        for _ in range(3):
            theta = theta - 0.1 * ((theta - target) + mu * (theta - start[n]))
        np.testing.assert_allclose(served[n], theta, rtol=0, atol=1e-14)


def test_a_regulariser_pulls_in_the_second_phase_as_in_the_first():
    """Heads take 3 + 2 steps, all of them pulled towards the heads that the round began with."""
    start, data = values(0), federation(1)
    changes = {**PERSONAL, "regularizer": 0.5, "tower_steps": 2}
    served = run(build("pf_msmtrec", **changes), start, data, rounds=1).served["ES"]
    for n, slot in TEMPLATE.items():
        if slot.role in (Role.TOWER, Role.GATE):
            theta, target = start[n], data["ES"].target[n]
            for _ in range(5):
                theta = theta - 0.1 * ((theta - target) + 0.5 * (theta - start[n]))
            np.testing.assert_allclose(served[n], theta, rtol=0, atol=1e-14)


def test_a_regulariser_of_zero_is_none():
    start, data = values(0), federation(3)
    tiny = run(build("pf_msmtrec", **{**PERSONAL, "regularizer": 1e-300}), start, data).served
    none = run(build("pf_msmtrec", **{**PERSONAL, "regularizer": 0.0}), start, data).served
    assert same(tiny, none)


def test_a_global_anchor_is_what_the_regulariser_pulls_towards():
    """Two rounds of clients that keep their own updates. In the second the anchor is G, not what was received."""
    start, data = values(0), federation(2)
    changes = {**PERSONAL, "regularizer": 0.5, "conflict": 0.0, "aggregation": "identity", "coupling": 0.0}
    outcome = run(build("pf_msmtrec", **changes, anchor="global"), start, data, rounds=2)
    federated = {Role.EXPERT, Role.TOWER, Role.GATE, Role.EMBEDDING, Role.FIRST_ORDER}
    for n, slot in TEMPLATE.items():
        mu = 0.5 if slot.role in federated else 0.0
        theta, anchor = dict.fromkeys(data, start[n]), start[n]
        for _ in range(2):
            before = dict(theta)
            for k, client in data.items():
                for _ in range(3):
                    theta[k] = theta[k] - 0.1 * ((theta[k] - client.target[n]) + mu * (theta[k] - anchor))
            anchor = anchor + sum(share * (theta[k] - before[k]) for k, share in (("ES", 1 / 3), ("FR", 2 / 3)))
        for k in data:
            np.testing.assert_allclose(outcome.served[k][n], theta[k], rtol=0, atol=1e-13, err_msg=n)
    down = [{role_of(n) for n in names if n.startswith(ANCHOR)} for _, way, names in outcome.sent if way == "down"]
    assert down == [federated] * 4
    received = run(build("pf_msmtrec", **changes), start, data, rounds=2).served
    assert not same(outcome.served, received)


@pytest.mark.parametrize("name", ["pf_msmtrec", "pf_msmtrec_paper"])
def test_anchors_are_sent_only_where_they_are_used(name):
    """In phase 2 those of the heads alone; none without a regulariser, and none beside what is validated and served."""
    start, data = values(0), federation(2)
    method = build(name, tower_steps=2, anchor="global", regularizer=0.1, gate="private")
    outcome = run(method, start, data, rounds=1)
    sent = {
        phase: {role_of(n) for n in names if n.startswith(ANCHOR)}
        for phase, way, names in outcome.sent
        if way == "down"
    }
    body = {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER}
    assert sent == {"experts": {*body, Role.TOWER}, "towers": {Role.TOWER}}
    assert method.broadcast(outcome.server, "ES").keys() <= TEMPLATE.keys()
    for changes in ({"anchor": "global", "regularizer": 0.0}, {"anchor": "received", "regularizer": 0.1}):
        silent = run(build(name, **changes), start, data, rounds=1)
        assert {n for _, _, names in silent.sent for n in names} <= TEMPLATE.keys()


def test_both_anchors_are_the_same_where_clients_receive_the_global_part():
    start, data = values(0), federation(3)
    changes = {**PERSONAL, "regularizer": 0.5, "coupling": 1.0, "tower_steps": 2}
    first, second = (
        run(build("pf_msmtrec", **changes, anchor=anchor), start, data) for anchor in ("received", "global")
    )
    for k in data:
        assert_close(first.served[k], second.served[k])


def test_towers_without_coordination_are_those_of_a_conflict_of_0():
    """And experts are those of the coordination that stays: neither depends on the other here."""
    start, data = values(0), federation(4)
    changes = {**PERSONAL, "coupling": 0.5, "gate": "federated"}
    served = {
        kind: run(build("pf_msmtrec", **{**changes, **more}), start, data, rounds=4).served
        for kind, more in (("without", {"coordinate_towers": False}), ("off", {"conflict": 0.0}), ("on", {}))
    }
    heads = {Role.TOWER, Role.GATE}
    differ = {"off": set(), "on": set()}
    for k in data:
        for n, slot in TEMPLATE.items():
            like = "off" if slot.role in heads else "on"
            assert same(served["without"][k][n], served[like][k][n]), n
            other = "on" if like == "off" else "off"
            if not same(served["without"][k][n], served[other][k][n]):
                differ[other].add(slot.role)
    assert differ == {"on": heads, "off": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER}}


OTHERS = ("expert/1", "embedding", "first_order", "tower/ctr")
ONE_OF_EACH = {n: slot for n, slot in TEMPLATE.items() if slot.group not in OTHERS}
"""One expert and one tower of one layer: FedHCA2 has one alpha for all experts, and towers of all tasks attend."""


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_the_aggregation_fedhca2_is_that_method_where_there_is_one_of_each(dtype, rtol):
    start, data = values(0, ONE_OF_EACH, dtype), federation(4, ONE_OF_EACH, dtype)
    changes = {**PERSONAL, "aggregation": "fedhca2", "coupling": 0.0, "gate": "private"}
    ours = build("pf_msmtrec", ONE_OF_EACH, **changes, alpha=0.2, learned_rate=0.03)
    theirs = build("fedhca2", ONE_OF_EACH, **RATES, conflict=0.4, alpha=0.2, beta=0.2, hyper_rate=0.03)
    absent = {(2, 0, "FR")}
    first, second = (run(method, start, data, rounds=4, absent=absent) for method in (ours, theirs))
    for k in data:
        assert_close(first.served[k], second.served[k], atol=rtol)
    weights = [float(second.server["weights"][k]["encoder"]) for k in sorted(data)]
    np.testing.assert_allclose(first.server["attention"]["expert/0"]["weights"], weights, rtol=0, atol=rtol)
    assert len({0.0, 0.2, 1.0, *weights}) == 7, "all have learned, and none is at a bound"
    assert first.metrics[-1]["ES/alpha"] == pytest.approx(weights[0], abs=rtol)


def test_with_the_aggregation_fedhca2_the_towers_of_a_task_attend_to_each_other():
    """beta 0.7 at the start: D_s + 0.7 sum_j softmax_j(<D_s, D_j> / sqrt d) D_j, and no g."""
    start, data = values(0), federation(3)
    changes = {**PERSONAL, "aggregation": "fedhca2", "coupling": 0.0, "gate": "private", "alpha": 0.7}
    outcome = run(build("pf_msmtrec", **changes), start, data, rounds=1)
    for task in ("ctr", "ctcvr"):
        names = sorted(n for n in TEMPLATE if n.startswith(f"tower/{task}/"))
        moved = np.stack(
            [np.concatenate([((0.9**3 - 1) * (start[n] - c.target[n])).ravel() for n in names]) for c in data.values()]
        )
        logits = moved @ moved.T / np.sqrt(moved.shape[1])
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected = np.concatenate([start[n].ravel() for n in names]) + moved + 0.7 * shares @ moved
        found = np.stack([np.concatenate([outcome.served[k][n].ravel() for n in names]) for k in data])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert {name.partition("/")[2] for name in outcome.metrics[0] if name.startswith("NL/")} == {"alpha", "beta"}


def test_with_the_aggregation_fedhca2_the_global_part_is_the_clients_middle():
    start, data = values(0), federation(3)
    changes = {**PERSONAL, "aggregation": "fedhca2", "coupling": 0.0, "tower_steps": 2}
    server = run(build("pf_msmtrec", **changes), start, data, rounds=3).server
    for n, common in server["global"].items():
        mean = np.mean([server["clients"][k][n] for k in data], axis=0)
        np.testing.assert_allclose(common, mean, rtol=0, atol=1e-12)


def test_the_papers_preset_is_pf_msmtrec_with_these_settings():
    by_hand = {
        "server_optimizer": "plain", "server_learning_rate": 1.0, "server_weight_decay": 0.0,
        "learning_rate": 3.0, "regularizer": 0.01, "anchor": "global", "rank": 4, "scenario_rank": 4,
        "private_experts": 0, "linear_experts": 1, "federated_batch_norm": True, "gate": "private", "conflict": 0.4,
        "coordinate": "clients_and_tasks", "coordinate_towers": False, "aggregation": "fedhca2", "alpha": 0.1,
        "learned_rate": 10.0, "coupling": 0.0, "tower_steps": 4,
    }  # fmt: skip
    preset = Methods().pf_msmtrec_paper.model_dump()
    assert preset == {key: {**Methods().pf_msmtrec.model_dump(), **by_hand}[key] for key in preset}
    start, data = values(0, dtype=np.float32), federation(4, dtype=np.float32)
    slower = {"learning_rate": 0.5}
    first = run(build("pf_msmtrec_paper", **slower), start, data)
    assert same(first[:4], run(build("pf_msmtrec", **{**by_hand, **slower}), start, data)[:4])
    parts = [method_facts(name, blocks(pf_msmtrec=by_hand)).model_parts for name in ("pf_msmtrec", "pf_msmtrec_paper")]
    assert parts[0] == parts[1] == {"rank": 4, "scenario_rank": 4, "private_experts": 0, "linear_experts": 1}


KEEPS = {
    "local": set(Role),
    "ditto": set(Role),
    "fedavg": NEVER_LEAVES,
    "fedprox": NEVER_LEAVES,
    "fedbn": NEVER_LEAVES | {Role.NORM},
    "fedper": NEVER_LEAVES | {Role.TOWER, Role.GATE},
    "fedrep": NEVER_LEAVES | {Role.TOWER, Role.GATE},
    "fedavg_finetune": NEVER_LEAVES,
    "apfl": set(Role),
    "fedamp": set(Role),
    "fedhca2": NEVER_LEAVES | {Role.NORM, Role.GATE},
    "pf_msmtrec_paper": NEVER_LEAVES | {Role.NORM, Role.GATE},
    "pf_msmtrec": NEVER_LEAVES | {Role.NORM},
}
"""Roles of what a client serves from its own training."""


def steps(name, role):
    """A round's steps, of which FedRep's heads have 2 and its body 1."""
    return 3 if name != "fedrep" else 2 if role in KEEPS[name] else 1


@pytest.mark.parametrize("name", [name for name in EVERY_METHOD if name in KEEPS])
def test_decay_is_of_what_a_client_keeps_and_of_nothing_that_it_sends(name):
    """Three steps at rate 0.1 with decay 0.5: theta <- 0.95 theta - 0.1 (theta - t); what is sent goes without."""
    decay = "weight_decay" if name == "local" else "private_weight_decay"
    changes = {**TRAINING_ALONE[name], decay: 0.5}
    start, data = values(0), federation(1)
    served = run(build(name, **changes), start, data, rounds=1).served["ES"]
    for n, slot in TEMPLATE.items():
        theta, target = start[n], data["ES"].target[n]
        for _ in range(steps(name, slot.role)):
            theta = (0.95 if slot.role in KEEPS[name] else 1.0) * theta - 0.1 * (theta - target)
        np.testing.assert_allclose(served[n], theta, rtol=0, atol=1e-14, err_msg=n)


@pytest.mark.parametrize("name", [name for name in WITH_SHARED if name in KEEPS])
def test_the_servers_decay_is_of_what_it_steps(name):
    """One client, plain, rate 1, decay 1/4: 3/4 theta + (theta' - theta) = theta' - theta / 4; not of BatchNorm."""
    changes = {**TRAINING_ALONE[name], "server_weight_decay": 0.25}
    start, data = values(0), federation(1)
    method = build(name, **changes)
    outcome = run(method, start, data, rounds=1)
    for n, found in method.broadcast(outcome.server, "ES").items():
        target = data["ES"].target[n]
        trained = target + 0.9 ** steps(name, TEMPLATE[n].role) * (start[n] - target)
        taken = 0.0 if TEMPLATE[n].role is Role.NORM else 0.25
        np.testing.assert_allclose(found, trained - taken * start[n], rtol=0, atol=1e-14, err_msg=n)
