"""The served form of the MMoE: fewer and larger products, no training.

Legend: B batch, T tasks, D inputs, H units, G expert copies of all kinds (shared ones, or T x E with adapters, and
T x K private ones).

The first-order path is a table and columns of the first product; both paths' logits are added, each with its share.
BatchNorm is folded into the weights in front of it, adapters are added to their experts, and shared and private
experts and the gates share one first product. A gate gives the copies that are not its task's a logit of minus
infinity, so one product mixes them all. Logits differ from MMoE's by float32 rounding alone.
"""

import copy
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from pfmsmt.models.experts import NORM_EPSILON, ExpertLayer
from pfmsmt.models.mmoe import MMoE, TaskLinear


class Fused(NamedTuple):
    """The results of one pass."""

    logits: Tensor
    """[B, T]"""
    gates: Tensor
    """[B, T, G]; 0 for the experts of other tasks."""


class Served(Protocol):
    """A frozen copy of a model; threads may share it."""

    experts: list[list[tuple[str, int]]]
    """For each task its experts: [(name, place among the G copies)]."""

    def __call__(self, codes: Tensor, values: Tensor) -> Fused:
        """Score codes [B, F] int64 and standardised numbers [B, M] float32."""
        ...


def fused(model: MMoE) -> Served:
    """Return the served form of a model."""
    return FusedModel(model) if model.spec.experts else LinearModel(model)


class LinearModel:
    """The served form of a model without experts.

    It is the model's first-order path, and there are no gates: [B, T, 0].
    """

    def __init__(self, model: MMoE) -> None:
        """Copy the path."""
        self._path = copy.deepcopy(model.first_order)
        self.experts: list[list[tuple[str, int]]] = [[] for _ in model.spec.tasks]

    @torch.inference_mode()
    def __call__(self, codes: Tensor, values: Tensor) -> Fused:
        """Score rows."""
        assert self._path is not None
        logits = self._path(codes, values)
        return Fused(logits, logits.new_zeros(*logits.shape, 0))


class FusedModel:
    """The served form of a model with experts."""

    def __init__(self, model: MMoE) -> None:
        """Fold and concatenate the weights of `model`, in float64, once."""
        assert model.gates is not None
        assert model.towers is not None
        spec = model.spec
        tasks, shared, private = len(spec.tasks), spec.experts, spec.private_experts
        with torch.no_grad():
            self._order, self._offsets, self._table = _one_table(model)
            banks = [bank for bank in (model.experts, model.private_experts) if bank is not None]
            depth = range(len(spec.expert_layers))
            layers = [_folded([cast(ExpertLayer, bank.layers[i]) for bank in banks]) for i in depth]
            weights, biases = layers[0]
            self.copies, inputs, self._units = weights.shape
            gate_weight, gate_bias = _gates(model.gates.linear, self.copies, shared, private, bool(spec.rank))
            first = weights.transpose(0, 1).reshape(inputs, -1)
            self._linear_table, linear_weight, linear_bias = _first_order(model, inputs)
            self._first = torch.cat((first, gate_weight, linear_weight), 1).float().contiguous()
            self._first_bias = torch.cat((biases.flatten(), gate_bias, linear_bias)).float()
            self._later = [(w.float().contiguous(), b.float().unsqueeze(1)) for w, b in layers[1:]]
            towers = [cast(TaskLinear, layer) for layer in model.towers.layers]
            self._towers = [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in towers]
            if model.first_order is not None:
                share = 1 - spec.first_order_share
                self._towers[-1] = (self._towers[-1][0] * share, self._towers[-1][1] * share)
        self._tasks = tasks
        self.experts = _expert_places(tasks, shared, private, bool(spec.rank))

    @torch.inference_mode()
    def __call__(self, codes: Tensor, values: Tensor) -> Fused:
        """Score codes [B, F] int64 and standardised numbers [B, M] float32."""
        rows = codes.shape[0]
        if self._order is not None:
            codes = codes[:, self._order]
        embedded = functional.embedding(codes + self._offsets, self._table).flatten(1)
        x = torch.cat((embedded, values), 1)
        h = torch.addmm(self._first_bias, x, self._first)
        split = self.copies * self._units
        end = split + self._tasks * self.copies
        gates = h[:, split:end].reshape(rows, self._tasks, self.copies).softmax(-1)
        experts = h[:, :split].relu().view(rows, self.copies, self._units).transpose(0, 1)
        for weight, bias in self._later:
            experts = torch.baddbmm(bias, experts, weight).relu_()
        mixed = torch.bmm(gates, experts.transpose(0, 1)).transpose(0, 1)
        for weight, bias in self._towers[:-1]:
            mixed = torch.baddbmm(bias, mixed, weight).relu_()
        weight, bias = self._towers[-1]
        logits = torch.baddbmm(bias, mixed, weight).squeeze(-1).T
        if self._linear_table is not None:
            logits = logits + h[:, end:] + functional.embedding(codes + self._offsets, self._linear_table).sum(1)
        return Fused(logits, gates)


def _one_table(model: MMoE) -> tuple[Tensor | None, Tensor, Tensor]:
    """Join both embedding tables.

    Returns the order of the fields (None: as they are), the first row of each, and the joined table.
    """
    federated = model.spec.field_federated
    order = [i for i, flag in enumerate(federated) if flag] + [i for i, flag in enumerate(federated) if not flag]
    tables = [table for table in (model.embedding, model.private_embedding) if table is not None]
    sizes = torch.tensor([0, *(model.spec.field_codes[i] for i in order)], dtype=torch.int64)
    joined = (
        torch.cat([table.table.detach() for table in tables]) if tables else torch.zeros(1, model.spec.embedding_dim)
    )
    moved = None if order == sorted(order) else torch.tensor(order, dtype=torch.int64)
    return moved, sizes.cumsum(0)[: len(order)], joined.clone()


def _first_order(model: MMoE, inputs: int) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the first-order weights times their share.

    They are in float64, but for the table. The table [R, T] goes with `_one_table`'s offsets; weights [D, T] and biases
    [T] go into the first product. Without a first-order path they are None and of no columns.
    """
    path = model.first_order
    if path is None:
        return None, torch.zeros(inputs, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    table, numbers = path.weights()
    spec, share = model.spec, model.spec.first_order_share
    missing = 0 if spec.first_order_ids else spec.private_codes
    whole = torch.cat((table, table.new_zeros(missing, table.shape[1])))
    weight = torch.zeros(inputs, len(spec.tasks), dtype=torch.float64)
    weight[inputs - spec.numerical :] = numbers.double() * share
    rows = whole if len(whole) else whole.new_zeros(1, whole.shape[1])
    return rows * share, weight, path.own_bias.detach().double() * share


def _folded(layers: list[ExpertLayer]) -> tuple[Tensor, Tensor]:
    """Return weights [G, D, H] and biases [G, H] of one layer.

    All banks together, in float64, BatchNorm folded in.
    """
    weights, biases = [], []
    for layer in layers:
        w = layer.copy_weights().double()
        copies, _, units = w.shape
        scale = layer.norm_weight.double() / (layer.norm_variance.double() + NORM_EPSILON).sqrt()
        shift = layer.norm_bias.double() - layer.norm_mean.double() * scale
        weights.append(w * scale.view(copies, 1, units))
        biases.append(shift.view(copies, units))
    return torch.cat(weights), torch.cat(biases)


def _gates(linear: TaskLinear, copies: int, shared: int, private: int, adapted: bool) -> tuple[Tensor, Tensor]:
    """Return gate weights [D, T x G] and biases [T x G].

    Minus infinity shuts a gate for other tasks' copies.
    """
    tasks, inputs, _ = linear.weight.shape
    weight = torch.zeros(inputs, tasks, copies, dtype=torch.float64)
    bias = torch.full((tasks, copies), -torch.inf, dtype=torch.float64)
    for task, places in enumerate(_expert_places(tasks, shared, private, adapted)):
        where = [place for _, place in places]
        weight[:, task, where] = linear.weight[task].double()
        bias[task, where] = linear.bias[task, 0].double()
    return weight.flatten(1), bias.flatten()


def _expert_places(tasks: int, shared: int, private: int, adapted: bool) -> list[list[tuple[str, int]]]:
    """Return each task's experts among the copies, in gate order."""
    after = shared * (tasks if adapted else 1)
    return [
        [(f"expert/{e}", (task * shared if adapted else 0) + e) for e in range(shared)]
        + [(f"private/{k}", after + task * private + k) for k in range(private)]
        for task in range(tasks)
    ]
