"""The one rule for every value: types, ranges and errors by kind.

Partition (CSV and Parquet), `encode` (MLflow's models), served JSON, served Arrow and the files of `pfmsmt predict` all
convert their columns here. The kind of a column decides which Arrow types it takes, and which values of them.

| kind | Arrow types | becomes | refused |
| id | integers, booleans | int64 | 2^63 or more, unless it is a `group` |
| category | integers, booleans, floats, decimals | int64 | 2^63 or more; floats with a fraction, or from 2^53 on |
| text | strings | strings | empty; longer than 256 bytes of UTF-8 |
| number | integers, booleans, floats, decimals | float64 | infinite; beyond 1e30 in size |
| label | integers, booleans, floats, decimals | int8 | all but 0 to `highest` |
| time | numbers, strings, timestamps, dates | float64, in seconds | no time, or not within the years 1 to 9999 |

- A dictionary counts as its values. Null is missing. So are NaN and empty text where values may be missing (`fill` or
  `optional`); elsewhere they are refused. A column of type null fits where values may be missing.
- Training decides. A request's empty or overlong text, and its number beyond 1e30, are refused, as no training row can
  hold them. An integer that is merely not in the vocabulary is taken.
- Cells without a type (JSON, pandas' objects; see cells.py) are taken as the Arrow type of their Python type. True and
  False are refused there, as they are in a CSV. A column that is boolean as a whole is 0 and 1, as in Parquet.
- Two things are decided elsewhere: which columns of a CSV are integers (prepare/fields.py, from all training values),
  and that a request's stream holds no dictionaries (serving/arrow.py, as their sizes are not bounded).

Legend: B rows.
"""

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pfmsmt.core.errors import SchemaError

EXACT_INTEGERS = 2**53
"""Categories may be parsed as float64, so that `3.0` counts as 3; from here on that would lose digits."""
HIGHEST_INTEGER = 2**63 - 1
LARGEST_NUMBER = 1e30
"""Sums of squares of larger ones, and float32, may overflow where no row can be named any more."""
LONGEST_TEXT = 256
"""Bytes of a category of text."""
NUMERIC_TEXT = re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$")

_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800
"""In seconds since 1970."""

UNKNOWN_LABEL = -1
"""A label that is missing in a column where it may be."""
EMPTY = "is empty"
"""The problem of a missing value."""

Kind = Literal["id", "category", "text", "number", "label", "time"]


class Column(NamedTuple):
    """One column to read."""

    name: str
    kind: Kind
    highest: int = 1
    """Labels run from 0 to this."""
    fill: int | float | str | None = None
    """Stands for a value that is missing; None: that is a fault, unless the column is `optional`."""
    lowest: int | None = None
    """A category below it is a fault; `fill` may lie there. None: any is good."""
    group: bool = False
    """Only equality matters: unsigned integers of 64 bits are taken bit by bit."""
    booleans: bool = False
    """A label may be written as True or False, true or false."""
    optional: bool = False
    """Values may be missing without a `fill`; the caller puts something in their place."""
    if_missing: str = ""
    """What to do about a missing value."""
    if_wrong: str = ""
    """What to do about a value of another kind."""

    def advice(self, problem: str) -> str:
        """Return what to do about a problem, unless its text says so."""
        if ";" in problem:
            return ""
        return self.if_missing if problem == EMPTY else self.if_wrong


class Problem(NamedTuple):
    """One thing that is wrong with some values of a column."""

    wrong: NDArray[np.bool_]
    """[B]"""
    show: Callable[[int], str]
    """Returns the value of a row, for the error."""
    text: str
    """The error without the value."""


class Converted(NamedTuple):
    """A column's values [B]; missing and wrong ones are harmless."""

    values: Any
    """int64 for ids and categories, float64 for numbers and times, int8 for labels; an Arrow array for text."""
    missing: NDArray[np.bool_] | None
    """[B]; None: no value is missing."""
    problems: list[Problem]
    times: str = ""
    """The form of a column of times: numbers or dates."""

    def raise_first(self, name: str) -> None:
        """Refuse the column if a value of it is wrong.

        Raises:
            SchemaError: names the column, the first such row and its value.
        """
        if self.problems:
            row, problem = min(((int(np.argmax(p.wrong)), p) for p in self.problems), key=lambda found: found[0])
            raise SchemaError(f"column {name}, row {row}: {problem.show(row)} {problem.text}")


def is_text(kind: pa.DataType) -> bool:
    """Say whether a type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def fits(column: Column, kind: pa.DataType) -> bool:
    """Say whether a column may be of an Arrow type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return column.optional or column.fill is not None
    if column.kind == "text":
        return is_text(kind)
    integer = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if column.kind == "id":
        return bool(integer)
    if column.kind == "time" and (is_text(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return True
    return bool(integer or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def refuse_type(column: Column, kind: pa.DataType) -> None:
    """Refuse a column whose type does not fit, before reading a value.

    Raises:
        SchemaError: names the column and its type.
    """
    if not fits(column, kind):
        wanted = "no text, as its categories are" if column.kind == "text" else "no integers or floats"
        raise SchemaError(f"column {column.name}, row 0: values of type {kind} are {wanted}")


def convert(array: pa.Array, column: Column) -> Converted:
    """Convert a column's values [B] of a type that `fits`.

    Whatever is wrong with them is a problem, never an error.
    """
    problems: list[Problem] = []
    array = _plain(array, column)
    # Before gaps are filled, as a fill may lie below.
    if column.lowest is not None:
        below = np.asarray(pc.fill_null(pc.less(array, column.lowest), False))
        _note(problems, below, _number_of(array), f"is below {column.lowest}")
    if pa.types.is_uint64(array.type):
        beyond = pc.fill_null(pc.greater(array, pa.scalar(HIGHEST_INTEGER, pa.uint64())), False)
        _note(problems, np.asarray(beyond), _digits_of(array), "is 2^63 or more; store such ids as text")
        array = pc.if_else(beyond, pa.scalar(0, pa.uint64()), array).cast(pa.int64())
    if column.fill is not None or column.optional:
        array = _filled(_without_gaps(array), column)
    missing = None
    if array.null_count:
        missing = np.asarray(pc.is_null(array))
        if not column.optional:
            _note(problems, missing, lambda _: "the value", EMPTY)
        # Noted or the caller's to replace; the checks below shall find nothing wrong with it.
        array = pc.fill_null(array, _harmless(array.type))
    times = _form_of_times(array) if column.kind == "time" else ""
    return Converted(_KINDS[column.kind](array, column, problems), missing, problems, times)


def _plain(array: pa.Array, column: Column) -> pa.Array:
    """Return the values in one of the checks' few types."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pa.types.is_string(kind) or pa.types.is_int64(kind) or pa.types.is_temporal(kind):
        return array
    if is_text(kind):
        return array.cast(pa.string())
    if pa.types.is_null(kind):
        return array.cast(pa.string() if column.kind == "text" else pa.int64())
    if pa.types.is_uint64(kind):
        if column.group:
            return array.view(pa.int64())
        return array if column.kind in ("id", "category") else array.cast(pa.float64(), safe=False)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return array.cast(pa.int64())
    return array if pa.types.is_float64(kind) else array.cast(pa.float64())


def _without_gaps(array: pa.Array) -> pa.Array:
    """Return the array with null for all unknown values.

    These are NaN, and empty text as in a CSV.
    """
    if pa.types.is_floating(array.type):
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if pa.types.is_string(array.type):
        return pc.if_else(pc.equal(array, ""), pa.scalar(None, array.type), array)
    return array


def _filled(array: pa.Array, column: Column) -> pa.Array:
    if column.fill is None or not array.null_count:
        return array
    if isinstance(column.fill, float) and pa.types.is_integer(array.type):
        array = array.cast(pa.float64(), safe=False)  # an integer type would cut the fraction off
    return pc.fill_null(array, pa.scalar(column.fill, array.type))


def _harmless(kind: pa.DataType) -> str | int:
    return "-" if pa.types.is_string(kind) else 0


def _note(problems: list[Problem], wrong: NDArray[np.bool_], show: Callable[[int], str], text: str) -> None:
    if wrong.any():
        problems.append(Problem(wrong, show, text))


def _digits_of(array: pa.Array) -> Callable[[int], str]:
    return lambda at: str(array[at])


def _number_of(array: pa.Array | NDArray[np.float64]) -> Callable[[int], str]:
    return lambda at: f"{array[at].as_py() if isinstance(array, pa.Array) else array[at]:g}"


def _numbers(array: pa.Array, column: Column, problems: list[Problem]) -> NDArray[Any]:
    """Return numbers that standardisation can carry; wrong ones become 0."""
    values = np.asarray(array.to_numpy(zero_copy_only=False), np.float64)
    good = np.abs(values) <= LARGEST_NUMBER if column.kind == "number" else np.isfinite(values)
    if good.all():
        return values
    finite = np.isfinite(values)
    _note(problems, ~finite, _number_of(values), "is not a finite number")
    _note(problems, ~good & finite, _number_of(values), f"is beyond {LARGEST_NUMBER:g}; correct or clip it")
    return np.where(good, values, 0.0)


def _integers(array: pa.Array, column: Column, problems: list[Problem]) -> NDArray[Any]:
    if pa.types.is_integer(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False), np.int64)
    values = _numbers(array, column, problems)
    with np.errstate(invalid="ignore"):  # a value that does not fit is noted as wrong
        whole = values.astype(np.int64)
    wrong = (np.abs(values) >= EXACT_INTEGERS) | (whole != values)
    _note(problems, wrong, _number_of(values), "is not an integer category")
    return whole


def _labels(array: pa.Array, column: Column, problems: list[Problem]) -> NDArray[Any]:
    values = _numbers(array, column, problems)
    with np.errstate(invalid="ignore"):  # a value that does not fit is noted as wrong
        labels = values.astype(np.int8)
    wrong = (labels != values) | (labels < 0) | (labels > column.highest)
    valid = ", ".join(str(label) for label in range(column.highest + 1))
    _note(problems, wrong, _number_of(values), f"is not a label ({valid})")
    return labels


def _texts(array: pa.Array, column: Column, problems: list[Problem]) -> pa.Array:
    size = np.asarray(pc.binary_length(array))
    _note(problems, size == 0, lambda _: "the value", EMPTY)
    long = size > LONGEST_TEXT
    _note(problems, long, lambda at: f"{array[at].as_py()[:40]!r}...", f"is longer than {LONGEST_TEXT} bytes")
    return array


def _times(array: pa.Array, column: Column, problems: list[Problem]) -> NDArray[Any]:
    """Return seconds of dates and times, and numbers as they are.

    Dates may be text, too. They are in UTC unless they say otherwise.
    """
    if _form_of_times(array) == "numbers":
        if pa.types.is_string(array.type):
            numeric = np.asarray(pc.match_substring_regex(array, NUMERIC_TEXT.pattern))
            _note(problems, ~numeric, _text_of(array), "is no number, as the other times are")
            array = pc.cast(pc.if_else(pa.array(numeric), array, "0"), pa.float64())
        return _numbers(array, column, problems)
    if pa.types.is_string(array.type):
        seconds, wrong = _seconds_of_text(array)
        _note(problems, wrong, _text_of(array), "is no time as 2026-11-24 13:05:00, as others are")
        return seconds
    seconds = _seconds(array)
    wrong = (seconds < _YEAR_1) | (seconds >= _YEAR_10000)
    _note(problems, wrong, lambda at: f"{seconds[at]:g} s since 1970", "is not within the years 1 to 9999")
    return seconds


def _text_of(array: pa.Array) -> Callable[[int], str]:
    return lambda at: repr(array[at].as_py())


def _form_of_times(array: pa.Array) -> str:
    """Say what most values are: numbers or dates.

    Values that are missing have no say.
    """
    if pa.types.is_string(array.type):
        numeric = pc.sum(pc.match_substring_regex(array, NUMERIC_TEXT.pattern), min_count=0).as_py()
        held = pc.sum(pc.not_equal(array, _harmless(array.type)), min_count=0).as_py()
        return "numbers" if 2 * numeric > held else "dates"
    return "dates" if pa.types.is_temporal(array.type) else "numbers"


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


_KINDS: dict[Kind, Callable[[pa.Array, Column, list[Problem]], Any]] = {
    "id": _integers,
    "category": _integers,
    "text": _texts,
    "number": _numbers,
    "time": _times,
    "label": _labels,
}
