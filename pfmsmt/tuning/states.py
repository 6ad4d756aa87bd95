"""What the store keeps with studies and trials beside optuna's own, and how trials are counted."""

from optuna.trial import FrozenTrial, TrialState

# Of studies.
IDENTITY = "identity"
"""Finds the study's MLflow run in any store."""
SETTINGS = "settings"
"""{name: value} of all that makes trials comparable."""
OUTSIDE = "outside"
"""Keys whose value in params.yaml lies outside of the space."""

# Of trials.
START = "start"
"""Of the trial that has params.yaml's own values."""
WORKER = "worker"
"""The process that runs it: {host, id, start}."""
CAUSE = "cause"
"""Why it failed, in few words; the same for failures of one kind."""
REASON = "reason"
"""Why it failed, in full. A failed trial without one died with its worker."""
RETRIES = "retries"
"""How often its values have been tried before."""
RETRY_OF = "retry_of"
"""Number of the trial that was killed."""

MAX_RETRIES = 2
"""A trial that takes its worker along once more is not blamed on chance (it may need more memory than there is)."""
KILLED = "its worker was killed"
"""The cause of all trials that died with their worker."""


def was_killed(trial: FrozenTrial) -> bool:
    """Tell whether a trial died with its worker."""
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def is_retried(trial: FrozenTrial) -> bool:
    """Tell whether a trial was killed and its values are tried again, so that it takes nothing from the budget."""
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
