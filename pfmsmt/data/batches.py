"""Client shards in memory, and the batches sliced from them.

Legend: B batch, N rows of a shard, F categorical fields, M numerical fields, T tasks, S scenarios.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfmsmt.data.schema import ScenarioSchema
from pfmsmt.errors import DataError
from pfmsmt.types import Stream


class Shard(NamedTuple):
    """One split of one client, ready for the model."""

    codes: Tensor
    """[N, F] int64"""
    values: Tensor
    """[N, M] float32, standardised"""
    labels: Tensor
    """[N, T] float32, 0 or 1"""
    groups: NDArray[np.int64]
    """[N] search ids"""

    @property
    def rows(self) -> int:
        """N."""
        return len(self.codes)


class ClientData(NamedTuple):
    """What one client trains and validates on."""

    train: Shard
    validation: Mapping[str, Shard]
    """scenario -> shard; a client that holds pooled data has several."""


def load_shard(folder: Path, split: str, schema: ScenarioSchema) -> Shard:
    """Read `<folder>/<scenario>/<split>.parquet`.

    Raises:
        DataError: missing, damaged, or other columns than the schema's.
    """
    path = folder / schema.scenario / f"{split}.parquet"
    fields = [field.name for field in schema.categorical]
    numbers = [field.name for field in schema.numerical]
    tasks = [task.name for task in schema.tasks]
    try:
        table = pq.read_table(path, columns=[schema.group, *fields, *numbers, *tasks])
        return Shard(
            torch.from_numpy(_matrix(table, fields, np.int64)),
            torch.from_numpy(_matrix(table, numbers, np.float32)),
            torch.from_numpy(_matrix(table, tasks, np.float32)),
            table[schema.group].to_numpy(),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); run `dvc repro -f partition`") from error


def _matrix(table: pa.Table, names: Sequence[str], dtype: type) -> NDArray[np.generic]:
    matrix = np.empty((table.num_rows, len(names)), dtype=dtype)
    for column, name in enumerate(names):
        matrix[:, column] = table[name].to_numpy()
    return matrix


def pool(clients: Mapping[str, ClientData], schemas: Sequence[ScenarioSchema]) -> ClientData:
    """Put all clients' rows together, with the scenario as one more categorical field (code = position).

    Codes of private fields are shifted, client by client, as the same code means another thing at each.
    """
    shifts = private_shifts(schemas)
    train = [_tag(clients[s.scenario].train, i, shifts[i]) for i, s in enumerate(schemas)]
    validation = {
        name: _tag(shard, i, shifts[i])
        for i, s in enumerate(schemas)
        for name, shard in clients[s.scenario].validation.items()
    }
    pooled = Shard(
        torch.cat([shard.codes for shard in train]),
        torch.cat([shard.values for shard in train]),
        torch.cat([shard.labels for shard in train]),
        np.concatenate([shard.groups for shard in train]),
    )
    return ClientData(pooled, validation)


def private_shifts(schemas: Sequence[ScenarioSchema]) -> NDArray[np.int64]:
    """Return what is added to each field's codes in a pooled table, [S, F]; 0 for federated fields."""
    sizes = np.array([[field.codes for field in schema.categorical] for schema in schemas], dtype=np.int64)
    private = np.array([not field.federated for field in schemas[0].categorical])
    return np.where(private, np.cumsum(sizes, axis=0) - sizes, 0)


def _tag(shard: Shard, position: int, shift: NDArray[np.int64]) -> Shard:
    scenario = torch.full((shard.rows, 1), position)
    return shard._replace(codes=torch.cat((shard.codes + torch.from_numpy(shift), scenario), dim=1))


def batch_rows(stream: Stream, rows: int, batch: int, first_step: int, steps: int) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers [B] of `steps` batches, from `first_step` on.

    Rows come in a new random order each epoch, none twice in it; which rows a step takes depends on the seed,
    the client and the step alone, so a round can be repeated, or resumed, anywhere.
    """
    orders: dict[int, NDArray[np.int64]] = {}

    def order(epoch: int) -> NDArray[np.int64]:
        if epoch not in orders:
            orders.clear()
            orders[epoch] = stream._replace(round=epoch).generator("order of rows").permutation(rows)
        return orders[epoch]

    for step in range(first_step, first_step + steps):
        start, stop = step * batch, (step + 1) * batch
        parts = []
        while start < stop:
            epoch, offset = divmod(start, rows)
            taken = min(rows - offset, stop - start)
            parts.append(order(epoch)[offset : offset + taken])
            start += taken
        yield parts[0] if len(parts) == 1 else np.concatenate(parts)
