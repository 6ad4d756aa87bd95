"""The `data` block: which data, and how they become client shards."""

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pfmsmt.config.values import (
    SCENARIO_NAME,
    ColumnName,
    Count,
    Fraction,
    Frozen,
    NonNegative,
    OpenFraction,
    ScenarioName,
    no_boolean,
    unique,
)


class ScenarioSize(Frozen):
    """Rows (item impressions) to generate for one scenario."""

    train_rows: Annotated[int, Field(ge=100)]
    test_rows: Annotated[int, Field(ge=100)]


class Synthetic(Frozen):
    """The embedded generator."""

    scenarios: Annotated[dict[ScenarioName, ScenarioSize], Field(min_length=1)]
    rows_per_search: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    ctr: OpenFraction
    cvr: OpenFraction
    shared: Fraction
    cluster: Fraction
    own: Fraction
    conflict: bool
    covariate_shift: NonNegative

    @model_validator(mode="after")
    def _parts_sum_to_one(self) -> "Synthetic":
        if not math.isclose(self.shared + self.cluster + self.own, 1.0, abs_tol=1e-6):
            raise ValueError(f"shared + cluster + own must be 1, not {self.shared + self.cluster + self.own:g}")
        return self


class AliExpress(Frozen):
    """The AliExpress search data set."""

    path: str | None
    url: str | None
    scenarios: Annotated[tuple[ScenarioName, ...], Field(min_length=1)]

    @field_validator("scenarios")
    @classmethod
    def _no_scenario_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return unique(names)


class MovieLens(Frozen):
    """The MovieLens data set, 100K or 1M."""

    variant: Literal["100k", "1m"]
    path: str | None
    url: str


class Tenrec(Frozen):
    """The Tenrec data set: one CSV a scenario."""

    path: str | None
    url: str | None
    scenarios: Annotated[tuple[ScenarioName, ...], Field(min_length=1)]
    categorical: tuple[str, ...]
    numerical: tuple[str, ...]
    rename: dict[str, dict[str, str]]
    test_fraction: OpenFraction

    @field_validator("scenarios", "categorical", "numerical")
    @classmethod
    def _nothing_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return unique(names)


class Label(Frozen):
    """A task and the column of zeros and ones that holds its label."""

    task: ScenarioName
    column: ColumnName
    within: str | None = None


class Tabular(Frozen):
    """The user's own log."""

    path: str | None
    url: str | None
    scenario: ColumnName | None
    scenarios: tuple[ScenarioName, ...] | dict[ScenarioName, str | int] | None
    labels: tuple[Label, ...]
    categorical: tuple[ColumnName, ...]
    numerical: tuple[ColumnName, ...]
    group: ColumnName | None
    time: ColumnName | None
    split: ColumnName | None
    test_fraction: OpenFraction
    outcomes: tuple[ColumnName, ...]
    fill: dict[str, int | float | str]

    @field_validator("categorical", "numerical", "outcomes")
    @classmethod
    def _nothing_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return unique(names)

    @field_validator("scenarios", mode="before")
    @classmethod
    def _names_and_values(cls, scenarios: Any) -> Any:
        if isinstance(scenarios, dict):
            for part in (*scenarios, *scenarios.values()):
                no_boolean(part)
        if not isinstance(scenarios, (list, tuple)):
            return scenarios
        for name in scenarios:
            no_boolean(name)
        names = tuple(str(name) for name in scenarios)
        for name in unique(names):
            if not re.fullmatch(SCENARIO_NAME, name):
                raise ValueError(f"{name!r} cannot name a scenario (letters, digits, . _ -); write {{name: {name!r}}}")
        return names

    @field_validator("fill", mode="before")
    @classmethod
    def _fills_are_no_booleans(cls, fill: Any) -> Any:
        for value in fill.values() if isinstance(fill, dict) else ():
            no_boolean(value)
        return fill

    @model_validator(mode="after")
    def _columns_have_one_meaning(self) -> Self:
        tasks = [label.task for label in self.labels]
        unique(tuple(tasks))
        labels = unique(tuple(label.column for label in self.labels))
        for at, label in enumerate(self.labels):
            if label.within is not None and label.within not in tasks[:at]:
                raise ValueError(f"labels: {label.task} is within {label.within!r}, which is no task before it")
        unique((*self.categorical, *self.numerical))
        for name in (*self.categorical, *self.numerical, self.scenario, self.group, self.time, self.split):
            if name in labels:
                raise ValueError(f"{name!r} is a label, and cannot be anything else")
        for name in (*self.categorical, *self.numerical):
            if name in tasks:
                raise ValueError(
                    f"the feature {name!r} has the name of a task, and shards hold both; give the task another name"
                )
        for name in (*self.categorical, *self.numerical, *labels):
            if name.startswith("__"):
                raise ValueError(f"{name!r}: names that begin with __ are kept for what is computed; rename the column")
        if self.time is not None and self.split is not None:
            raise ValueError("time and split both say which rows are the test part; set one of them to null")
        roles = {"categorical": self.categorical, "the scenario": (self.scenario,), "the group": (self.group,)}
        for role, names in roles.items():
            if self.time is not None and self.time in names:
                raise ValueError(
                    f"time: {self.time!r} is {role}, too, and is read as times alone; add a column of its own for that"
                )
        unknown = [name for name in self.fill if name not in (*self.categorical, *self.numerical)]
        if unknown:
            raise ValueError(f"fill: {unknown[0]!r} is none of the categorical and numerical columns")
        for name in self.fill:
            if name in self.numerical and isinstance(self.fill[name], str):
                raise ValueError(f"fill: {name} is numerical, so {self.fill[name]!r} cannot stand for a missing value")
            largest = 2**53 if name in self.numerical else 2**63 - 1
            if isinstance(self.fill[name], int) and abs(int(self.fill[name])) > largest:
                raise ValueError(f"fill: {name}: {self.fill[name]} is beyond {largest:,}")
        return self


class Data(Frozen):
    """Which data, and how they become client shards."""

    source: Literal["synthetic", "aliexpress", "movielens", "tenrec", "tabular"]
    validation_fraction: OpenFraction
    min_count: Count
    private_fields: tuple[str, ...]
    on_bad_rows: Literal["fail", "quarantine"]
    outcomes_as_features: tuple[str, ...]
    local_files: Literal["copy", "link"]
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]]
    synthetic: Synthetic
    aliexpress: AliExpress
    movielens: MovieLens
    tenrec: Tenrec
    tabular: Tabular
