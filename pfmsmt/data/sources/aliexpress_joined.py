"""AliExpress already joined, as the MTReclib project distributes it: one CSV with header per split."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pfmsmt.data.csv_stream import Column, read_blocks
from pfmsmt.data.sources.aliexpress_columns import CATEGORICAL, COLUMNS, GROUP, NUMERICAL, TASKS
from pfmsmt.data.sources.contract import record_schema
from pfmsmt.errors import DataError

_COLUMNS = (
    Column(GROUP, "id"),
    *(Column(name, "category") for name in CATEGORICAL),
    *(Column(name, "number") for name in NUMERICAL),
    *(Column(task.label, "label") for task in TASKS),
)


def folder_names(scenario: str) -> tuple[str, ...]:
    """Return the names that a scenario's folder may have."""
    return (scenario, f"AliExpress_{scenario}")


def read(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one file; columns are found by header, in any order, and others are ignored.

    Raises:
        DataError: missing, a column missing or there twice, a faulty value, a conversion without a click.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            header = text.readline().strip("\r\n").split(",")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro download`") from None
    if header == [""]:
        raise DataError(f"{path} is empty; obtain the file again")
    wrong = [column.name for column in _COLUMNS if header.count(column.name) != 1]
    if wrong:
        fault = "is missing" if wrong[0] not in header else "stands there twice"
        more = f"; {len(wrong) - 1} more are at fault: {', '.join(wrong[1:6])}" if len(wrong) > 1 else ""
        raise DataError(f"{path}, row 1: column {wrong[0]} {fault} in the header{more}")
    with path.open("rb") as stream:
        for block in read_blocks(stream, str(path), _COLUMNS, header=header):
            impossible = (block.columns["conversion"] != 0) & (block.columns["click"] == 0)
            if impossible.any():
                row = int(np.argmax(impossible))
                raise DataError(f"{path}, row {block.first_row + row}: conversion is 1 but click is 0")
            arrays = [pa.array(block.columns[column.name]) for column in _COLUMNS]
            yield pa.RecordBatch.from_arrays(arrays, schema=record_schema(COLUMNS, TASKS))
