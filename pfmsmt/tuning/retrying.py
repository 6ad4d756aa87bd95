"""Trials of workers that were killed: found, marked as failed, and run again with the same values."""

import os
import socket
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime

import psutil
from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from pfmsmt.tuning.states import MAX_RETRIES, RETRIES, RETRY_OF, WORKER

UNSIGNED = 60.0
"""Seconds that a worker surely does not need from the start of a trial to signing it."""


def sign(trial: Trial) -> None:
    """Write down which process runs a trial."""
    start = psutil.Process().create_time()
    trial.set_user_attr(WORKER, {"host": socket.gethostname(), "id": os.getpid(), "start": start})


def is_here(trial: FrozenTrial) -> bool:
    """Tell whether a process of this machine has signed a trial."""
    worker = trial.user_attrs.get(WORKER)
    return worker is not None and worker["host"] == socket.gethostname()


def is_run_by(trial: FrozenTrial, processes: Collection[int | None]) -> bool:
    """Tell whether one of this machine's processes, by their ids, has signed a trial."""
    return is_here(trial) and trial.user_attrs[WORKER]["id"] in processes


def release(study: Study, *, shared: bool, blame: bool = True, unsigned_for: float = UNSIGNED) -> list[FrozenTrial]:
    """Mark running trials of dead workers as failed, and queue their values again; return them.

    Args:
        shared: whether other machines use the store as well. Theirs are then dead when their heartbeat has been silent
            for long; they are not among those returned. Otherwise a trial of another host is one of this machine under
            an earlier name (a container's).
        blame: count it as one of the times that these values may be tried.
        unsigned_for: seconds after which a running trial that nobody signed is dead.
    """
    if shared:
        fail_stale_trials(study)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if _is_dead(trial, shared, unsigned_for) and _fail(study, trial, blame)]


def retry(study: Study, trial: FrozenTrial, blame: bool = True) -> None:
    """Queue a killed trial's values again, unless that was tried too often."""
    retries = trial.user_attrs.get(RETRIES, 0)
    if retries >= MAX_RETRIES:
        return
    kept = {name: value for name, value in trial.user_attrs.items() if name != WORKER}
    # What it did not get to draw, it draws now.
    drawn = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    study.enqueue_trial(drawn, {**kept, RETRIES: retries + int(blame), RETRY_OF: trial.number})


def _is_dead(trial: FrozenTrial, shared: bool, unsigned_for: float) -> bool:
    worker = trial.user_attrs.get(WORKER)
    if worker is None:
        begun = trial.datetime_start
        return begun is not None and (datetime.now() - begun).total_seconds() > unsigned_for
    if not is_here(trial):
        return not shared
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(worker["id"])
        # Another process may have been given the same id since.
        return bool(abs(process.create_time() - worker["start"]) > 1) or process.status() == psutil.STATUS_ZOMBIE
    return True


def _fail(study: Study, trial: FrozenTrial, blame: bool) -> bool:
    """Mark a trial as failed and queue it again; False if another process was faster."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return False
    retry(study, trial, blame)
    return True
