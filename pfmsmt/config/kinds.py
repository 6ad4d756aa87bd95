"""Kinds of values that the blocks of params.yaml share."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def no_boolean(value: Any) -> Any:
    """Return the value as it is.

    Raises:
        ValueError: true or false, which may have been written as NO or ON.
    """
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no name; YAML reads NO, OFF, YES and ON so: quote them, as 'NO'")
    return value


Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
SCENARIO_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
ScenarioName = Annotated[str, BeforeValidator(no_boolean), Field(pattern=SCENARIO_NAME, max_length=64)]
ColumnName = Annotated[str, BeforeValidator(no_boolean)]
CalibrationChoice = Literal["platt", "temperature", "none"]


class Frozen(BaseModel):
    """A block of params.yaml: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def unique(names: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the names as they are.

    Raises:
        ValueError: one of them stands there twice.
    """
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands here twice")
    return names


class Parameter(Frozen):
    """Values that a search may give one key.

    A float or int lies between low and high, both included.
    """

    type: Literal["float", "int", "categorical"] = Field(description="What the values are.")
    low: float | int | None = Field(default=None, description="Smallest value of a float or int.")
    high: float | int | None = Field(default=None, description="Largest value of a float or int.")
    log: bool = Field(default=False, description="Whether values are drawn by their logarithm.")
    choices: tuple[Any, ...] | None = Field(default=None, description="Values of a categorical, two or more.")

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
