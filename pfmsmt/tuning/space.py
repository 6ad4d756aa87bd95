"""The search space and the objective, checked before the first trial.

The space is that of tune.yaml, which the config models must accept. The objective is a mean of validation
AUCs, computed anew every round.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pfmsmt.config import METHOD_NAMES, TUNE_FILE, Config, Model, Parameter, Privacy, Run, Train, parse_config
from pfmsmt.config.keys import MOVED, set_values, value_at
from pfmsmt.config.reference import as_yaml
from pfmsmt.core.errors import ConfigError
from pfmsmt.data.schema import Schema
from pfmsmt.methods.catalogue import declaration_of
from pfmsmt.training.scores import Validation

FIXED = ("run.memory", "train.shuffle", "train.shuffle_rows", "train.calibration", "train.refit")
"""Keys that are the same in all trials: these share the shards as they were read, and no validation AUC sees what is
done after the first training."""
FREE = ("train.methods", "train.seeds", *(f"run.{key}" for key in Run.model_fields if key != "memory"))
"""Keys that decide where, how fast and what else is trained, not what one training computes."""

Space = Mapping[str, Parameter]
"""dotted key of params.yaml -> the values it may take"""


def keys_of(method: str) -> list[str]:
    """Return the dotted keys that can be tuned for a method."""
    return [
        *(f"model.{key}" for key in Model.model_fields),
        *(key for key in map("train.{}".format, Train.model_fields) if key not in (*FREE, *FIXED)),
        *(f"privacy.{key}" for key in Privacy.model_fields),
        *(f"methods.{method}.{key}" for key in declaration_of(method).block.model_fields),
    ]


def is_shared(key: str) -> bool:
    """Tell whether a key belongs to all methods."""
    return not key.startswith("methods.")


def space_of(config: Config, method: str) -> Space:
    """Return one method's part of the space, in the order of tune.yaml.

    Raises:
        ConfigError: it has none.
    """
    found = {k: p for k, p in config.tune.space.items() if is_shared(k) or k.startswith(f"methods.{method}.")}
    if not found:
        raise ConfigError(
            f"{TUNE_FILE}: space has no key of model, train, privacy or methods.{method}, so there is nothing to tune; "
            f"{_advice(method)}"
        )
    return found


def _advice(method: str) -> str:
    """Return the search of the method's declaration, as tune.yaml has it."""
    search = declaration_of(method).search
    if not search:
        return f"add one, such as {keys_of(method)[-1]}"
    lines = (
        f"  methods.{method}.{key}: {as_yaml(parameter.model_dump(mode='json', exclude_defaults=True))}"
        for key, parameter in search.items()
    )
    return "\n".join(["add some, such as", *lines])


def check_space(config: Config) -> None:
    """Make sure that the config models accept all that may be drawn.

    Each key is tried by itself; values that do not go together fail as trials.

    Raises:
        ConfigError: an unknown key, a method's key under another method, or a value that a model refuses; every fault
            is listed.
    """
    valid = list(dict.fromkeys(key for method in METHOD_NAMES for key in keys_of(method)))
    faults: list[str] = []
    for key, parameter in config.tune.space.items():
        if key in valid:
            faults += _refused(config, key, parameter)
        else:
            faults.append(_unknown(key, valid))
    if faults:
        raise ConfigError("\n".join(f"{TUNE_FILE}: space.{fault}" for fault in faults))


def changed_config(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the configuration with other values, by dotted keys.

    Raises:
        ConfigError: a model refuses one, or their combination.
    """
    tree = config.model_dump(mode="json", by_alias=True)
    set_values(tree, values)
    return parse_config(tree)


def plain_value(config: Config, key: str) -> Any:
    """Return the value at a dotted key, as YAML would write it."""
    value = value_at(config, key)
    return list(value) if isinstance(value, tuple) else value


def _refused(config: Config, key: str, parameter: Parameter) -> Iterator[str]:
    for name, value in _samples(parameter):
        try:
            changed_config(config, {key: value})
        except ConfigError as error:
            message = str(error).partition("\n")[0].removeprefix("params.yaml: ").removeprefix(f"{key}: ")
            yield f"{key}: {name} {value!r} is not possible: {message}"
            return


def _samples(parameter: Parameter) -> list[tuple[str, Any]]:
    if parameter.choices is not None:
        return [("choice", choice) for choice in parameter.choices]
    low, high = parameter.low, parameter.high
    assert low is not None
    assert high is not None
    ends = [("low", low), ("high", high)]
    # A float between two whole ends shows that the key takes no floats.
    return ends if parameter.type == "int" else [*ends, ("value", low + (high - low) * 0.382)]


def _unknown(key: str, valid: list[str]) -> str:
    block, _, last = key.rpartition(".")
    if key in MOVED:
        return f"{key}: this key is now {MOVED[key]}"
    if key in FREE:
        return f"{key}: cannot be tuned: it decides where or how fast is trained, or what else, not what is computed"
    if key in FIXED:
        return f"{key}: cannot be tuned: trials share the shards as they were read, no AUC sees calibration or refit"
    owners = [name for name in METHOD_NAMES if f"methods.{name}.{last}" in valid]
    method = block.removeprefix("methods.")
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "use a key of model, train, privacy or methods.<name>"
    if method in METHOD_NAMES and owners:
        return f"{key}: methods.{method} has no {last}; it is a key of {', '.join(owners)}; {hint}"
    return f"{key}: unknown key; {hint}"


MEAN = "mean"
MINIMUM = "minimum"


class Objective(NamedTuple):
    """The scenarios and tasks that count, and how they are summed up."""

    name: str
    """As in tune.yaml."""
    scenarios: frozenset[str]
    tasks: frozenset[str]

    def value(self, validations: Iterable[Validation]) -> float | None:
        """Return one round's value from all clients' validation.

        AUCs have equal weights. An undefined one (a single class in the validation rows, so in all rounds) is left out.
        The value is None where no AUC that counts is defined.
        """
        means = []
        cells = []
        for validation in validations:
            for scenario, tasks in validation.items():
                found = [cell["auc"] for task, cell in tasks.items() if task in self.tasks]
                defined = [auc for auc in found if auc is not None]
                if scenario in self.scenarios and defined:
                    cells += defined
                    means.append(float(np.mean(defined)))
        if not cells:
            return None
        return min(means) if self.name == MINIMUM else float(np.mean(cells))


def read_objective(name: str, schema: Schema) -> Objective:
    """Read the objective of tune.yaml.

    It is mean, minimum, a scenario, a task, or `<scenario>/<task>`.

    Raises:
        ConfigError: the data hold no such scenario or task.
    """
    scenarios, tasks = frozenset(schema.scenarios), frozenset(task.name for task in schema.tasks)
    if name in (MEAN, MINIMUM):
        return Objective(name, scenarios, tasks)
    if name in scenarios:
        return Objective(name, frozenset({name}), tasks)
    if name in tasks:
        return Objective(name, scenarios, frozenset({name}))
    scenario, _, task = name.partition("/")
    if scenario in scenarios and task in tasks:
        return Objective(name, frozenset({scenario}), frozenset({task}))
    words = [MEAN, MINIMUM, *schema.scenarios, *(task.name for task in schema.tasks)]
    pairs = [f"{scenario}/{task.name}" for scenario in schema.scenarios for task in schema.tasks]
    near = difflib.get_close_matches(name, [*words, *pairs], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"{TUNE_FILE}: objective: {name!r} is unknown; {hint}valid for these data: {', '.join(words)}, "
        "or <scenario>/<task>"
    )
