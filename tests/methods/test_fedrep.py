"""FedRep against its equations, on closed-form clients: three steps of a round are shared by heads and body."""

import numpy as np
import pytest

from pfmsmt.core.types import NEVER_LEAVES, Role
from tests.support.quadratic import PLAIN, RATES, TEMPLATE, build, federation, run, same, values

HEADS = NEVER_LEAVES | {Role.TOWER, Role.GATE}
SHARES = {"ES": 10 / 60, "FR": 20 / 60, "NL": 30 / 60}


def names(roles):
    return [n for n, slot in TEMPLATE.items() if slot.role in roles]


@pytest.mark.parametrize(("share", "steps"), [(0.0, 0), (0.3, 1), (0.6, 2), (1.0, 3)])
def test_two_rounds_share_their_steps(share, steps):
    """theta' = target + 0.9^n (theta - target): n of 3 steps for heads, the rest for the body, which is averaged."""
    start, data = values(0), federation(3)
    served = run(build("fedrep", **RATES, **PLAIN, head_share=share), start, data, rounds=2).served
    for n in names(HEADS):
        for k, client in data.items():
            expected = client.target[n] + 0.9 ** (2 * steps) * (start[n] - client.target[n])
            np.testing.assert_allclose(served[k][n], expected, rtol=0, atol=1e-14)
    for n in names(set(Role) - HEADS):
        body = start[n]
        for _ in range(2):
            trained = {k: c.target[n] + 0.9 ** (3 - steps) * (body - c.target[n]) for k, c in data.items()}
            body = sum(SHARES[k] * trained[k] for k in data)
        for k in data:
            np.testing.assert_allclose(served[k][n], body, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("share", "still"), [(0.0, HEADS), (1.0, set(Role) - HEADS)])
def test_without_steps_of_a_part_it_stays_and_the_other_is_fedpers_bit_for_bit(share, still):
    """A closed-form client's coordinates do not see each other, so the other part trains as if nothing were frozen."""
    start, data = values(0, dtype=np.float32), federation(3, dtype=np.float32)
    served = run(build("fedrep", **RATES, **PLAIN, head_share=share), start, data).served
    whole = run(build("fedper", **RATES, **PLAIN), start, data).served
    for k in data:
        moved = names(set(Role) - still)
        assert same({n: served[k][n] for n in moved}, {n: whole[k][n] for n in moved})
        for n in names(still):
            # The mean of equal arrays is summed, and rounds.
            np.testing.assert_allclose(served[k][n], start[n], rtol=1e-6, atol=0)


def test_both_parts_count_the_steps_of_one_round():
    outcome = run(build("fedrep", **RATES, **PLAIN, head_share=0.4), values(0), federation(2), rounds=2)
    assert {float(state.optimizer["count"]) for state in outcome.states.values()} == {6.0}
