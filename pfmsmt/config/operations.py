"""What comes after and around training: the `evaluate`, `register`, `serve`, `federate` and `tune` blocks."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pfmsmt.config.values import Count, Deployable, Fraction, Frozen, NonNegative, OpenFraction, Positive, unique


class Evaluate(Frozen):
    """How the test shards are scored."""

    bootstrap: Annotated[int, Field(ge=0)]
    confidence: OpenFraction
    bins: Annotated[int, Field(ge=2)]
    batch_size: Count
    calibrated: bool


class Register(Frozen):
    """Which methods may become a registered model, and what may replace a champion."""

    methods: Annotated[tuple[Deployable, ...], Field(min_length=1)]
    alias: Literal["champion", "challenger"]
    margin: NonNegative


class Serve(Frozen):
    """The HTTP server of all scenarios, `pfmsmt serve`."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    poll_seconds: Positive
    calibrated: bool
    optional_columns: tuple[str, ...]
    challenger: Literal["none", "shadow", "split"]
    challenger_share: Fraction
    batch_rows: Count
    threads: Count
    max_rows: Count
    max_body_mib: Positive
    concurrency: Count
    timeout_seconds: Positive

    @field_validator("optional_columns")
    @classmethod
    def _no_column_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return unique(names)


class Parameter(Frozen):
    """What a search may give one key: float and int lie between low and high, both included."""

    type: Literal["float", "int", "categorical"]
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> "Parameter":
        if self.type == "categorical":
            if self.choices is None or self.low is not None or self.high is not None or self.log:
                raise ValueError("type categorical needs choices, and has no low, high or log")
            if len(self.choices) < 2:
                raise ValueError("there must be two or more choices")
            unique(tuple(repr(choice) for choice in self.choices))
            return self
        low, high = self.low, self.high
        if low is None or high is None or self.choices is not None:
            raise ValueError(f"type {self.type} needs low and high, and has no choices")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"low must be less than high, and both finite (low is {low!r}, high is {high!r})")
        if self.type == "int" and not (isinstance(low, int) and isinstance(high, int)):
            raise ValueError(f"type int needs whole numbers (low is {low!r}, high is {high!r})")
        if self.log and low <= 0:
            raise ValueError(f"with log, low must be greater than 0 (it is {low!r})")
        return self


class Federate(Frozen):
    """The same rounds across machines."""

    rounds: Count
    local_epochs: Positive
    deadline: Positive
    largest_update: Positive
    methods: Annotated[tuple[Deployable, ...], Field(min_length=1)] | None


class Tune(Frozen):
    """The search of `pfmsmt tune`. Whether the space fits the other blocks is checked there."""

    objective: Annotated[str, Field(min_length=1)]
    trials: Count
    pruner: Literal["median", "successive_halving", "none"]
    space: dict[str, Parameter]
