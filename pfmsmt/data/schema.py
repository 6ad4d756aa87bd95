"""The declared columns of a data set, and their learned properties."""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator

from pfmsmt.core.errors import DataError, SchemaError

SPLITS = ("train", "val", "test")
"""The shards of each client."""
UNLABELLED = 255
"""Stands in shards for a label that is not known."""
_ENCODED = "encoded:"
OUT_OF_VOCABULARY = 0
"""Code of every category that the training rows did not hold."""

Vocabulary = Annotated[tuple[StrictInt, ...] | tuple[StrictStr, ...], Field(union_mode="left_to_right")]
"""Sorted, no entry twice; the code of entry i is i + 1."""

Fill = dict[str, int | float | str]
"""Feature column -> what stands for a missing value, in training and for ever after."""


def encoded_column(name: str) -> str:
    """Return the name that a feature column has in shards.

    Codes and standardised numbers must never pass for raw values.
    """
    return _ENCODED + name


def refuse_encoded(
    names: Iterable[str], place: str, raw: str, error: type[DataError | SchemaError] = SchemaError
) -> None:
    """Refuse encoded rows where raw ones are due.

    Args:
        names: of the columns.
        place: what holds them, such as a file's name.
        raw: where raw rows are, or how they look.
        error: what is raised.

    Raises:
        DataError, SchemaError: one of the columns is a shard's.
    """
    found = sorted(name for name in names if name.startswith(_ENCODED))
    if found:
        raise error(f"{place} holds encoded rows (column {found[0]}), as the stage partition writes them; {raw}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(_Frozen):
    """One label to predict."""

    name: str
    label: str
    """The raw column that holds it."""
    within: str | None = None
    """The task that this one is nested in: ctcvr counts clicks that converted, over all impressions."""
    partial: bool = False
    """Whether some rows may have no label; they take no part in this task."""


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
    """The size of one shard."""

    rows: int
    groups: int
    """Searches."""
    positives: dict[str, int]
    """Task name -> rows with label 1."""
    labelled: dict[str, int] = {}
    """Task name -> rows with a label, where it is not all rows."""

    def labels(self, task: str) -> int:
        """Return the number of rows with a label of a task."""
        return self.labelled.get(task, self.rows)


class ScenarioSchema(_Frozen):
    """All that is needed to encode one scenario's raw columns."""

    scenario: str
    group: str
    tasks: tuple[Task, ...]
    categorical: tuple[CategoricalField, ...]
    numerical: tuple[NumericalField, ...]
    fill: Fill = {}
    """Column -> its fill, of the type of its values: integers or text for categories, finite numbers."""

    @model_validator(mode="after")
    def _fill_fits(self) -> Self:
        kinds: dict[str, tuple[type, ...]] = {f.name: (str,) if f.text else (int,) for f in self.categorical}
        kinds |= {field.name: (int, float) for field in self.numerical}
        for name, value in self.fill.items():
            if not isinstance(value, kinds.get(name, ())) or (isinstance(value, float) and not math.isfinite(value)):
                raise ValueError(f"fill: {value!r} is no value of column {name}")
        return self

    @property
    def fields(self) -> tuple[CategoricalField | NumericalField, ...]:
        """The features, categorical first."""
        return (*self.categorical, *self.numerical)

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw feature columns, categorical first."""
        return tuple(field.name for field in self.fields)


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
        """SHA-256 over the facts that all clients must have in common.

        These are tasks, columns, federated vocabularies and scales.
        """
        common = self.model_dump_json(include={"source", "group", "tasks", "categorical", "numerical"})
        return hashlib.sha256(common.encode()).hexdigest()

    def public(self) -> "Schema":
        """Return the part that a server may know.

        Private vocabularies and fills are left out.
        """
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
