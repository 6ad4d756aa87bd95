"""One worker process: it loads the shards once, then runs a trial each time it is told to."""

import signal
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import optuna
import psutil
import torch
from optuna import Study, Trial
from optuna.exceptions import ExperimentalWarning

from pfmsmt.config import Config
from pfmsmt.core.errors import PfmsmtError, TrainingError
from pfmsmt.data.schema import Schema
from pfmsmt.data.shards.resident import ClientData
from pfmsmt.training.devices import choose_workers
from pfmsmt.training.federation import load_data
from pfmsmt.training.history import validation_metrics
from pfmsmt.training.rounds import RoundResult
from pfmsmt.training.trial import run_trial
from pfmsmt.tuning.sampling import draw
from pfmsmt.tuning.space import Objective, Space, with_values
from pfmsmt.tuning.storage import open_store
from pfmsmt.tuning.study import prepare
from pfmsmt.tuning.trials import CAUSE, REASON, cause_of, sign

LONGEST = 5000
"""Characters of a reason that are kept."""

Rounds = list[dict[str, float | None]]
"""Metrics of each round."""


@dataclass(frozen=True)
class Task:
    """What a worker needs to know."""

    store: str
    study: str
    config: Config
    schema: Schema
    shards: Path
    method: str
    space: Space
    objective: Objective
    device: str
    workers: int
    """Tuning workers on this machine, which share its cores."""


@dataclass(frozen=True)
class Ready:
    """The worker may be told to run a trial, or to stop."""


@dataclass(frozen=True)
class Begun:
    """The trial that the worker was told to run is the worker's own in the store."""


@dataclass(frozen=True)
class Finished:
    """A trial has ended, in whatever state; the store has the rest."""

    number: int
    rounds: Rounds
    resident_megabytes: float
    """Memory of the worker."""
    training_seconds: float


@dataclass(frozen=True)
class Broken:
    """The worker cannot go on at all."""

    error: PfmsmtError


Message = Ready | Begun | Finished | Broken


@dataclass
class _Seen:
    """What has been seen of the running trial."""

    number: int = -1
    rounds: Rounds = field(default_factory=list)
    training_seconds: float = 0.0


def work(task: Task, pipe: Connection) -> None:
    """Run trials until told to stop, or until nobody is left to tell."""
    # An interrupt goes to all processes of a terminal: the one that started the workers decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quieten()
    try:
        with pipe:
            _run_trials(task, pipe)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def quieten() -> None:
    """Silence what optuna prints: we say the same, shorter."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)


def _run_trials(task: Task, pipe: Connection) -> None:
    try:
        study = prepare(optuna.load_study(storage=open_store(task.store), study_name=task.study), task.config)
        data = load_data(task.config, task.schema, task.shards, task.method)
    except PfmsmtError as error:
        pipe.send(Broken(error))
        return
    process = psutil.Process()
    pipe.send(Ready())
    while pipe.recv():
        seen = _run_one(task, study, data, pipe)
        resident = process.memory_info().rss / 2**20
        pipe.send(Finished(seen.number, seen.rounds, resident, seen.training_seconds))
        pipe.send(Ready())


def _run_one(task: Task, study: Study, data: Mapping[str, ClientData], pipe: Connection) -> _Seen:
    seen = _Seen()

    def objective(trial: Trial) -> float:
        seen.number = trial.number
        sign(trial)
        pipe.send(Begun())
        try:
            return _train(task, trial, data, seen)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr(CAUSE, cause_of(error))
            trial.set_user_attr(REASON, f"{type(error).__name__}: {error}"[:LONGEST])
            raise

    # Through `optimize`, which keeps up the heartbeat in databases.
    study.optimize(objective, n_trials=1, catch=(Exception,))
    if task.device.startswith("cuda"):
        # What a trial that ran out of memory has reserved is the next one's.
        torch.cuda.empty_cache()
    return seen


def _train(task: Task, trial: Trial, data: Mapping[str, ClientData], seen: _Seen) -> float:
    config = with_values(task.config, draw(trial, task.space))
    device = torch.device(task.device)
    workers, threads = choose_workers(config.run, len(data), device, task.workers)
    values: list[float] = []

    def on_round(result: RoundResult) -> None:
        value = task.objective.value(result.validation.values())
        seen.rounds.append({**validation_metrics(result), "val/objective": value})
        seen.training_seconds += result.metrics["server/seconds"] + result.metrics["server/validation_seconds"]
        if value is None:
            return
        values.append(value)
        trial.report(value, result.round)
        if result.round < config.train.rounds and trial.should_prune():
            raise optuna.TrialPruned

    run_trial(
        config, task.schema, task.shards, task.method, config.train.seeds[0], device,
        workers=workers, threads=threads, data=data, on_round=on_round,
    )  # fmt: skip
    if not values:
        raise TrainingError("no validation AUC that counts is defined: its tasks have a single class in these rows")
    # One round for all clients, as in `Trial.best_validation`.
    return max(values)
