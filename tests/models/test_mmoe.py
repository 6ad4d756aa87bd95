"""The batched MMoE against the same model written as plain loops over experts and tasks."""

import pytest
import torch
from torch.nn import functional

from pfmsmt.core.types import Role
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.template import Binding
from tests.support.shapes import batch, scrambled, spec


def explicit_logits(model, codes, values, training):
    """Return logits [B, T], one expert and one task at a time, from the arrays as they travel."""
    s = model.spec
    arrays = {name: torch.from_numpy(a) for name, a in Binding(model).read().items()}
    # A single expert, or a single task, travels as the whole tensor: with its first axis, of length 1.
    sliced = ("expert/", "gate/", "tower/")
    arrays = {name: a[0] if name.startswith(sliced) and a.ndim == 3 else a for name, a in arrays.items()}
    shared, private = arrays["embedding/table"], arrays["private/table"]
    # Fields 0 and 2 are federated (4 and 2 codes), field 1 is private; federated ones come first.
    x = torch.cat([shared[codes[:, 0]], shared[4 + codes[:, 2]], private[codes[:, 1]], values], dim=1)
    logits = []
    for t, task in enumerate(s.tasks):
        outputs = []
        for e in range(s.experts):
            h, copy = x, (t * s.experts + e if s.rank else e)
            for i, units in enumerate(s.expert_layers):
                weight = arrays[f"expert/{e}/layers.{i}.weight"]
                if s.scenario_rank:
                    down, up = (arrays[f"scenario/layers.{i}.scenario_{kind}"][e] for kind in ("down", "up"))
                    weight = weight + down @ up
                if s.rank:
                    down, up = (arrays[f"task/layers.{i}.adapter_{kind}"][t, e] for kind in ("down", "up"))
                    weight = weight + down @ up
                part = slice(copy * units, (copy + 1) * units)
                norm = {k: arrays[f"norm/layers.{i}.norm_{k}"][part] for k in ("mean", "variance", "weight", "bias")}
                mean, variance = norm["mean"].clone(), norm["variance"].clone()
                h = functional.batch_norm(h @ weight, mean, variance, norm["weight"], norm["bias"], training, 0.1, 1e-5)
                h = functional.relu(h)
            outputs.append(h)
        for own in range(s.private_experts):
            h, copy = x, t * s.private_experts + own
            for i, units in enumerate(s.expert_layers):
                part = slice(copy * units, (copy + 1) * units)
                norm = {k: arrays[f"task/layers.{i}.norm_{k}"][part] for k in ("mean", "variance", "weight", "bias")}
                mean, variance = norm["mean"].clone(), norm["variance"].clone()
                h = h @ arrays[f"task/layers.{i}.weight"][copy]
                h = functional.batch_norm(h, mean, variance, norm["weight"], norm["bias"], training, 0.1, 1e-5)
                h = functional.relu(h)
            outputs.append(h)
        gate = functional.linear(x, arrays[f"gate/{task}/linear.weight"].T, arrays[f"gate/{task}/linear.bias"][0])
        gate = gate.softmax(1)
        h = sum(gate[:, e : e + 1] * outputs[e] for e in range(s.experts + s.private_experts))
        last = len(s.tower_layers)
        for i in range(last + 1):
            name = f"tower/{task}/layers.{i}"
            h = functional.linear(h, arrays[f"{name}.weight"].T, arrays[f"{name}.bias"][0])
            h = h if i == last else functional.relu(h)
        logits.append(h[:, 0])
    return torch.stack(logits, dim=1)


SHAPES = [
    {}, {"rank": 0}, {"experts": 1}, {"experts": 1, "rank": 0}, {"expert_layers": (6,)}, {"tower_layers": ()},
    {"expert_layers": (11, 11, 11), "rank": 0}, {"expert_layers": (11, 4), "tower_layers": (3, 2)},
    {"tasks": ("a", "b", "c"), "parents": (None, 0, 1)}, {"tasks": ("a",), "parents": (None,), "experts": 2},
    {"private_experts": 2}, {"private_experts": 1, "rank": 0}, {"private_experts": 2, "experts": 1, "rank": 0},
    {"private_experts": 2, "rank": 0, "tasks": ("a",), "parents": (None,)},
    {"private_experts": 1, "tasks": ("a", "b", "c"), "parents": (None, 0, 1)},
    {"scenario_rank": 2}, {"scenario_rank": 3, "rank": 0}, {"scenario_rank": 1, "experts": 1, "private_experts": 1},
]  # fmt: skip


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("training", [False, True])
def test_batched_forward_equals_explicit_loops(changes, training):
    model = scrambled(MMoE(spec(**changes))).train(training)
    codes, values = batch()
    with torch.no_grad():
        expected = explicit_logits(model, codes, values, training)
        torch.testing.assert_close(model(codes, values), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 2])
def test_running_statistics_follow_each_copys_own_activations(rank):
    """mean <- 0.9 mean + 0.1 batch mean; variance with the unbiased one, per expert (and task with adapters)."""
    model = scrambled(MMoE(spec(rank=rank))).train()
    layer = model.experts.layers[0]
    codes, values = batch()
    with torch.no_grad():
        h = torch.einsum("bd,gdh->bgh", model.inputs(codes, values), layer.copy_weights()).flatten(1)
        mean = 0.9 * layer.norm_mean + 0.1 * h.mean(0)
        variance = 0.9 * layer.norm_variance + 0.1 * h.var(0, unbiased=True)
        model(codes, values)
    torch.testing.assert_close(layer.norm_mean, mean)
    torch.testing.assert_close(layer.norm_variance, variance)


@pytest.mark.parametrize("training", [False, True])
def test_adapters_at_their_start_change_nothing(training):
    """V = 0: with the norm of each expert repeated for both tasks, rank 2 gives the logits of rank 0."""
    plain = scrambled(MMoE(spec(rank=0))).train(training)
    adapted = MMoE(spec(rank=2)).initialise(0, "NL").train(training)
    arrays = Binding(plain).read()
    binding = Binding(adapted)
    tasks = 2
    for name, array in arrays.items():
        arrays[name] = torch.from_numpy(array).repeat(tasks).numpy() if name.startswith("norm/") else array
    binding.write(arrays)
    assert not any(a.any() for n, a in binding.read({Role.TASK}).items() if n.endswith("adapter_up"))
    codes, values = batch()
    torch.testing.assert_close(adapted(codes, values), plain(codes, values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rank", [0, 2])
def test_the_scenarios_part_at_its_start_changes_nothing_bit_for_bit(rank, training):
    plain = scrambled(MMoE(spec(rank=rank))).train(training)
    own = MMoE(spec(rank=rank, scenario_rank=2)).initialise(0, "NL").train(training)
    binding = Binding(own)
    binding.write(Binding(plain).read())
    part = {n: a for n, a in binding.read({Role.TASK}).items() if n.startswith("scenario/")}
    assert {n: bool(a.any()) for n, a in part.items()} == {
        f"scenario/layers.{i}.scenario_{kind}": kind == "down" for i in (0, 1) for kind in ("down", "up")
    }
    codes, values = batch()
    assert torch.equal(own(codes, values), plain(codes, values))


@pytest.mark.parametrize("changes", [{}, {"private_experts": 2, "rank": 0}, {"scenario_rank": 2}])
def test_gradients_reach_every_parameter(changes):
    model = scrambled(MMoE(spec(dropout=0.0, **changes))).train()
    model(*batch(64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_gate_weights_sum_to_one():
    model = scrambled(MMoE(spec(private_experts=1)))
    gates = model.gates(model.inputs(*batch()))
    assert gates.shape == (16, 2, 4)
    torch.testing.assert_close(gates.sum(-1), torch.ones(16, 2))
    assert (gates > 0).all()


@pytest.mark.parametrize("federated", [(True, True, True), (False, False, False), (False, True, False)])
def test_each_field_reads_its_own_rows(federated):
    """Changing the row of one code changes exactly the rows of the batch that hold it."""
    model = scrambled(MMoE(spec(field_federated=federated))).eval()
    codes, values = batch(64)
    sizes = (4, 5, 2)
    field, code = 2, 1
    before = [sizes[f] for f in range(field) if federated[f] is federated[field]]
    table = model.embedding if federated[field] else model.private_embedding
    with torch.no_grad():
        old = model.inputs(codes, values)
        table.table[sum(before) + code] += 1.0
        new = model.inputs(codes, values)
    changed = (old != new).any(dim=1)
    assert torch.equal(changed, codes[:, field] == code)


def test_initial_values_are_common_but_for_private_tables():
    first, second = (Binding(MMoE(spec()).initialise(0, client)).read() for client in ("NL", "ES"))
    different = [name for name in first if first[name].tobytes() != second[name].tobytes()]
    assert different == ["private/table"]


def test_initial_values_stay_common_when_private_vocabularies_differ():
    first = Binding(MMoE(spec()).initialise(0, "NL")).read()
    second = Binding(MMoE(spec(field_codes=(4, 9, 2))).initialise(0, "ES")).read()
    shared = [name for name in first if name != "private/table"]
    assert all(first[name].tobytes() == second[name].tobytes() for name in shared)


def test_initial_values_depend_on_the_seed_and_on_nothing_else():
    torch.manual_seed(1)
    first = Binding(MMoE(spec()).initialise(0, "NL")).read()
    torch.manual_seed(2)
    again = Binding(scrambled(MMoE(spec())).initialise(0, "NL")).read()
    other = Binding(MMoE(spec()).initialise(1, "NL")).read()
    drawn = [n for n in first if first[n].any() and not n.startswith("norm/")]
    assert {n.split("/")[0] for n in drawn} == {"embedding", "private", "expert", "gate", "tower", "task"}
    assert all(first[n].tobytes() == again[n].tobytes() for n in drawn)
    assert all(first[n].tobytes() != other[n].tobytes() for n in drawn)
