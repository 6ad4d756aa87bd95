"""Cells without a type, converted by the rule for values.

They are JSON's values or Python's objects. Each one is taken as the Arrow type of its Python type; then values.py
decides.

Legend: B rows.
"""

from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pfmsmt.data.tables.values import HIGHEST_INTEGER, Column, Converted, Kind, Problem, convert, fits

_SHOWN = 60
"""Characters of a wrong cell that an error repeats."""
_NO_CELL: dict[Kind, str] = {
    "id": "is not an integer",
    "category": "is not an integer category",
    "text": "is not text, as its categories are",
    "number": "is not a number",
    "label": "is not a number",
    "time": "is no time",
}
"""The problem of a cell whose type does not fit its column."""
_CELLS: dict[type, pa.DataType] = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_TYPES: dict[Kind, type] = {
    "id": np.int64, "category": np.int64, "number": np.float64, "time": np.float64, "label": np.int8,
}  # fmt: skip


def convert_cells(cells: Sequence[Any], column: Column) -> Converted:
    """Convert values [B] that have no common type, each a Python object.

    None is missing, where values may be.
    """
    # Cells of one type, as they nearly always are, need one pass.
    found = set(map(type, cells))
    if fits(column, pa.null()):
        found.discard(type(None))
    if len(found) == 1 and (form := _CELLS.get(found.pop())) is not None and fits(column, form):
        with suppress(OverflowError, UnicodeError):  # cells that do not fit in the type are taken one by one
            return _shown_as(convert(pa.array(cells, form), column), cells)
    return _shown_as(_one_by_one(cells, column), cells)


def _one_by_one(cells: Sequence[Any], column: Column) -> Converted:
    places: dict[pa.DataType, list[int]] = {}
    held: dict[pa.DataType, list[Any]] = {}
    wrong = np.zeros(len(cells), np.bool_)
    for at, cell in enumerate(cells):
        form, value = _typed(cell)
        if form is None or not fits(column, form):
            wrong[at] = True
            continue
        places.setdefault(form, []).append(at)
        held.setdefault(form, []).append(value)
    text = column.kind == "text"
    values: Any = np.full(len(cells), "-", object) if text else np.zeros(len(cells), _TYPES[column.kind])
    missing, problems = np.zeros(len(cells), np.bool_), [] if not wrong.any() else [_unshown(wrong, column)]
    for form, where in places.items():
        part = convert(pa.array(held[form], form), column)
        values[where] = part.values.to_numpy(zero_copy_only=False) if text else part.values
        if part.missing is not None:
            missing[where] = part.missing
        for problem in part.problems:
            spread = np.zeros(len(cells), np.bool_)
            spread[where] = problem.wrong
            problems.append(problem._replace(wrong=spread))
    return Converted(pa.array(values, pa.string()) if text else values, missing if missing.any() else None, problems)


def _typed(cell: Any) -> tuple[pa.DataType | None, Any]:
    """Return a cell's Arrow type and the cell.

    None: no column could have its type.
    """
    if isinstance(cell, np.generic):
        cell = cell.item()
    if cell is None or cell is pd.NA:
        return pa.null(), None
    if type(cell) is int and not -(2**63) <= cell <= HIGHEST_INTEGER:
        if 0 <= cell < 2**64:
            return pa.uint64(), cell
        try:  # a float, as JSON's parser makes it one
            return pa.float64(), float(cell)
        except OverflowError:
            return pa.float64(), np.inf if cell > 0 else -np.inf
    if type(cell) is str:
        try:
            cell.encode()
        except UnicodeError:
            return None, cell
    if isinstance(cell, Decimal):
        with suppress(pa.ArrowException):
            return pa.array([cell]).type, cell
        return None, cell
    return _CELLS.get(type(cell)), cell


def _unshown(wrong: NDArray[np.bool_], column: Column) -> Problem:
    return Problem(wrong, str, _NO_CELL[column.kind])


def _shown_as(converted: Converted, cells: Sequence[Any]) -> Converted:
    """Let errors repeat the cells as they were written."""
    problems = [problem._replace(show=lambda at: show_cell(cells[at])) for problem in converted.problems]
    return converted._replace(problems=problems) if problems else converted


def show_cell(cell: Any) -> str:
    """Return a cell for an error, cut to a fitting length."""
    # Not their contents, which may be nested as deep as Python's own stack.
    if isinstance(cell, (list, dict)):
        return "a list" if isinstance(cell, list) else "an object"
    text = repr(cell)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
