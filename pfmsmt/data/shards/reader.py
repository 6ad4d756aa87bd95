"""Shard files, read row group by row group into model-ready rows.

Legend: B rows, N all rows, F categorical fields, M numerical fields, T tasks, S scenarios.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pfmsmt.core.errors import DataError
from pfmsmt.data.schema import ScenarioSchema, encoded_column

BLOCK_ROWS = 16_384
"""Rows that are decoded at a time."""
_TILE_ROWS = 4_096
"""Columns are laid side by side so many rows at a time: what is written stays in the processor's cache."""
_BUFFER_BYTES = 2**16
"""Bytes of each column that are read from disk at a time."""


class Block(NamedTuple):
    """Some rows, column kinds side by side."""

    codes: NDArray[np.int32]
    """[B, F]"""
    values: NDArray[np.float32]
    """[B, M], standardised"""
    labels: NDArray[np.float32]
    """[B, T], 0 or 1, or UNLABELLED"""
    groups: NDArray[np.int64]
    """[B] search ids"""

    def part(self, rows: slice) -> "Block":
        """Return some rows, not copied."""
        return Block(self.codes[rows], self.values[rows], self.labels[rows], self.groups[rows])

    def put(self, rows: slice | NDArray[np.int64], part: "Block") -> None:
        """Copy `part` into these rows."""
        self.codes[rows], self.values[rows] = part.codes, part.values
        self.labels[rows], self.groups[rows] = part.labels, part.groups


class ShardFile:
    """One split of one client on disk."""

    def __init__(self, folder: Path, split: str, schema: ScenarioSchema) -> None:
        """Read the footer of `<folder>/<scenario>/<split>.parquet`.

        Raises:
            DataError: missing, damaged, or other columns than the schema's.
        """
        self.path = folder / schema.scenario / f"{split}.parquet"
        self.fields = [encoded_column(field.name) for field in schema.categorical]
        self.numbers = [encoded_column(field.name) for field in schema.numerical]
        self.tasks = [task.name for task in schema.tasks]
        self.group = schema.group
        try:
            with pq.ParquetFile(self.path) as file:
                self.sizes: tuple[int, ...] = tuple(
                    file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)
                )
                _check_columns(file.schema_arrow, [self.group, *self.fields, *self.tasks], self.numbers)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise _unreadable(self.path, error) from error

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return 4 * (len(self.fields) + len(self.numbers) + len(self.tasks)) + 8

    def tables(self, row_groups: Sequence[int], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some row groups, in the order given.

        At most BLOCK_ROWS come at a time.

        Raises:
            DataError: the file is damaged.
        """
        columns = [self.group, *self.fields, *self.numbers, *self.tasks] if columns is None else list(columns)
        group = None
        try:
            with pq.ParquetFile(self.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                for group in row_groups:
                    yield from file.iter_batches(BLOCK_ROWS, row_groups=[group], columns=columns)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise _unreadable(self.path, error, group) from error


def _check_columns(schema: pa.Schema, whole: Sequence[str], numbers: Sequence[str]) -> None:
    for name in (*whole, *numbers):
        kind = schema.field(name).type
        if not (pa.types.is_integer(kind) or (pa.types.is_floating(kind) and name in numbers)):
            raise ValueError(f"column {name} holds {kind}")


def _unreadable(path: Path, error: Exception, group: int | None = None) -> DataError:
    place, reason = "" if group is None else f", row group {group},", " ".join(str(error).split())
    return DataError(f"{path}{place} cannot be read ({reason}); run `dvc repro -f partition`")


class RowGroups:
    """The row groups of one or more files, numbered through."""

    def __init__(self, files: Sequence[ShardFile]) -> None:
        """Files of the same columns."""
        self._files = tuple(files)
        self._owners = [(file, group) for file in files for group in range(len(file.sizes))]
        self.sizes: tuple[int, ...] = tuple(size for file in files for size in file.sizes)
        self.rows: int = sum(self.sizes)
        self.row_bytes: int = files[0].row_bytes
        self.columns: int = 1 + len(files[0].fields) + len(files[0].numbers) + len(files[0].tasks)
        self.tasks = len(files[0].tasks)

    def read(self, chosen: Sequence[int], order: NDArray[np.int64] | None = None) -> Block:
        """Read some row groups into one block.

        Args:
            chosen: row groups, in the order in which they are read.
            order: [B], which of the rows so read is the block's 1st, 2nd, ...; as they are read if left out.

        Raises:
            DataError: a file is damaged.
        """
        rows = sum(self.sizes[group] for group in chosen)
        block = self.empty(rows)
        place = None
        if order is not None:
            place = np.empty(rows, np.int64)
            place[order] = np.arange(rows)
        for first, part in self._parts(chosen):
            last = first + len(part.groups)
            block.put(slice(first, last) if place is None else place[first:last], part)
        return block

    def blocks(self, rows_at_once: int) -> Iterator[Block]:
        """Yield all rows in their order, in blocks of `rows_at_once`.

        The last block may be smaller. Each one is reused for the next.

        Raises:
            DataError: a file is damaged, or a value missing.
        """
        block, filled = self.empty(min(rows_at_once, self.rows)), 0
        for _, part in self._parts(range(len(self.sizes))):
            taken = 0
            while taken < len(part.groups):
                count = min(len(part.groups) - taken, len(block.groups) - filled)
                block.put(slice(filled, filled + count), part.part(slice(taken, taken + count)))
                filled, taken = filled + count, taken + count
                if filled == len(block.groups):
                    yield block
                    filled = 0
        if filled:
            yield block.part(slice(filled))

    def labels(self) -> NDArray[np.uint8]:
        """Return the labels of all rows, [N, T]."""
        labels = np.empty((self.rows, self.tasks), np.uint8)
        for file, rows, table in self._column_parts(lambda file: file.tasks):
            _lay(table, file.tasks, labels[rows])
        return labels

    def groups(self) -> NDArray[np.int64]:
        """Return the search ids of all rows, [N]."""
        groups = np.empty(self.rows, np.int64)
        for file, rows, table in self._column_parts(lambda file: [file.group]):
            groups[rows] = table.column(file.group).to_numpy()
        return groups

    def empty(self, rows: int) -> Block:
        """Return room for so many rows."""
        file = self._files[0]
        return Block(
            np.empty((rows, len(file.fields)), np.int32),
            np.empty((rows, len(file.numbers)), np.float32),
            np.empty((rows, len(file.tasks)), np.float32),
            np.empty(rows, np.int64),
        )

    def _column_parts(
        self, columns: Callable[[ShardFile], Sequence[str]]
    ) -> Iterator[tuple[ShardFile, slice, pa.RecordBatch]]:
        """Yield (file, rows, some of their columns) of all row groups."""
        first = 0
        for file in self._files:
            for table in file.tables(range(len(file.sizes)), columns(file)):
                yield file, slice(first, first + table.num_rows), table
                first += table.num_rows

    def _parts(self, chosen: Sequence[int]) -> Iterator[tuple[int, Block]]:
        """Yield (first row, rows) of the row groups, in the order given."""
        first = 0
        for file, owned in itertools.groupby((self._owners[group] for group in chosen), key=lambda owner: owner[0]):
            for table in file.tables([group for _, group in owned]):
                try:
                    part = _ready(table, file)
                except (KeyError, TypeError, ValueError) as error:
                    raise _unreadable(file.path, error) from error
                yield first, part
                first += table.num_rows


def _ready(table: pa.RecordBatch, file: ShardFile) -> Block:
    rows = table.num_rows
    codes = np.empty((rows, len(file.fields)), np.int32)
    _lay(table, file.fields, codes)
    values = np.empty((rows, len(file.numbers)), np.float32)
    _lay(table, file.numbers, values)
    labels = np.empty((rows, len(file.tasks)), np.float32)
    _lay(table, file.tasks, labels)
    return Block(codes, values, labels, table.column(file.group).to_numpy())


def _lay(table: pa.RecordBatch, names: Sequence[str], matrix: NDArray[np.generic]) -> None:
    """Lay columns side by side."""
    for name in names:
        if table.column(name).null_count:
            raise ValueError(f"column {name} has missing values")
    columns = [table.column(name).to_numpy() for name in names]
    for start in range(0, table.num_rows, _TILE_ROWS):
        rows = slice(start, start + _TILE_ROWS)
        tile = matrix[rows]
        for place, column in enumerate(columns):
            tile[:, place] = column[rows]
