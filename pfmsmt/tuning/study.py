"""A study is opened new, or continued under the same settings."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

import optuna
from optuna import Study
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage

from pfmsmt.config import Config
from pfmsmt.core.errors import TuningError
from pfmsmt.data.schema import Schema
from pfmsmt.training.run import run_params
from pfmsmt.tuning.sampling import SeededTPE, build_pruner, initial_draw
from pfmsmt.tuning.space import FREE, Space
from pfmsmt.tuning.trials import IDENTITY, OUTSIDE, SETTINGS, START


def study_name(name: str, method: str) -> str:
    """Return the name of a method's study in the store."""
    return f"{name}-{method}"


def check_names(storage: BaseStorage, name: str, methods: tuple[str, ...], resume: bool, store: str) -> None:
    """Make sure that the studies are new, or continued on request.

    Args:
        storage: the open store.
        name: of the search; each method's study has a name of its own.
        methods: of the search.
        resume: whether at least one of the studies must be there; otherwise none may be.
        store: the address as it is shown in messages.

    Raises:
        TuningError: a new study is there already, or none is there to continue.
    """
    names = optuna.get_all_study_names(storage)
    known = [study_name(name, method) for method in methods if study_name(name, method) in names]
    if known and not resume:
        raise TuningError(
            f"study {known[0]} is already in {store}; continue it with --resume, or give another name with --study"
        )
    if resume and not known:
        there = f"it has {', '.join(sorted(names))}" if names else "it has none"
        raise TuningError(
            f"there is no study {study_name(name, methods[0])} to continue in {store}: {there}. "
            "Correct --study or --storage, or leave out --resume"
        )


def open_study(storage: BaseStorage, name: str, config: Config, space: Space, settings: Mapping[str, Any]) -> Study:
    """Open a study, or make it and queue its first trial.

    The first trial has params.yaml's own values.

    Raises:
        TuningError: it was made with other settings.
    """
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    except DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name)
        _check_settings(study, settings)
    else:
        drawn, outside = initial_draw(config, space)
        study.set_user_attr(IDENTITY, uuid.uuid4().hex)
        study.set_user_attr(OUTSIDE, outside)
        study.enqueue_trial(drawn, {START: True})
        # Last, as its presence says that the study is complete: this process may be killed at any line.
        study.set_user_attr(SETTINGS, dict(settings))
    attach_sampler(study, config)
    return study


def attach_sampler(study: Study, config: Config) -> None:
    """Give a study its sampler, and the pruner of tune.yaml."""
    study.sampler = SeededTPE(config.seed)
    study.pruner = build_pruner(config.tune.pruner, config.train.rounds)


def settings_of(config: Config, schema: Schema, method: str, space: Space, device: str) -> dict[str, Any]:
    """Return {name: value} of all that makes a study's trials comparable."""
    fixed = run_params(config, method, config.train.seeds[0], device, config.train.shuffle)
    free = {key for key in FREE if key != "run.device"}
    found = {key: value for key, value in fixed.items() if key not in free and key not in space}
    found |= {f"tune.space.{key}": parameter.model_dump(mode="json") for key, parameter in space.items()}
    data = hashlib.sha256(schema.model_dump_json().encode()).hexdigest()
    found |= {"tune.objective": config.tune.objective, "tune.pruner": config.tune.pruner, "data": data}
    return dict(json.loads(json.dumps(found)))


def _check_settings(study: Study, settings: Mapping[str, Any]) -> None:
    before = study.user_attrs.get(SETTINGS)
    if before is None:
        raise TuningError(
            f"study {study.study_name} was not made by `pfmsmt tune`, or is being made by it right now; "
            "try again, or give another name with --study"
        )
    changed = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
    if changed:
        changes = "; ".join(_change(key, before, settings) for key in changed)
        raise TuningError(
            f"study {study.study_name} was made with other settings, so new trials could not be compared with its own: "
            f"{changes}. Restore them, or give another name with --study"
        )


def _change(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if key == "data":
        return "other data (data/clients has been made anew)"
    old, new = (json.dumps(tree[key]) if key in tree else "absent" for tree in (before, now))
    return f"{key} was {old}, is {new}"
