"""A worker process loads the shards once, then runs trials on request.

The pool (pool.py) sends True to ask for one trial, False to stop. The worker answers with the messages below.
"""

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
from pfmsmt.tuning.space import Objective, Space, changed_config
from pfmsmt.tuning.storage import open_store
from pfmsmt.tuning.study import attach_sampler
from pfmsmt.tuning.trials import CAUSE, REASON, cause_of, record_worker

REASON_LENGTH = 5000
"""Characters of an error's text that go into the store."""

RoundMetrics = list[dict[str, float | None]]
"""name -> value, of each round"""


@dataclass(frozen=True)
class StudySetup:
    """All that the workers of one study have in common."""

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
    """The worker waits for a request."""


@dataclass(frozen=True)
class Started:
    """The store says that the requested trial is this worker's."""


@dataclass(frozen=True)
class Finished:
    """A trial has ended, in whatever state; the store has the rest."""

    number: int
    rounds: RoundMetrics
    resident_megabytes: float
    """Memory of the worker."""
    training_seconds: float


@dataclass(frozen=True)
class Broken:
    """The worker cannot go on at all."""

    error: PfmsmtError


WorkerMessage = Ready | Started | Finished | Broken


@dataclass
class _Progress:
    """The running trial's number and figures so far."""

    number: int = -1
    rounds: RoundMetrics = field(default_factory=list)
    training_seconds: float = 0.0


def work(setup: StudySetup, pipe: Connection) -> None:
    """Run trials until the pool asks to stop, or is gone."""
    # An interrupt goes to all processes of a terminal: the one that started the workers decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence_optuna()
    try:
        with pipe:
            _run_trials(setup, pipe)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def silence_optuna() -> None:
    """Silence what optuna prints: we say the same, shorter."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)


def _run_trials(setup: StudySetup, pipe: Connection) -> None:
    try:
        study = optuna.load_study(storage=open_store(setup.store), study_name=setup.study)
        attach_sampler(study, setup.config)
        data = load_data(setup.config, setup.schema, setup.shards, setup.method)
    except PfmsmtError as error:
        pipe.send(Broken(error))
        return
    process = psutil.Process()
    pipe.send(Ready())
    while pipe.recv():
        progress = _run_one(setup, study, data, pipe)
        resident = process.memory_info().rss / 2**20
        pipe.send(Finished(progress.number, progress.rounds, resident, progress.training_seconds))
        pipe.send(Ready())


def _run_one(setup: StudySetup, study: Study, data: Mapping[str, ClientData], pipe: Connection) -> _Progress:
    progress = _Progress()

    def objective(trial: Trial) -> float:
        progress.number = trial.number
        record_worker(trial)
        pipe.send(Started())
        try:
            return _train(setup, trial, data, progress)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr(CAUSE, cause_of(error))
            trial.set_user_attr(REASON, f"{type(error).__name__}: {error}"[:REASON_LENGTH])
            raise

    # Through `optimize`, which keeps up the heartbeat in databases.
    study.optimize(objective, n_trials=1, catch=(Exception,))
    if setup.device.startswith("cuda"):
        # A trial that ran out of memory leaves its reserved blocks behind; the next one needs them.
        torch.cuda.empty_cache()
    return progress


def _train(setup: StudySetup, trial: Trial, data: Mapping[str, ClientData], progress: _Progress) -> float:
    """Train once with a trial's values; return the best round's objective."""
    drawn = changed_config(setup.config, draw(trial, setup.space))
    # A trial is judged on validation rows, which a second training would take away.
    config = drawn.model_copy(update={"train": drawn.train.model_copy(update={"refit": False})})
    device = torch.device(setup.device)
    workers, threads = choose_workers(config.run, len(data), device, setup.workers)
    values: list[float] = []

    def on_round(result: RoundResult) -> None:
        value = setup.objective.value(result.validation.values())
        progress.rounds.append({**validation_metrics(result), "val/objective": value})
        progress.training_seconds += result.metrics["server/seconds"] + result.metrics["server/validation_seconds"]
        if value is None:
            return
        values.append(value)
        trial.report(value, result.round)
        if result.round < config.train.rounds and trial.should_prune():
            raise optuna.TrialPruned

    run_trial(
        config, setup.schema, setup.shards, setup.method, config.train.seeds[0], device,
        workers=workers, threads=threads, data=data, on_round=on_round,
    )  # fmt: skip
    if not values:
        raise TrainingError("no validation AUC that counts is defined: its tasks have a single class in these rows")
    # One round for all clients, as in `Trial.best_validation`.
    return max(values)
