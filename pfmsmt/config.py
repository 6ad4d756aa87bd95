"""`params.yaml`, parsed once into frozen models. An unknown key is an error that names the nearest valid one."""

import difflib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pfmsmt.errors import ConfigError

PARAMS_FILE = Path("params.yaml")

Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
SCENARIO_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
ScenarioName = Annotated[str, Field(pattern=SCENARIO_NAME, max_length=64)]
Deployable = Literal["pf_msmtrec", "fedavg", "fedprox", "fedbn", "fedper", "ditto", "local"]
MethodName = Literal[Deployable, "centralized"]


CalibrationChoice = Literal["platt", "temperature", "none"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScenarioSize(_Frozen):
    """Rows (item impressions) to generate for one scenario."""

    train_rows: Annotated[int, Field(ge=100)]
    test_rows: Annotated[int, Field(ge=100)]


class Synthetic(_Frozen):
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


class AliExpress(_Frozen):
    """The AliExpress search data set."""

    path: str | None
    url: str | None
    scenarios: Annotated[tuple[ScenarioName, ...], Field(min_length=1)]

    @field_validator("scenarios")
    @classmethod
    def _no_scenario_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _unique(names)


class MovieLens(_Frozen):
    """The MovieLens data set, 100K or 1M."""

    variant: Literal["100k", "1m"]
    path: str | None
    url: str


class Tenrec(_Frozen):
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
        return _unique(names)


class Label(_Frozen):
    """A task and the column of zeros and ones that holds its label."""

    task: ScenarioName
    column: str
    within: str | None = None


class Tabular(_Frozen):
    """The user's own log."""

    path: str | None
    url: str | None
    scenario: str | None
    scenarios: tuple[ScenarioName, ...] | dict[ScenarioName, str | int] | None
    labels: tuple[Label, ...]
    categorical: tuple[str, ...]
    numerical: tuple[str, ...]
    group: str | None
    time: str | None
    split: str | None
    test_fraction: OpenFraction
    outcomes: tuple[str, ...]
    fill: dict[str, int | float | str]

    @field_validator("categorical", "numerical", "outcomes")
    @classmethod
    def _nothing_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _unique(names)

    @field_validator("scenarios", mode="before")
    @classmethod
    def _names_and_values(cls, scenarios: Any) -> Any:
        if not isinstance(scenarios, (list, tuple)):
            return scenarios
        names = tuple(str(name) for name in scenarios)
        for name in _unique(names):
            if not re.fullmatch(SCENARIO_NAME, name):
                raise ValueError(f"{name!r} cannot name a scenario (letters, digits, . _ -); write {{name: {name!r}}}")
        return names

    @model_validator(mode="after")
    def _columns_have_one_meaning(self) -> Self:
        tasks = [label.task for label in self.labels]
        _unique(tuple(tasks))
        labels = _unique(tuple(label.column for label in self.labels))
        for at, label in enumerate(self.labels):
            if label.within is not None and label.within not in tasks[:at]:
                raise ValueError(f"labels: {label.task} is within {label.within!r}, which is no task before it")
        _unique((*self.categorical, *self.numerical))
        for name in (*self.categorical, *self.numerical, self.scenario, self.group, self.time, self.split):
            if name in labels:
                raise ValueError(f"{name!r} is a label, and cannot be anything else")
        if self.time is not None and self.split is not None:
            raise ValueError("time and split both say which rows are the test part; set one of them to null")
        unknown = [name for name in self.fill if name not in (*self.categorical, *self.numerical)]
        if unknown:
            raise ValueError(f"fill: {unknown[0]!r} is none of the categorical and numerical columns")
        for name in self.fill:
            if name in self.numerical and isinstance(self.fill[name], str):
                raise ValueError(f"fill: {name} is numerical, so {self.fill[name]!r} cannot stand for a missing value")
        return self


class Data(_Frozen):
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


class Model(_Frozen):
    """The shape of every client's MMoE."""

    embedding_dim: Count
    experts: Count
    expert_layers: Annotated[tuple[Count, ...], Field(min_length=1)]
    tower_layers: tuple[Count, ...]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    ctcvr: Literal["product", "direct"]


class Train(_Frozen):
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
        return _unique(names)

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise ValueError(f"{device!r} is not one of auto, cuda, cuda:N, mps, cpu")
        return device


def _keeps(block: BaseModel, rate: str, decay: str) -> None:
    """Refuse a decoupled decay that would turn the parameters' sign in a single step."""
    taken = getattr(block, rate) * getattr(block, decay)
    if taken >= 1:
        raise ValueError(f"{rate} x {decay} is {taken:g}: a step would take all of a parameter away; keep it below 1")


class ServerOptimizer(_Frozen):
    """How the server applies an averaged update (FedOpt, Reddi et al. 2021)."""

    server_optimizer: Literal["adam", "plain"]
    server_learning_rate: Positive
    server_beta1: Annotated[float, Field(ge=0, lt=1)]
    server_beta2: Annotated[float, Field(ge=0, lt=1)]
    server_weight_decay: NonNegative

    @model_validator(mode="after")
    def _server_keeps_parameters(self) -> Self:
        _keeps(self, "server_learning_rate", "server_weight_decay")
        return self


class Federated(ServerOptimizer):
    """What every federated method has; `methods.fedavg`, `fedbn` and `fedper` differ in the shared roles alone."""

    learning_rate: Positive
    private_learning_rate: Positive
    private_weight_decay: NonNegative

    @model_validator(mode="after")
    def _clients_keep_parameters(self) -> Self:
        _keeps(self, "private_learning_rate", "private_weight_decay")
        return self


class Proximal(Federated):
    """`methods.fedprox` (the regularizer is mu) and `methods.ditto` (lambda)."""

    regularizer: NonNegative


class PfMsmtrec(Proximal):
    """`methods.pf_msmtrec`."""

    private_experts: Annotated[int, Field(ge=0)]
    rank: Annotated[int, Field(ge=0)]
    federated_batch_norm: bool
    conflict: Annotated[float, Field(ge=0, lt=1)]
    coordinate: Literal["clients", "clients_and_tasks"]
    aggregation: Literal["similarity", "learned", "uniform", "identity"]
    temperature: Positive
    smoothing: Annotated[float, Field(ge=0, lt=1)]
    learned_rate: Positive
    coupling: Fraction
    gate: Literal["private", "federated"]
    tower_steps: Annotated[int, Field(ge=0)]


class PlainLearning(_Frozen):
    """`methods.local` and `methods.centralized`: nothing is federated, Adam trains everything."""

    learning_rate: Positive
    weight_decay: NonNegative

    @model_validator(mode="after")
    def _keeps_parameters(self) -> Self:
        _keeps(self, "learning_rate", "weight_decay")
        return self


class Methods(_Frozen):
    """One block for each method."""

    pf_msmtrec: PfMsmtrec
    fedavg: Federated
    fedprox: Proximal
    fedbn: Federated
    fedper: Federated
    ditto: Proximal
    local: PlainLearning
    centralized: PlainLearning


class Evaluate(_Frozen):
    """How the test shards are scored."""

    bootstrap: Annotated[int, Field(ge=0)]
    confidence: OpenFraction
    bins: Annotated[int, Field(ge=2)]
    batch_size: Count
    calibrated: bool


class Register(_Frozen):
    """Which methods may become a registered model, and what may replace a champion."""

    methods: Annotated[tuple[Deployable, ...], Field(min_length=1)]
    alias: Literal["champion", "challenger"]
    margin: NonNegative


class Serve(_Frozen):
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
        return _unique(names)


class Parameter(_Frozen):
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
            _unique(tuple(repr(choice) for choice in self.choices))
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


class Federate(_Frozen):
    """The same rounds across machines."""

    rounds: Count
    local_epochs: Positive
    deadline: Positive
    largest_update: Positive


class Tune(_Frozen):
    """The search of `pfmsmt tune`. Whether the space fits the other blocks is checked there."""

    objective: Annotated[str, Field(min_length=1)]
    trials: Count
    pruner: Literal["median", "successive_halving", "none"]
    space: dict[str, Parameter]


class Config(_Frozen):
    """All of params.yaml."""

    seed: Seed
    data: Data
    model: Model
    train: Train
    methods: Methods
    evaluate: Evaluate
    register_: Annotated[Register, Field(alias="register")]
    federate: Federate
    serve: Serve
    tune: Tune

    @model_validator(mode="after")
    def _rank_fits_the_layers(self) -> "Config":
        smallest = min(self.model.expert_layers)
        if self.methods.pf_msmtrec.rank > smallest:
            raise ValueError(
                f"methods.pf_msmtrec.rank = {self.methods.pf_msmtrec.rank} is larger than the smallest of "
                f"model.expert_layers ({smallest})"
            )
        return self


def load_config(path: Path = PARAMS_FILE) -> Config:
    """Parse and check a params file.

    Raises:
        ConfigError: missing, no valid YAML, an unknown key, or a value out of range; every fault is listed.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; run from the project's folder") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top")
    return parse_config(tree, str(path))


def parse_config(tree: dict[str, Any], name: str = "params.yaml") -> Config:
    """Check a tree of plain values; `name` is what errors call it.

    Raises:
        ConfigError: see `load_config`.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        faults = [_describe(fault) for fault in _telling([dict(fault) for fault in error.errors()])]
        raise ConfigError("\n".join(f"{name}: {fault}" for fault in faults)) from None


def _telling(faults: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what only follows from another fault: a list short of its bad entry, `auto` where a number stands."""
    return [
        fault
        for fault in faults
        if not (fault["type"] == "too_short" and any(_is_inside(other["loc"], fault["loc"]) for other in faults))
        and not (fault["loc"][-1:] == ("literal['auto']",) and isinstance(fault["input"], (int, float)))
    ]


def _is_inside(place: tuple[Any, ...], outer: tuple[Any, ...]) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def _describe(fault: dict[str, Any]) -> str:
    place = [part for part in fault["loc"] if part not in ("constrained-int", "literal['auto']", "[key]")]
    key = ".".join(str(part) for part in place) or "(whole file)"
    if fault["type"] == "extra_forbidden":
        valid = _keys_at(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys here: {', '.join(valid)}"
        return f"{key}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{key}: this key is missing"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "literal_error":
        valid = [part.strip("' ") for part in fault["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        near = difflib.get_close_matches(str(fault["input"]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{key}: {fault['input']!r} is unknown; {hint}valid: {', '.join(valid)}"
    if isinstance(fault["input"], (dict, BaseModel)):
        return f"{key}: {message}" if place else message
    return f"{key}: {message[0].lower()}{message[1:]} (it is {fault['input']!r})"


def _keys_at(place: Sequence[Any]) -> list[str]:
    model: Any = Config
    for part in place:
        fields = {field.alias or key: field.annotation for key, field in getattr(model, "model_fields", {}).items()}
        model = fields[part] if part in fields else _value_type(model)
    return [field.alias or key for key, field in getattr(model, "model_fields", {}).items()]


def _value_type(annotation: Any) -> Any:
    """Return the model that a `dict[name, model]` or `tuple[model, ...]` holds."""
    inner = [part for part in get_args(annotation) if part is not ... and not isinstance(part, UnionType)]
    return inner[-1] if inner else annotation


def _unique(names: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands here twice")
    return names
