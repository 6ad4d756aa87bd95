"""The declared columns of a data set, and the one encoder that training, evaluation and serving share."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pfmsmt.errors import DataError, SchemaError

OUT_OF_VOCABULARY = 0
"""Code of every category that the training rows did not hold."""

NO_INTEGER = -(2**53)
"""Beyond every integer category, so that it is in no vocabulary."""

Vocabulary = tuple[int, ...] | tuple[str, ...]
"""Sorted, no entry twice; the code of entry i is i + 1."""

Fill = dict[str, int | float | str]
"""Feature column -> what stands for a missing value, in training and for ever after."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(_Frozen):
    """One label to predict."""

    name: str
    label: str
    """The raw column that holds it."""
    within: str | None = None
    """The task that this one is nested in: ctcvr counts clicks that converted, over all impressions."""


class CategoricalField(_Frozen):
    """A column of categories: integers, or text."""

    name: str
    federated: bool
    """True: the vocabulary means the same at every client. False: ids of one client, which never leave it."""
    text: bool = False
    """True: categories are strings. False: integers."""
    vocabulary: Vocabulary = ()

    @property
    def codes(self) -> int:
        """Number of codes, the out-of-vocabulary one included."""
        return len(self.vocabulary) + 1


class NumericalField(_Frozen):
    """A column of numbers; `mean` and `std` come from training rows only."""

    name: str
    mean: float
    std: float


class SplitCounts(_Frozen):
    """What one shard holds."""

    rows: int
    groups: int
    """Searches."""
    positives: dict[str, int]
    """Task name -> rows with label 1."""


class ScenarioSchema(_Frozen):
    """All that is needed to encode one scenario's raw columns."""

    scenario: str
    group: str
    tasks: tuple[Task, ...]
    categorical: tuple[CategoricalField, ...]
    numerical: tuple[NumericalField, ...]
    fill: Fill = {}
    """Of the type of the column's values; integers or text for categories, finite numbers."""

    @model_validator(mode="after")
    def _fill_fits(self) -> Self:
        kinds: dict[str, tuple[type, ...]] = {f.name: (str,) if f.text else (int,) for f in self.categorical}
        kinds |= {field.name: (int, float) for field in self.numerical}
        for name, value in self.fill.items():
            if not isinstance(value, kinds.get(name, ())) or (isinstance(value, float) and not math.isfinite(value)):
                raise ValueError(f"fill: {value!r} is no value of column {name}")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw feature columns, categorical first."""
        return (*(field.name for field in self.categorical), *(field.name for field in self.numerical))


class Schema(_Frozen):
    """The federation's schema: `data/clients/schema.json`."""

    source: str
    fingerprint: str
    """SHA-256 over the contents of all shards, in the order of scenario and split."""
    group: str
    tasks: tuple[Task, ...]
    categorical: tuple[CategoricalField, ...]
    """Private fields carry an empty vocabulary here; theirs is in `private_vocabularies`."""
    numerical: tuple[NumericalField, ...]
    private_vocabularies: dict[str, dict[str, Vocabulary]]
    """scenario -> private field -> vocabulary."""
    counts: dict[str, dict[str, SplitCounts]]
    """scenario -> split (train, val, test) -> counts."""
    fill: Fill = {}

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Scenario names, in the order of the data set."""
        return tuple(self.counts)

    @property
    def agreement(self) -> str:
        """SHA-256 over what all clients must have in common: tasks, columns, federated vocabularies, scales."""
        common = self.model_dump_json(include={"source", "group", "tasks", "categorical", "numerical"})
        return hashlib.sha256(common.encode()).hexdigest()

    def public(self) -> "Schema":
        """Return what a server may know: private vocabularies, and what stands for missing values, are left out."""
        empty: dict[str, tuple[int, ...]] = {field.name: () for field in self.categorical if not field.federated}
        private = dict.fromkeys(self.counts, empty) if empty else {}
        return self.model_copy(update={"private_vocabularies": private, "fill": {}})

    def only(self, name: str) -> "Schema":
        """Return what the site of one scenario needs to know.

        Raises:
            SchemaError: no such scenario.
        """
        self.scenario(name)
        private = {name: self.private_vocabularies[name]} if name in self.private_vocabularies else {}
        return self.model_copy(update={"private_vocabularies": private, "counts": {name: self.counts[name]}})

    def scenario(self, name: str) -> ScenarioSchema:
        """Return the schema of one scenario, its private vocabularies filled in.

        Raises:
            SchemaError: no such scenario.
        """
        if name not in self.counts:
            raise SchemaError(f"no scenario {name!r} in the data; it holds {', '.join(self.scenarios)}")
        private = self.private_vocabularies.get(name, {})
        fields = tuple(
            field if field.federated else field.model_copy(update={"vocabulary": private[field.name]})
            for field in self.categorical
        )
        return ScenarioSchema(
            scenario=name, group=self.group, tasks=self.tasks, categorical=fields, numerical=self.numerical,
            fill=self.fill,
        )  # fmt: skip


def read_schema(path: Path) -> Schema:
    """Read `schema.json`.

    Raises:
        DataError: missing or damaged.
    """
    try:
        return Schema.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro partition` first") from None
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({error.error_count()} faults); run `dvc repro -f partition`") from error


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
        """Map categories [B], int64 or str, to codes [B]; what is not in the vocabulary gets OUT_OF_VOCABULARY."""
        if self._set is not None:
            place = pc.index_in(pa.array(values, pa.string()), value_set=self._set)
            return np.asarray(pc.add(pc.fill_null(place, OUT_OF_VOCABULARY - 1), 1).to_numpy(), np.int32)
        if self._known.size == 0:
            return np.full(len(values), OUT_OF_VOCABULARY, np.int32)
        if values.dtype == object:  # text of a file without types, whose training values were all integers
            values = whole_numbers(values)
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


def _integers(column: "pd.Series | NDArray[np.generic]", name: str) -> NDArray[np.int64]:
    values = np.asarray(column)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    numbers = _numbers(column, name)
    bad = np.flatnonzero((numbers != np.floor(numbers)) | (np.abs(numbers) >= 2**53))
    if bad.size:
        raise SchemaError(f"column {name}, row {bad[0]}: {numbers[bad[0]]} is not an integer category")
    return numbers.astype(np.int64)
