"""`params.yaml` and `tune.yaml`, parsed once into frozen models.

An unknown key is an error that names the nearest valid one, or says where it has moved.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pfmsmt.config.data import Data
from pfmsmt.config.declared import BROKEN
from pfmsmt.config.keys import GONE, MOVED, UPGRADE
from pfmsmt.config.kinds import Frozen, Seed
from pfmsmt.config.methods import Methods
from pfmsmt.config.operations import Evaluate, Federate, Register, Serve, Tune
from pfmsmt.config.training import Model, Privacy, Run, Train
from pfmsmt.core.errors import ConfigError

PARAMS_FILE = Path("params.yaml")
TUNE_FILE = Path("tune.yaml")
"""Beside params.yaml; what it does not say, or all where it is missing, has its default."""


class Config(Frozen):
    """All settings of a project; missing keys have their defaults."""

    seed: Seed = Field(default=0, description="Seed of generated data, of the validation split and of the bootstrap.")
    data: Data = Field(default=Data(), description="Which data, and how they become client shards.")
    model: Model = Field(default=Model(), description="The MMoE of every client.")
    train: Train = Field(default=Train(), description="What decides the numbers of a training, for every method.")
    run: Run = Field(default=Run(), description="Where and how fast a training runs.")
    privacy: Privacy = Field(default=Privacy(), description="What uploads are before they leave a client.")
    methods: Methods = Field(default=Methods(), description="What federated methods share, and each one's own values.")
    evaluate: Evaluate = Field(default=Evaluate(), description="How test rows are scored.")
    register_: Annotated[Register, Field(alias="register")] = Field(
        default=Register(), description="Which models reach the registry."
    )
    serve: Serve = Field(default=Serve(), description="`pfmsmt serve`: all champions in one process.")
    federate: Federate = Field(default=Federate(), description="`pfmsmt federate`: the same rounds across machines.")
    tune: Tune = Field(
        default=Tune(), description="The search of `pfmsmt tune`, which stands in tune.yaml without this word."
    )

    @model_validator(mode="after")
    def _rank_fits_the_layers(self) -> "Config":
        smallest = min(self.model.expert_layers)
        for key in ("rank", "scenario_rank"):
            rank = getattr(self.methods.pf_msmtrec, key)
            if rank > smallest:
                raise ValueError(
                    f"methods.pf_msmtrec.{key} = {rank} is larger than the smallest of model.expert_layers ({smallest})"
                )
        return self

    @model_validator(mode="after")
    def _methods_can_be_used(self) -> "Config":
        # A name that is valid and broken is claimed by another package as well.
        for name in self.train.methods:
            if name in BROKEN:
                raise ValueError(f"train.methods: {name!r} cannot be used: {BROKEN[name]}")
        return self

    @model_validator(mode="after")
    def _noise_covers_one_training(self) -> "Config":
        if self.train.refit and self.privacy.noise:
            raise ValueError(
                "train.refit trains twice, and with privacy.noise above 0 the second training would reveal as much "
                "again; set train.refit to false, or privacy.noise to 0"
            )
        return self


def load_config(path: Path = PARAMS_FILE) -> Config:
    """Parse and check a params file, and a tune.yaml beside it.

    Raises:
        ConfigError: missing, no valid YAML, an unknown key, or a value out of range; every fault is listed.
    """
    tree = read_mapping(path)
    misplaced = [f"{path}: tune: this block is now {TUNE_FILE}; {UPGRADE}"] if "tune" in tree else []
    search = path.with_name(TUNE_FILE.name)
    # An empty file is as good as none.
    tree = {**tree, "tune": read_mapping(search) if search.exists() and search.read_bytes().strip() else {}}
    return _parse(tree, str(path), misplaced)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the keys and plain values of a YAML file.

    Raises:
        ConfigError: missing, no valid YAML, or no mapping.
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
    return tree


def parse_config(tree: Mapping[str, Any], name: str = "params.yaml") -> Config:
    """Check a tree of plain values, with the search under `tune`.

    Args:
        tree: as params.yaml has it.
        name: what errors call params.yaml.

    Raises:
        ConfigError: see `load_config`.
    """
    return _parse(tree, name, [])


def _parse(tree: Mapping[str, Any], name: str, faults: list[str]) -> Config:
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        found = _causes([dict(fault) for fault in error.errors()])
        search = str(Path(name).with_name(TUNE_FILE.name))
        faults = [*faults, *(f"{search if f['loc'][:1] == ('tune',) else name}: {_describe(f)}" for f in found)]
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def _causes(faults: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what only follows from another fault.

    That is a list that is short of its bad entry, and the word `auto` where a number stands.
    """
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
    shown = place[1:] if place[:1] == ["tune"] else place
    key = ".".join(str(part) for part in shown) or "(whole file)"
    if fault["type"] == "extra_forbidden":
        if key in MOVED:
            return f"{key}: this key is now {MOVED[key]}; {UPGRADE}"
        if key in GONE:
            return f"{key}: this key is gone: {GONE[key]}; {UPGRADE}"
        if place[:-1] == ["methods"] and place[-1] in BROKEN:
            return f"{key}: this method cannot be used: {BROKEN[place[-1]]}"
        valid = _keys_at(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys here: {', '.join(valid)}"
        return f"{key}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{key}: this key is missing"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "literal_error":
        if str(fault["input"]) in BROKEN:
            return f"{key}: {fault['input']!r} cannot be used: {BROKEN[fault['input']]}"
        valid = [part.strip("' ") for part in fault["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        near = difflib.get_close_matches(str(fault["input"]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{key}: {fault['input']!r} is unknown; {hint}valid: {', '.join(valid)}"
    if isinstance(fault["input"], (dict, BaseModel)):
        return f"{key}: {message}" if shown else message
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
