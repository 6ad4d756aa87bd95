"""One study's trials on this machine, with MLflow looking on."""

import tempfile
import time
from pathlib import Path

import psutil
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from pfmsmt.config import PARAMS_FILE, Config
from pfmsmt.core.console import say
from pfmsmt.tracking import Store
from pfmsmt.tracking.tuning_run import StudyRun, TrialRecord, study_run
from pfmsmt.tuning.outcome import Outcome, export, outcome_of
from pfmsmt.tuning.pool import Pool
from pfmsmt.tuning.sampling import values_of
from pfmsmt.tuning.storage import is_database, shown
from pfmsmt.tuning.trials import IDENTITY, SETTINGS, is_here, is_retried, reason_of, release, state_of, was_killed
from pfmsmt.tuning.worker import Finished, Task


def run_session(study: Study, task: Task, trials: int, timeout: float | None, tracking: Store, root: Path) -> Outcome:
    """Run trials until the study has `trials` of them, or `timeout` seconds are over; log all to MLflow.

    Raises:
        TuningError: too many failures in a row, or no complete trial.
        TrackingError: MLflow's store refuses; what it lacks is logged when the study is continued.
    """
    tags = {"method": task.method, "objective": task.objective.name, "dataset": task.schema.source}
    with study_run(
        tracking,
        name=study.study_name,
        identity=study.user_attrs[IDENTITY],
        tags=tags,
        params={**study.user_attrs[SETTINGS], "store": shown(task.store)},
        config_file=root / PARAMS_FILE,
    ) as run:
        begun = time.monotonic()
        release(study, shared=is_database(task.store))
        _log_missing(study, task, run)

        def on_trial(trial: FrozenTrial, message: Finished | None) -> None:
            _log(trial, message, task, run)
            say(_line(study, trial, task.method, trials))

        Pool(study, task, trials, timeout, on_trial).run()
        _log_missing(study, task, run)
        found = outcome_of(study, task.config, task.method, task.space)
        _log_outcome(study, found, task.config, run, time.monotonic() - begun)
    return found


def _log(trial: FrozenTrial, message: Finished | None, task: Task, run: StudyRun) -> None:
    rounds: list[tuple[int, dict[str, float | None]]]
    metrics: dict[str, float | None] = {"objective": max(trial.intermediate_values.values(), default=None)}
    if message is None:
        # Of a trial that this process did not see, the store has the objective alone.
        rounds = [(number, {"val/objective": value}) for number, value in trial.intermediate_values.items()]
    else:
        rounds = list(enumerate(message.rounds, start=1))
        metrics["training_seconds"] = message.training_seconds
        metrics["resident_megabytes"] = message.resident_megabytes
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    values = values_of(trial.params, task.space)
    span = (trial.datetime_start, trial.datetime_complete)
    run.log_trial(TrialRecord(trial.number, state_of(trial), reason_of(trial), values, rounds, metrics, *span))


def _log_missing(study: Study, task: Task, run: StudyRun) -> None:
    """Log trials that have no run, as the process that should have logged them was killed."""
    logged = run.logged_trials()
    for trial in study.get_trials(deepcopy=False):
        mine = was_killed(trial) or is_here(trial)
        if trial.state.is_finished() and mine and trial.number not in logged:
            _log(trial, None, task, run)


def _log_outcome(study: Study, found: Outcome, config: Config, run: StudyRun, seconds: float) -> None:
    # Not at the top: the search begins without waiting for matplotlib and scikit-learn.
    from pfmsmt.tuning.pictures import write_pictures

    metrics: dict[str, float | None] = {
        f"trials/{state.replace(' ', '_')}": float(number) for state, number in found.states.items()
    }
    metrics |= {"objective": found.best_value, "objective_of_the_start": found.start_value}
    metrics |= {"best_trial": float(found.best_trial), "session_seconds": seconds}
    metrics["resident_megabytes"] = psutil.Process().memory_info().rss / 2**20
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        missing = write_pictures(study, folder / "pictures", f"validation AUC ({found.objective})")
        if missing:
            say(f"{found.study}: no picture of the importance: {missing}")
        export(found, config, folder / "best_params.yaml")
        run.log_summary(metrics, folder)


def _line(study: Study, trial: FrozenTrial, method: str, trials: int) -> str:
    done = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and not is_retried(t)]
    text = f"{method} {len(done)}/{trials}  trial {trial.number} {state_of(trial)}"
    if trial.state == TrialState.COMPLETE:
        text += f", validation AUC {trial.value:.4f}"
    reason = reason_of(trial)
    if reason:
        text += f": {reason}"
    values = [t.value for t in done if t.state == TrialState.COMPLETE and t.value is not None]
    return f"{text}; best so far {max(values):.4f}" if values else text
