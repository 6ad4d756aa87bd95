"""AliExpress already joined, as the MTReclib project distributes it: one CSV with header per split."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pfmsmt.data.sources.aliexpress.columns import CATEGORICAL, COLUMNS, GROUP, NUMERICAL, TASKS
from pfmsmt.data.sources.base import record_schema
from pfmsmt.data.tables.csv import read_blocks
from pfmsmt.data.tables.faults import Fault, Faults
from pfmsmt.data.tables.prefetch import ahead
from pfmsmt.data.tables.raw_files import read_header
from pfmsmt.data.tables.values import Column

_COLUMNS = (
    Column(GROUP, "id"),
    *(Column(name, "category") for name in CATEGORICAL),
    *(Column(name, "number") for name in NUMERICAL),
    *(Column(task.label, "label") for task in TASKS),
)


def folder_names(scenario: str) -> tuple[str, ...]:
    """Return the names that a scenario's folder may have."""
    return (scenario, f"AliExpress_{scenario}")


def read(path: Path, faults: Faults) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one file; columns are found by header, in any order, and others are ignored.

    Raises:
        DataError: missing, a column missing or there twice, or what `faults` refuses: a faulty value, a conversion
            without a click.
    """
    header = read_header(path, [column.name for column in _COLUMNS])
    with path.open("rb") as stream:
        for block in ahead(read_blocks(stream, str(path), _COLUMNS, faults, header=header)):
            wrong = (block.columns["conversion"] != 0) & (block.columns["click"] == 0)
            kind = "conversion is 1 but click is 0"
            faults.take([Fault(str(path), int(row), "", kind, kind) for row in block.rows[wrong]])
            good = block.take(~wrong) if wrong.any() else block
            arrays = [pa.array(good.columns[column.name]) for column in _COLUMNS]
            yield pa.RecordBatch.from_arrays(arrays, schema=record_schema(COLUMNS, TASKS))
