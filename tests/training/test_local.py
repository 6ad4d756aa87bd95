import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from pfmsmt.config import Train
from pfmsmt.core import arrays
from pfmsmt.core.errors import TrainingError
from pfmsmt.core.types import NEVER_LEAVES, Role, Stream
from pfmsmt.data.shards.order import batch_rows
from pfmsmt.data.shards.resident import Shard
from pfmsmt.methods import Blend, FirstOrderLearning
from pfmsmt.models.heads import loss
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.template import Binding
from pfmsmt.training.local import build_learner, client_batch_size, local_train

EVERYTHING = frozenset(Role)
HEADS = frozenset({Role.TOWER, Role.GATE})
PLAIN = {"train.learning_rate_decay": "none", "model.dropout": 0.0}
RATES = {"learning_rate": 0.1, "private_learning_rate": 0.01}


@pytest.fixture
def learner(make_federation):
    def make(changes=None, method="pf_msmtrec", client="ES"):
        return make_federation(method, PLAIN | (changes or {})).clients[client].learner

    return make


def stream(round=1, phase=0):
    return Stream(0, "ES", round, phase)


def whole_loss(model, rows, chosen, weights):
    paths = model.paths(rows.codes[chosen], rows.values[chosen])
    return sum(loss(logits, rows.labels[chosen], weights, model.spec) for logits in paths)


def test_sgd_on_federated_roles_is_a_plain_torch_loop(learner, equal_arrays):
    data = learner({"train.task_weights": [1.0, 0.5]})
    start = data.binding.read()
    result = local_train(start, {}, data, stream(), federated=EVERYTHING, **RATES)

    model = MMoE(data.model.spec)
    binding = Binding(model)
    binding.write(start)
    model.train()
    rows, losses = data.data.train, []
    for chosen in batch_rows(stream(), rows.rows, data.batch_size, 0, 3):
        value = torch.zeros(())
        for logits in model.paths(rows.codes[chosen], rows.values[chosen]):
            p = functional.logsigmoid(logits).exp()
            click, both = p[:, 0], p[:, 0] * p[:, 1]
            bce = functional.binary_cross_entropy
            value = value + bce(click, rows.labels[chosen][:, 0]) + 0.5 * bce(both, rows.labels[chosen][:, 1])
        model.zero_grad()
        value.backward()
        losses.append(value.item() / 2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    expected = binding.read()
    assert result.parameters.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(result.parameters[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert result.examples == rows.rows
    assert result.optimizer == {}
    assert not equal_arrays(start, expected)


def test_adam_on_private_roles_is_torch_adam(learner):
    # Without the first-order path, whose smallest gradients are no larger than rounding.
    data = learner({"model.first_order": False})
    start = data.binding.read()
    result = local_train(start, {}, data, stream(), federated=(), **RATES)

    model = MMoE(data.model.spec)
    Binding(model).write(start)
    model.train()
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    rows = data.data.train
    for chosen in batch_rows(stream(), rows.rows, data.batch_size, 0, 3):
        bce = functional.binary_cross_entropy
        labels = rows.labels[chosen]
        adam.zero_grad()
        for logits in model.paths(rows.codes[chosen], rows.values[chosen]):
            p = functional.logsigmoid(logits).exp()
            (bce(p[:, 0], labels[:, 0]) + bce(p[:, 0] * p[:, 1], labels[:, 1])).backward()
        adam.step()
    for name, array in Binding(model).read().items():
        np.testing.assert_allclose(result.parameters[name], array, atol=1e-5, err_msg=name)
    names = {name for name, _ in model.named_parameters()}
    assert set(result.optimizer) == {f"{n}/{key}" for n in names for key in ("step", "exp_avg", "exp_avg_sq")}
    assert all(float(result.optimizer[f"{n}/step"]) == 3 for n in names)


@pytest.mark.parametrize("decay", [{}, {"private_weight_decay": 0.0}])
def test_a_decay_of_zero_is_torch_adam_bit_for_bit(learner, equal_arrays, decay):
    data = learner()
    start = data.binding.read()
    result = local_train(start, {}, data, stream(), federated=(), **RATES, **decay)

    model = MMoE(data.model.spec)
    Binding(model).write(start)
    model.train()
    adam = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    rows, weights = data.data.train, torch.ones(2)
    for chosen in batch_rows(stream(), rows.rows, data.batch_size, 0, 3):
        adam.zero_grad()
        whole_loss(model, rows, chosen, weights).backward()
        adam.step()
    assert equal_arrays(result.parameters, Binding(model).read())


def test_own_first_order_weights_have_adam_at_a_rate_of_their_own_and_no_decay(learner, equal_arrays):
    data = learner()
    start = data.binding.read()
    given = {"federated": EVERYTHING - NEVER_LEAVES, "learning_rate": 0.1, "private_learning_rate": 0.01}
    slow, fast = (
        local_train(
            start, {}, data, stream(), **given, steps=1, private_weight_decay=decay,
            first_order=FirstOrderLearning(rate, 0.0, 0.0),
        ).parameters
        for rate, decay in ((0.02, 0.0), (0.04, 5.0))
    )  # fmt: skip
    moved = {n: slow[n] - start[n] for n in ("task/own_table", "task/own_numbers", "task/own_bias")}
    for n, change in moved.items():
        np.testing.assert_allclose(fast[n] - start[n], 2 * change, rtol=1e-4, atol=1e-8, err_msg=n)
        # Adam's first step is the rate's, up to its epsilon.
        assert np.abs(change).max() == pytest.approx(0.02, rel=1e-2), n
    # Shared ones are trained by the role's SGD, whatever the rate.
    assert equal_arrays(*({n: a[n] for n in a if n.startswith("first_order/")} for a in (slow, fast)))


def test_ridges_are_added_to_the_mean_loss_and_a_nested_tasks_counts_more(learner):
    """SGD on loss + (ridge |u|^2 + ridge |a|^2 + private ridge |v|^2) / 2n, that of ctcvr 5 times, but for a."""
    data = learner({"train.nested_ridge": 5.0})
    start = {n: a + np.float32(0.1) if "own_" in n or "shared_" in n else a for n, a in data.binding.read().items()}
    ridges = FirstOrderLearning(0.1, 40.0, 300.0)
    result = local_train(start, {}, data, stream(), federated=EVERYTHING, **RATES, first_order=ridges)

    model = MMoE(data.model.spec)
    binding = Binding(model)
    binding.write(start)
    model.train()
    rows, each, path = data.data.train, torch.tensor([1.0, 5.0]), model.first_order
    for chosen in batch_rows(stream(), rows.rows, data.batch_size, 0, 3):
        shared = sum((each * u.square()).sum() for u in (path.shared_table, path.shared_numbers))
        own = sum((each * v.square()).sum() for v in (path.own_table, path.own_numbers))
        penalty = 40.0 * (shared + path.mixture.square().sum()) + 300.0 * own
        model.zero_grad()
        (whole_loss(model, rows, chosen, torch.ones(2)) + penalty / (2 * rows.rows)).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    for name, array in binding.read().items():
        np.testing.assert_allclose(result.parameters[name], array, rtol=1e-4, atol=1e-6, err_msg=name)


def test_decay_alone_shrinks_what_has_no_gradient(learner, equal_arrays):
    """Click alone counts, so the last task's tower and gate have no gradient: (1 - 1/64 * 16)^steps = (3/4)^steps.
    Beginning with 1 and powers of two, float32 has room for every digit of these."""
    data = learner({"train.task_weights": [1.0, 0.0]})
    start = {n: a.copy() for n, a in data.binding.read().items()}
    idle = [n for n in start if n.startswith(("tower/ctcvr", "gate/ctcvr")) and "norm" not in n]
    assert {data.binding.template[n].role for n in idle} == HEADS
    for n in idle:
        start[n] = np.exp2(np.arange(start[n].size) % 5).reshape(start[n].shape).astype(np.float32)
    given = {"federated": (), "learning_rate": 0.1, "private_learning_rate": 1 / 64}
    for steps in (1, 3):
        decayed = local_train(start, {}, data, stream(), private_weight_decay=16.0, steps=steps, **given)
        plain = local_train(start, {}, data, stream(), steps=steps, **given)
        for n in idle:
            np.testing.assert_array_equal(decayed.parameters[n], 0.75**steps * start[n], err_msg=n)
            np.testing.assert_array_equal(plain.parameters[n], start[n], err_msg=n)


def test_decay_is_of_what_adam_trains_and_no_part_of_its_moments(learner, equal_arrays):
    """One step: theta' - rate x decay x theta for private tensors; those that SGD trains, or nobody, are as without."""
    data = learner()
    start, template = data.binding.read(), data.binding.template
    given = {"federated": HEADS, "frozen": {Role.TASK}, "steps": 1, **RATES}
    plain = local_train(start, {}, data, stream(), **given)
    decayed = local_train(start, {}, data, stream(), private_weight_decay=2.0, **given)
    for n, expected in plain.parameters.items():
        own = template[n].role not in {*HEADS, Role.TASK} and not n.endswith(("norm_mean", "norm_variance"))
        taken = 0.01 * 2.0 * start[n] if own else 0.0
        np.testing.assert_allclose(decayed.parameters[n], expected - taken, rtol=0, atol=0 if not own else 1e-6)
    assert equal_arrays(plain.optimizer, decayed.optimizer)


def test_decay_follows_the_learning_rate_over_the_rounds(learner):
    """The cosine at round 3 of 4 is at 0.55 of the rate: (1 - 0.55 * 1/64 * 16)."""
    data = learner({"train.task_weights": [1.0, 0.0], "train.learning_rate_decay": "cosine", "train.rounds": 4})
    start = data.binding.read()
    decayed = local_train(
        start, {}, data, stream(3), federated=(), steps=1,
        learning_rate=0.1, private_learning_rate=1 / 64, private_weight_decay=16.0,
    )  # fmt: skip
    for n in (n for n in start if n.startswith("tower/ctcvr") and "norm" not in n):
        np.testing.assert_allclose(decayed.parameters[n], (1 - 0.55 / 4) * start[n], rtol=1e-6, err_msg=n)


@pytest.mark.parametrize("frozen", [EVERYTHING - HEADS, HEADS, frozenset({Role.NORM, Role.TASK})])
@pytest.mark.parametrize("federated", [frozenset(), EVERYTHING])
def test_frozen_roles_keep_every_bit(learner, equal_arrays, frozen, federated):
    data = learner({"model.dropout": 0.3})
    start = data.binding.read()
    result = local_train(start, {}, data, stream(), federated=federated, frozen=frozen, **RATES)
    template = data.binding.template
    assert equal_arrays(arrays.select(start, template, frozen), arrays.select(result.parameters, template, frozen))
    for name, array in result.parameters.items():
        if template[name].role not in {*frozen, Role.EMBEDDING}:
            assert not np.array_equal(array, start[name]), name


def test_frozen_roles_leave_the_optimizer_state_of_others_alone(learner, equal_arrays):
    data = learner()
    first = local_train(data.binding.read(), {}, data, stream(), federated=(), **RATES)
    second = local_train(
        first.parameters, first.optimizer, data, stream(phase=1), federated=(), frozen=EVERYTHING - HEADS, **RATES
    )
    body = {name for name in first.optimizer if not name.startswith(("gates", "towers"))}
    assert body
    assert equal_arrays({n: first.optimizer[n] for n in body}, {n: second.optimizer[n] for n in body})
    assert all(float(second.optimizer[n]) == 6 for n in second.optimizer if n not in body and n.endswith("/step"))


def test_adam_state_is_carried_over_rounds(learner, equal_arrays):
    one = learner({"train.local_steps": 6})
    two = learner({"train.local_steps": 3})
    start = one.binding.read()
    whole = local_train(start, {}, one, stream(1), federated=(), **RATES)
    half = local_train(start, {}, two, stream(1), federated=(), **RATES)
    both = local_train(half.parameters, half.optimizer, two, stream(2), federated=(), **RATES)
    assert equal_arrays(whole.parameters, both.parameters)
    assert equal_arrays(whole.optimizer, both.optimizer)
    fresh = local_train(half.parameters, {}, two, stream(2), federated=(), **RATES)
    assert not equal_arrays(whole.parameters, fresh.parameters)


@pytest.mark.parametrize(("share", "first"), [(0.0, 0), (0.5, 2), (0.7, 3), (1.0, 4)])
def test_parts_of_a_round_are_the_round(learner, equal_arrays, share, first):
    """Batches go on where the part before ended; without dropout, which draws new masks, nothing else differs."""
    data = learner({"train.local_steps": 4})
    start = data.binding.read()
    given = {"federated": HEADS, **RATES}
    whole = local_train(start, {}, data, stream(2), **given)
    one = local_train(start, {}, data, stream(2), part=(0.0, share), **given)
    other = local_train(one.parameters, one.optimizer, data, stream(2), part=(share, 1.0), **given)
    assert equal_arrays(other.parameters, whole.parameters)
    assert equal_arrays(other.optimizer, whole.optimizer)
    assert (first * one.loss + (4 - first) * other.loss) / 4 == pytest.approx(whole.loss, rel=1e-6)


def test_parts_of_a_round_draw_other_dropout_masks(learner):
    """Both steps see all rows, in another order: without dropout they are one step twice."""
    for dropout, alike in ((0.0, True), (0.5, False)):
        found = learner({"train.local_steps": 2, "model.dropout": dropout})
        data = found._replace(batch_size=found.data.train.rows)
        given = {"federated": EVERYTHING, **RATES}
        start = data.binding.read()
        parts = ((0.0, 0.5), (0.5, 1.0))
        one, other = (local_train(start, {}, data, stream(), part=part, **given).parameters for part in parts)
        assert all(np.allclose(one[n], other[n], rtol=0, atol=1e-5) for n in one) == alike


BLENDED = EVERYTHING - {Role.NORM, Role.TASK, Role.PRIVATE}


def test_a_blends_steps_are_those_of_torchs_own_gradients(learner):
    """One step of SGD at rate 0.1 on theta, b = a theta + (1 - a) other, and one of a at rate 0.5."""
    data = learner()
    start = data.binding.read()
    other = {n: (0.8 * a + 0.01).astype(a.dtype) for n, a in start.items() if data.binding.template[n].role in BLENDED}
    result = local_train(
        start, {}, data, stream(), federated=EVERYTHING, blend=Blend(other, 0.7, 0.5), steps=1, **RATES
    )
    model = MMoE(data.model.spec)
    binding = Binding(model)
    binding.write({n: (0.7 * a + 0.3 * other[n]).astype(a.dtype) if n in other else a for n, a in start.items()})
    model.train()
    rows = data.data.train
    (chosen,) = batch_rows(stream(), rows.rows, data.batch_size, 0, 1)
    weights = torch.tensor([1.0, 1.0])
    whole_loss(model, rows, chosen, weights).backward()
    statistics = {n: a for n, a in binding.read().items() if n.endswith(("norm_mean", "norm_variance"))}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
    slopes = binding.read()
    along = sum(float(np.sum((start[n] - other[n]) * slopes[n], dtype=np.float64)) for n in other)
    assert result.blend_weight == pytest.approx(0.7 - 0.5 * along, abs=1e-6)
    assert abs(result.blend_weight - 0.7) > 1e-5
    for n, found in result.parameters.items():
        expected = statistics[n] if n in statistics else start[n] - 0.1 * (0.7 if n in other else 1.0) * slopes[n]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=n)


def test_a_blend_of_weight_1_is_plain_training_bit_for_bit(learner, equal_arrays):
    data = learner({"model.dropout": 0.5})
    start = data.binding.read()
    other = {n: a + 1 for n, a in start.items() if data.binding.template[n].role in BLENDED}
    plain = local_train(start, {}, data, stream(), federated=HEADS, **RATES)
    whole = local_train(start, {}, data, stream(), federated=HEADS, blend=Blend(other, 1.0, 0.0), **RATES)
    assert equal_arrays(whole.parameters, plain.parameters)
    assert equal_arrays(whole.optimizer, plain.optimizer)
    assert (whole.loss, whole.blend_weight, plain.blend_weight) == (plain.loss, 1.0, 1.0)


def test_a_blend_of_weight_0_trains_nothing_of_its_roles(learner):
    data = learner()
    start = data.binding.read()
    other = {n: a + 0.5 for n, a in start.items() if data.binding.template[n].role in BLENDED}
    result = local_train(start, {}, data, stream(), federated=EVERYTHING, blend=Blend(other, 0.0, 0.0), **RATES)
    assert all(np.array_equal(result.parameters[n], start[n]) for n in other)
    assert not all(np.array_equal(a, start[n]) for n, a in result.parameters.items() if n not in other)


def test_two_rounds_of_sgd_are_one_of_twice_the_steps(learner, equal_arrays):
    one, two = learner({"train.local_steps": 4}), learner({"train.local_steps": 2})
    start = one.binding.read()
    whole = local_train(start, {}, one, stream(1), federated=EVERYTHING, **RATES)
    half = local_train(start, {}, two, stream(1), federated=EVERYTHING, **RATES)
    both = local_train(half.parameters, {}, two, stream(2), federated=EVERYTHING, **RATES)
    assert equal_arrays(whole.parameters, both.parameters)


@pytest.mark.parametrize("federated", [EVERYTHING, HEADS, frozenset()])
@pytest.mark.parametrize("mu", [1e3, 1e6, 1e12])
def test_a_huge_regularizer_pins_parameters_to_the_anchor(learner, mu, federated):
    data = learner()
    start = data.binding.read()
    result = local_train(start, {}, data, stream(), federated=federated, anchor=start, regularizer=mu, **RATES)
    learned = {name for name in start if not name.endswith(("norm_mean", "norm_variance"))}
    assert len(learned) > 10
    for name in learned:
        assert np.abs(result.parameters[name] - start[name]).max() < 10 / mu, name


def test_the_regularizer_pulls_towards_another_anchor(learner):
    data = learner()
    start = data.binding.read()
    anchor = {n: a + 1 for n, a in start.items() if data.binding.template[n].role is Role.EXPERT}
    result = local_train(start, {}, data, stream(), federated=EVERYTHING, anchor=anchor, regularizer=1e6, **RATES)
    for name, array in anchor.items():
        np.testing.assert_allclose(result.parameters[name], array, atol=1e-3)
    others = local_train(start, {}, data, stream(), federated=EVERYTHING, **RATES).parameters
    assert set(others) == set(result.parameters)
    # The loss that is reported is the data's, so that methods with and without the pull can be compared.
    assert 0 < result.loss < 5


@pytest.mark.parametrize("federated", [EVERYTHING, HEADS, frozenset()])
def test_one_step_of_the_regularizer(learner, federated):
    """One step changes the plain step theta' to (theta' + a anchor) / (1 + a), a = mu x the rate of its optimiser."""
    data = learner()
    start, template = data.binding.read(), data.binding.template
    chosen = {Role.TOWER, Role.EXPERT}
    anchor = {n: a - 0.5 for n, a in arrays.select(start, template, chosen).items()}
    given = {"federated": federated, "steps": 1, **RATES}
    plain = local_train(start, {}, data, stream(), **given)
    pulled = local_train(start, {}, data, stream(), anchor=anchor, regularizer=2.0, **given)
    for name in start:
        a = 2.0 * (0.1 if template[name].role in federated else 0.01)
        expected = (plain.parameters[name] + a * anchor[name]) / (1 + a) if name in anchor else plain.parameters[name]
        np.testing.assert_allclose(pulled.parameters[name], expected, atol=1e-6, err_msg=name)
    # The pull is no part of the gradient: Adam's moments, and the loss that is reported, are the data's alone.
    assert (pulled.loss, pulled.optimizer.keys()) == (plain.loss, plain.optimizer.keys())
    assert all(np.array_equal(plain.optimizer[n], pulled.optimizer[n]) for n in plain.optimizer)


@pytest.mark.parametrize("federated", [EVERYTHING, frozenset()])
def test_the_regularizer_touches_neither_roles_without_an_anchor_nor_running_statistics(learner, federated):
    data = learner()
    start, template = data.binding.read(), data.binding.template
    far = {n: a + 5 for n, a in arrays.select(start, template, {Role.EMBEDDING, Role.NORM}).items()}
    given = {"federated": federated, "steps": 1, **RATES}
    plain = local_train(start, {}, data, stream(), **given).parameters
    pulled = local_train(start, {}, data, stream(), anchor=far, regularizer=10.0, **given).parameters
    moved = {n for n in start if not np.array_equal(plain[n], pulled[n])}
    assert moved == {n for n in far if not n.endswith(("norm_mean", "norm_variance"))}


@pytest.mark.parametrize("federated", [EVERYTHING, HEADS, frozenset()])
def test_a_regularizer_of_zero_is_none(learner, equal_arrays, federated):
    data = learner({"model.dropout": 0.3})
    start = data.binding.read()
    far = {n: a + 5 for n, a in start.items()}
    none = local_train(start, {}, data, stream(), federated=federated, **RATES)
    zero = local_train(start, {}, data, stream(), federated=federated, anchor=far, regularizer=0.0, **RATES)
    empty = local_train(start, {}, data, stream(), federated=federated, anchor={}, regularizer=1.0, **RATES)
    for other in (zero, empty):
        assert equal_arrays(none.parameters, other.parameters)
        assert equal_arrays(none.optimizer, other.optimizer)


@pytest.mark.parametrize(("round_", "share"), [(1, 1.0), (2, 0.1 + 0.9 * (2 + math.sqrt(2)) / 4), (3, 0.55)])
def test_cosine_decay(learner, equal_arrays, round_, share):
    decayed, plain = learner({"train.learning_rate_decay": "cosine", "train.rounds": 4}), learner()
    start = plain.binding.read()
    found = local_train(start, {}, decayed, stream(round_), federated=EVERYTHING, **RATES).parameters
    rates = {name: rate * share for name, rate in RATES.items()}
    expected = local_train(start, {}, plain, stream(round_), federated=EVERYTHING, **rates).parameters
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-7)
    # Adam's rate, too.
    found = local_train(start, {}, decayed, stream(round_), federated=(), steps=1, **RATES).parameters
    expected = local_train(start, {}, plain, stream(round_), federated=(), steps=1, **rates).parameters
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-7)


def test_global_random_state_is_neither_used_nor_changed(learner, equal_arrays):
    data = learner({"model.dropout": 0.4})
    start = data.binding.read()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = local_train(start, {}, data, stream(), federated=HEADS, **RATES)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second = local_train(start, {}, data, stream(), federated=HEADS, **RATES)
    assert equal_arrays(first.parameters, second.parameters)
    assert equal_arrays(first.optimizer, second.optimizer)
    assert first.loss == second.loss
    other = local_train(start, {}, data, stream(2), federated=HEADS, **RATES)
    assert not equal_arrays(first.parameters, other.parameters)


def test_inputs_are_not_changed(learner, equal_arrays):
    data = learner()
    start = data.binding.read()
    result = local_train(start, {}, data, stream(), federated=HEADS, **RATES)
    copies = [{n: a.copy() for n, a in part.items()} for part in (result.parameters, result.optimizer)]
    local_train(
        result.parameters, result.optimizer, data, stream(2), federated=HEADS, anchor=start, regularizer=1.0, **RATES
    )
    assert equal_arrays(result.parameters, copies[0])
    assert equal_arrays(result.optimizer, copies[1])


def test_what_the_model_held_before_does_not_matter(learner, equal_arrays):
    data = learner()
    start = data.binding.read()
    expected = local_train(start, {}, data, stream(), federated=HEADS, **RATES)
    local_train(start, {}, data, stream(7), federated=(), frozen=HEADS, learning_rate=1, private_learning_rate=1)
    again = local_train(start, {}, data, stream(), federated=HEADS, **RATES)
    assert equal_arrays(expected.parameters, again.parameters)


def test_a_loss_that_is_not_finite_names_round_client_and_value(learner):
    data = learner()
    with pytest.raises(TrainingError, match=r"^round 3, client ES: the training loss became (nan|inf); lower"):
        local_train(
            data.binding.read(), {}, data, stream(3), federated=EVERYTHING, learning_rate=1e30, private_learning_rate=1
        )


def test_clients_start_alike_and_seeds_apart(make_federation, equal_arrays):
    clients = make_federation("fedavg").clients
    assert equal_arrays(clients["NL"].initial_parameters, clients["US"].initial_parameters)
    other = make_federation("fedavg", seed=1).clients["NL"].initial_parameters
    assert not equal_arrays(clients["NL"].initial_parameters, other)


def test_batch_sizes_follow_the_rows(make_federation):
    assert [client_batch_size(24, rows, 200.0) for rows in (400, 200, 10, 1)] == [48, 24, 2, 2]
    sizes = {name: client.learner for name, client in make_federation("fedavg").clients.items()}
    rows = {name: learner.data.train.rows for name, learner in sizes.items()}
    mean = sum(rows.values()) / 3
    assert {n: learner.batch_size for n, learner in sizes.items()} == {n: round(24 * r / mean) for n, r in rows.items()}


def test_a_batch_may_be_larger_than_the_shard(learner):
    data = learner()
    rows = data.data.train
    few = Shard(rows.codes[:3], rows.values[:3], rows.labels[:3], rows.groups[:3])
    small = data._replace(data=data.data._replace(train=few))
    assert math.isfinite(local_train(data.binding.read(), {}, small, stream(), federated=(), **RATES).loss)


def test_learner_keeps_the_budget(learner, make_config):
    data = learner()
    assert isinstance(data.budget, Train)
    again = build_learner("ES", data.model.spec, data.data, 7, data.budget, 0, torch.device("cpu"))
    assert again.batch_size == 7


@pytest.mark.parametrize("given", [{"federated": HEADS}, {"federated": EVERYTHING, "frozen": {Role.EXPERT}}])
def test_only_what_sgd_trains_can_be_told_by_task(learner, given):
    data = learner()
    with pytest.raises(ValueError, match="expert"):
        local_train(data.binding.read(), {}, data, stream(), by_task={Role.EXPERT}, **given, **RATES)
