"""Trials in the store: attributes, failures, and retries of killed ones.

Optuna knows a trial's parameters, values and state. Beside these, the store holds the attributes below: which process
runs a trial, why one failed, and how often its values have been tried. A trial that failed with a reason stays failed.
One without a reason died with its worker, and its values are queued again.
"""

import os
import re
import socket
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime

import psutil
from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from pfmsmt.core.errors import ConfigError, DataError, TrainingError

# Attributes of a study.
IDENTITY = "identity"
"""Finds the study's MLflow run in any store."""
SETTINGS = "settings"
"""{name: value} of all that makes trials comparable."""
OUTSIDE = "outside"
"""Keys whose value in params.yaml lies outside of the space."""

# Attributes of a trial.
START = "start"
"""Marks the trial that has params.yaml's own values."""
WORKER = "worker"
"""The process that runs it: {host, id, start}."""
CAUSE = "cause"
"""Why it failed, in few words; the same for failures of one kind."""
REASON = "reason"
"""Why it failed, in full; absent where it died with its worker."""
RETRIES = "retries"
"""The number of earlier tries of a trial's values."""
RETRY_OF = "retry_of"
"""Number of the trial that was killed."""

MAX_RETRIES = 2
"""A trial that takes its worker along once more is not blamed on chance (it may need more memory than there is)."""
KILLED = "its worker was killed"
"""The cause of all trials that died with their worker."""
IN_A_ROW = 5
"""So many failures, without a trial in between that did not fail, end the search."""
UNSIGNED_SECONDS = 60.0
"""A worker records itself in its trial well within this time."""

_MEMORY = re.compile(r"MemoryError|OutOfMemory|out of memory|can't allocate memory", re.IGNORECASE)
_NOT_FINITE = re.compile(r"became (nan|-?inf)|is nan|not finite")


def was_killed(trial: FrozenTrial) -> bool:
    """Tell whether a trial died with its worker."""
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def is_retried(trial: FrozenTrial) -> bool:
    """Tell whether a trial was killed and its values are tried again.

    Such a trial takes nothing from the number of trials that were asked for.
    """
    return was_killed(trial) and trial.user_attrs.get(RETRIES, 0) < MAX_RETRIES


def state_of(trial: FrozenTrial) -> str:
    """Return waiting, running, complete, pruned or failed."""
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()


def reason_of(trial: FrozenTrial) -> str | None:
    """Return why a trial failed or was pruned; None for others."""
    if was_killed(trial):
        tried = "tried again" if is_retried(trial) else f"given up after {trial.user_attrs.get(RETRIES, 0)} retries"
        return f"{KILLED}; {tried}"
    if trial.state == TrialState.PRUNED:
        return f"behind other trials after round {trial.last_step}"
    reason = trial.user_attrs.get(REASON)
    return None if reason is None else str(reason)


def cause_of(error: BaseException) -> str:
    """Return the kind of a failure in few words."""
    text = f"{type(error).__name__}: {error}"
    if _MEMORY.search(text):
        return "out of memory"
    if isinstance(error, TrainingError):
        return "training diverged" if _NOT_FINITE.search(text) else "training could not go on"
    if isinstance(error, ConfigError):
        return "values that do not go together"
    if isinstance(error, DataError):
        return "unreadable data"
    return type(error).__name__


class FailureStreak:
    """Failures in a row, which end a search when they are `IN_A_ROW`."""

    def __init__(self) -> None:
        """Start with none."""
        self._failures: list[tuple[str, str]] = []

    def add_success(self) -> None:
        """Count a trial that did not fail."""
        self._failures.clear()

    def add_failure(self, cause: str, reason: str) -> str | None:
        """Count a failure; return why the search ends, or None."""
        self._failures.append((cause, reason))
        if len(self._failures) < IN_A_ROW:
            return None
        causes = Counter(cause for cause, _ in self._failures)
        common, times = causes.most_common(1)[0]
        if times == 1:
            listed = "\n".join(f"  {cause}: {reason}" for cause, reason in self._failures)
            return f"{IN_A_ROW} trials in a row failed, each for another cause:\n{listed}"
        last = next(reason for cause, reason in reversed(self._failures) if cause == common)
        return (
            f"{IN_A_ROW} trials in a row failed; common cause: {common} ({times} of {IN_A_ROW}). The last one: {last}"
        )


def record_worker(trial: Trial) -> None:
    """Write into a trial that this process runs it."""
    start = psutil.Process().create_time()
    trial.set_user_attr(WORKER, {"host": socket.gethostname(), "id": os.getpid(), "start": start})


def ran_on_this_machine(trial: FrozenTrial) -> bool:
    """Tell whether a process of this machine runs or ran a trial."""
    worker = trial.user_attrs.get(WORKER)
    return worker is not None and worker["host"] == socket.gethostname()


def is_run_by(trial: FrozenTrial, processes: Collection[int | None]) -> bool:
    """Tell whether one of this machine's processes runs a trial.

    Args:
        trial: one of the study.
        processes: their ids.
    """
    return ran_on_this_machine(trial) and trial.user_attrs[WORKER]["id"] in processes


def recover_trials(
    study: Study, *, shared: bool, blame: bool = True, unsigned_seconds: float = UNSIGNED_SECONDS
) -> list[FrozenTrial]:
    """Mark dead workers' trials as failed, and queue their values again.

    Args:
        study: whose trials are looked through.
        shared: whether other machines use the store as well. Theirs are then dead when their heartbeat has been silent
            for long; they are not among those returned. Otherwise a trial of another host is one of this machine under
            an earlier name (a container's).
        blame: count it as one of the times that these values may be tried.
        unsigned_seconds: after these, a running trial is dead if no worker has recorded itself in it.

    Returns:
        The trials that this call marked as failed.
    """
    if shared:
        fail_stale_trials(study)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if _is_dead(trial, shared, unsigned_seconds) and _fail(study, trial, blame)]


def retry_trial(study: Study, trial: FrozenTrial, blame: bool = True) -> None:
    """Queue a killed trial's values again, unless tried too often."""
    retries = trial.user_attrs.get(RETRIES, 0)
    if retries >= MAX_RETRIES:
        return
    kept = {name: value for name, value in trial.user_attrs.items() if name != WORKER}
    # The killed trial may not have drawn all of its parameters: those that were queued for it are queued again.
    drawn = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    study.enqueue_trial(drawn, {**kept, RETRIES: retries + int(blame), RETRY_OF: trial.number})


def _is_dead(trial: FrozenTrial, shared: bool, unsigned_seconds: float) -> bool:
    worker = trial.user_attrs.get(WORKER)
    if worker is None:
        start = trial.datetime_start
        return start is not None and (datetime.now() - start).total_seconds() > unsigned_seconds
    if not ran_on_this_machine(trial):
        return not shared
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(worker["id"])
        # Another process may have been given the same id since.
        return bool(abs(process.create_time() - worker["start"]) > 1) or process.status() == psutil.STATUS_ZOMBIE
    return True


def _fail(study: Study, trial: FrozenTrial, blame: bool) -> bool:
    """Fail and queue a trial again; False if another process was faster."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return False
    retry_trial(study, trial, blame)
    return True
