"""The first-order path against sums over single fields, from the arrays as they travel."""

import numpy as np
import pytest
import torch

from pfmsmt.models.first_order import FirstOrder
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.template import Binding
from tests.support.shapes import batch, scrambled, spec

SHAPES = [
    {}, {"linear_experts": 1, "first_order_share": 0.7}, {"linear_experts": 3},
    {"linear_experts": 2, "first_order_ids": False},
    {"linear_experts": 2, "field_federated": (True, True, True)}, {"field_federated": (False, False, False)},
    {"experts": 0}, {"experts": 0, "linear_experts": 2, "first_order_ids": False},
    {"linear_experts": 2, "numerical": 0}, {"linear_experts": 2, "field_codes": (), "field_federated": ()},
    {"linear_experts": 2, "tasks": ("a", "b", "c"), "parents": (None, 0, 1)},
]  # fmt: skip


def explicit_logits(model, codes, values):
    """Add up b + sum over fields and numbers of (sum_k a_k u_k + v), one row and task at a time."""
    s, arrays = model.spec, Binding(model).read()
    first = {True: 0, False: 0}
    starts = []
    for count, federated in zip(s.field_codes, s.field_federated, strict=True):
        starts.append(first[federated])
        first[federated] += count
    logits = np.zeros((len(codes), len(s.tasks)))
    links = iter(arrays.get("task/own_link", ()))
    linked = [None if parent is None else (parent, float(next(links))) for parent in s.parents]
    for row, (row_codes, numbers) in enumerate(zip(codes.numpy(), values.numpy(), strict=True)):
        for t in range(len(s.tasks)):
            mixed = [float(a) for a in arrays["task/mixture"][:, t]] if s.linear_experts else []
            total = float(arrays["task/own_bias"][t])
            for field, code in enumerate(row_codes):
                at = starts[field] + code
                if s.field_federated[field]:
                    shared = sum(a * arrays["first_order/shared_table"][k, at, t] for k, a in enumerate(mixed))
                    total += shared + arrays["task/own_table"][at, t]
                elif s.first_order_ids:
                    total += arrays["private/private_table"][at, t]
            for i, number in enumerate(numbers):
                shared = sum(a * arrays["first_order/shared_numbers"][k, i, t] for k, a in enumerate(mixed))
                total += number * (shared + arrays["task/own_numbers"][i, t])
            # A nested task takes its parent's weights, which is its parent's logit but for the intercept.
            if linked[t] is not None:
                parent, link = linked[t]
                total += link * (logits[row, parent] - float(arrays["task/own_bias"][parent]))
            logits[row, t] = total
    return logits


@pytest.mark.parametrize("changes", SHAPES)
def test_logits_are_sums_over_fields_and_numbers(changes):
    model = scrambled(MMoE(spec(first_order=True, **changes)))
    codes, values = batch()
    codes, values = codes[:, : len(model.spec.field_codes)], values[:, : model.spec.numerical]
    with torch.no_grad():
        found = model.first_order(codes, values)
        *deep, linear = model.eval().paths(codes, values)
    np.testing.assert_allclose(found, explicit_logits(model, codes, values), rtol=0, atol=1e-5)
    assert torch.equal(linear, found)
    share = model.spec.first_order_share
    assert 0 < share < 1
    torch.testing.assert_close(model(codes, values), (1 - share) * deep[0] + share * linear if deep else linear)


def test_an_untrained_path_says_nothing():
    model = MMoE(spec(first_order=True, linear_experts=3)).initialise(0, "NL")
    assert not model.first_order(*batch()).any()


def test_mixtures_start_with_the_first_linear_expert_and_differ_between_clients():
    shape = spec(first_order=True, linear_experts=3)
    mixtures = [MMoE(shape).initialise(0, client).first_order.mixture for client in ("NL", "ES")]
    for mixture in mixtures:
        assert (mixture[0] == 1).all()
        assert mixture[1:].abs().min() > 0
    assert (mixtures[0][1:] != mixtures[1][1:]).all()


def test_the_first_order_path_changes_no_other_initial_value():
    shapes = (spec(), spec(first_order=True, linear_experts=2))
    plain, wide = (Binding(MMoE(shape).initialise(0, "NL")).read() for shape in shapes)
    assert all(np.array_equal(wide[name], array) for name, array in plain.items())


@pytest.mark.parametrize("experts", [0, 2])
def test_gradients_reach_every_tensor_of_the_path(experts):
    path = scrambled(FirstOrder(spec(linear_experts=experts)))
    path(*batch(64)).square().sum().backward()
    assert [n for n, p in path.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
