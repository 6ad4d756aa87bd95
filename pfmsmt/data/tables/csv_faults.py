"""CSV that the fast reader refuses, searched cell by cell for faults."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from pfmsmt.core.errors import DataError
from pfmsmt.data.tables.faults import Fault
from pfmsmt.data.tables.sheet import Sheet, TableRows, check
from pfmsmt.data.tables.values import NUMERIC_TEXT, Column

_NUMBER = re.compile(NUMERIC_TEXT.pattern[:-1] + r"$|^[-+]?(nan|inf|infinity)$", re.IGNORECASE)
BOOLEANS = {"True": "1", "true": "1", "False": "0", "false": "0"}
"""Spellings of labels where a column allows words, as pandas writes them."""
_INTEGER = re.compile(r"^[-+]?[0-9]{1,18}$")


def parse_cells(
    data: bytes,
    first_row: int,
    sheet: Sheet,
    columns: Sequence[Column],
    parse: pa_csv.ParseOptions,
    missing: Sequence[str],
) -> tuple[TableRows, list[Fault]]:
    """Return the good rows, and one fault for each of the others.

    Raises:
        DataError: the text cannot be cut into rows and columns at all.
    """
    faults: list[Fault] = []
    widths: dict[int, int] = {}

    def skip(row: pa_csv.InvalidRow) -> str:
        widths[row.number] = row.actual_columns
        return "skip"

    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            # One thread: only then does pyarrow know the number of a row.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=sheet.names),
            parse_options=pa_csv.ParseOptions(
                delimiter=parse.delimiter,
                quote_char=parse.quote_char,
                newlines_in_values=parse.newlines_in_values,
                ignore_empty_lines=False,
                invalid_row_handler=skip,
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=[column.name for column in columns],
                column_types={column.name: pa.binary() for column in columns},
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{sheet.file}, from row {first_row} on, cannot be read as CSV: {error}") from None
    for number, width in widths.items():
        expected = len(sheet.names or ())
        problem = f"{width} columns, expected {expected}"
        faults.append(sheet.fault(first_row + number - 1, "", problem, "has another number of columns"))
    rows = np.arange(first_row, first_row + table.num_rows + len(widths))
    rows = np.delete(rows, [number - 1 for number in widths])
    values: dict[str, pa.Array] = {}
    bad = np.zeros(len(rows), np.bool_)
    for column in columns:
        cells = pc.fill_null(table.column(column.name).combine_chunks(), b"").to_pylist()
        texts = [_meant(cell, column, missing) for cell in cells]
        for at, text in enumerate(texts):
            problem = _problem(text, column)
            if problem and not bad[at]:
                shown = repr(text) if text is not None else repr(cells[at])
                advice = column.advice(problem)
                faults.append(sheet.fault(rows[at], column.name, f"{shown} {problem}", problem, advice))
                bad[at] = True
        values[column.name] = _typed([None if bad[at] else text for at, text in enumerate(texts)], column)
    good = {name: array.filter(pa.array(~bad)) for name, array in values.items()}
    block, found = check(sheet, columns, good, rows[~bad])
    return block, sorted([*faults, *found], key=lambda fault: fault.row)


def could_be_row(cells: Sequence[bytes], sheet: Sheet, columns: Sequence[Column], missing: Sequence[str]) -> bool:
    """Say whether cells, as many as a row's, could be a row.

    There must be labels where it has labels and numbers where it has numbers.
    """
    names = list(sheet.names or ())
    for column in columns:
        text = _meant(cells[names.index(column.name)].strip(b'"'), column, missing)
        if _problem(text, column) or (column.kind == "label" and not _is_label(text, column)):
            return False
    return True


def _meant(cell: bytes, column: Column, missing: Sequence[str]) -> str | None:
    """Return the text that a cell stands for; None: not UTF-8.

    It is empty where the cell says that nothing is known, and 0 or 1 for a label in words.
    """
    text = _text(cell)
    if text in missing:
        return ""
    return BOOLEANS.get(text or "", text) if column.booleans else text


def _is_label(text: str | None, column: Column) -> bool:
    return bool(text) and float(text or "") in range(column.highest + 1)


def _text(cell: bytes) -> str | None:
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _problem(text: str | None, column: Column) -> str:
    if text is None:
        return "is not text in UTF-8"
    if not text or column.kind in ("text", "time"):
        return ""
    if column.kind == "id":
        return "" if _INTEGER.match(text.strip()) else "is not an integer"
    return "" if _NUMBER.match(text.strip()) else "is not a number"


def _typed(texts: Sequence[str | None], column: Column) -> pa.Array:
    held = [text or None for text in texts]
    if column.kind in ("text", "time"):
        return pa.array(held, pa.string())
    convert = int if column.kind == "id" else float
    return pa.array([None if text is None else convert(text) for text in held], pa.from_numpy_dtype(np.dtype(convert)))
