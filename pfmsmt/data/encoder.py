"""The encoder of `schema.encode` over whole matrices, for the rows of requests.

Legend: B batch, F categorical fields, M numerical fields.
"""

import numpy as np
from numpy.typing import NDArray

from pfmsmt.data.schema import OUT_OF_VOCABULARY, CategoryEncoder, Encoded, ScenarioSchema, too_large
from pfmsmt.errors import SchemaError

DENSE_SPAN = 2**20
"""Widest range of a field's categories for which a table of the whole range is kept."""


class RowEncoder:
    """Encodes rows of one scenario, to the same bits as `schema.encode`, in a few operations for all columns."""

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
