"""Every tensor has exactly one role, and travels under one name."""

import numpy as np
import pytest
import torch
from torch import nn

from pfmsmt.core.errors import SchemaError
from pfmsmt.core.types import Role, Slot
from pfmsmt.models.mmoe import MMoE, template_of
from pfmsmt.models.template import Binding, TensorLabel
from tests.support.shapes import scrambled, spec


class Owner(nn.Module):
    """A tensor [2, 3] with the label it is given."""

    def __init__(self, *groups: str, name: str = "weight") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))
        self._labels = {name: TensorLabel(Role.EXPERT, groups)}

    def labels(self) -> dict[str, TensorLabel]:
        return self._labels


class Pair(nn.Module):
    """Two modules side by side."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second


class Whole(Pair):
    """Labels its child's tensor once more."""

    def labels(self) -> dict[str, TensorLabel]:
        return {"first.weight": TensorLabel(Role.TOWER, ("tower",))}


def test_a_tensor_without_a_role_is_named():
    with pytest.raises(SchemaError, match=r"without a role: \['second.bias', 'second.weight'\]"):
        Binding(Pair(Owner("a"), nn.Linear(2, 2)))


def test_a_buffer_without_a_role_is_named():
    model = Owner("a")
    model.register_buffer("mean", torch.zeros(1))
    with pytest.raises(SchemaError, match=r"without a role: \['mean'\]"):
        Binding(model)


def test_a_tensor_with_two_roles_is_named():
    with pytest.raises(SchemaError, match=r"'first.weight' has two roles: tower and expert"):
        Binding(Whole(Owner("a"), Owner("b")))


def test_a_role_without_a_tensor_is_named():
    with pytest.raises(SchemaError, match=r"roles without a tensor: \['first.wait'\]"):
        Binding(Pair(Owner("a", name="wait"), Owner("b")))


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(SchemaError, match=r"'second.weight' would travel as 'a/weight'"):
        Binding(Pair(Owner("a"), Owner("a")))


@pytest.mark.parametrize("groups", [(), ("a", "b", "c")])
def test_slices_must_match_their_groups(groups):
    with pytest.raises(SchemaError, match=r"'weight' has shape \(2, 3\), but \d groups"):
        Binding(Owner(*groups))


def test_the_mmoe_gives_every_tensor_a_role_and_a_group():
    """3 experts, 2 tasks, rank 2: the whole template, written out."""
    expected = {"embedding/table": Slot(Role.EMBEDDING, "embedding"), "private/table": Slot(Role.PRIVATE, "private")}
    for layer in (0, 1):
        for e in range(3):
            expected[f"expert/{e}/layers.{layer}.weight"] = Slot(Role.EXPERT, f"expert/{e}")
        for kind in ("norm_weight", "norm_bias", "norm_mean", "norm_variance"):
            expected[f"norm/layers.{layer}.{kind}"] = Slot(Role.NORM, "norm")
        for kind in ("adapter_down", "adapter_up"):
            expected[f"task/layers.{layer}.{kind}"] = Slot(Role.TASK, "task")
        for task in ("ctr", "ctcvr"):
            for kind in ("weight", "bias"):
                expected[f"tower/{task}/layers.{layer}.{kind}"] = Slot(Role.TOWER, f"tower/{task}")
                expected[f"gate/{task}/linear.{kind}"] = Slot(Role.GATE, f"gate/{task}")
    assert Binding(MMoE(spec())).template == expected
    without = {name: slot for name, slot in expected.items() if slot.role is not Role.TASK}
    assert Binding(MMoE(spec(rank=0))).template == without
    kinds = ("weight", "norm_weight", "norm_bias", "norm_mean", "norm_variance")
    own = {f"task/layers.{layer}.{kind}": Slot(Role.TASK, "task") for layer in (0, 1) for kind in kinds}
    assert Binding(MMoE(spec(rank=0, private_experts=2))).template == without | own
    assert Binding(MMoE(spec(private_experts=2))).template == expected | own
    kinds = ("scenario_down", "scenario_up")
    scenario = {f"scenario/layers.{layer}.{kind}": Slot(Role.TASK, "scenario") for layer in (0, 1) for kind in kinds}
    assert Binding(MMoE(spec(scenario_rank=1))).template == expected | scenario
    shared = {name: slot for name, slot in expected.items() if slot.role is not Role.PRIVATE}
    assert Binding(MMoE(spec(field_federated=(True, True, True)))).template == shared
    linear = {f"task/{name}": Slot(Role.TASK, "task") for name in ("own_table", "own_numbers", "own_bias", "own_link")}
    linear["private/private_table"] = Slot(Role.PRIVATE, "private")
    assert Binding(MMoE(spec(first_order=True))).template == expected | linear
    linear["task/mixture"] = Slot(Role.TASK, "task")
    linear |= {f"first_order/shared_{kind}": Slot(Role.FIRST_ORDER, "first_order") for kind in ("table", "numbers")}
    assert Binding(MMoE(spec(first_order=True, linear_experts=3))).template == expected | linear
    del linear["private/private_table"]
    without_ids = spec(first_order=True, linear_experts=3, first_order_ids=False)
    assert Binding(MMoE(without_ids)).template == expected | linear


def test_all_numbers_of_the_model_travel():
    model = MMoE(spec())
    assert sum(a.size for a in Binding(model).read().values()) == sum(t.numel() for t in model.state_dict().values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"experts": 1},
        {"tasks": ("ctr",), "parents": (None,)},
        {"rank": 0},
        {"private_experts": 2},
        {"scenario_rank": 1},
    ],
)
def test_reading_and_writing_is_the_identity_bit_for_bit(changes):
    source, target = scrambled(MMoE(spec(**changes)), 1), scrambled(MMoE(spec(**changes)), 2)
    arrays = Binding(source).read()
    Binding(target).write(arrays)
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name
    again = Binding(target).read()
    assert all(again[name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_names_carry_the_slice_of_their_expert_or_task():
    model = scrambled(MMoE(spec()))
    arrays = Binding(model).read()
    np.testing.assert_array_equal(arrays["expert/2/layers.1.weight"], model.experts.layers[1].weight[2].detach())
    np.testing.assert_array_equal(arrays["tower/ctcvr/layers.0.bias"], model.towers.layers[0].bias[1].detach())
    np.testing.assert_array_equal(arrays["gate/ctr/linear.weight"], model.gates.linear.weight[0].detach())


def test_what_is_read_is_a_copy():
    model = scrambled(MMoE(spec()))
    binding = Binding(model)
    arrays = binding.read({Role.EXPERT, Role.EMBEDDING})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for array in arrays.values():
        array[...] = 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_writing_some_leaves_the_others():
    model = scrambled(MMoE(spec()))
    binding = Binding(model)
    before = binding.read()
    binding.write({"expert/1/layers.0.weight": np.zeros_like(before["expert/1/layers.0.weight"])})
    after = binding.read()
    assert [name for name in after if after[name].tobytes() != before[name].tobytes()] == ["expert/1/layers.0.weight"]


def test_unknown_names_and_wrong_shapes_are_refused():
    binding = Binding(MMoE(spec()))
    with pytest.raises(SchemaError, match="no tensor 'expert/9/w'"):
        binding.write({"expert/9/w": np.zeros(1)})
    with pytest.raises(SchemaError, match=r"'private/table' has shape \(1,\), the model needs \(5, 3\)"):
        binding.write({"private/table": np.zeros(1)})


def test_roles_of_tensors():
    model = MMoE(spec())
    binding = Binding(model)
    roles = {name: binding.role(parameter) for name, parameter in model.named_parameters()}
    assert roles["experts.layers.0.adapter_up"] is Role.TASK
    assert roles["experts.layers.0.norm_bias"] is Role.NORM
    assert roles["private_embedding.table"] is Role.PRIVATE


@pytest.mark.parametrize("changes", [{}, {"rank": 0, "private_experts": 2}, {"field_federated": (True, True, True)}])
def test_the_template_of_shapes_is_that_of_a_model_which_has_them(changes):
    assert template_of(spec(**changes)) == Binding(MMoE(spec(**changes))).template


def test_a_template_allocates_no_tensor():
    """A table of 10^12 rows would not fit anywhere."""
    assert template_of(spec(field_codes=(4, 10**12, 2)))["private/table"].role is Role.PRIVATE
