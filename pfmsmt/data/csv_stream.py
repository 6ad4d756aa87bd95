"""A CSV of numbers, block by block, where every fault is an error that names file, row, column and value."""

import re
from collections.abc import Iterator, Sequence
from typing import IO, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from pfmsmt.errors import DataError

BLOCK_BYTES = 16 * 2**20
EXACT_INTEGERS = 2**53
"""Categories are parsed as float64, so that `3.0` counts as 3; from here on that would lose digits."""

_CONVERSION = re.compile(r"In CSV column #(\d+): Row #(\d+): CSV conversion error to \w+: invalid value '(.*)'", re.S)


class Column(NamedTuple):
    """One column to read."""

    name: str
    kind: Literal["id", "category", "number", "label"]
    highest: int = 1
    """Labels run from 0 to this."""


class Block(NamedTuple):
    """Some consecutive rows."""

    first_row: int
    """Row of the file, counted from 1, that holds the block's first row."""
    columns: dict[str, NDArray[np.generic]]
    """name -> [B]: int64 for ids and categories, float64 for numbers, int8 for labels"""


def read_blocks(
    stream: IO[bytes],
    name: str,
    columns: Sequence[Column],
    *,
    header: Sequence[str] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Block]:
    """Yield the rows of a CSV as checked blocks.

    `name` is what errors call the file. Without `header` the file has exactly `columns`, in order; with it, its
    first line is `header` and the columns are picked by name. A row must fit into `block_bytes`.

    Raises:
        DataError: no rows, a row of another width, or a value that is empty, not finite or not of its kind.
    """
    names = [column.name for column in columns] if header is None else list(header)
    wrong_rows: list[pa_csv.InvalidRow] = []

    def refuse(row: pa_csv.InvalidRow) -> str:
        wrong_rows.append(row)
        return "error"

    first_row = 1 if header is None else 2
    start = first_row
    try:
        reader = pa_csv.open_csv(
            stream,
            # One thread: only then does pyarrow know the number of a faulty row.
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=block_bytes, column_names=names, skip_rows=start - 1
            ),
            parse_options=pa_csv.ParseOptions(quote_char=False, ignore_empty_lines=False, invalid_row_handler=refuse),
            convert_options=pa_csv.ConvertOptions(
                include_columns=[column.name for column in columns],
                column_types={column.name: pa.int64() if column.kind == "id" else pa.float64() for column in columns},
                null_values=[],
            ),
        )
        for batch in reader:
            yield Block(first_row, _checked(batch, name, names, columns, first_row))
            first_row += batch.num_rows
    except pa.ArrowInvalid as error:
        raise DataError(_explain(str(error), name, names, columns, wrong_rows)) from None
    if first_row == start:
        raise DataError(f"{name} has no rows; obtain the file again")


def place(name: str, names: Sequence[str], column: str, row: int) -> str:
    """Say where a value stands."""
    return f"{name}, row {row}, column {names.index(column) + 1} ({column})"


def _checked(
    batch: pa.RecordBatch, name: str, names: Sequence[str], columns: Sequence[Column], first_row: int
) -> dict[str, NDArray[np.generic]]:
    checked: dict[str, NDArray[np.generic]] = {}
    for column in columns:
        values = batch.column(column.name).to_numpy(zero_copy_only=False)
        if column.kind != "id":
            _refuse(~np.isfinite(values), values, "is not a finite number", name, names, column, first_row)
        if column.kind == "category":
            wrong = (values != np.floor(values)) | (np.abs(values) >= EXACT_INTEGERS)
            _refuse(wrong, values, "is not an integer category", name, names, column, first_row)
            values = values.astype(np.int64)
        elif column.kind == "label":
            valid = range(column.highest + 1)
            wrong = ~np.isin(values, valid)
            _refuse(wrong, values, f"is not a label ({', '.join(map(str, valid))})", name, names, column, first_row)
            values = values.astype(np.int8)
        checked[column.name] = values
    return checked


def _refuse(
    wrong: NDArray[np.bool_],
    values: NDArray[np.float64],
    what: str,
    name: str,
    names: Sequence[str],
    column: Column,
    first_row: int,
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{place(name, names, column.name, first_row + row)}: {values[row]:g} {what}")


def _explain(
    message: str, name: str, names: Sequence[str], columns: Sequence[Column], wrong_rows: Sequence[pa_csv.InvalidRow]
) -> str:
    if wrong_rows:
        row = wrong_rows[0]
        return f"{name}, row {row.number}: {row.actual_columns} columns, expected {row.expected_columns}"
    found = _CONVERSION.match(message)
    if found:
        column = names[int(found[1])]
        whole = any(wanted.name == column and wanted.kind == "id" for wanted in columns)
        what = "the value is empty" if not found[3] else f"{found[3]!r} is not {'an integer' if whole else 'a number'}"
        return f"{place(name, names, column, int(found[2]))}: {what}"
    if "Empty CSV file" in message:
        return f"{name} is empty; obtain the file again"
    return f"{name} cannot be read as CSV: {message}"
