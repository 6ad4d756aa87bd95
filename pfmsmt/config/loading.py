"""`params.yaml`, parsed once into frozen models. An unknown key is an error that names the nearest valid one."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pfmsmt.config.data import Data
from pfmsmt.config.methods import Methods
from pfmsmt.config.operations import Evaluate, Federate, Register, Serve, Tune
from pfmsmt.config.training import Model, Train
from pfmsmt.config.values import Frozen, Seed
from pfmsmt.core.errors import ConfigError

PARAMS_FILE = Path("params.yaml")


class Config(Frozen):
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
