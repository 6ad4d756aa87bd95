"""The pooled reference, method `centralized`: one client that holds everybody's rows.

Its one model is every scenario's: the scenario is a last categorical field, and the tables of private ids lie side by
side, so that no scenario's ids meet another's. Afterwards each scenario's part is cut out of it, to be scored and
served like any other model. Nobody could deploy it: rows would have to leave their scenario.

Legend: S scenarios, F categorical fields.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.core.types import NamedArrays
from pfmsmt.data.schema import ScenarioSchema, Schema
from pfmsmt.data.shards.reader import Pooling, ShardFile
from pfmsmt.data.shards.streamed import StreamedShard, open_shard
from pfmsmt.models.spec import ModelSpec

POOLED_CLIENT = "all"
PRIVATE_TABLES = ("private/table", "private/private_table")
"""Tables of private fields: embeddings, and first-order weights."""


class ModelParts(NamedTuple):
    """One scenario's model, ready to be saved."""

    spec: ModelSpec
    parameters: NamedArrays
    code: int | None = None
    """Code of the scenario, where the model has it as a field."""


class PooledReference(NamedTuple):
    """Rows and models of all scenarios as those of one client."""

    schemas: tuple[ScenarioSchema, ...]

    @classmethod
    def of(cls, schema: Schema) -> "PooledReference":
        """Pool all scenarios of a schema."""
        return cls(tuple(schema.scenario(scenario) for scenario in schema.scenarios))

    def files(self, shards: Path, split: str) -> list[ShardFile]:
        """Open one split of every scenario, with the pooled model's codes.

        Raises:
            DataError: a shard is missing, damaged, or has other columns than the schema's.
        """
        return [ShardFile(shards, split, s, self._pooling(s.scenario)) for s in self.schemas]

    def open_shard(self, shards: Path, split: str, scenario: str) -> StreamedShard:
        """Open one scenario's split with the pooled codes; see `open_shard`."""
        return open_shard(shards, split, self.schemas[self._position(scenario)], self._pooling(scenario))

    def batch_size(self, mean: int) -> int:
        """Return the batch size of a step.

        As many rows as all clients together see in one of theirs.
        """
        return mean * len(self.schemas)

    def spec(self, own: ModelSpec) -> ModelSpec:
        """Return the pooled model's shapes, from those of any one scenario's model."""
        sizes = [
            field.codes if field.federated else sum(s.categorical[i].codes for s in self.schemas)
            for i, field in enumerate(self.schemas[0].categorical)
        ]
        return own.model_copy(
            update={"field_codes": (*sizes, len(self.schemas)), "field_federated": (*own.field_federated, True)}
        )

    def cut(self, spec: ModelSpec, parameters: NamedArrays, scenario: str) -> ModelParts:
        """Cut one scenario's model out of the pooled one.

        It has its own rows of the private tables.
        """
        position = self._position(scenario)
        fields = self.schemas[position].categorical
        own = spec.model_copy(update={"field_codes": (*(field.codes for field in fields), len(self.schemas))})
        tables = {name: parameters[name] for name in PRIVATE_TABLES if name in parameters}
        if not tables:
            return ModelParts(own, parameters, position)
        # A table holds all private fields one after the other, each of them scenario after scenario.
        rows, at = [], 0
        shifts = private_shifts(self.schemas)[position]
        for field, codes, shift in zip(fields, spec.field_codes, shifts, strict=False):
            if not field.federated:
                rows.append(slice(at + shift, at + shift + field.codes))
                at += codes
        parts = {name: np.concatenate([table[r] for r in rows]) for name, table in tables.items()}
        return ModelParts(own, {**parameters, **parts}, position)

    def _position(self, scenario: str) -> int:
        return [s.scenario for s in self.schemas].index(scenario)

    def _pooling(self, scenario: str) -> Pooling:
        position = self._position(scenario)
        return Pooling(position, private_shifts(self.schemas)[position])


def private_shifts(schemas: Sequence[ScenarioSchema]) -> NDArray[np.int64]:
    """Return the shifts of codes in a pooled table, [S, F].

    0 for federated fields: their codes mean the same everywhere.
    """
    sizes = np.array([[field.codes for field in schema.categorical] for schema in schemas], dtype=np.int64)
    private = np.array([not field.federated for field in schemas[0].categorical])
    return np.where(private, np.cumsum(sizes, axis=0) - sizes, 0)
