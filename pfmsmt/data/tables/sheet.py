"""Checked rows of a file, and a fault for each other row.

A fault names file, row, column and value.

Legend: B rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pfmsmt.data.tables.faults import Fault
from pfmsmt.data.tables.values import UNKNOWN_LABEL, Column, convert


class TableRows(NamedTuple):
    """Some checked rows of a file, in its order."""

    rows: NDArray[np.int64]
    """[B], their numbers in the file, counted from 1"""
    columns: dict[str, NDArray[Any]]
    """name -> [B]: int64 for ids and categories, float64 for numbers, int8 for labels, str for text

    A label that is missing, and may be, is UNKNOWN_LABEL."""
    times: str = ""
    """The form of its column of times, numbers or dates; empty if there is none."""

    def take(self, chosen: NDArray[np.bool_]) -> "TableRows":
        """Return the chosen rows [B]."""
        return TableRows(self.rows[chosen], {name: values[chosen] for name, values in self.columns.items()}, self.times)


class Sheet(NamedTuple):
    """The names that errors give a file and its columns."""

    file: str
    names: Sequence[str] | None = None
    """All columns of the file in order; None: they have names only."""

    def column(self, name: str) -> str:
        """Say which column, by place and name."""
        return name if self.names is None else f"{self.names.index(name) + 1} ({name})"

    def fault(self, row: int, column: str, problem: str, kind: str, advice: str = "") -> Fault:
        """Return a fault of this file.

        `column` is a name, or empty for the whole row.
        """
        return Fault(self.file, int(row), self.column(column) if column else "", problem, kind, advice)


def check(
    sheet: Sheet, columns: Sequence[Column], values: Mapping[str, pa.Array], rows: NDArray[np.int64]
) -> tuple[TableRows, list[Fault]]:
    """Return a table's good rows, and a fault for each other one.

    Args:
        sheet: names for errors.
        columns: what to check.
        values: name -> [B], of a type that `fits`; null is a missing value.
        rows: [B], numbers of the rows in the file.
    """
    bad = np.zeros(len(rows), np.bool_)
    faults: list[Fault] = []
    checked: dict[str, NDArray[Any]] = {}
    times = ""
    for column in columns:
        found = convert(values[column.name], column)
        for problem in found.problems:
            for at in np.flatnonzero(problem.wrong & ~bad):
                shown = f"{problem.show(int(at))} {problem.text}"
                faults.append(sheet.fault(rows[at], column.name, shown, problem.text, column.advice(problem.text)))
            np.logical_or(bad, problem.wrong, out=bad)
        # Text leaves Arrow as Python's strings, which sources sort, hash and name scenarios by.
        checked[column.name] = _objects(found.values) if column.kind == "text" else found.values
        if column.kind == "label" and found.missing is not None:
            checked[column.name][found.missing] = UNKNOWN_LABEL
        times = times or found.times
    if not bad.any():
        return TableRows(rows, checked, times), []
    faults.sort(key=lambda fault: fault.row)
    return TableRows(rows, checked, times).take(~bad), faults


def _objects(array: pa.Array) -> NDArray[np.object_]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=object)
