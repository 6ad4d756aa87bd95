"""Raw rows of a request, checked: matrices in the order of the model's columns.

Legend: B batch, F categorical fields, M numerical fields.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.encoder import CategoryEncoder, Encoded, RowEncoder, stand_ins
from pfmsmt.data.schema import OUT_OF_VOCABULARY, ScenarioSchema

_SHOWN = 60
"""Characters of a wrong value that an error repeats."""
_EXACT = 2**53


class Rows(NamedTuple):
    """B checked rows."""

    categories: NDArray[np.int64]
    """[B, F]; columns of text hold the codes of the reader's schema, the others raw categories"""
    numbers: NDArray[np.float64]
    """[B, M], finite"""
    absent: NDArray[np.bool_] | None
    """[B, F], cells of optional categorical columns that were not given and have no fill; None: there are none"""
    filled: Mapping[str, int]
    """optional column -> cells that were not given"""

    def encode(self, encoder: RowEncoder) -> Encoded:
        """Encode; absent categories are out of vocabulary."""
        encoded = encoder.encode(self.categories, self.numbers)
        if self.absent is not None:
            encoded.codes[self.absent] = OUT_OF_VOCABULARY
        return encoded


class RowReader:
    """Reads rows of one scenario's columns."""

    def __init__(self, schema: ScenarioSchema, optional: Collection[str] = ()) -> None:
        """`optional` columns, and those with a fill in training, may be missing, or null in a row.

        Names of other scenarios' columns are ignored.
        """
        self.schema = schema
        self.optional = optional_columns(schema, optional)
        self.categorical = [field.name for field in schema.categorical]
        self.numerical = [field.name for field in schema.numerical]
        self._stand_ins = stand_ins(schema)
        fields = list(enumerate(schema.categorical))
        self._texts = {
            field.name: {str(text): code for code, text in enumerate(field.vocabulary, 1)}
            for _, field in fields
            if field.text
        }
        self._text_encoders = {field.name: CategoryEncoder(field) for _, field in fields if field.text}
        self._integer_places = [place for place, field in fields if not field.text]
        self._pick_integers = _picker([field.name for _, field in fields if not field.text])
        self._pick_numbers = _picker(self.numerical)

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> Rows:
        """Check B records, column -> value; further columns are left out.

        Raises:
            SchemaError: a record is no object, a column is missing, or a value is no integer category or finite number.
        """
        # Values as they should be take three passes at the speed of C; anything else is looked at one by one.
        if set(map(type, records)) <= {dict}:
            try:
                integers = list(map(self._pick_integers, records))
                numbers = list(map(self._pick_numbers, records))
                texts = {name: [record[name] for record in records] for name in self._texts}
                if (
                    set(map(type, chain.from_iterable(integers))) <= {int}
                    and set(map(type, chain.from_iterable(numbers))) <= {int, float}
                    and set(map(type, chain.from_iterable(texts.values()))) <= {str}
                ):
                    return self._checked(self._categories(integers, texts), _matrix(numbers, np.float64))
            except (KeyError, OverflowError):
                pass
        for row, record in enumerate(records):
            if not isinstance(record, dict):
                raise SchemaError(f"row {row}: {_show(record)} is not an object of column names and values")
        columns = {name: [record.get(name, _ABSENT) for record in records] for name in self.schema.columns}
        return self.from_columns({n: v for n, v in columns.items() if not v or v.count(_ABSENT) < len(v)}, len(records))

    def is_text(self, name: str) -> bool:
        """Tell whether a column's categories are text."""
        return name in self._texts

    def from_columns(self, columns: Mapping[str, Sequence[Any]], rows: int) -> Rows:
        """Check columns of B = `rows` values each.

        Raises:
            SchemaError: as `from_records`; or a column is no list, or of another length.
        """
        self.check_present(columns)
        categories, numbers, absent, filled = self._empty(rows)
        for name in self.schema.columns:
            values = columns.get(name)
            if values is not None and not isinstance(values, list):
                raise SchemaError(f"column {name}: {_show(values)} is not a list of values")
            if values is not None and len(values) != rows:
                raise SchemaError(f"column {name} has {len(values)} values, others have {rows}")
            given = np.array([] if values is None else [v is not None and v is not _ABSENT for v in values], bool)
            if values is None or not given.all():
                self._check_optional(name, given, values)
                filled[name] = rows - int(given.sum())
            cells = self._cells(name, values or [], given)
            where = given if values is not None else np.zeros(rows, bool)
            if name in self.categorical:
                place = self.categorical.index(name)
                categories[where, place] = cells
                self._stand_in(name, ~where, categories[:, place], absent[:, place])
            else:
                place = self.numerical.index(name)
                numbers[where, place] = cells
                numbers[~where, place] = self._stand_ins[name]
        return Rows(categories, numbers, absent if absent.any() else None, filled)

    def check_present(self, columns: Collection[str]) -> None:
        """Refuse rows that lack a needed column.

        Raises:
            SchemaError: names all that are missing.
        """
        missing = [name for name in self.schema.columns if name not in columns and name not in self.optional]
        if missing:
            raise SchemaError(
                f"missing columns: {', '.join(missing)}; "
                f"scenario {self.schema.scenario} needs {len(self.schema.columns) - len(self.optional)} feature columns"
            )

    def from_arrays(
        self, columns: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[np.bool_]], rows: int
    ) -> Rows:
        """Check columns [B] of integers, floats, or text where the field's categories are.

        `given` tells for optional columns which cells hold a value.

        Raises:
            SchemaError: a column is missing, or a value is no integer category or finite number.
        """
        self.check_present(columns)
        categories, numbers, absent, filled = self._empty(rows)
        for place, name in enumerate(self.categorical):
            if name in columns:
                encoder = self._text_encoders.get(name)
                categories[:, place] = encoder(columns[name]) if encoder else _integers(columns[name], name)
            if (lost := _lost(name, columns, given, rows)) is not None:
                self._stand_in(name, lost, categories[:, place], absent[:, place])
                filled[name] = int(lost.sum())
        for place, name in enumerate(self.numerical):
            if name in columns:
                numbers[:, place] = columns[name]
            if (lost := _lost(name, columns, given, rows)) is not None:
                numbers[lost, place], filled[name] = self._stand_ins[name], int(lost.sum())
        return self._checked(categories, numbers)._replace(absent=absent if absent.any() else None, filled=filled)

    def _categories(self, integers: list[Any], texts: Mapping[str, list[str]]) -> NDArray[np.int64]:
        matrix = _matrix(integers, np.int64)
        if not texts:
            return matrix
        categories = np.zeros((len(integers), len(self.categorical)), np.int64)
        categories[:, self._integer_places] = matrix
        for name, values in texts.items():
            codes = self._texts[name]
            categories[:, self.categorical.index(name)] = [codes.get(value, OUT_OF_VOCABULARY) for value in values]
        return categories

    def _cells(self, name: str, values: list[Any], given: NDArray[np.bool_]) -> Sequence[Any] | NDArray[Any]:
        """Check the given values of one column."""
        held = values if given.all() else [value for value, there in zip(values, given, strict=True) if there]
        kinds = set(map(type, held))
        with suppress(OverflowError):
            if name in self._texts:
                if kinds <= {str}:
                    codes = self._texts[name]
                    return [codes.get(value, OUT_OF_VOCABULARY) for value in held]
            elif name in self.categorical:
                if kinds <= {int}:
                    return np.array(held, np.int64)
            elif kinds <= {int, float} and np.isfinite(numbers := np.array(held, np.float64)).all():
                return numbers
        plain = _category if name in self.categorical else _number
        check = self._text_code if name in self._texts else plain
        return [check(v, name, row) for row, v in enumerate(values) if given[row]]

    def _text_code(self, value: Any, name: str, row: int) -> int:
        if type(value) is not str:
            raise SchemaError(f"column {name}, row {row}: {_show(value)} is not text, as its categories are")
        return self._texts[name].get(value, OUT_OF_VOCABULARY)

    def _empty(self, rows: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], dict[str, int]]:
        fields, numbers = len(self.categorical), len(self.numerical)
        return np.zeros((rows, fields), np.int64), np.zeros((rows, numbers)), np.zeros((rows, fields), bool), {}

    def _stand_in(
        self, name: str, lost: NDArray[np.bool_], categories: NDArray[np.int64], absent: NDArray[np.bool_]
    ) -> None:
        """Fill the lost categories of one column [B], or note that they are absent."""
        if name in self._stand_ins:
            categories[lost] = self._stand_ins[name]
        else:
            absent[:] = lost

    def _check_optional(self, name: str, given: NDArray[np.bool_], values: Sequence[Any] | None) -> None:
        if name in self.optional:
            return
        row = int(np.argmin(given)) if values else 0
        lost = values is None or values[row] is _ABSENT
        raise SchemaError(f"column {name}, row {row}: " + ("the value is missing" if lost else "null is not a value"))

    def _checked(self, categories: NDArray[np.int64], numbers: NDArray[np.float64]) -> Rows:
        good = np.isfinite(numbers)
        if not good.all():
            row, column = (int(place[0]) for place in np.nonzero(~good))
            raise SchemaError(
                f"column {self.numerical[column]}, row {row}: {numbers[row, column]} is not a finite number"
            )
        return Rows(categories.reshape(-1, len(self.categorical)), numbers.reshape(-1, len(self.numerical)), None, {})


_ABSENT = object()


def optional_columns(schema: ScenarioSchema, named: Collection[str]) -> frozenset[str]:
    """Return the columns that a request may lack: the named ones, and those that had a fill in training."""
    return frozenset({*named, *schema.fill}) & frozenset(schema.columns)


def _picker(names: Sequence[str]) -> Any:
    """Return a function that gives a record's values of these columns as a tuple."""
    if not names:
        return lambda record: ()
    get = itemgetter(*names)
    return get if len(names) > 1 else lambda record: (get(record),)


def _matrix(rows: list[Any], kind: type) -> NDArray[Any]:
    width = len(rows[0]) if rows else 0
    return np.fromiter(chain.from_iterable(rows), kind, len(rows) * width).reshape(len(rows), width)


def _category(value: Any, name: str, row: int) -> int:
    whole = type(value) is int or (type(value) is float and value.is_integer() and abs(value) < _EXACT)
    if not whole or not -(2**63) <= value < 2**63:
        raise SchemaError(f"column {name}, row {row}: {_show(value)} is not an integer category")
    return int(value)


def _number(value: Any, name: str, row: int) -> float:
    if type(value) not in (int, float):
        raise SchemaError(f"column {name}, row {row}: {_show(value)} is not a number")
    with suppress(OverflowError):
        if np.isfinite(number := float(value)):
            return number
    raise SchemaError(f"column {name}, row {row}: {_show(value)} is not a finite number")


def _lost(
    name: str, columns: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[np.bool_]], rows: int
) -> NDArray[np.bool_] | None:
    """Return which cells [B] of a column hold no value; None: all do."""
    if name in given:
        return ~given[name]
    return None if name in columns else np.ones(rows, bool)


def _integers(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    bad = np.flatnonzero(
        (values != np.floor(values)) | (np.abs(values) >= _EXACT) if values.dtype.kind == "f" else values > 2**63 - 1
    )
    if bad.size:
        raise SchemaError(f"column {name}, row {bad[0]}: {values[bad[0]]} is not an integer category")
    return values.astype(np.int64)


def _show(value: Any) -> str:
    # Not their contents, which may be nested as deep as Python's own stack.
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
