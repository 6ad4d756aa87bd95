"""Kinds of values that the blocks of params.yaml share."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


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
Deployable = Literal[
    "pf_msmtrec", "fedavg", "fedprox", "fedbn", "fedper", "ditto",
    "fedrep", "fedavg_finetune", "apfl", "fedamp", "fedhca2",
    "pf_msmtrec_paper", "local", "linear",
]  # fmt: skip
MethodName = Literal[Deployable, "joint", "centralized"]
METHOD_NAMES: tuple[str, ...] = get_args(MethodName)
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
