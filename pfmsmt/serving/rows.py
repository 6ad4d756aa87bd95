"""Raw rows of a request as checked matrices, in the model's order.

Which values there may be is decided in pfmsmt/data/tables/values.py. What is decided here is which cells may be absent.

Legend: B batch, F categorical fields, M numerical fields.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.encoder import CategoryEncoder, Encoded, RowEncoder, column_of, stand_ins
from pfmsmt.data.schema import OUT_OF_VOCABULARY, ScenarioSchema, refuse_encoded
from pfmsmt.data.tables.cells import convert_cells, show_cell
from pfmsmt.data.tables.values import LARGEST_NUMBER, LONGEST_TEXT, Column, Converted


class FeatureRows(NamedTuple):
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
        """Prepare the columns; `optional` ones may be missing, or null.

        So may those with a fill in training. Names of other scenarios' columns are ignored.
        """
        self.schema = schema
        self.optional = optional_columns(schema, optional)
        self.categorical = [field.name for field in schema.categorical]
        self.numerical = [field.name for field in schema.numerical]
        self.columns: dict[str, Column] = {
            field.name: column_of(field, optional=field.name in self.optional) for field in schema.fields
        }
        self._places = {name: (place, False) for place, name in enumerate(self.categorical)}
        self._places |= {name: (place, True) for place, name in enumerate(self.numerical)}
        """column -> its place in its matrix, and whether that is the one of numbers"""
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

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> FeatureRows:
        """Check B records, column -> value; further columns are left out.

        Raises:
            SchemaError: a record is no object, a column is missing, or a value does not fit.
        """
        usual = self._usual_records(records)
        if usual is not None:
            return usual
        for row, record in enumerate(records):
            if not isinstance(record, dict):
                raise SchemaError(f"row {row}: {show_cell(record)} is not an object of column names and values")
        if records:
            refuse_encoded(records[0], "row 0", _RAW)
        columns = {name: [record.get(name, _ABSENT) for record in records] for name in self.schema.columns}
        return self.from_columns({n: v for n, v in columns.items() if not v or v.count(_ABSENT) < len(v)}, len(records))

    def _usual_records(self, records: Sequence[Mapping[str, Any]]) -> FeatureRows | None:
        """Read records whose values are all of the usual types, else None."""
        if not set(map(type, records)) <= {dict}:
            return None
        try:
            integers, numbers = list(map(self._pick_integers, records)), list(map(self._pick_numbers, records))
            texts = {name: [record[name] for record in records] for name in self._texts}
        except KeyError:
            return None
        return self._usual(integers, numbers, texts)

    def _usual_columns(self, columns: Mapping[str, Any], rows: int) -> FeatureRows | None:
        """Read columns whose values are all of the usual types, else None."""
        held = {name: columns.get(name) for name in self.columns}
        if not rows or any(type(values) is not list or len(values) != rows for values in held.values()):
            return None
        integers, numbers = self._pick_integers(held), self._pick_numbers(held)
        texts = {name: columns[name] for name in self._texts}
        return self._usual(
            list(zip(*integers, strict=True)) or [()] * rows, list(zip(*numbers, strict=True)) or [()] * rows, texts
        )

    def _usual(self, integers: list[Any], numbers: list[Any], texts: Mapping[str, list[Any]]) -> FeatureRows | None:
        """Convert B usual rows in a few passes, at C's speed.

        Returns None where the rule has to look at each value. tests/serving/test_rows_same_rule.py holds the two ways
        against each other.
        """
        if not (
            set(map(type, chain.from_iterable(integers))) <= {int}
            and set(map(type, chain.from_iterable(numbers))) <= {int, float}
            and _are_usual_texts(list(chain.from_iterable(texts.values())))
        ):
            return None
        try:
            matrix, categories = _matrix(numbers, np.float64), self._categories(integers, texts)
        except OverflowError:
            return None
        if not (np.abs(matrix) <= LARGEST_NUMBER).all():
            return None
        count = len(integers)
        return FeatureRows(
            categories.reshape(count, len(self.categorical)), matrix.reshape(count, len(self.numerical)), None, {}
        )

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

    def from_columns(self, columns: Mapping[str, Sequence[Any]], rows: int) -> FeatureRows:
        """Check columns of B = `rows` values each.

        Raises:
            SchemaError: as `from_records`; or a column is no list, or of another length.
        """
        usual = self._usual_columns(columns, rows)
        if usual is not None:
            return usual
        self.check_present(columns)
        converted: dict[str, Converted] = {}
        for name, column in self.columns.items():
            values = columns.get(name)
            if values is None and name in self.optional:
                continue
            if not isinstance(values, list):
                raise SchemaError(f"column {name}: {show_cell(values)} is not a list of values")
            if len(values) != rows:
                raise SchemaError(f"column {name} has {len(values)} values, others have {rows}")
            for cell, fault in () if column.optional else ((_ABSENT, "the value is missing"), (None, _NULL)):
                if cell in values:
                    raise SchemaError(f"column {name}, row {values.index(cell)}: {fault}")
            converted[name] = convert_cells([None if value is _ABSENT else value for value in values], column)
        return self.gather(converted, rows)

    def check_present(self, columns: Collection[str]) -> None:
        """Refuse rows that lack a needed column.

        Raises:
            SchemaError: names all that are missing.
        """
        refuse_encoded(columns, "the request", _RAW)
        missing = [name for name in self.schema.columns if name not in columns and name not in self.optional]
        if missing:
            raise SchemaError(
                f"missing columns: {', '.join(missing)}; "
                f"scenario {self.schema.scenario} needs {len(self.schema.columns) - len(self.optional)} feature columns"
            )

    def gather(self, columns: Mapping[str, Converted], rows: int) -> FeatureRows:
        """Put columns [B] into matrices, and stand-ins in place of missing values.

        Raises:
            SchemaError: a value does not fit, or is missing where it must not be.
        """
        fields = len(self.categorical)
        categories, numbers = np.zeros((rows, fields), np.int64), np.zeros((rows, len(self.numerical)))
        absent, filled = np.zeros((rows, fields), np.bool_), dict[str, int]()
        for name, (place, numerical) in self._places.items():
            found, matrix = columns.get(name), numbers if numerical else categories
            lost = np.ones(rows, np.bool_)
            if found is not None:
                if found.missing is not None and name not in self.optional:
                    raise SchemaError(f"column {name}, row {int(np.argmax(found.missing))}: {_NULL}")
                found.raise_first(name)
                text = self._text_encoders.get(name)
                matrix[:, place] = found.values if text is None else text(found.values)
                if found.missing is None:
                    continue
                lost = found.missing
            filled[name] = int(lost.sum())
            if name in self._stand_ins:
                matrix[lost, place] = self._stand_ins[name]
            else:
                absent[:, place] = lost
        return FeatureRows(categories, numbers, absent if absent.any() else None, filled)


_RAW = "it must hold raw values, such as those of data/clients/<scenario>/example.parquet"
_ABSENT = object()
_NULL = "null is not a value"


def optional_columns(schema: ScenarioSchema, named: Collection[str]) -> frozenset[str]:
    """Return the columns that a request may lack.

    They are the named ones, and those that had a fill in training.
    """
    return frozenset({*named, *schema.fill}) & frozenset(schema.columns)


def _picker(names: Sequence[str]) -> Any:
    """Return a function that picks a record's values of these columns."""
    if not names:
        return lambda record: ()
    get = itemgetter(*names)
    return get if len(names) > 1 else lambda record: (get(record),)


def _matrix(rows: list[Any], kind: type) -> NDArray[Any]:
    width = len(rows[0]) if rows else 0
    return np.fromiter(chain.from_iterable(rows), kind, len(rows) * width).reshape(len(rows), width)


def _are_usual_texts(cells: list[Any]) -> bool:
    """Say whether all cells are strings that need no closer look.

    They are neither empty nor long, and text in UTF-8.
    """
    if not cells:
        return True
    if set(map(type, cells)) != {str}:
        return False
    lengths = set(map(len, cells))
    if min(lengths) == 0 or max(lengths) > LONGEST_TEXT // 4:  # a character has at most 4 bytes
        return False
    try:
        "".join(cells).encode()
    except UnicodeError:  # half of a surrogate pair, which JSON's escapes can write
        return False
    return True
