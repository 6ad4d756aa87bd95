"""The shapes of a model: fields, tasks and sizes."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from pfmsmt.config import Model
from pfmsmt.data.schema import ScenarioSchema


class ModelSpec(BaseModel):
    """Shapes of one client's MMoE; saved beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field_codes: tuple[int, ...]
    """Codes of each categorical field, the out-of-vocabulary one included."""
    field_federated: tuple[bool, ...]
    numerical: int
    tasks: tuple[str, ...]
    parents: tuple[int | None, ...]
    """Index of the task that each task is nested in; always an earlier one."""
    product: bool
    """A nested task's probability is its parent's times its own tower's (ESMM, Ma et al. 2018)."""
    embedding_dim: int
    experts: int
    """Experts that all tasks share; 0: the first-order path is the whole model."""
    expert_layers: tuple[int, ...]
    tower_layers: tuple[int, ...]
    dropout: float
    rank: int
    """Rank of the task-specific adapters in the experts; 0: none."""
    private_experts: int
    """Experts of each task, beside the `experts` that all tasks share; 0: none."""
    scenario_rank: int = 0
    """Rank of the scenario's own part of the experts; 0: none."""
    first_order: bool = False
    """Whether a linear model of each task stands beside the experts; models of version 0.1.0 have none."""
    first_order_share: float = 0.5
    """Weight of its logit; the experts' has the rest."""
    linear_experts: int = 0
    """Shared linear models that clients mix, beside their own; 0: none."""
    first_order_ids: bool = True
    """Whether private fields have first-order weights."""

    @model_validator(mode="after")
    def _has_a_path(self) -> Self:
        if not self.experts and not self.first_order:
            raise ValueError("a model has experts, a first-order path, or both")
        return self

    @property
    def private_codes(self) -> int:
        """Rows of the table of all private fields."""
        return sum(n for n, flag in zip(self.field_codes, self.field_federated, strict=True) if not flag)

    @property
    def inputs(self) -> int:
        """D, the width of the input."""
        return len(self.field_codes) * self.embedding_dim + self.numerical


def build_spec(
    schema: ScenarioSchema,
    model: Model,
    rank: int = 0,
    private_experts: int = 0,
    linear_experts: int = 0,
    **changes: Any,
) -> ModelSpec:
    """Derive the shapes of one scenario's model from its schema.

    `changes` replaces single values.
    """
    names = [task.name for task in schema.tasks]
    values: dict[str, Any] = {
        "field_codes": tuple(field.codes for field in schema.categorical),
        "field_federated": tuple(field.federated for field in schema.categorical),
        "numerical": len(schema.numerical),
        "tasks": tuple(names),
        "parents": tuple(None if task.within is None else names.index(task.within) for task in schema.tasks),
        "product": model.ctcvr == "product",
        "rank": rank,
        "private_experts": private_experts,
        "linear_experts": linear_experts,
    }
    sizes = model.model_dump(exclude={"ctcvr"})
    return ModelSpec(**{**values, **sizes, **changes})
