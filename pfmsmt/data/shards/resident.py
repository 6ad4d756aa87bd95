"""Client shards in memory, and the batches sliced from them.

Legend: B batch, N rows of a shard, F categorical fields, M numerical fields, T tasks, S scenarios.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfmsmt.core.types import Stream
from pfmsmt.data.schema import ScenarioSchema
from pfmsmt.data.shards.order import RowOrder, Shuffle, batch_rows
from pfmsmt.data.shards.reader import RowGroups, ShardFile


class Batch(NamedTuple):
    """Rows that the model takes at once."""

    codes: Tensor
    """[B, F] int32"""
    values: Tensor
    """[B, M] float32, standardised"""
    labels: Tensor
    """[B, T] float32, 0 or 1, or UNLABELLED"""


class ClientRows(Protocol):
    """One split of one client, in memory (`Shard`) or on disk (`streaming.StreamedShard`)."""

    @property
    def rows(self) -> int:
        """N."""
        ...

    @property
    def labels(self) -> Tensor:
        """[N, T], 0 or 1, or UNLABELLED."""
        ...

    @property
    def groups(self) -> NDArray[np.int64]:
        """[N] search ids."""
        ...

    @property
    def shuffle(self) -> Shuffle:
        """The way in which training mixes the rows."""
        ...

    def batches(self, stream: Stream, batch: int, first_step: int, steps: int) -> Iterator[Batch]:
        """Yield the batches of `steps` steps, from `first_step` on; see `shuffle.batch_rows`."""
        ...

    def blocks(self, rows_at_once: int) -> Iterator[Batch]:
        """Yield all rows in the shard's order, in blocks of `rows_at_once`.

        The last block may be smaller.
        """
        ...

    def to(self, device: torch.device) -> "ClientRows":
        """Return the same rows, whose batches come on `device`."""
        ...


class Shard(NamedTuple):
    """Rows in memory."""

    codes: Tensor
    """[N, F] int32"""
    values: Tensor
    """[N, M] float32, standardised"""
    labels: Tensor
    """[N, T] float32, 0 or 1, or UNLABELLED"""
    groups: NDArray[np.int64]
    """[N] search ids"""
    order: RowOrder | None = None
    """In which training sees them; None: all mixed"""

    @property
    def rows(self) -> int:
        """N."""
        return len(self.codes)

    @property
    def shuffle(self) -> Shuffle:
        """The way in which training mixes the rows."""
        return Shuffle((self.rows,), None) if self.order is None else self.order.shuffle

    def batches(self, stream: Stream, batch: int, first_step: int, steps: int) -> Iterator[Batch]:
        """Yield the batches of `steps` steps, from `first_step` on."""
        for chosen in batch_rows(stream, self.rows, batch, first_step, steps, self.order):
            index = torch.from_numpy(chosen).to(self.codes.device)
            # Not self.codes[index], which takes several times as long.
            yield Batch(*(tensor.index_select(0, index) for tensor in (self.codes, self.values, self.labels)))

    def blocks(self, rows_at_once: int) -> Iterator[Batch]:
        """Yield all rows in order."""
        for start in range(0, self.rows, rows_at_once):
            rows = slice(start, start + rows_at_once)
            yield Batch(self.codes[rows], self.values[rows], self.labels[rows])

    def to(self, device: torch.device) -> "Shard":
        """Move features and labels."""
        return self._replace(codes=self.codes.to(device), values=self.values.to(device), labels=self.labels.to(device))


class ClientData(NamedTuple):
    """The rows on which one client trains and validates."""

    train: ClientRows
    validation: Mapping[str, ClientRows]
    """scenario -> shard"""


def load_shard(folder: Path, split: str, schema: ScenarioSchema) -> Shard:
    """Read `<folder>/<scenario>/<split>.parquet` into memory.

    Raises:
        DataError: missing, damaged, or other columns than the schema's.
    """
    return load_rows(RowGroups([ShardFile(folder, split, schema)]), None)


def load_rows(source: RowGroups, window: int | None) -> Shard:
    """Read all row groups into memory; `window` is that of `Shuffle`.

    Raises:
        DataError: a file is damaged.
    """
    codes, values, labels, groups = source.read(range(len(source.sizes)))
    order = RowOrder(Shuffle(source.sizes, window))
    return Shard(torch.from_numpy(codes), torch.from_numpy(values), torch.from_numpy(labels), groups, order)
