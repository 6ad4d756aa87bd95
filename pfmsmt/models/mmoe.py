"""A client's multi-gate mixture of experts (MMoE, Ma et al. 2018).

Legend: B batch, E experts, T tasks, F categorical fields, M numerical fields, D inputs, H units.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pfmsmt.core.types import Role, Stream, Template
from pfmsmt.models.dropout import Dropout
from pfmsmt.models.experts import ExpertBank, ExpertLayer, PrivateExperts
from pfmsmt.models.first_order import FirstOrder
from pfmsmt.models.spec import ModelSpec
from pfmsmt.models.template import Binding, TensorLabel


class FieldTable(nn.Module):
    """The embeddings of several categorical fields in one table."""

    def __init__(self, codes: Sequence[int], dim: int, role: Role, group: str) -> None:
        """`codes[i]` rows for field i, each of `dim` numbers."""
        super().__init__()
        self._label = TensorLabel(role, (group,))
        self.sparse = False
        """Gradients hold the rows of the batch alone, for `LargeTable`."""
        self.table = nn.Parameter(torch.empty(sum(codes), dim))
        # Summed in Python: on the device meta, torch loads its compiler for a sum.
        offsets = torch.tensor(list(itertools.accumulate([0, *codes[:-1]])), dtype=torch.int64)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes [B, F] to [B, F x dim]."""
        return functional.embedding(codes + self.get_buffer("offsets"), self.table, sparse=self.sparse).flatten(1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw from N(0, 0.1^2)."""
        nn.init.normal_(self.table, 0.0, 0.1, generator=generator)

    def labels(self) -> dict[str, TensorLabel]:
        """Label the table."""
        return {"table": self._label}


class TaskLinear(nn.Module):
    """T linear maps side by side."""

    def __init__(self, tasks: int, inputs: int, units: int) -> None:
        """Allocate [T, inputs, units]."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tasks, inputs, units))
        self.bias = nn.Parameter(torch.zeros(tasks, 1, units))

    def forward(self, x: Tensor) -> Tensor:
        """Map [T, B, inputs] to [T, B, units]."""
        return torch.baddbmm(self.bias, x, self.weight)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw Glorot-uniform weights."""
        bound = math.sqrt(6.0 / sum(self.weight.shape[1:]))
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)


class Gates(nn.Module):
    """One softmax gate over the experts for each task."""

    def __init__(self, inputs: int, experts: int, tasks: tuple[str, ...]) -> None:
        """Allocate [T, D, E]."""
        super().__init__()
        self._tasks = tasks
        self.linear = TaskLinear(len(tasks), inputs, experts)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to gate weights [B, T, E].

        They sum to 1 over the experts.
        """
        logits: Tensor = self.linear(x.expand(len(self._tasks), -1, -1))
        return logits.transpose(0, 1).softmax(-1)

    def labels(self) -> dict[str, TensorLabel]:
        """Label each task's gate."""
        label = TensorLabel(Role.GATE, tuple(f"gate/{task}" for task in self._tasks))
        return {name: label for name, _ in self.named_parameters()}


class Towers(nn.Module):
    """One tower of linear layers for each task, ending in one logit."""

    def __init__(self, inputs: int, layers: tuple[int, ...], dropout: Dropout, tasks: tuple[str, ...]) -> None:
        """Stack hidden layers of `layers` units and the last linear map."""
        super().__init__()
        self._tasks, self.dropout = tasks, dropout
        widths = (inputs, *layers, 1)
        self.layers = nn.ModuleList(TaskLinear(len(tasks), a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, H] to logits [B, T]."""
        h = x.transpose(0, 1)
        for layer in self.layers[:-1]:
            h = self.dropout(functional.relu(layer(h)))
        logits: Tensor = self.layers[-1](h)
        return logits.squeeze(-1).T

    def labels(self) -> dict[str, TensorLabel]:
        """Label each task's tower."""
        label = TensorLabel(Role.TOWER, tuple(f"tower/{task}" for task in self._tasks))
        return {name: label for name, _ in self.named_parameters()}


class MMoE(nn.Module):
    """Embeddings, experts, gates and towers of one client, and its first-order path.

    Without experts the first-order path is all there is.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Allocate; `initialise` draws the values."""
        super().__init__()
        self.spec = spec
        self._columns = {
            federated: [i for i, flag in enumerate(spec.field_federated) if flag is federated]
            for federated in (True, False)
        }
        self.dropout = Dropout(spec.dropout)
        self.embedding: FieldTable | None = None
        self.private_embedding: FieldTable | None = None
        self.experts: ExpertBank | None = None
        self.gates: Gates | None = None
        self.towers: Towers | None = None
        self.private_experts: PrivateExperts | None = None
        if spec.experts:
            self._add_experts()
        self.first_order = FirstOrder(spec) if spec.first_order else None

    def _add_experts(self) -> None:
        spec = self.spec
        self.embedding = self._table(True, Role.EMBEDDING, "embedding")
        self.private_embedding = self._table(False, Role.PRIVATE, "private")
        self.experts = ExpertBank(
            spec.inputs, spec.expert_layers,
            experts=spec.experts, tasks=len(spec.tasks), rank=spec.rank, dropout=self.dropout,
            scenario_rank=spec.scenario_rank,
        )  # fmt: skip
        self.gates = Gates(spec.inputs, spec.experts + spec.private_experts, spec.tasks)
        self.towers = Towers(spec.expert_layers[-1], spec.tower_layers, self.dropout, spec.tasks)
        if spec.private_experts:
            self.private_experts = PrivateExperts(
                spec.inputs, spec.expert_layers,
                experts=spec.private_experts, tasks=len(spec.tasks), dropout=self.dropout,
            )  # fmt: skip

    def _table(self, federated: bool, role: Role, group: str) -> FieldTable | None:
        codes = [self.spec.field_codes[i] for i in self._columns[federated]]
        return FieldTable(codes, self.spec.embedding_dim, role, group) if codes else None

    def initialise(self, seed: int, client: str) -> "MMoE":
        """Draw initial values.

        They are the same at every client, but for tables of private fields and mixtures of linear experts.
        """
        common = _generator(Stream(seed, "", 0))
        for module in self.modules():
            if isinstance(module, (FieldTable, TaskLinear, ExpertLayer)):
                own = isinstance(module, FieldTable) and module is self.private_embedding
                module.initialise(_generator(Stream(seed, client, 0)) if own else common)
            elif isinstance(module, FirstOrder):
                module.initialise(_generator(Stream(seed, client, 0), "mixture"))
        return self

    def inputs(self, codes: Tensor, values: Tensor) -> Tensor:
        """Return the input [B, D]: embeddings and numbers side by side.

        Of codes [B, F] and numbers [B, M].
        """
        parts = []
        for federated, table in ((True, self.embedding), (False, self.private_embedding)):
            if table is not None:
                columns = self._columns[federated]
                parts.append(table(codes if len(columns) == codes.shape[1] else codes[:, columns]))
        return torch.cat((*parts, values), dim=1)

    def forward(self, codes: Tensor, values: Tensor) -> Tensor:
        """Map codes [B, F] and numbers [B, M] to logits [B, T].

        They are the weighted mean of all paths'.
        """
        paths = self.paths(codes, values)
        return paths[0] if len(paths) == 1 else torch.lerp(paths[0], paths[1], self.spec.first_order_share)

    @property
    def path_count(self) -> int:
        """Number of paths."""
        return (self.experts is not None) + (self.first_order is not None)

    def paths(self, codes: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """Return the logits [B, T] of each path.

        They are of codes [B, F] and numbers [B, M]. The experts' come first, then those of the
        first-order path.
        """
        paths = [] if self.experts is None else [self._through_experts(codes, values)]
        if self.first_order is not None:
            paths.append(self.first_order(codes, values))
        return tuple(paths)

    def _through_experts(self, codes: Tensor, values: Tensor) -> Tensor:
        """Return the towers' logits [B, T].

        The towers compute them from the experts' outputs, mixed by each task's gate.
        """
        assert self.experts is not None
        assert self.gates is not None
        assert self.towers is not None
        x = self.inputs(codes, values)
        experts, gates = self.experts(x), self.gates(x)
        if self.private_experts is not None:
            own = self.private_experts(x)
            experts = torch.cat((experts.expand(-1, own.shape[1], -1, -1), own), dim=2)
        if experts.shape[1] > 1:
            mixed = torch.matmul(gates.unsqueeze(2), experts).squeeze(2)
        else:
            # All tasks share the experts: one product serves them together.
            mixed = torch.bmm(gates, experts.squeeze(1))
        logits: Tensor = self.towers(mixed)
        return logits


def template_of(spec: ModelSpec) -> Template:
    """Return the roles of all tensors of a model.

    Nothing is allocated: shapes are all that it takes.
    """
    with torch.device("meta"):
        return Binding(MMoE(spec)).template


def _generator(stream: Stream, purpose: str = "initial values") -> torch.Generator:
    return torch.Generator().manual_seed(int(stream.generator(purpose).integers(2**63)))
