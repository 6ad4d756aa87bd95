"""Raw values become a model's inputs: codes, and standardised numbers.

Partition encodes its shards with `CategoryEncoder` and `encode_numbers`, MLflow's models whole frames with `encode`,
and serving its requests with `RowEncoder`, which needs a few operations for all columns together. All give the same
bits. Which values there may be is not decided here: see pfmsmt/data/tables/values.py.

Legend: B batch, F categorical fields, M numerical fields.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.schema import OUT_OF_VOCABULARY, CategoricalField, NumericalField, ScenarioSchema
from pfmsmt.data.tables.cells import convert_cells
from pfmsmt.data.tables.values import EXACT_INTEGERS, Column, Converted, convert, refuse_type

DENSE_SPAN = 2**20
"""Widest range of a field's categories for which a table of the whole range is held."""
NO_INTEGER = -EXACT_INTEGERS
"""Beyond every integer category, so that it is in no vocabulary."""


class Encoded(NamedTuple):
    """Model-ready columns of B rows."""

    codes: NDArray[np.int32]
    """[B, F]"""
    values: NDArray[np.float32]
    """[B, M], standardised"""


class CategoryEncoder:
    """Maps the categories of one field to codes."""

    def __init__(self, field: CategoricalField) -> None:
        """Lay out the vocabulary once, as it may hold millions of entries."""
        self._set = pa.array(field.vocabulary, pa.string()) if field.text else None
        self._known = np.asarray(() if field.text else field.vocabulary, np.int64)

    def __call__(self, values: NDArray[np.generic] | pa.Array) -> NDArray[np.int32]:
        """Map categories [B] to codes [B]; unknown ones get OUT_OF_VOCABULARY.

        `values` are int64, or text: Python's strings or an Arrow array.
        """
        if self._set is not None:
            texts = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
            # index_in gives null where nothing is found; adding 1 then makes it OUT_OF_VOCABULARY.
            place = pc.index_in(texts, value_set=self._set)
            return np.asarray(pc.add(pc.fill_null(place, OUT_OF_VOCABULARY - 1), 1).to_numpy(), np.int32)
        if self._known.size == 0:
            return np.full(len(values), OUT_OF_VOCABULARY, np.int32)
        if values.dtype == object:  # text of a file without types, whose training values were all integers
            values = whole_numbers(values)
        # searchsorted says where a value would stand, also one that is not there: so it is compared with its neighbour.
        place = np.minimum(np.searchsorted(self._known, values), self._known.size - 1)
        return np.where(self._known[place] == values, place + 1, OUT_OF_VOCABULARY).astype(np.int32)


def whole_numbers(texts: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return texts [B] as integers.

    A text that is no integer, or not in the one way to write it, becomes NO_INTEGER.
    """
    found = pd.to_numeric(pd.Series(texts), errors="coerce")
    whole = np.where(found.notna() & (found.abs() < EXACT_INTEGERS), found, NO_INTEGER).astype(np.int64)
    written = pd.Series(whole).astype("str").to_numpy(dtype=object)
    return np.where(written == texts, whole, NO_INTEGER)


def encode_numbers(values: NDArray[np.float64], field: NumericalField) -> NDArray[np.float32]:
    """Standardise raw numbers [B]; a column constant in training becomes zero."""
    scale = 1.0 / field.std if field.std > 0 else 0.0
    return ((values - field.mean) * scale).astype(np.float32)


def column_of(field: CategoricalField | NumericalField, **changes: Any) -> Column:
    """Return the rule for a field's raw values.

    `changes` are further fields of `Column`.
    """
    if isinstance(field, NumericalField):
        return Column(field.name, "number", **changes)
    return Column(field.name, "text" if field.text else "category", **changes)


def encode(frame: pd.DataFrame | Mapping[str, NDArray[np.generic]], schema: ScenarioSchema) -> Encoded:
    """Encode raw named columns of B rows.

    Missing values are filled as in training, and so are absent columns.

    Raises:
        SchemaError: a column is missing, or a value does not fit (column, row and value are named).
    """
    missing = [name for name in schema.columns if name not in frame and name not in schema.fill]
    if missing:
        raise SchemaError(
            f"missing columns: {', '.join(missing)}; "
            f"scenario {schema.scenario} needs {len(schema.columns)} feature columns"
        )
    rows = len(frame) if isinstance(frame, pd.DataFrame) else len(next(iter(frame.values()), ()))

    def values(field: CategoricalField | NumericalField) -> Any:
        column = column_of(field, fill=schema.fill.get(field.name))
        found = _converted(frame[field.name] if field.name in frame else pa.nulls(rows), column)
        found.raise_first(field.name)
        return found.values

    codes = [CategoryEncoder(field)(values(field)) for field in schema.categorical]
    numbers = [_standardised(values(field), field) for field in schema.numerical]
    return Encoded(
        np.stack(codes, axis=1) if codes else np.zeros((rows, 0), np.int32),
        np.stack(numbers, axis=1) if numbers else np.zeros((rows, 0), np.float32),
    )


def _converted(values: "pd.Series | NDArray[np.generic] | pa.Array", column: Column) -> Converted:
    """Convert a column of pandas, numpy or Arrow.

    A column without a type is looked at cell by cell.
    """
    if isinstance(values, pd.Series) and isinstance(values.dtype, np.dtype):
        values = values.to_numpy()  # pyarrow would take pandas' NaN for null
    if not (isinstance(values, np.ndarray) and values.dtype == object):
        try:
            array = pa.array(values)
        except pa.ArrowException:
            return convert_cells(list(values), column)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        refuse_type(column, array.type)
        return convert(array, column)
    return convert_cells(list(values), column)


def _standardised(numbers: NDArray[np.float64], field: NumericalField) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # reported with its row
        encoded = encode_numbers(numbers, field)
    bad = np.flatnonzero(~np.isfinite(encoded))
    if bad.size:
        raise SchemaError(too_large(field, int(bad[0]), float(numbers[bad[0]])))
    return encoded


def too_large(field: NumericalField, row: int, value: float) -> str:
    """Say that a standardised value does not fit in float32."""
    return f"column {field.name}, row {row}: {value:g} is too large (training mean {field.mean:g}, std {field.std:g})"


class RowEncoder:
    """Encodes rows of one scenario, all columns in a few operations.

    The bits are those of `encode`.
    """

    def __init__(self, schema: ScenarioSchema) -> None:
        """Lay the vocabularies of all fields out in one table."""
        self._schema = schema
        dense, tables, at = [], [], 0
        lows, spans, starts = [], [], []
        for index, field in enumerate(schema.categorical):
            if field.text:
                continue
            known = np.asarray(field.vocabulary, np.int64)
            low, high = (int(known[0]), int(known[-1])) if known.size else (0, -1)
            if high - low >= DENSE_SPAN:  # ids far apart: a table of the range would be mostly empty
                continue
            table = np.full(high - low + 1, OUT_OF_VOCABULARY, np.int32)
            table[known - low] = np.arange(1, field.codes)
            dense.append(index)
            tables.append(table)
            lows.append(low)
            spans.append(len(table))
            starts.append(at)
            at += len(table)
        self._dense = dense
        self._text = [index for index, field in enumerate(schema.categorical) if field.text]
        self._sparse = {
            index: CategoryEncoder(field)
            for index, field in enumerate(schema.categorical)
            if index not in {*dense, *self._text}
        }
        self._alone = len(dense) == len(schema.categorical)
        # One entry more than all tables: what lies outside of its field's range is looked up there.
        self._table = np.concatenate([*tables, np.full(1, OUT_OF_VOCABULARY, np.int32)])
        self._lows, self._starts = np.asarray(lows, np.int64), np.asarray(starts, np.int64)
        self._spans = np.asarray(spans, np.uint64)
        self._means = np.asarray([field.mean for field in schema.numerical])
        self._scales = np.asarray([1.0 / field.std if field.std > 0 else 0.0 for field in schema.numerical])

    def encode(self, categories: NDArray[np.int64], numbers: NDArray[np.float64]) -> Encoded:
        """Encode categories [B, F] and finite numbers [B, M].

        In columns of text, `categories` holds codes already.

        Raises:
            SchemaError: a number that is too large once it is standardised (column, row and value are named).
        """
        return Encoded(self._codes(categories), self._values(numbers))

    def _codes(self, categories: NDArray[np.int64]) -> NDArray[np.int32]:
        chosen = categories if self._alone else np.ascontiguousarray(categories[:, self._dense])
        # Wraps around for far values, and never into the range: what is inside modulo 2^64 is inside.
        place = chosen - self._lows
        inside = place.view(np.uint64) < self._spans
        found: NDArray[np.int32] = self._table[np.where(inside, place + self._starts, len(self._table) - 1)]
        if self._alone:
            return found
        codes = np.empty(categories.shape, np.int32)
        codes[:, self._dense] = found
        codes[:, self._text] = categories[:, self._text]
        for index, encoder in self._sparse.items():
            codes[:, index] = encoder(categories[:, index])
        return codes

    def _values(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # reported below, with its column
            values: NDArray[np.float32] = ((numbers - self._means) * self._scales).astype(np.float32)
        good = np.isfinite(values)
        if not good.all():
            row, column = (int(place[0]) for place in np.nonzero(~good))
            raise SchemaError(too_large(self._schema.numerical[column], row, float(numbers[row, column])))
        return values


def stand_ins(schema: ScenarioSchema) -> Mapping[str, int | float]:
    """Return for each column the value that replaces a missing one.

    It is a number, a category, or for text its code.

    Of numbers without a fill it is the training mean; categories without one, or with one that has no code, are left
    out: missing ones are out of vocabulary.
    """
    found: dict[str, int | float] = {}
    found |= {field.name: float(schema.fill.get(field.name, field.mean)) for field in schema.numerical}
    for field in schema.categorical:
        value = schema.fill.get(field.name)
        if value is None:
            continue
        code = int(CategoryEncoder(field)(np.asarray([value], object if field.text else np.int64))[0])
        if code != OUT_OF_VOCABULARY:
            found[field.name] = code if field.text else int(value)
    return found
