"""The experts of an MMoE, batched into few matrix products.

One product for all first layers, one batched product per later layer.

Legend: B batch, E experts, T tasks, D inputs, H units, G expert copies: T x E with adapters, E without;
T x K for K private experts of each task.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pfmsmt.core.types import Role
from pfmsmt.models.dropout import Dropout
from pfmsmt.models.template import TensorLabel

NORM_MOMENTUM = 0.1
NORM_EPSILON = 1e-5


class ExpertLayer(nn.Module):
    """Linear -> BatchNorm -> ReLU -> Dropout for all experts at once.

    With rank r > 0, expert e has its own weights for each task t (ours; LoRA, Hu et al. 2022), and with scenario rank
    q > 0 a part that is the scenario's own, whatever the task (ours): W_e,t = W_e + P_e Q_e + U_e,t V_e,t. Q and V
    start at zero, so that training starts from the plain MMoE. The linear part has no bias: BatchNorm has one.
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        experts: int,
        tasks: int,
        rank: int,
        dropout: Dropout,
        scenario_rank: int = 0,
    ) -> None:
        """Allocate for E experts and T tasks.

        Rank 0: no adapters; scenario rank 0: no scenario's part.
        """
        super().__init__()
        self.dropout = dropout
        self.copies = experts * (tasks if rank else 1)
        self.weight = nn.Parameter(torch.empty(experts, inputs, units))
        self.norm_weight = nn.Parameter(torch.ones(self.copies * units))
        self.norm_bias = nn.Parameter(torch.zeros(self.copies * units))
        self.norm_mean: Tensor
        self.norm_variance: Tensor
        self.register_buffer("norm_mean", torch.zeros(self.copies * units))
        self.register_buffer("norm_variance", torch.ones(self.copies * units))
        self.adapter_down = nn.Parameter(torch.empty(tasks, experts, inputs, rank)) if rank else None
        self.adapter_up = nn.Parameter(torch.zeros(tasks, experts, rank, units)) if rank else None
        self.scenario_down = nn.Parameter(torch.empty(experts, inputs, scenario_rank)) if scenario_rank else None
        self.scenario_up = nn.Parameter(torch.zeros(experts, scenario_rank, units)) if scenario_rank else None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw He-uniform weights; products of two matrices stay zero."""
        bound = math.sqrt(6.0 / self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        if self.adapter_down is not None:
            nn.init.uniform_(self.adapter_down, -bound, bound, generator=generator)
        if self.scenario_down is not None:
            nn.init.uniform_(self.scenario_down, -bound, bound, generator=generator)

    def copy_weights(self) -> Tensor:
        """Return the weights of every expert copy, [G, D, H]."""
        weight: Tensor = self.weight
        if self.scenario_down is not None and self.scenario_up is not None:
            weight = weight + self.scenario_down @ self.scenario_up
        if self.adapter_down is None or self.adapter_up is None:
            return weight
        return (weight + self.adapter_down @ self.adapter_up).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map the input to [B, G x H].

        The input is common, [B, D], or each copy's own, [B, G x D].
        """
        weights = self.copy_weights()
        copies, inputs, units = weights.shape
        if x.shape[1] == inputs:
            h = x @ weights.transpose(0, 1).reshape(inputs, copies * units)
        else:
            h = torch.bmm(x.view(-1, copies, inputs).transpose(0, 1), weights).transpose(0, 1).reshape(len(x), -1)
        h = functional.batch_norm(
            h, self.norm_mean, self.norm_variance, self.norm_weight, self.norm_bias,
            self.training, NORM_MOMENTUM, NORM_EPSILON,
        )  # fmt: skip
        dropped: Tensor = self.dropout(functional.relu(h))
        return dropped


class ExpertBank(nn.Module):
    """E experts, each a stack of layers."""

    def __init__(
        self,
        inputs: int,
        layers: tuple[int, ...],
        *,
        experts: int,
        tasks: int,
        rank: int,
        dropout: Dropout,
        scenario_rank: int = 0,
    ) -> None:
        """Stack one ExpertLayer for each entry of `layers` (units)."""
        super().__init__()
        widths = (inputs, *layers)
        self.layers = nn.ModuleList(
            ExpertLayer(a, b, experts=experts, tasks=tasks, rank=rank, dropout=dropout, scenario_rank=scenario_rank)
            for a, b in itertools.pairwise(widths)
        )
        self.experts, self.copies = experts, experts * (tasks if rank else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, T, E, H].

        Or to [B, 1, E, H] where all tasks share the experts.
        """
        h = x
        for layer in self.layers:
            h = layer(h)
        return h.view(len(x), self.copies // self.experts, self.experts, -1)

    def labels(self) -> dict[str, TensorLabel]:
        """Label every tensor of the experts."""
        each = tuple(f"expert/{index}" for index in range(self.experts))
        kinds = {
            "weight": TensorLabel(Role.EXPERT, each),
            "norm_weight": TensorLabel(Role.NORM, ("norm",)),
            "norm_bias": TensorLabel(Role.NORM, ("norm",)),
            "norm_mean": TensorLabel(Role.NORM, ("norm",)),
            "norm_variance": TensorLabel(Role.NORM, ("norm",)),
            "adapter_down": TensorLabel(Role.TASK, ("task",)),
            "adapter_up": TensorLabel(Role.TASK, ("task",)),
            "scenario_down": TensorLabel(Role.TASK, ("scenario",)),
            "scenario_up": TensorLabel(Role.TASK, ("scenario",)),
        }
        own = [name for name, _ in (*self.named_parameters(), *self.named_buffers())]
        return {name: kinds[name.rsplit(".", 1)[-1]] for name in own}


class PrivateExperts(ExpertBank):
    """K experts of each task that stay with their client (ours).

    As PLE's task-specific experts, Tang et al. 2020.
    """

    def __init__(self, inputs: int, layers: tuple[int, ...], *, experts: int, tasks: int, dropout: Dropout) -> None:
        """Stack one ExpertLayer of T x K experts per layer.

        `layers` holds the units of each.
        """
        super().__init__(inputs, layers, experts=tasks * experts, tasks=1, rank=0, dropout=dropout)
        self._tasks = tasks

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, T, K, H]."""
        h = super().forward(x)
        return h.view(len(x), self._tasks, -1, h.shape[-1])

    def labels(self) -> dict[str, TensorLabel]:
        """Label everything as task-specific, normalisation as well: none of it leaves."""
        own = [name for name, _ in (*self.named_parameters(), *self.named_buffers())]
        return dict.fromkeys(own, TensorLabel(Role.TASK, ("task",)))
