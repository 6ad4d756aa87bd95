"""The interface of a data source: one `Source` for each data set."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pfmsmt.config import Data
from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.schema import Task
from pfmsmt.data.shards.writer import RawRows
from pfmsmt.data.sources.delivery import Delivery, Notify
from pfmsmt.data.tables.faults import Faults

__all__ = [
    "RAW_SPLITS",
    "Columns",
    "Dataset",
    "Delivery",
    "Notify",
    "Opening",
    "Source",
    "of_site",
    "read_rows",
    "record_schema",
    "with_block_values",
]

RAW_SPLITS = ("train", "test")
"""The raw parts of a source; partition cuts the validation part from `train`."""


class Columns(NamedTuple):
    """The raw columns of a source.

    Label columns are named by its tasks.
    """

    group: str
    """The search, session or user whose rows are compared with each other (GAUC)."""
    categorical: tuple[str, ...]
    numerical: tuple[str, ...]
    place: str | None = None
    """A training row's place in time, which is no feature: the share of its group's (or scenario's) training rows that
    come before it, 0 <= x < 1, in test 0. With it validation is the last part of every group. Without it whole
    groups are drawn, and none is in two parts.
    """
    text: tuple[str, ...] = ()
    """Categorical columns whose values are strings; those of the others are integers."""
    untyped: bool = False
    """True: text stems from a file without types. A column whose training values all read as integers is one then."""
    fill: Mapping[str, int | float | str] = MappingProxyType({})
    """Feature column -> what the source puts in place of a missing value."""


class Dataset(NamedTuple):
    """A raw folder that was opened.

    `read(scenario, split, faults)` yields record batches of `record_schema`.
    """

    columns: Columns
    tasks: tuple[Task, ...]
    scenarios: tuple[str, ...]
    read: Callable[[str, str, Faults], Iterator[pa.RecordBatch]]
    why_empty: Callable[[str, str], str] = lambda scenario, part: ""
    """Says why a scenario may have no rows in train, val or test, and what to do; empty where only
    `data.validation_fraction` and the number of rows decide."""


class Opening(NamedTuple):
    """All that a source needs in order to open a raw folder."""

    config: Data
    seed: int
    raw: Path
    scenarios: tuple[str, ...]
    """As params.yaml declares them; none where the data decide."""
    scratch: Path
    """An empty folder for what does not fit into memory; removed when the stage ends."""
    faults: Faults
    """For what is read already while the folder is opened."""
    progress: Notify


class Source(NamedTuple):
    """One data set, and the functions that obtain and open it.

    `scenarios(config)` names the clients, in order; none where the data decide. `obtain(config, seed, delivery)` fills
    an empty folder. `open` checks that the raw folder and params.yaml fit together. `alone(config, scenario)` returns
    the configuration of a site that has the raw data of one of the scenarios and no others.
    """

    name: str
    scenarios: Callable[[Data], tuple[str, ...]]
    obtain: Callable[[Data, int, Delivery], None]
    open: Callable[[Opening], Dataset]
    alone: Callable[[Data, str], Data] = lambda config, scenario: config
    """As it is, where one file holds all scenarios and cannot be told apart without being read."""


def with_block_values(config: Data, block: str, **changes: Any) -> Data:
    """Return the configuration with other values in the block of one source."""
    return config.model_copy(update={block: getattr(config, block).model_copy(update=changes)})


def of_site(source: Source, config: Data, scenario: str) -> Data:
    """Return the configuration of the site of one scenario.

    Raises:
        ConfigError: params.yaml declares others.
    """
    declared = source.scenarios(config)
    if declared and scenario not in declared:
        raise ConfigError(f"params.yaml has no scenario {scenario} of source {source.name}: {', '.join(declared)}")
    return source.alone(config, scenario)


def record_schema(columns: Columns, tasks: tuple[Task, ...]) -> pa.Schema:
    """Return the form in which every source yields its rows.

    Categories come first, then numbers, then labels: 0 or 1, or UNKNOWN_LABEL where a task is `partial`.
    """
    return pa.schema(
        [
            (columns.group, pa.int64()),
            *((name, pa.string() if name in columns.text else pa.int64()) for name in columns.categorical),
            *((name, pa.float64()) for name in columns.numerical),
            *([(columns.place, pa.float64())] if columns.place else []),
            *((task.label, pa.int8()) for task in tasks),
        ]
    )


def read_rows(dataset: Dataset, scenario: str, split: str, faults: Faults) -> Iterator[RawRows]:
    """Yield the rows of one raw split in batches, name -> [B].

    Raises:
        DataError: what the source itself refuses, or a place outside 0 <= x < 1.
    """
    done = 0
    place = dataset.columns.place
    for batch in dataset.read(scenario, split, faults):
        rows = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
        if place is not None:
            wrong = ~((rows[place] >= 0) & (rows[place] < 1))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise DataError(
                    f"{scenario} {split}, row {done + row + 1}, column {place}: "
                    f"{rows[place][row]} is not from 0 to below 1; correct how the source orders its rows"
                )
        yield rows
        done += batch.num_rows
