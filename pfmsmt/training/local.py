"""Local training: some optimiser steps on one client's own rows.

Legend: B batch, T tasks.
"""

import math
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pfmsmt.config import Train
from pfmsmt.core import arrays
from pfmsmt.core.errors import TrainingError
from pfmsmt.core.types import NamedArrays, Role, Stream
from pfmsmt.data.shards.resident import ClientData
from pfmsmt.methods import Blend, FirstOrderLearning, LocalResult
from pfmsmt.models.heads import loss, task_losses
from pfmsmt.models.large_table import LargeTable
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.spec import ModelSpec
from pfmsmt.models.template import Binding

PRIVATE_TABLE = "private_embedding.table"
TABLE_VERSION = f"{PRIVATE_TABLE}/version"
"""A large table's version, among the optimiser's state: it stands for the table and its moments."""

_FIRST_ORDER = "first_order."
"""Begins the names of the first-order path's tensors in the model."""


class Learner(NamedTuple):
    """A client's model, data and budget for local training."""

    model: MMoE
    binding: Binding
    data: ClientData
    batch_size: int
    budget: Train
    device: torch.device
    large: LargeTable | None = None
    """The table of private fields, where it is trained in place: no named array holds it."""
    labelled: tuple[int, ...] | None = None
    """[T], training rows with a label of each task; None: all have one."""

    def rewind(self, optimizer: NamedArrays) -> None:
        """Put a large table where it was when local training returned `optimizer`.

        Raises:
            ValueError: it cannot go back so far.
        """
        if self.large is not None:
            self.large.rewind(int(optimizer.get(TABLE_VERSION, 0)))


def build_learner(
    client: str,
    spec: ModelSpec,
    data: ClientData,
    batch_size: int,
    budget: Train,
    seed: int,
    device: torch.device,
    *,
    in_place: bool = True,
    labelled: tuple[int, ...] | None = None,
) -> Learner:
    """Build a client's model with its initial values on `device`.

    Its training rows are moved there.

    Args:
        in_place: a private table of `train.large_table_rows` or more may be trained in place.
        labelled: see `Learner`.
    """
    model = MMoE(spec).initialise(seed, client).to(device)
    train = data._replace(train=data.train.to(device))
    private = model.private_embedding
    # Metal has no sparse tensors.
    if private is None or len(private.table) < budget.large_table_rows or not in_place or device.type == "mps":
        return Learner(model, Binding(model), train, batch_size, budget, device, labelled=labelled)
    private.sparse = True
    table = LargeTable(private.table)
    return Learner(model, Binding(model, private.table), train, batch_size, budget, device, table, labelled)


def client_batch_size(mean: int, rows: int, mean_rows: float) -> int:
    """Return a client's batch size, in proportion to its rows.

    So all clients take the same number of steps. At least 2, because BatchNorm needs two rows.
    """
    return max(2, round(mean * rows / mean_rows))


def local_train(
    parameters: NamedArrays,
    optimizer: NamedArrays,
    data: Learner,
    stream: Stream,
    *,
    federated: Collection[Role],
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float = 0.0,
    frozen: Collection[Role] = (),
    anchor: NamedArrays | None = None,
    regularizer: float = 0.0,
    steps: int | None = None,
    part: tuple[float, float] = (0.0, 1.0),
    round_steps: int | None = None,
    by_task: Collection[Role] = (),
    blend: Blend | None = None,
    first_order: FirstOrderLearning | None = None,
) -> LocalResult:
    """Train from `parameters`: plain SGD on federated roles, Adam on private ones.

    Plain SGD, because what is averaged must be proportional to the gradient (docs/explanation/method.md, a round). The
    regulariser (mu / 2) |theta - anchor|^2, over the learned tensors whose role is in `anchor`, takes an implicit step
    after each of the optimisers', theta <- (theta + a anchor) / (1 + a) with a = learning rate x mu: stable for any mu.
    The rate is that of the tensor's own optimiser; with Adam this is the pull in its decoupled form (AdamW, Loshchilov
    and Hutter 2019), not scaled by the gradient's moments. Running statistics are not pulled.

    A large table (`Learner.large`) is trained in place by lazy Adam; it is in neither `parameters` nor what comes
    back, and starts from the version that `optimizer` names.

    Args:
        parameters: every tensor of the model.
        optimizer: Adam's state of private tensors from an earlier call, or nothing.
        data: the client's model and rows.
        stream: names the randomness of batches and dropout.
        federated: roles that leave the client.
        learning_rate: of SGD.
        private_learning_rate: of Adam.
        private_weight_decay: of Adam, decoupled (AdamW): a step also takes rate x decay x theta off theta.
        frozen: roles that keep their values.
        anchor: what arrays are pulled towards, whole roles; roles that it leaves out move freely.
        regularizer: mu.
        steps: all of `part` if left out.
        part: of the round's steps, which begin and end at these shares of them, and of their batches. Steps that are
            given are counted from its beginning.
        round_steps: steps of a round; `train.local_steps` if left out.
        by_task: federated roles whose movement is also reported task by task (a backward pass for each task).
        blend: the model that is trained is a blend with other tensors, which stay as they are. Of the others' roles, a
            gradient reaches `parameters` times their weight, and the weight's own gradient is <parameters - other,
            gradient>; both are taken at the same blend. Adam, whose steps do not depend on the gradient's scale, makes
            steps as long as without a blend.

        first_order: rate and ridges of the first-order path; by default other private tensors' rate, and no ridge.

    Raises:
        TrainingError: the loss is not finite; round, client and value are named.
        ValueError: a role of `by_task` is not federated, or frozen: its movements would not be plain SGD's.
    """
    if not set(by_task) <= set(federated) - set(frozen):
        raise ValueError(f"by_task names {sorted(set(by_task) - (set(federated) - set(frozen)))}, not trained by SGD")
    model, binding, budget = data.model, data.binding, data.budget
    binding.write(parameters)
    data.rewind(optimizer)
    model.train()
    length = budget.local_steps if round_steps is None else round_steps
    begin, end = (round(share * length) for share in part)
    steps = end - begin if steps is None else steps
    rate = budget.rate_share(stream.round)
    # Three groups of tensors, each with its optimiser: SGD for what is averaged, Adam for what stays, lazy Adam for a
    # private table that is trained in place.
    shared: list[Tensor] = [
        p for p in model.parameters() if binding.role(p) in federated and binding.role(p) not in frozen
    ]
    own: dict[str, Tensor] = {
        name: p for name, p in model.named_parameters() if binding.role(p) not in {*federated, *frozen}
    }
    large = data.large if PRIVATE_TABLE in own else None
    if large is not None:
        del own[PRIVATE_TABLE]
    for parameter in model.parameters():
        parameter.requires_grad_(binding.role(parameter) not in frozen)
    if large is not None:
        large.begin(int(optimizer.get(TABLE_VERSION, 0)), private_learning_rate * rate, private_weight_decay)
    sgd = torch.optim.SGD(shared, lr=learning_rate * rate, foreach=True) if shared else None
    first_order = first_order or FirstOrderLearning(private_learning_rate, 0.0, 0.0)
    ridges = _ridges(data, first_order)
    linear = {name: tensor for name, tensor in own.items() if name.startswith(_FIRST_ORDER)}
    groups = [
        (
            [tensor for name, tensor in own.items() if name not in linear],
            private_learning_rate * rate,
            private_weight_decay,
        ),
        (list(linear.values()), first_order.rate * rate, 0.0),
    ]
    adam = _adam(own, optimizer, groups, data.device) if own else None
    pulls = []
    if anchor and regularizer > 0:
        strengths = (learning_rate * rate * regularizer, private_learning_rate * rate * regularizer)
        pulls = _pulls(binding, anchor, zip((shared, list(own.values())), strengths, strict=True))
    # With `by_task`, a backward pass for each task in place of one for their sum.
    trained = [*shared, *own.values(), *([] if large is None else [large.table])]
    split = (
        _TaskSplit(trained, [p for p in shared if binding.role(p) in by_task], model.spec.tasks) if by_task else None
    )
    blending = _Blending(binding, blend, trained, rate, data.device) if blend else None
    weights = torch.tensor(budget.task_weights, dtype=torch.float32, device=data.device)
    rows, partial = data.data.train, data.labelled is not None
    # Summed on the device: reading the loss at every step would wait for it.
    total = torch.zeros((), device=data.device)
    # Batches go on where the round before ended, so that epochs do not depend on how steps are cut into rounds.
    first = (stream.round - 1) * length + begin
    # Parts of a round draw masks of their own.
    seed = int(stream.generator(f"dropout/{begin}" if begin else "dropout").integers(2**63))
    model.dropout.generator = torch.Generator(data.device).manual_seed(seed)
    for batch in rows.batches(stream, data.batch_size, first, steps):
        model.zero_grad()
        if blending:
            blending.mix()
        paths = model.paths(batch.codes, batch.values)
        if split:
            each = [task_losses(logits, batch.labels, weights, model.spec, partial) for logits in paths]
            value = split.backward(sum(each[1:], each[0]), learning_rate * rate)
        else:
            values = [loss(logits, batch.labels, weights, model.spec, partial) for logits in paths]
            value = sum(values[1:], values[0])
            value.backward()  # type: ignore[no-untyped-call]
        total += value.detach()
        if blending:
            blending.part()
        for tensor, strength in ridges:
            if tensor.grad is not None:
                tensor.grad.addcmul_(tensor.detach(), strength)
        for optimizer_ in (sgd, adam, large):
            if optimizer_ is not None:
                optimizer_.step()
        # The implicit step towards the anchor, after the optimisers': see above.
        with torch.no_grad():
            for pulled, anchors, share in pulls:
                torch._foreach_lerp_(pulled, anchors, share)
    # Of each path; once a loss is not finite, the sum stays so.
    mean = float(total) / max(steps, 1) / model.path_count
    if not math.isfinite(mean):
        raise TrainingError(
            f"round {stream.round}, client {stream.client}: the training loss became {mean}; "
            "lower this method's learning rates in params.yaml, or look for extreme values in the client's data"
        )
    state = dict(optimizer) if adam is None else {**optimizer, **_adam_state(own, adam)}
    if large is not None:
        state[TABLE_VERSION] = np.array(large.finish())
    # A forward pass moves BatchNorm's running statistics, even where nothing of it is trained.
    final = {**binding.read(), **arrays.select(parameters, binding.template, frozen)}
    reported = split.movements(binding, by_task) if split else {}
    return LocalResult(final, state, mean, rows.rows, reported, float(blending.weight) if blending else 1.0)


class _Blending:
    """The blend that is trained in place of the parameters themselves."""

    def __init__(
        self, binding: Binding, blend: Blend, trained: list[Tensor], rate: float, device: torch.device
    ) -> None:
        roles = {binding.template[name].role for name in blend.other}
        self._own = [tensor for tensor in trained if binding.role(tensor) in roles]
        # As in `_pulls`: the binding knows which slice of which tensor an array is.
        now = binding.read()
        binding.write(blend.other)
        self._others = [tensor.detach().clone() for tensor in self._own]
        binding.write(now)
        self._saved: list[Tensor] = []
        self._rate = blend.rate * rate
        # On the device: reading it at every step would wait for it. In double precision, as its steps are small.
        precision = torch.float32 if device.type == "mps" else torch.float64
        self.weight = torch.tensor(blend.weight, dtype=precision, device=device)

    @torch.no_grad()
    def mix(self) -> None:
        """Put the blend in the parameters' place."""
        self._saved = [tensor.detach().clone() for tensor in self._own]
        for tensor, other in zip(self._own, self._others, strict=True):
            tensor.lerp_(other, (1 - self.weight).to(tensor.dtype))

    @torch.no_grad()
    def part(self) -> None:
        """Put the parameters back, with gradients of their own.

        The weight takes its step.
        """
        slope = torch.zeros_like(self.weight)
        for tensor, saved, other in zip(self._own, self._saved, self._others, strict=True):
            if tensor.grad is not None:
                slope += torch.sum((saved - other) * tensor.grad)
                tensor.grad.mul_(self.weight)
            tensor.copy_(saved)
        self.weight = (self.weight - self._rate * slope).clamp(0.0, 1.0)


class _TaskSplit:
    """The sums of each task's own movements under plain SGD.

    They are exact, as plain SGD is linear in the gradient.
    """

    def __init__(self, trained: list[Tensor], followed: list[Tensor], tasks: tuple[str, ...]) -> None:
        self._trained, self._tasks = trained, tasks
        self._moved = {task: {id(p): (p, torch.zeros_like(p)) for p in followed} for task in tasks}

    def backward(self, losses: Tensor, rate: float) -> Tensor:
        """Set the gradients of the summed loss, and return that loss.

        Each task's own step is added to its movements.
        """
        for task, own in zip(self._tasks, losses, strict=True):
            gradients = torch.autograd.grad(own, self._trained, retain_graph=True, allow_unused=True)
            for parameter, gradient in zip(self._trained, gradients, strict=True):
                if gradient is None:
                    continue
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
                if id(parameter) in self._moved[task]:
                    self._moved[task][id(parameter)][1].sub_(gradient, alpha=rate)
        return losses.sum()

    @torch.no_grad()
    def movements(self, binding: Binding, roles: Collection[Role]) -> dict[str, NamedArrays]:
        """Return the movements by task and wire name; overwrites the followed parameters."""
        found: dict[str, NamedArrays] = {}
        for task, moved in self._moved.items():
            for parameter, movement in moved.values():
                parameter.copy_(movement)
            found[task] = arrays.select(binding.read(), binding.template, roles)
        return found


def _pulls(
    binding: Binding, anchor: NamedArrays, groups: Iterable[tuple[list[Tensor], float]]
) -> list[tuple[list[Tensor], list[Tensor], float]]:
    """Return the pulls towards the anchor: tensors, their anchors, and a share.

    `groups` are (tensors, a); the share is a / (1 + a). Tensors whose role the anchor lacks are left out.
    """
    roles = {binding.template[name].role for name in anchor}
    # The binding knows which slice of which tensor an array is: the anchor is written into the model, copied tensor by
    # tensor, and the model's own values are put back.
    now = binding.read()
    binding.write(anchor)
    pulls = []
    for tensors, strength in groups:
        pulled = [tensor for tensor in tensors if binding.role(tensor) in roles]
        if pulled:
            pulls.append((pulled, [tensor.detach().clone() for tensor in pulled], strength / (1 + strength)))
    binding.write(now)
    return pulls


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def _ridges(data: Learner, learning: FirstOrderLearning) -> list[tuple[Tensor, Tensor]]:
    """Return first-order tensors and strengths of their ridges [T].

    A strength times its tensor is the ridge's part of the mean loss's gradient.
    """
    path = data.model.first_order
    if path is None:
        return []
    spec = data.model.spec
    nested = [parent is not None and spec.product for parent in spec.parents]
    each = torch.tensor([data.budget.nested_ridge if n else 1.0 for n in nested], device=data.device)
    # Each task's mean loss is one over its labelled rows.
    each /= data.data.train.rows if data.labelled is None else torch.tensor(data.labelled, device=data.device)
    return [
        *((tensor, learning.ridge * each) for tensor in path.shared()),
        *((tensor, learning.private_ridge * each) for tensor in path.own()),
        *((tensor, torch.full_like(each, learning.ridge / data.data.train.rows)) for tensor in path.mixtures()),
    ]


def _adam(
    own: dict[str, Tensor],
    state: NamedArrays,
    groups: Iterable[tuple[list[Tensor], float, float]],
    device: torch.device,
) -> torch.optim.AdamW:
    """Return Adam over groups (tensors, rate, decay), with its earlier state."""
    settings = [{"params": tensors, "lr": rate, "weight_decay": decay} for tensors, rate, decay in groups if tensors]
    adam = torch.optim.AdamW(settings, fused=device.type in ("cpu", "cuda"))
    for name, tensor in own.items():
        if f"{name}/step" in state:
            adam.state[tensor] = {key: torch.tensor(state[f"{name}/{key}"], device=device) for key in _MOMENTS}
    return adam


def _adam_state(own: dict[str, Tensor], adam: torch.optim.AdamW) -> NamedArrays:
    return {
        f"{name}/{key}": adam.state[tensor][key].cpu().numpy()
        for name, tensor in own.items()
        for key in _MOMENTS
        if tensor in adam.state
    }
