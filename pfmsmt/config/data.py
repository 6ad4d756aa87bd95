"""The `data` block: which data, and how they become client shards."""

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pfmsmt.config.kinds import (
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

    train_rows: int = Field(ge=100, description="Training rows (item impressions), validation rows among them.")
    test_rows: int = Field(ge=100, description="Test rows (item impressions).")


class Synthetic(Frozen):
    """The embedded generator."""

    scenarios: dict[ScenarioName, ScenarioSize] = Field(
        default={
            "NL": ScenarioSize(train_rows=75_000, test_rows=60_000),
            "ES": ScenarioSize(train_rows=37_500, test_rows=60_000),
            "FR": ScenarioSize(train_rows=18_750, test_rows=60_000),
            "US": ScenarioSize(train_rows=10_000, test_rows=60_000),
        },
        min_length=1,
        description="Scenario to the rows to generate for it.",
    )
    rows_per_search: float = Field(
        default=8.0, ge=1, allow_inf_nan=False, description="Impressions of one search, on average."
    )
    ctr: OpenFraction = Field(default=0.08, description="Clicks per impression.")
    cvr: OpenFraction = Field(default=0.12, description="Conversions per click.")
    shared: Fraction = Field(
        default=0.6, description="Share of the planted signal that all scenarios have; shared + cluster + own is 1."
    )
    cluster: Fraction = Field(
        default=0.25, description="Share that a cluster of scenarios has in common: those at even places, or at odd."
    )
    own: Fraction = Field(default=0.15, description="Share that one scenario has alone.")
    conflict: bool = Field(default=True, description="Whether the last scenario's cluster part is reversed.")
    covariate_shift: NonNegative = Field(
        default=0.3, description="Spread of the scenarios' feature means, in standard deviations."
    )

    @model_validator(mode="after")
    def _parts_sum_to_one(self) -> "Synthetic":
        if not math.isclose(self.shared + self.cluster + self.own, 1.0, abs_tol=1e-6):
            raise ValueError(f"shared + cluster + own must be 1, not {self.shared + self.cluster + self.own:g}")
        return self


class AliExpress(Frozen):
    """The AliExpress search data set."""

    path: str | None = Field(
        default=None, description="Folder outside data/raw with aliexpress_NL_datasets.zip and so on, or its CSV files."
    )
    url: str | None = Field(default=None, description="Base URL under which these files lie, in place of path.")
    scenarios: tuple[ScenarioName, ...] = Field(
        default=("NL", "ES", "FR", "US"), min_length=1, description="Countries to use."
    )

    @field_validator("scenarios")
    @classmethod
    def _no_scenario_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return unique(names)


class MovieLens(Frozen):
    """The MovieLens data set, 100K or 1M."""

    variant: Literal["100k", "1m"] = Field(default="100k", description="MovieLens 100K or 1M.")
    path: str | None = Field(
        default=None, description="The zip, or a folder outside data/raw with it or with its files; null: from url."
    )
    url: str = Field(
        default="https://files.grouplens.org/datasets/movielens",
        description="Base URL under which ml-100k.zip and ml-1m.zip lie.",
    )


class Tenrec(Frozen):
    """The Tenrec data set: one CSV a scenario."""

    path: str | None = Field(default=None, description="Folder outside data/raw with QK-video.csv and so on.")
    url: str | None = Field(default=None, description="Base URL under which these files lie, in place of path.")
    scenarios: tuple[ScenarioName, ...] = Field(
        default=("QK-video", "QB-video"),
        min_length=1,
        description="Names of files without .csv; there are QK-article and QB-article as well.",
    )
    categorical: tuple[str, ...] = Field(
        default=("user_id", "item_id", "video_category", "gender", "age"),
        description="Columns of integers to use; every file must have them.",
    )
    numerical: tuple[str, ...] = Field(default=(), description="Columns of numbers to use; every file must have them.")
    rename: dict[str, dict[str, str]] = Field(
        default={}, description="Scenario to {column here: what that file's header calls it}."
    )
    test_fraction: OpenFraction = Field(
        default=0.2, description="Share of each user's rows, the last ones, that are the test part; rounded down."
    )

    @field_validator("scenarios", "categorical", "numerical")
    @classmethod
    def _nothing_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return unique(names)


class TaskLabel(Frozen):
    """A task and the column that holds its label."""

    task: ScenarioName = Field(description="Name of the task, such as ctr.")
    column: ColumnName = Field(description="Column of zeros and ones.")
    within: str | None = Field(default=None, description="Task before it, without whose label this one cannot be 1.")
    missing: Literal["fail", "ignore"] = Field(
        default="fail",
        description="fail: an empty label is a faulty row; ignore: the row is left out of this task alone.",
    )


class Tabular(Frozen):
    """The user's own log."""

    path: str | None = Field(
        default=None, description="A file (CSV with a header, or Parquet), a folder or a glob, outside data/raw."
    )
    url: str | None = Field(default=None, description="Address of one file, in place of path.")
    scenario: ColumnName | None = Field(
        default=None, description="Column whose values are the scenarios; null: one scenario, named all."
    )
    scenarios: tuple[ScenarioName, ...] | dict[ScenarioName, str | int] | None = Field(
        default=None, description="Scenarios to keep, in order: [NL, ES], or {name: value}; null: all that there are."
    )
    labels: tuple[TaskLabel, ...] = Field(
        default=(),
        description="Tasks in order, such as {task: ctr, column: clicked}, {task: ctcvr, column: buys, within: ctr}.",
    )
    categorical: tuple[ColumnName, ...] = Field(default=(), description="Columns of text or integers.")
    numerical: tuple[ColumnName, ...] = Field(default=(), description="Columns of numbers.")
    group: ColumnName | None = Field(
        default=None,
        description="Column of the search, session or user, for GAUC and the split; null: every row is alone.",
    )
    time: ColumnName | None = Field(
        default=None, description="Column of numbers or times: the last rows in time are validation and test."
    )
    split: ColumnName | None = Field(default=None, description="Column of train, val and test, in place of time.")
    test_fraction: OpenFraction = Field(
        default=0.2, description="Share of each scenario's rows (by time) or groups (drawn) that are the test part."
    )
    outcomes: tuple[ColumnName, ...] = Field(
        default=(), description="Columns known only after what is predicted; they are refused as features."
    )
    fill: dict[str, int | float | str] = Field(
        default={}, description="Column to what stands for a missing value; without, that is a faulty row."
    )

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
    """The source of the data, and their way into client shards."""

    source: Literal["synthetic", "aliexpress", "movielens", "tenrec", "tabular"] = Field(
        default="synthetic", description="Which data: generated ones, a public data set, or your own log (tabular)."
    )
    validation_fraction: OpenFraction = Field(
        default=0.2,
        description=(
            "Share of the training part kept for validation. Whole searches, drawn by a hash of seed and id; of "
            "movielens, the last of each user's training ratings in time."
        ),
    )
    min_count: Count = Field(
        default=1, description="Training rows; a category that is seen in fewer of them is out of vocabulary."
    )
    private_fields: tuple[str, ...] = Field(
        default=(), description="Categorical columns whose values never leave their client, such as user ids."
    )
    on_bad_rows: Literal["fail", "quarantine"] = Field(
        default="fail",
        description="fail: the first faulty row is an error; quarantine: such rows are left out, listed and counted.",
    )
    outcomes_as_features: tuple[str, ...] = Field(
        default=(),
        description="Features in spite of being known only after what is predicted: a leak, if not meant.",
    )
    local_files: Literal["copy", "link"] = Field(
        default="copy",
        description=(
            "How files at a path come to data/raw: copied, or as hard links, which take no space and need originals "
            "that stay unchanged."
        ),
    )
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]] = Field(
        default={},
        description="File name to the checksum that a download must have; without, the first download's is remembered.",
    )
    synthetic: Synthetic = Field(
        default=Synthetic(), description="Generated data in the shape of AliExpress, with planted probabilities."
    )
    aliexpress: AliExpress = Field(
        default=AliExpress(), description="https://tianchi.aliyun.com/dataset/74690 (needs a login)."
    )
    movielens: MovieLens = Field(
        default=MovieLens(),
        description="https://grouplens.org/datasets/movielens: age groups; rating >= 4, rating 5.",
    )
    tenrec: Tenrec = Field(default=Tenrec(), description="https://tenrec0.github.io (needs a signed licence).")
    tabular: Tabular = Field(default=Tabular(), description="Your own log; docs/how-to/own-data.md has an example.")
