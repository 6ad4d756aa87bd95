"""`pfmsmt tune`: everything is checked first, then each method has its study."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pfmsmt.config import METHOD_NAMES, PARAMS_FILE, Config, load_config
from pfmsmt.core.console import say
from pfmsmt.core.errors import ConfigError
from pfmsmt.core.layout import CLIENTS, SCHEMA
from pfmsmt.data.schema import read_schema
from pfmsmt.tracking import connect
from pfmsmt.tracking.connection import TUNING_EXPERIMENT
from pfmsmt.training.devices import choose_device
from pfmsmt.tuning.outcome import Outcome, apply, export, table
from pfmsmt.tuning.session import run_session
from pfmsmt.tuning.space import check_space, is_shared, read_objective, space_of
from pfmsmt.tuning.storage import check_is_there, full_address, open_store, shown
from pfmsmt.tuning.study import check_names, open_study, settings_of, study_name
from pfmsmt.tuning.worker import Task, quieten

ALL = "all"


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    methods: tuple[str, ...]
    trials: int | None = None
    """Of each method's study in all; None for tune.yaml's."""
    timeout: float | None = None
    """Seconds for each method, after which no trial is begun."""
    workers: int = 1
    storage: str | None = None
    study: str = "tune"
    resume: bool = False
    apply: bool = False
    export: Path | None = None


def tune(wish: Wish, root: Path) -> list[Outcome]:
    """Run the studies, and show, export and apply what they find.

    Raises:
        ConfigError: params.yaml, tune.yaml or the command line asks for what cannot be; nothing was written.
        TuningError: the store or the study cannot be used, or trials fail one after the other.
        TrackingError: MLflow's store cannot be used.
    """
    config = load_config(root / PARAMS_FILE)
    methods = read_methods(wish.methods)
    check_space(config)
    spaces = {method: space_of(config, method) for method in methods}
    _check_results(wish, methods, [key for space in spaces.values() for key in space])
    schema = read_schema(root / SCHEMA)
    objective = read_objective(config.tune.objective, schema)
    device = str(choose_device(config.run.device))
    address = full_address(wish.storage, root)
    if wish.resume:
        check_is_there(address)
    quieten()
    storage = open_store(address)
    check_names(storage, wish.study, methods, wish.resume, shown(address))
    tracking = connect(root, TUNING_EXPERIMENT)
    trials = wish.trials or config.tune.trials
    outcomes = []
    for method in methods:
        name = study_name(wish.study, method)
        settings = settings_of(config, schema, method, spaces[method], device)
        study = open_study(storage, name, config, spaces[method], settings)
        say(f"{method}: study {name} in {shown(address)}, {trials} trials, {wish.workers} at a time on {device}")
        task = Task(
            address, name, config, schema, root / CLIENTS, method, spaces[method], objective, device, wish.workers
        )
        try:
            outcomes.append(run_session(study, task, trials, wish.timeout, tracking, root))
        except KeyboardInterrupt:
            say(f"{name}: stopped; --resume continues it")
            raise
    say(f"\n{table(outcomes)}")
    _keep(wish, config, outcomes, root)
    return outcomes


def read_methods(words: Sequence[str]) -> tuple[str, ...]:
    """Return the methods that are named, apart by spaces or commas; `all` is all of them.

    Raises:
        ConfigError: no method of that name, or none at all.
    """
    names = [name for word in words for name in re.split(r"[\s,]+", word) if name]
    known = list(METHOD_NAMES)
    for name in names:
        if name not in (*known, ALL):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"--methods: {name!r} is unknown; {hint}valid: {', '.join(known)}, or {ALL}")
    if not names:
        raise ConfigError(f"--methods names none; valid: {', '.join(known)}, or {ALL}")
    return tuple(known) if ALL in names else tuple(dict.fromkeys(names))


def _check_results(wish: Wish, methods: tuple[str, ...], keys: list[str]) -> None:
    shared = [key for key in keys if is_shared(key)]
    if wish.apply and shared and len(methods) > 1:
        raise ConfigError(
            f"--apply: {shared[0]} is tuned for each of {', '.join(methods)}, and params.yaml has one value for all; "
            "tune one method, take it out of the space of tune.yaml, or use --export"
        )
    if wish.export and _is_file(wish.export) and len(methods) > 1:
        raise ConfigError(f"--export {wish.export}: one file for {len(methods)} methods; name a folder instead")


def _is_file(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")


def _keep(wish: Wish, config: Config, outcomes: Sequence[Outcome], root: Path) -> None:
    for found in outcomes:
        if wish.export:
            path = root / (wish.export if _is_file(wish.export) else wish.export / f"{found.method}.yaml")
            export(found, config, path)
            say(f"written: {path}")
    if wish.apply:
        apply({key: value for found in outcomes for key, value in found.best.items()}, root / PARAMS_FILE)
        say(f"{PARAMS_FILE} has the best values now; `dvc repro` trains with them")
