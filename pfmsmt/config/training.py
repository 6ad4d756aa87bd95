"""The blocks `model`, `train`, `run` and `privacy`: what a training is."""

import math
import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pfmsmt.config.declared import MethodName
from pfmsmt.config.kinds import (
    CalibrationChoice,
    Count,
    Fraction,
    Frozen,
    NonNegative,
    OpenFraction,
    Positive,
    Seed,
    unique,
)

_DECAY_FLOOR = 0.1
"""The cosine decay ends at this share of the learning rates."""


class Model(Frozen):
    """The shape of every client's MMoE."""

    embedding_dim: Count = Field(default=8, description="Numbers that a category of one field is embedded in.")
    experts: Count = Field(default=4, description="Experts that all tasks share.")
    expert_layers: tuple[Count, ...] = Field(default=(64, 32), min_length=1, description="Units of each expert layer.")
    tower_layers: tuple[Count, ...] = Field(
        default=(32,), description="Units of each hidden layer of a task's tower; [] is one linear layer."
    )
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Share of units left out after each hidden layer.")
    first_order: bool = Field(
        default=True,
        description=(
            "Whether a linear model of each task stands beside the experts; it has a loss of its own, and a weighted "
            "mean of both logits is served."
        ),
    )
    first_order_share: Fraction = Field(default=0.7, description="Weight of the linear model's logit in that mean.")
    ctcvr: Literal["product", "direct"] = Field(
        default="product", description="product: pCTCVR = pCTR * pCVR (ESMM); direct: a tower of its own."
    )


class Train(Frozen):
    """The budget, the same for every method."""

    methods: tuple[MethodName, ...] = Field(
        default=("pf_msmtrec", "fedavg", "local", "linear", "centralized"),
        min_length=1,
        description="One run is made for each of these methods and each seed.",
    )
    seeds: tuple[Seed, ...] = Field(
        default=(0,), min_length=1, description="Seeds of the runs: initial values, order of batches, dropout."
    )
    rounds: Count = Field(default=60, description="Communication rounds of a training.")
    local_steps: Count = Field(default=8, description="Optimiser steps of each client in a round.")
    batch_size: int = Field(
        default=512,
        ge=2,
        description="Rows of a batch, on average over clients; a client takes them in proportion to its data.",
    )
    learning_rate_decay: Literal["cosine", "none"] = Field(
        default="cosine", description="How clients' learning rates fall; cosine: down to a tenth over the rounds."
    )
    averaging: float = Field(
        default=0.8, ge=0, lt=1, description="Share of the past in the averaged parameters that are scored and served."
    )
    task_weights: tuple[NonNegative, ...] = Field(
        default=(1.0, 1.0), min_length=1, description="Weight of each task's loss, in the order of the tasks."
    )
    nested_ridge: Positive = Field(
        default=8.0, description="Ridge of a nested task's first-order weights, in multiples of its method's ridge."
    )
    quorum: float = Field(
        default=0.5, gt=0, le=1, description="Share of the clients that must answer for a round to count."
    )
    shuffle: Literal["auto", "rows", "row_groups"] = Field(
        default="auto",
        description=(
            "rows: all rows of a client are mixed in each epoch; row_groups: windows of row groups are, one after the "
            "other; auto: rows where they fit into run.memory, else row_groups."
        ),
    )
    shuffle_rows: Count = Field(
        default=262_144, description="Rows of a window of row_groups, which is cut at whole row groups."
    )
    large_table_rows: Count = Field(
        default=1_000_000,
        description=(
            "A client's private table of so many rows, all private fields together, is trained in place with sparse "
            "gradients (lazy Adam) and is not averaged."
        ),
    )
    calibration: CalibrationChoice = Field(
        default="platt", description="Calibration of probabilities, fitted on validation rows and kept with each model."
    )
    refit: bool = Field(
        default=False,
        description=(
            "true: once the best rounds are known, train again on training and validation rows, and serve that model."
        ),
    )

    def rate_share(self, round: int) -> float:
        """Return the share of learning rates that is taken in a round.

        Rounds count from 1.
        """
        if self.learning_rate_decay == "none":
            return 1.0
        progress = (round - 1) / self.rounds
        return _DECAY_FLOOR + (1 - _DECAY_FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))

    @field_validator("task_weights")
    @classmethod
    def _some_task_counts(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if not any(weights):
            raise ValueError("at least one task needs a weight above 0")
        return weights

    @field_validator("methods", "seeds")
    @classmethod
    def _no_entry_twice(cls, names: tuple[Any, ...]) -> tuple[Any, ...]:
        return unique(names)


class Run(Frozen):
    """The machine's part in a training: device, threads, memory."""

    device: str = Field(
        default="auto", description="auto (cuda where there is one, else mps, else cpu), cuda, cuda:N, mps or cpu."
    )
    workers: Literal["auto"] | Count = Field(
        default="auto", description="Threads that clients are spread over; auto: one per core on the cpu, else one."
    )
    threads: Literal["auto"] | Count = Field(
        default="auto", description="Threads of torch in each worker; auto: cores divided by workers."
    )
    memory: Positive = Field(
        default=4.0, description="GiB for rows of all clients together; what does not fit is streamed from disk."
    )
    checkpoint_every: Count = Field(
        default=20, description="Rounds between checkpoints; a killed training resumes from the last one."
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise ValueError(f"{device!r} is not one of auto, cuda, cuda:N, mps, cpu")
        return device


class Privacy(Frozen):
    """The form of uploads when they leave a client."""

    wire: Literal["float32", "float16"] = Field(
        default="float32",
        description="float16: half the bytes, each number within 2^-11 of its size; BatchNorm travels in full.",
    )
    clip: Positive | None = Field(
        default=None, description="Length that the change in an upload may have at most; null: as it is."
    )
    noise: NonNegative = Field(
        default=0.0,
        description=(
            "Normal noise on every upload, in multiples of clip: client-level differential privacy, whose epsilon is "
            "logged each round."
        ),
    )
    delta: OpenFraction = Field(default=0.00001, description="Probability that epsilon does not cover.")

    @model_validator(mode="after")
    def _noise_is_measured_in_clips(self) -> Self:
        if self.noise and self.clip is None:
            raise ValueError("noise is in multiples of clip, which is null; set clip, or noise to 0")
        return self
