"""What a source of data offers: one file a source, one `Source` a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pfmsmt.config import Data
from pfmsmt.data.schema import Task
from pfmsmt.data.shards import Rows
from pfmsmt.errors import DataError

Progress = Callable[[str], None]
"""Takes one line of text."""

RAW_SPLITS = ("train", "test")
"""What a source can be read as; partition cuts the validation part from `train`."""


class Columns(NamedTuple):
    """The raw columns of a source; label columns are named by its tasks."""

    group: str
    """The search, session or user whose rows are compared with each other (GAUC)."""
    categorical: tuple[str, ...]
    numerical: tuple[str, ...]
    place: str | None = None
    """The share of its group's training rows that come before a row, 0 <= x < 1, in test 0; no feature. With it
    validation is the last part of every group; without it whole groups are drawn, and none is in two parts."""


class Source(NamedTuple):
    """How one data set is obtained and read.

    `scenarios(config)` names the clients, in order. `obtain(config, seed, raw_folder, progress)` fills an empty
    folder. `read(raw_folder, scenario, split)` yields record batches of `record_schema`, validated, and raises
    DataError naming file, row, column and value.
    """

    name: str
    columns: Columns
    tasks: tuple[Task, ...]
    scenarios: Callable[[Data], tuple[str, ...]]
    obtain: Callable[[Data, int, Path, Progress], None]
    read: Callable[[Path, str, str], Iterator[pa.RecordBatch]]


def record_schema(columns: Columns, tasks: tuple[Task, ...]) -> pa.Schema:
    """Return the one form in which every source yields its rows: integers, numbers, then labels 0 or 1."""
    return pa.schema(
        [
            (columns.group, pa.int64()),
            *((name, pa.int64()) for name in columns.categorical),
            *((name, pa.float64()) for name in columns.numerical),
            *([(columns.place, pa.float64())] if columns.place else []),
            *((task.label, pa.int8()) for task in tasks),
        ]
    )


def read_rows(source: Source, raw: Path, scenario: str, split: str) -> Iterator[Rows]:
    """Yield the rows of one raw split, batch by batch, name -> [B].

    Raises:
        DataError: what the source itself refuses, or a place outside 0 <= x < 1.
    """
    done = 0
    for batch in source.read(raw, scenario, split):
        rows = {name: batch.column(name).to_numpy() for name in batch.schema.names}
        if source.columns.place is not None:
            places = rows[source.columns.place]
            wrong = ~((places >= 0) & (places < 1))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise DataError(
                    f"{source.name}: {scenario} {split}, row {done + row + 1}, column {source.columns.place}: "
                    f"{places[row]} is not from 0 to below 1; correct how the source orders its rows"
                )
        yield rows
        done += batch.num_rows
