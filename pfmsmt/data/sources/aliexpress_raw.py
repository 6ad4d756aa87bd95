"""AliExpress as it was published: user rows and item rows in separate files, joined here on the search id."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pfmsmt.data.csv_stream import Block, read_blocks
from pfmsmt.data.sources.aliexpress_columns import (
    CATEGORICAL,
    COLUMNS,
    GROUP,
    ITEM_FILE,
    LABEL,
    NUMERICAL,
    TASKS,
    USER_FILE,
)
from pfmsmt.data.sources.contract import record_schema
from pfmsmt.data.zip_stream import open_nested
from pfmsmt.errors import DataError

ColumnArrays = dict[str, NDArray[np.generic]]


def file_name(scenario: str) -> str:
    """Return the name of a scenario's zip."""
    return f"aliexpress_{scenario}_datasets.zip"


def member_name(scenario: str, part: str, split: str) -> str:
    """Return the name of one of the four zips inside; `part` is user or item."""
    return f"{scenario.lower()}_{part}_{split}.zip"


def read(path: Path, scenario: str, split: str) -> Iterator[pa.RecordBatch]:
    """Yield the item rows, each with the columns of its search; only the user rows are held in memory.

    Raises:
        DataError: a damaged file, a faulty value, a search with two user rows, an item row without a user row.
    """
    users = _read_users(path, member_name(scenario, "user", split))
    with open_nested(path, member_name(scenario, "item", split)) as member:
        for block in read_blocks(member.stream, member.name, ITEM_FILE):
            yield _join(users, block, member.name)


def _read_users(path: Path, inner: str) -> ColumnArrays:
    """Return the user columns [searches], sorted by search id."""
    with open_nested(path, inner) as member:
        blocks = [block.columns for block in read_blocks(member.stream, member.name, USER_FILE)]
    users = {column.name: np.concatenate([block[column.name] for block in blocks]) for column in USER_FILE}
    order = np.argsort(users[GROUP], kind="stable")
    ids = users[GROUP][order]
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if twice.size:
        first, second = order[twice[0]] + 1, order[twice[0] + 1] + 1
        raise DataError(f"{member.name}: search {ids[twice[0]]} has two rows, {first} and {second}; keep one")
    return {name: values[order] for name, values in users.items()}


def _join(users: ColumnArrays, block: Block, name: str) -> pa.RecordBatch:
    ids = users[GROUP]
    wanted = block.columns[GROUP]
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    orphan = ids[place] != wanted
    if orphan.any():
        row = int(np.argmax(orphan))
        raise DataError(
            f"{name}, row {block.first_row + row}: search {wanted[row]} has no row in the user file; "
            "the two files do not belong together, or one is incomplete"
        )
    label = block.columns[LABEL].astype(np.int8)
    labels: ColumnArrays = {"click": (label >= 1).astype(np.int8), "conversion": (label == 2).astype(np.int8)}
    features = (
        block.columns[column] if column in block.columns else users[column][place]
        for column in (*CATEGORICAL, *NUMERICAL)
    )
    arrays = [wanted, *features, *(labels[task.label] for task in TASKS)]
    return pa.RecordBatch.from_arrays([pa.array(array) for array in arrays], schema=record_schema(COLUMNS, TASKS))
