"""The served form of a model answers as the trained one."""

import numpy as np
import pytest
import torch

from pfmsmt.models.mmoe import MMoE
from pfmsmt.serving.fused import fused
from tests.support.shapes import batch, scrambled, spec

SHAPES = {
    "plain": {"rank": 0},
    "adapters": {"rank": 2},
    "private experts": {"rank": 0, "private_experts": 2},
    "both": {"rank": 2, "private_experts": 1},
    "scenario's part": {"rank": 0, "scenario_rank": 2},
    "all parts": {"rank": 2, "scenario_rank": 1, "private_experts": 1},
    "one layer": {"rank": 0, "expert_layers": (6,), "private_experts": 1},
    "three layers": {"rank": 1, "expert_layers": (6, 5, 4)},
    "linear towers": {"rank": 0, "tower_layers": ()},
    "no private field": {"rank": 0, "field_federated": (True, True, True)},
    "all fields private": {"rank": 0, "field_federated": (False, False, False)},
    "no numbers": {"rank": 0, "numerical": 0},
    "no fields": {"rank": 0, "field_codes": (), "field_federated": ()},
    "first order": {"rank": 0, "first_order": True, "first_order_share": 0.7},
    "linear experts": {"rank": 1, "private_experts": 1, "first_order": True, "linear_experts": 3},
    "first order without ids": {"rank": 0, "first_order": True, "linear_experts": 1, "first_order_ids": False},
    "first order, all fields private": {"rank": 0, "field_federated": (False, False, False), "first_order": True},
    "first order, no fields": {
        "rank": 0,
        "field_codes": (),
        "field_federated": (),
        "first_order": True,
        "linear_experts": 1,
    },
    "first order, no numbers": {"rank": 0, "numerical": 0, "first_order": True, "linear_experts": 1},
    "first order alone": {"rank": 0, "experts": 0, "first_order": True},
    "three tasks": {"rank": 0, "private_experts": 2, "tasks": ("a", "b", "c"), "parents": (None, 0, None)},
}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("rows", [1, 7, 33])
def test_logits_are_those_of_the_model(changes, rows):
    shape = spec(**changes)
    model = scrambled(MMoE(shape)).eval()
    codes, values = batch(rows)
    codes, values = codes[:, : len(shape.field_codes)], values[:, : shape.numerical]
    with torch.no_grad():
        expected = model(codes, values)
    served = fused(model)(codes, values)
    np.testing.assert_allclose(served.logits, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("changes", [SHAPES["plain"], SHAPES["adapters"], SHAPES["both"]])
def test_gates_are_those_of_the_model_and_zero_for_other_tasks_experts(changes):
    model = scrambled(MMoE(spec(**changes))).eval()
    codes, values = batch(9)
    served = fused(model)
    found = served(codes, values).gates
    with torch.no_grad():
        expected = model.gates(model.inputs(codes, values))
    for task, places in enumerate(served.experts):
        where = [place for _, place in places]
        np.testing.assert_allclose(found[:, task, where], expected[:, task], atol=1e-6)
        assert found[:, task].sum(1).numpy() == pytest.approx(1, abs=1e-6)
    private = changes.get("private_experts", 0)
    names = [f"expert/{e}" for e in range(3)] + [f"private/{k}" for k in range(private)]
    assert [[name for name, _ in places] for places in served.experts] == [names, names]


def test_a_copy_does_not_follow_the_model():
    model = scrambled(MMoE(spec())).eval()
    served, rows = fused(model), batch(4)
    before = served(*rows).logits
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(served(*rows).logits, before)
