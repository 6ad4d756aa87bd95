"""The `model` and `train` blocks: the shape of every client's model, and the budget."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pfmsmt.config.values import (
    CalibrationChoice,
    Count,
    Frozen,
    MethodName,
    NonNegative,
    OpenFraction,
    Positive,
    Seed,
    unique,
)


class Model(Frozen):
    """The shape of every client's MMoE."""

    embedding_dim: Count
    experts: Count
    expert_layers: Annotated[tuple[Count, ...], Field(min_length=1)]
    tower_layers: tuple[Count, ...]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    ctcvr: Literal["product", "direct"]


class Train(Frozen):
    """The budget, the same for every method."""

    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    rounds: Count
    local_steps: Count
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate_decay: Literal["cosine", "none"]
    averaging: Annotated[float, Field(ge=0, lt=1)]
    task_weights: Annotated[tuple[NonNegative, ...], Field(min_length=1)]
    quorum: Annotated[float, Field(gt=0, le=1)]
    shuffle: Literal["auto", "rows", "row_groups"]
    shuffle_rows: Count
    memory: Positive
    large_table_rows: Count
    calibration: CalibrationChoice
    wire: Literal["float32", "float16"]
    clip: Positive | None
    noise: NonNegative
    delta: OpenFraction
    checkpoint_every: Count
    device: str
    workers: Literal["auto"] | Count
    threads: Literal["auto"] | Count

    @field_validator("task_weights")
    @classmethod
    def _some_task_counts(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if not any(weights):
            raise ValueError("at least one task needs a weight above 0")
        return weights

    @model_validator(mode="after")
    def _noise_is_measured_in_clips(self) -> Self:
        if self.noise and self.clip is None:
            raise ValueError("noise is in multiples of clip, which is null; set clip, or noise to 0")
        return self

    @field_validator("methods", "seeds")
    @classmethod
    def _no_entry_twice(cls, names: tuple[Any, ...]) -> tuple[Any, ...]:
        return unique(names)

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise ValueError(f"{device!r} is not one of auto, cuda, cuda:N, mps, cpu")
        return device
