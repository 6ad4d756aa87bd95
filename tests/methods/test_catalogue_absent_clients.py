"""Clients that miss a phase keep their parameters, and the others go on as if they were all there is."""

import numpy as np
import pytest

from pfmsmt.core.types import Role
from pfmsmt.methods.catalogue import method_facts
from tests.support.quadratic import (
    EVERY_METHOD,
    PLAIN,
    RATES,
    TEMPLATE,
    assert_close,
    blocks,
    build,
    federation,
    run,
    same,
    values,
)

HEADS = (Role.TOWER, Role.GATE)
MOST_PHASES = 8
"""Exchanges of a round: no method has more here."""


def of_roles(parameters, roles):
    return {n: array for n, array in parameters.items() if TEMPLATE[n].role in roles}


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_a_client_that_misses_a_round_keeps_what_is_its_own(name):
    """The part that the others agree on reaches it all the same; the rest is as it was, bit for bit."""
    method, start, data = build(name), values(0), federation(3)
    before = run(method, start, data, rounds=1)
    after = run(method, start, data, rounds=2, absent={(2, phase, "FR") for phase in range(MOST_PHASES)})
    assert same(after.states["FR"], before.states["FR"])
    facts = method_facts(name, blocks())
    common = facts.shared if facts.serves == "shared" else set()
    blended = facts.shared - {Role.NORM} if facts.serves == "mixed" else set()
    own = set(Role) - common - blended
    hint = f"the declaration of {name!r} says serves={facts.serves!r}"
    assert same(of_roles(after.served["FR"], own), of_roles(before.served["FR"], own)), f"{hint}; other roles changed"
    assert same(of_roles(after.served["FR"], common), of_roles(after.served["ES"], common)), f"{hint}; clients differ"
    for k in data:
        assert not blended or not same(of_roles(after.served[k], blended), of_roles(before.served[k], blended))
    assert not same(of_roles(after.served["ES"], Role), of_roles(before.served["ES"], Role))


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_a_client_that_never_answers_changes_nothing_for_the_others(name):
    method, start, data = build(name), values(0), federation(3)
    gone = {(r, phase, "FR") for r in (1, 2) for phase in range(MOST_PHASES)}
    outcome = run(method, start, data, rounds=2, absent=gone)
    without = run(method, start, {k: data[k] for k in ("ES", "NL")}, rounds=2)
    assert same({k: outcome.served[k] for k in ("ES", "NL")}, without.served)
    assert same(outcome.states["FR"], method.init_client(start))


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("tower_steps", [0, 2])
def test_a_client_that_misses_a_round_keeps_everything(tower_steps, batch_norm):
    method = build("pf_msmtrec", tower_steps=tower_steps, federated_batch_norm=batch_norm)
    start, data = values(0), federation(3)
    gone = {(2, 0, "FR"), (2, 1, "FR")}
    assert same(
        run(method, start, data, rounds=2, absent=gone).served["FR"], run(method, start, data, rounds=1).served["FR"]
    )


@pytest.mark.parametrize("aggregation", ["similarity", "learned", "uniform", "identity"])
def test_the_others_go_on_without_it(aggregation):
    """Absent from the first round on, a client changes nothing for the others."""
    method = build("pf_msmtrec", aggregation=aggregation)
    start, data = values(0), federation(3)
    gone = {(r, phase, "FR") for r in (1, 2) for phase in range(MOST_PHASES)}
    with_absentee = run(method, start, data, rounds=2, absent=gone)
    without = run(method, start, {k: data[k] for k in ("ES", "NL")}, rounds=2)
    assert same({k: with_absentee.served[k] for k in ("ES", "NL")}, without.served)
    assert same(with_absentee.served["FR"], start)


def test_listening_has_an_identity_row_for_absentees():
    method = build("pf_msmtrec", tower_steps=0)
    outcome = run(method, values(0), federation(3), rounds=1, absent={(1, 0, "FR")})
    for found in outcome.diagnostics[0].values():
        rows = found["listening"]
        np.testing.assert_array_equal(rows[1], [0, 1, 0])
        np.testing.assert_array_equal(rows[:, 1], [0, 1, 0])
        np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=0, atol=1e-15)


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("gate", ["federated", "private"])
def test_missing_phase_1_only(first, gate):
    """The towers then train from the server's towers, 2 steps; experts stay."""
    changes = {**PLAIN, **RATES, "aggregation": "identity", "coupling": 0.0, "gate": gate, "tower_steps": 2}
    method, start, data = build("pf_msmtrec", **changes), values(0), federation(3)
    before = start if first == 1 else run(method, start, data, rounds=1).served["FR"]
    after = run(method, start, data, rounds=first, absent={(first, 0, "FR")}).served["FR"]
    target = data["FR"].target
    trained = {n: target[n] + 0.9**2 * (before[n] - target[n]) for n in target}
    assert_close(of_roles(after, HEADS), of_roles(trained, HEADS))
    rest = set(Role) - set(HEADS)
    assert same(of_roles(after, rest), of_roles(before, rest))


def test_missing_phase_2_only():
    """The experts have moved; towers are those of the last round, and the next round starts from these."""
    changes = {**PLAIN, **RATES, "aggregation": "identity", "coupling": 0.0, "tower_steps": 2}
    method, start, data = build("pf_msmtrec", **changes), values(0), federation(3)
    served = run(method, start, data, rounds=1, absent={(1, 1, "FR")}).served["FR"]
    target = data["FR"].target
    assert same(of_roles(served, HEADS), of_roles(start, HEADS))
    moved = {n: target[n] + 0.9**3 * (start[n] - target[n]) for n in target}
    rest = set(Role) - set(HEADS)
    assert_close(of_roles(served, rest), of_roles(moved, rest))
    later = run(method, start, data, rounds=2, absent={(1, 1, "FR")}).served["FR"]
    assert_close(
        of_roles(later, HEADS), {n: target[n] + 0.9**5 * (start[n] - target[n]) for n in of_roles(target, HEADS)}
    )


def test_fedavg_averages_those_who_answered_and_sends_it_to_all():
    start, data = values(0), federation(3)
    outcome = run(build("fedavg", **RATES, **PLAIN), start, data, rounds=1, absent={(1, 0, "NL")})
    for n in ("expert/0/layers.0.weight", "norm/layers.0.norm_mean"):
        trained = {k: data[k].target[n] + 0.9**3 * (start[n] - data[k].target[n]) for k in ("ES", "FR")}
        expected = trained["ES"] / 3 + trained["FR"] * 2 / 3
        for k in data:
            np.testing.assert_allclose(outcome.served[k][n], expected, rtol=0, atol=1e-14)
    assert same(outcome.served["NL"]["private/table"], start["private/table"])
