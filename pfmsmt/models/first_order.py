"""The first-order path: a linear model of each task, beside the experts.

It is the wide part of Cheng et al. 2016, with shared and own weights (ours):

    z_t = b_t + <w_t, x>,    w_t = sum_k a_tk u_tk + v_t + c_t w_parent(t)

x holds a 1 for each field's category, and the numbers. The K linear experts u_tk are shared through the server; the
scenario's mixture a, its own weights v and its intercept b never leave the client. So scenarios differ along K common
directions, sign included, before they need weights of their own. Without linear experts (K = 0) all is v.

What makes people click often makes them buy. So a nested task, whose positives are few, takes its parent's weights
times the scenario's c, which starts at zero; its own weights say what differs.

Legend: B batch, T tasks, K linear experts, F categorical fields, M numerical fields, R rows of a table.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from pfmsmt.core.types import Role
from pfmsmt.models.spec import ModelSpec
from pfmsmt.models.template import TensorLabel

_SPREAD = 0.2
"""Standard deviation of the mixture's start: linear experts that start alike would stay alike."""
_SHARED = frozenset({"shared_table", "shared_numbers"})


class FirstOrder(nn.Module):
    """Weights of each task for every category and number."""

    def __init__(self, spec: ModelSpec) -> None:
        """Allocate zeros."""
        super().__init__()
        self._tasks, self._experts = len(spec.tasks), spec.linear_experts
        self._parents = [(task, parent) for task, parent in enumerate(spec.parents) if parent is not None]
        self._federated = [i for i, flag in enumerate(spec.field_federated) if flag]
        self._private = [i for i, flag in enumerate(spec.field_federated) if not flag] if spec.first_order_ids else []
        codes = [spec.field_codes[i] for i in (*self._federated, *self._private)]
        offsets = torch.tensor(list(itertools.accumulate([0, *codes]))[: len(codes)], dtype=torch.int64)
        self.register_buffer("offsets", offsets, persistent=False)
        federated, tasks = sum(codes[: len(self._federated)]), self._tasks
        if self._experts:
            self.shared_table = nn.Parameter(torch.zeros(self._experts, federated, tasks))
            self.shared_numbers = nn.Parameter(torch.zeros(self._experts, spec.numerical, tasks))
            self.mixture = nn.Parameter(torch.zeros(self._experts, tasks))
        self.own_table = nn.Parameter(torch.zeros(federated, tasks))
        self.own_numbers = nn.Parameter(torch.zeros(spec.numerical, tasks))
        self.own_bias = nn.Parameter(torch.zeros(tasks))
        self.own_link = nn.Parameter(torch.zeros(len(self._parents))) if self._parents else None
        self.private_table = nn.Parameter(torch.zeros(sum(codes) - federated, tasks)) if self._private else None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the mixture: 1 of the first expert, little of the others.

        Each client draws its own, so that the others' parts differ between clients from the start.
        """
        if self._experts:
            nn.init.normal_(self.mixture, 0.0, _SPREAD, generator=generator)
            with torch.no_grad():
                self.mixture[0] = 1.0

    def shared(self) -> list[Tensor]:
        """Return the linear experts' tensors."""
        return [self.shared_table, self.shared_numbers] if self._experts else []

    def mixtures(self) -> list[Tensor]:
        """Return the mixture of linear experts, if there are any."""
        return [self.mixture] if self._experts else []

    def own(self) -> list[Tensor]:
        """Return the client's own weights."""
        return [self.own_table, self.own_numbers, *([] if self.private_table is None else [self.private_table])]

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return w of categories [R, T] and of numbers [M, T].

        Rows of federated fields come first.
        """
        table: Tensor = self.own_table
        numbers: Tensor = self.own_numbers
        if self._experts:
            table = table + (self.mixture[:, None] * self.shared_table).sum(0)
            numbers = numbers + (self.mixture[:, None] * self.shared_numbers).sum(0)
        if self.private_table is not None:
            table = torch.cat((table, self.private_table))
        return self._linked(table), self._linked(numbers)

    def _linked(self, weights: Tensor) -> Tensor:
        """Add the parents' weights to those of nested tasks, [R, T]."""
        if self.own_link is None:
            return weights
        tasks = list(weights.unbind(1))
        for (task, parent), link in zip(self._parents, self.own_link, strict=True):
            # A parent is always an earlier task: its own parent's weights are in it.
            tasks[task] = tasks[task] + link * tasks[parent]
        return torch.stack(tasks, 1)

    def columns(self) -> list[int]:
        """Return the fields that have weights, in the order of `weights`."""
        return [*self._federated, *self._private]

    def forward(self, codes: Tensor, values: Tensor) -> Tensor:
        """Map codes [B, F] and numbers [B, M] to logits [B, T]."""
        table, numbers = self.weights()
        logits = torch.addmm(self.own_bias, values, numbers)
        columns = self.columns()
        if not columns:
            return logits
        chosen = codes if columns == list(range(codes.shape[1])) else codes[:, columns]
        return logits + functional.embedding(chosen + self.get_buffer("offsets"), table).sum(1)

    def labels(self) -> dict[str, TensorLabel]:
        """Label the linear experts as federated, all else as the client's own."""
        own = {name: TensorLabel(Role.TASK, ("task",)) for name, _ in self.named_parameters()}
        own |= {name: TensorLabel(Role.FIRST_ORDER, ("first_order",)) for name in own.keys() & _SHARED}
        if self.private_table is not None:
            own["private_table"] = TensorLabel(Role.PRIVATE, ("private",))
        return own
