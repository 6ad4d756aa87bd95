"""Values of one file's columns, checked: what is wrong is a fault that names row, column and value.

Legend: B rows.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pfmsmt.data.tables.faults import Fault

EXACT_INTEGERS = 2**53
"""Categories may be parsed as float64, so that `3.0` counts as 3; from here on that would lose digits."""
_HIGHEST = 2**63 - 1
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800
"""In seconds since 1970."""
LARGEST_NUMBER = 1e30
"""Sums of squares of larger ones, and float32, may overflow where no row can be named any more."""
LONGEST_TEXT = 256
"""Bytes of a category of text."""

NUMBER = re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$")

Kind = Literal["id", "category", "text", "number", "label", "time"]


class Column(NamedTuple):
    """One column to read."""

    name: str
    kind: Kind
    highest: int = 1
    """Labels run from 0 to this."""
    fill: int | float | str | None = None
    """Stands for a value that is missing; None: that is a fault."""
    lowest: int | None = None
    """A category below it is a fault; `fill` may lie there. None: any is good."""
    group: bool = False
    """Only equality matters: unsigned integers of 64 bits are taken bit by bit."""
    booleans: bool = False
    """A label may be written as True or False, true or false."""


class Block(NamedTuple):
    """Some rows of a file, in its order."""

    rows: NDArray[np.int64]
    """[B], their numbers in the file, counted from 1"""
    columns: dict[str, NDArray[Any]]
    """name -> [B]: int64 for ids and categories, float64 for numbers, int8 for labels, str for text"""
    times: str = ""
    """What its column of times holds: numbers, or dates; empty if there is none."""

    def take(self, kept: NDArray[np.bool_]) -> "Block":
        """Return the rows that are kept [B]."""
        return Block(self.rows[kept], {name: values[kept] for name, values in self.columns.items()}, self.times)


class Sheet(NamedTuple):
    """What errors call a file and its columns."""

    file: str
    names: Sequence[str] | None = None
    """All columns of the file in order; None: they have names only."""

    def column(self, name: str) -> str:
        """Say which column, by place and name."""
        return name if self.names is None else f"{self.names.index(name) + 1} ({name})"

    def fault(self, row: int, column: str, problem: str, kind: str) -> Fault:
        """Return a fault of this file; `column` is a name, or empty for the whole row."""
        return Fault(self.file, int(row), self.column(column) if column else "", problem, kind)


def check(
    sheet: Sheet, columns: Sequence[Column], values: Mapping[str, pa.Array], rows: NDArray[np.int64]
) -> tuple[Block, list[Fault]]:
    """Return the good rows, and one fault for each of the others.

    Args:
        sheet: names for errors.
        columns: what to check.
        values: name -> [B], of a type that `Column.kind` allows; null is a missing value.
        rows: [B], numbers of the rows in the file.
    """
    bad = np.zeros(len(rows), np.bool_)
    faults: list[Fault] = []
    checked: dict[str, NDArray[Any]] = {}
    times = ""

    def refuse(column: Column, wrong: NDArray[np.bool_], shown: Callable[[int], str], what: str) -> None:
        for at in np.flatnonzero(wrong & ~bad):
            faults.append(sheet.fault(rows[at], column.name, f"{shown(int(at))} {what}", what))
        np.logical_or(bad, wrong, out=bad)

    for column in columns:
        array = values[column.name]
        if column.lowest is not None:
            below = np.asarray(pc.fill_null(pc.less(array, column.lowest), False))
            refuse(column, below, _shown(array), f"is below {column.lowest}")
        if pa.types.is_uint64(array.type):
            beyond = pc.fill_null(pc.greater(array, pa.scalar(_HIGHEST, pa.uint64())), False)
            refuse(column, np.asarray(beyond), _digits(array), "is 2^63 or more; store such ids as text")
            array = pc.if_else(beyond, pa.scalar(0, pa.uint64()), array).cast(pa.int64())
        if column.fill is not None:
            array = _filled(array, column)
        if array.null_count:
            refuse(column, np.asarray(pc.is_null(array)), lambda _: "the value", "is empty")
            array = pc.fill_null(array, _harmless(array.type))
        if column.kind == "time":
            times = _kind_of_times(array)
        checked[column.name] = _KINDS[column.kind](array, column, refuse)
    if not bad.any():
        return Block(rows, checked, times), []
    faults.sort(key=lambda fault: fault.row)
    return Block(rows, checked, times).take(~bad), faults


Refuse = Callable[[Column, NDArray[np.bool_], Callable[[int], str], str], None]


def _digits(array: pa.Array) -> Callable[[int], str]:
    return lambda at: str(array[at])


def _shown(array: pa.Array) -> Callable[[int], str]:
    return lambda at: f"{array[at].as_py():g}"


def _filled(array: pa.Array, column: Column) -> pa.Array:
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if pa.types.is_string(array.type):  # empty text is missing in a CSV, and so it is in Parquet
        array = pc.if_else(pc.equal(array, ""), pa.scalar(None, array.type), array)
    if isinstance(column.fill, float) and pa.types.is_integer(array.type):
        array = array.cast(pa.float64(), safe=False)  # an integer type would cut the fraction off
    return pc.fill_null(array, pa.scalar(column.fill, array.type))


def _harmless(kind: pa.DataType) -> str | int:
    return "-" if pa.types.is_string(kind) else 0


def _numbers(array: pa.Array, column: Column, refuse: Refuse) -> NDArray[Any]:
    """Return numbers that standardisation can carry; what is not `good` comes out as 0, and is refused."""
    values = np.asarray(array.to_numpy(zero_copy_only=False), np.float64)
    good = np.abs(values) <= LARGEST_NUMBER if column.kind == "number" else np.isfinite(values)
    if good.all():
        return values
    finite = np.isfinite(values)
    refuse(column, ~finite, lambda at: f"{values[at]:g}", "is not a finite number")
    refuse(column, ~good & finite, lambda at: f"{values[at]:g}", f"is beyond {LARGEST_NUMBER:g}; correct or clip it")
    return np.where(good, values, 0.0)


def _integers(array: pa.Array, column: Column, refuse: Refuse) -> NDArray[Any]:
    if pa.types.is_integer(array.type) or pa.types.is_boolean(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False), np.int64)
    values = _numbers(array, column, refuse)
    wrong = np.abs(values) >= EXACT_INTEGERS
    with np.errstate(invalid="ignore"):  # what does not fit is wrong, and said
        whole = values.astype(np.int64)
    wrong |= whole != values
    if wrong.any():
        refuse(column, wrong, lambda at: f"{values[at]:g}", "is not an integer category")
    return whole


def _labels(array: pa.Array, column: Column, refuse: Refuse) -> NDArray[Any]:
    values = _numbers(array, column, refuse)
    with np.errstate(invalid="ignore"):  # what does not fit is wrong, and said
        labels = values.astype(np.int8)
    wrong = (labels != values) | (labels < 0) | (labels > column.highest)
    if wrong.any():
        valid = ", ".join(str(label) for label in range(column.highest + 1))
        refuse(column, wrong, lambda at: f"{values[at]:g}", f"is not a label ({valid})")
    return labels


def _texts(array: pa.Array, column: Column, refuse: Refuse) -> NDArray[Any]:
    size = np.asarray(pc.binary_length(array))
    if len(size) and size.min() == 0:
        refuse(column, size == 0, lambda _: "the value", "is empty")
    if len(size) and size.max() > LONGEST_TEXT:
        what = f"is longer than {LONGEST_TEXT} bytes"
        refuse(column, size > LONGEST_TEXT, lambda at: f"{array[at].as_py()[:40]!r}...", what)
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=object)


def _kind_of_times(array: pa.Array) -> str:
    """Say what most values are; those that are missing have no say."""
    if pa.types.is_string(array.type):
        numeric = pc.sum(pc.match_substring_regex(array, NUMBER.pattern), min_count=0).as_py()
        held = pc.sum(pc.not_equal(array, _harmless(array.type)), min_count=0).as_py()
        return "numbers" if 2 * numeric > held else "dates"
    return "dates" if pa.types.is_temporal(array.type) else "numbers"


def _times(array: pa.Array, column: Column, refuse: Refuse) -> NDArray[Any]:
    """Return seconds of dates and times (as text, too; UTC unless they say otherwise), and numbers as they are."""
    if _kind_of_times(array) == "numbers":
        if pa.types.is_string(array.type):
            numeric = np.asarray(pc.match_substring_regex(array, NUMBER.pattern))
            what = "is no number, as the other times are"
            if not numeric.all():
                refuse(column, ~numeric, lambda at: repr(array[at].as_py()), what)
                array = pc.if_else(pa.array(numeric), array, "0")
            array = pc.cast(array, pa.float64())
        return _numbers(array, column, refuse)
    if pa.types.is_string(array.type):
        seconds, wrong = _seconds_of_text(array)
        if wrong.any():
            refuse(
                column, wrong, lambda at: repr(array[at].as_py()), "is no time as 2026-11-24 13:05:00, as others are"
            )
        return seconds
    seconds = _seconds(array)
    wrong = (seconds < _YEAR_1) | (seconds >= _YEAR_10000)
    if wrong.any():
        refuse(column, wrong, lambda at: f"{seconds[at]:g} s since 1970", "is not within the years 1 to 9999")
    return seconds


def _seconds(array: pa.Array) -> NDArray[np.float64]:
    """Return seconds since 1970 [B] of timestamps and dates, to the microsecond."""
    kind = array.type
    if pa.types.is_date32(kind):
        return np.asarray(array.cast(pa.int32()), np.float64) * 86_400
    counts = np.asarray(array.cast(pa.int64()))
    unit = "ms" if pa.types.is_date64(kind) else kind.unit
    return counts // 1000 / 1e6 if unit == "ns" else counts / {"s": 1e0, "ms": 1e3, "us": 1e6}[unit]


def _seconds_of_text(array: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return seconds since 1970 [B], and which texts are no time [B]."""
    seconds = pd.to_datetime(
        pd.Series(array.to_numpy(zero_copy_only=False)), utc=True, errors="coerce", format="ISO8601"
    )
    wrong = seconds.isna().to_numpy()
    return seconds.dt.as_unit("us").astype("int64").to_numpy() / 1e6, wrong


_KINDS: dict[Kind, Callable[[pa.Array, Column, Refuse], NDArray[Any]]] = {
    "id": _integers,
    "category": _integers,
    "text": _texts,
    "number": _numbers,
    "time": _times,
    "label": _labels,
}
