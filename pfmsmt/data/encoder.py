"""The one encoder that partition, evaluation and serving share; `RowEncoder` does it over whole matrices, for requests.

Legend: B batch, F categorical fields, M numerical fields.

What stands for a missing value of a request's column: what stood for one in the training rows, if anything did.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.schema import OUT_OF_VOCABULARY, CategoricalField, NumericalField, ScenarioSchema

DENSE_SPAN = 2**20
"""Widest range of a field's categories for which a table of the whole range is kept."""

_HIGHEST = np.uint64(2**63 - 1)
NO_INTEGER = -(2**53)
"""Beyond every integer category, so that it is in no vocabulary."""


class Encoded(NamedTuple):
    """Model-ready columns of B rows."""

    codes: NDArray[np.int32]
    """[B, categorical fields]"""
    values: NDArray[np.float32]
    """[B, numerical fields], standardised"""


def whole_numbers(texts: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return texts [B] as integers; what is none, in the one way to write it, becomes an integer that no file holds."""
    found = pd.to_numeric(pd.Series(texts), errors="coerce")
    whole = np.where(found.notna() & (found.abs() < 2**53), found, NO_INTEGER).astype(np.int64)
    written = pd.Series(whole).astype("str").to_numpy(dtype=object)
    return np.where(written == texts, whole, NO_INTEGER)


class CategoryEncoder:
    """Maps the categories of one field to codes."""

    def __init__(self, field: CategoricalField) -> None:
        """Lay out the vocabulary once, as it may hold millions of entries."""
        self._set = pa.array(field.vocabulary, pa.string()) if field.text else None
        self._known = np.asarray(() if field.text else field.vocabulary, np.int64)

    def __call__(self, values: NDArray[np.generic]) -> NDArray[np.int32]:
        """Map categories [B], integers or str, to codes [B]; what is not in the vocabulary gets OUT_OF_VOCABULARY."""
        if self._set is not None:
            place = pc.index_in(pa.array(values, pa.string()), value_set=self._set)
            return np.asarray(pc.add(pc.fill_null(place, OUT_OF_VOCABULARY - 1), 1).to_numpy(), np.int32)
        if self._known.size == 0:
            return np.full(len(values), OUT_OF_VOCABULARY, np.int32)
        if values.dtype == object:  # text of a file without types, whose training values were all integers
            values = whole_numbers(values)
        if values.dtype == np.uint64:  # bits of what is beyond int64 are those of a negative category
            return np.where(values > _HIGHEST, OUT_OF_VOCABULARY, self(values.view(np.int64))).astype(np.int32)
        place = np.minimum(np.searchsorted(self._known, values), self._known.size - 1)
        return np.where(self._known[place] == values, place + 1, OUT_OF_VOCABULARY).astype(np.int32)


def encode_numbers(values: NDArray[np.float64], field: NumericalField) -> NDArray[np.float32]:
    """Standardise raw numbers [B]; a column that was constant in training becomes zero."""
    scale = 1.0 / field.std if field.std > 0 else 0.0
    return ((values - field.mean) * scale).astype(np.float32)


def encode(frame: pd.DataFrame | Mapping[str, NDArray[np.generic]], schema: ScenarioSchema) -> Encoded:
    """Encode raw named columns of B rows.

    Raises:
        SchemaError: a column is missing, or a value is no integer category or no finite number
            (column, row and value are named); for a field of text, no string.
    """
    missing = [name for name in schema.columns if name not in frame]
    if missing:
        raise SchemaError(
            f"missing columns: {', '.join(missing)}; "
            f"scenario {schema.scenario} needs {len(schema.columns)} feature columns"
        )
    codes = [CategoryEncoder(field)(_categories(frame[field.name], field)) for field in schema.categorical]
    values = [_standardised(_numbers(frame[field.name], field.name), field) for field in schema.numerical]
    rows = len(frame[schema.columns[0]]) if schema.columns else 0
    return Encoded(
        np.stack(codes, axis=1) if codes else np.zeros((rows, 0), np.int32),
        np.stack(values, axis=1) if values else np.zeros((rows, 0), np.float32),
    )


def _categories(column: "pd.Series | NDArray[np.generic]", field: CategoricalField) -> NDArray[np.generic]:
    if not field.text:
        return _integers(column, field.name)
    values = np.asarray(column, dtype=object)
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise SchemaError(f"column {field.name}, row {row}: {value!r} is not text, as its categories are")
    return values


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


def _numbers(column: "pd.Series | NDArray[np.generic]", name: str) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        for row, value in enumerate(column):
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise SchemaError(f"column {name}, row {row}: {value!r} is not a number") from None
        raise
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        raise SchemaError(f"column {name}, row {bad[0]}: {numbers[bad[0]]} is not a finite number")
    return numbers


def _integers(column: "pd.Series | NDArray[np.generic]", name: str) -> NDArray[np.int64] | NDArray[np.uint64]:
    values = np.asarray(column)
    if values.dtype.kind in "iu":
        return values if values.dtype == np.uint64 else values.astype(np.int64)
    numbers = _numbers(column, name)
    bad = np.flatnonzero((numbers != np.floor(numbers)) | (np.abs(numbers) >= 2**53))
    if bad.size:
        raise SchemaError(f"column {name}, row {bad[0]}: {numbers[bad[0]]} is not an integer category")
    return numbers.astype(np.int64)


class RowEncoder:
    """Encodes rows of one scenario, to the same bits as `encode`, in a few operations for all columns."""

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
            if high - low >= DENSE_SPAN:
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
        self._table = np.concatenate([*tables, np.full(1, OUT_OF_VOCABULARY, np.int32)])
        self._lows, self._starts = np.asarray(lows, np.int64), np.asarray(starts, np.int64)
        self._spans = np.asarray(spans, np.uint64)
        self._means = np.asarray([field.mean for field in schema.numerical])
        self._scales = np.asarray([1.0 / field.std if field.std > 0 else 0.0 for field in schema.numerical])

    def encode(self, categories: NDArray[np.int64], numbers: NDArray[np.float64]) -> Encoded:
        """Encode categories [B, F] and finite numbers [B, M]; in columns of text, `categories` holds codes already.

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
    """Return for each column what stands for a missing value: a number, a category, or for text its code.

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


def filled(frame: pd.DataFrame, schema: ScenarioSchema) -> pd.DataFrame:
    """Return B rows whose missing values are filled in the columns of `schema.fill`, absent columns included."""
    lost = {
        name: value if name not in frame else frame[name].astype(object).where(frame[name].notna(), value)
        for name, value in schema.fill.items()
        if name not in frame or frame[name].isna().any()
    }
    return frame.assign(**lost) if lost else frame
