"""The rule for values, kind by kind: which types fit, which values are taken as what, and what is wrong with others."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.tables.cells import convert_cells
from pfmsmt.data.tables.values import Column, convert, fits, refuse_type

INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
NUMBERS = (*INTEGERS, pa.bool_(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(9, 2), pa.decimal256(50, 2))
TEXTS = (pa.string(), pa.large_string(), pa.string_view())
TIMES = (pa.timestamp("us"), pa.date32(), pa.date64())
OTHERS = (pa.binary(), pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.duration("s"), pa.time32("s"))
FITTING = {
    "id": (*INTEGERS, pa.bool_()),
    "category": NUMBERS,
    "number": NUMBERS,
    "label": NUMBERS,
    "text": TEXTS,
    "time": (*NUMBERS, *TEXTS, *TIMES),
}


@pytest.mark.parametrize("kind", FITTING)
def test_types_that_fit(kind):
    for form in (*NUMBERS, *TEXTS, *TIMES, *OTHERS):
        assert fits(Column("x", kind), form) == (form in FITTING[kind]), form
    for form in FITTING[kind]:
        assert fits(Column("x", kind), pa.dictionary(pa.int32(), form))
        refuse_type(Column("x", kind), form)
    assert not fits(Column("x", kind), pa.null())
    assert fits(Column("x", kind, optional=True), pa.null())
    with pytest.raises(SchemaError, match=r"column x, row 0: values of type binary are no (integers or floats|text)"):
        refuse_type(Column("x", kind), pa.binary())


TAKEN = {
    "integers": ("category", pa.array([-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
    "whole floats": ("category", pa.array([3.0, -0.0, 2.0**53 - 1]), [3, 0, 2**53 - 1]),
    "decimals": ("category", pa.array([Decimal("3.00")]), [3]),
    "booleans": ("category", pa.array([True, False]), [1, 0]),
    "unsigned": ("category", pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
    "large unsigned numbers": ("number", pa.array([2**64 - 1], pa.uint64()), [2.0**64]),
    "the largest number": ("number", pa.array([1e30, -1e30]), [1e30, -1e30]),
    "labels": ("label", pa.array([0, 1], pa.int64()), [0, 1]),
    "blanks": ("text", pa.array([" ", "01000", "1000.0"]), [" ", "01000", "1000.0"]),
    "256 bytes": ("text", pa.array(["x" * 256, "€" * 85]), ["x" * 256, "€" * 85]),
    "a dictionary": ("text", pa.array(["b", "a", "b"]).dictionary_encode(), ["b", "a", "b"]),
}


@pytest.mark.parametrize(("kind", "array", "expected"), TAKEN.values(), ids=TAKEN.keys())
def test_values_that_are_taken(kind, array, expected):
    found = convert(array, Column("x", kind))
    assert (found.problems, found.missing) == ([], None)
    assert found.values.tolist() == expected
    dtypes = {"category": np.int64, "number": np.float64, "label": np.int8}
    assert kind == "text" or found.values.dtype == dtypes[kind]


WRONG = {
    "2^63": ("category", pa.array([2**63], pa.uint64()), "9223372036854775808 is 2^63 or more; store such ids as text"),
    "an id of 2^63": ("id", pa.array([2**63], pa.uint64()), "9223372036854775808 is 2^63 or more; store"),
    "a fraction": ("category", pa.array([0.5]), "0.5 is not an integer category"),
    "2^53": ("category", pa.array([2.0**53]), "9.0072e+15 is not an integer category"),
    "NaN": ("category", pa.array([np.nan]), "nan is not a finite number"),
    "infinite": ("number", pa.array([-np.inf]), "-inf is not a finite number"),
    "beyond 1e30": ("number", pa.array([1.1e30]), "1.1e+30 is beyond 1e+30; correct or clip it"),
    "label 2": ("label", pa.array([2]), "2 is not a label (0, 1)"),
    "no text": ("text", pa.array([""]), "the value is empty"),
    "257 bytes": ("text", pa.array(["x" * 257]), f"'{'x' * 40}'... is longer than 256 bytes"),
    "null": ("number", pa.array([None], pa.float64()), "the value is empty"),
    "below the lowest": ("category", pa.array([-1]), "-1 is below 0"),
}


@pytest.mark.parametrize(("kind", "array", "text"), WRONG.values(), ids=WRONG.keys())
def test_values_that_are_wrong_are_named(kind, array, text):
    column = Column("x", kind, lowest=0 if "below" in text else None)
    good = pa.array([1 if kind != "text" else "good"], array.type)
    found = convert(pa.concat_arrays([good, array]), column)
    with pytest.raises(SchemaError) as caught:
        found.raise_first("x")
    assert str(caught.value).startswith(f"column x, row 1: {text}")


@pytest.mark.parametrize("changes", [{"fill": 7}, {"optional": True}])
def test_gaps(changes):
    """NaN counts as a gap where there may be one; a fill stands in, and without it the caller puts something there."""
    column = Column("x", "category", **changes)
    for array in (pa.array([1.0, np.nan, None]), pa.array([1, None, None])):
        found = convert(array, column)
        assert found.problems == []
        assert found.values.tolist() == ([1, 7, 7] if "fill" in changes else [1, 0, 0])
        assert (found.missing is None) == ("fill" in changes)
    texts = convert(pa.array(["a", "", None]), Column("x", "text", optional=True))
    assert texts.missing.tolist() == [False, True, True]


CELLS = {
    "another type": ("number", [1, "8.5"], "row 1: '8.5' is not a number"),
    "a truth value": ("category", [True], "row 0: True is not an integer category"),
    "no text": ("text", ["a", 3], "row 1: 3 is not text, as its categories are"),
    "null": ("text", ["a", None], "row 1: None is not text"),
    "half of a pair": ("text", ["\ud800"], "row 0: '\\ud800' is not text"),
    "a list": ("number", [[[1]]], "row 0: a list is not a number"),
    "an object": ("number", [{"a": 1}], "row 0: an object is not a number"),
    "beyond floats": ("number", [10**400], f"row 0: {'1' + '0' * 59}... is not a finite number"),
    "beyond 2^64": ("category", [2**64], "row 0: 18446744073709551616 is not an integer category"),
    "the first of several": ("category", [3, 2.0, 0.5, "x"], "row 2: 0.5 is not an integer category"),
}


@pytest.mark.parametrize(("kind", "cells", "text"), CELLS.values(), ids=CELLS.keys())
def test_cells_without_a_type_are_named_as_they_are_written(kind, cells, text):
    with pytest.raises(SchemaError) as caught:
        convert_cells(cells, Column("x", kind)).raise_first("x")
    assert str(caught.value).startswith(f"column x, {text}")


def test_cells_of_several_types_are_each_taken_as_its_own():
    found = convert_cells([2**60 + 1, 3.0, np.int32(4), Decimal("5")], Column("x", "category"))
    assert found.values.tolist() == [2**60 + 1, 3, 4, 5]
    assert convert_cells([], Column("x", "text")).values.to_pylist() == []
