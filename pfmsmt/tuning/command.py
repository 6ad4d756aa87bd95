"""`pfmsmt tune`: all is checked first; then each method has its study."""

import difflib
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from pfmsmt.config import METHOD_NAMES, PARAMS_FILE, Config, load_config
from pfmsmt.core.console import say
from pfmsmt.core.errors import ConfigError
from pfmsmt.core.layout import CLIENTS, SCHEMA
from pfmsmt.data.schema import read_schema
from pfmsmt.tracking import Store, connect
from pfmsmt.tracking.connection import TUNING_EXPERIMENT
from pfmsmt.tracking.tuning_run import StudyRun, TrialRecord, study_run
from pfmsmt.training.devices import choose_device
from pfmsmt.tuning.outcome import Outcome, apply, export, outcome_of, table
from pfmsmt.tuning.pool import Pool
from pfmsmt.tuning.sampling import values_of
from pfmsmt.tuning.space import check_space, is_shared, read_objective, space_of
from pfmsmt.tuning.storage import check_store_exists, full_address, is_database, open_store, without_password
from pfmsmt.tuning.study import check_names, open_study, settings_of, study_name
from pfmsmt.tuning.trials import (
    IDENTITY,
    SETTINGS,
    is_retried,
    ran_on_this_machine,
    reason_of,
    recover_trials,
    state_of,
    was_killed,
)
from pfmsmt.tuning.worker import Finished, StudySetup, silence_optuna

ALL = "all"


@dataclass(frozen=True)
class SearchRequest:
    """The options of one `pfmsmt tune`."""

    methods: tuple[str, ...]
    trials: int | None = None
    """In each method's study in all, earlier ones included; None for tune.yaml's."""
    timeout: float | None = None
    """Seconds for each method, after which no trial is begun."""
    workers: int = 1
    storage: str | None = None
    study: str = "tune"
    resume: bool = False
    apply: bool = False
    export: Path | None = None


def tune(request: SearchRequest, root: Path) -> list[Outcome]:
    """Run the studies, and show, export and apply their best values.

    Raises:
        ConfigError: params.yaml, tune.yaml or the command line asks for what cannot be; nothing was written.
        TuningError: the store or the study cannot be used, or trials fail one after the other.
        TrackingError: MLflow's store cannot be used.
    """
    config = load_config(root / PARAMS_FILE)
    methods = read_methods(request.methods)
    check_space(config)
    spaces = {method: space_of(config, method) for method in methods}
    _check_targets(request, methods, [key for space in spaces.values() for key in space])
    schema = read_schema(root / SCHEMA)
    objective = read_objective(config.tune.objective, schema)
    device = str(choose_device(config.run.device))
    address = full_address(request.storage, root)
    if request.resume:
        check_store_exists(address)
    silence_optuna()
    storage, store = open_store(address), without_password(address)
    check_names(storage, request.study, methods, request.resume, store)
    tracking = connect(root, TUNING_EXPERIMENT)
    trials = request.trials or config.tune.trials
    outcomes = []
    for method in methods:
        name = study_name(request.study, method)
        settings = settings_of(config, schema, method, spaces[method], device)
        study = open_study(storage, name, config, spaces[method], settings)
        say(f"{method}: study {name} in {store}, {trials} trials, {request.workers} at a time on {device}")
        setup = StudySetup(
            address, name, config, schema, root / CLIENTS, method, spaces[method], objective, device, request.workers
        )
        try:
            outcomes.append(_run_study(study, setup, trials, request.timeout, tracking, root))
        except KeyboardInterrupt:
            say(f"{name}: stopped; --resume continues it")
            raise
    say(f"\n{table(outcomes)}")
    _write_best(request, config, outcomes, root)
    return outcomes


def read_methods(words: Sequence[str]) -> tuple[str, ...]:
    """Return the methods named in words, each once; `all` names every method.

    Args:
        words: names, several in one word where spaces or commas part them.

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


def _check_targets(request: SearchRequest, methods: tuple[str, ...], keys: list[str]) -> None:
    """Refuse to write several methods' values to one place."""
    shared = [key for key in keys if is_shared(key)]
    if request.apply and shared and len(methods) > 1:
        raise ConfigError(
            f"--apply: {shared[0]} is tuned for each of {', '.join(methods)}, and params.yaml has one value for all; "
            "tune one method, take it out of the space of tune.yaml, or use --export"
        )
    if request.export and _is_file(request.export) and len(methods) > 1:
        raise ConfigError(f"--export {request.export}: one file for {len(methods)} methods; name a folder instead")


def _is_file(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")


def _write_best(request: SearchRequest, config: Config, outcomes: Sequence[Outcome], root: Path) -> None:
    for found in outcomes:
        if request.export:
            path = root / (request.export if _is_file(request.export) else request.export / f"{found.method}.yaml")
            export(found, config, path)
            say(f"written: {path}")
    if request.apply:
        apply({key: value for found in outcomes for key, value in found.best.items()}, root / PARAMS_FILE)
        say(f"{PARAMS_FILE} has the best values now; `dvc repro` trains with them")


def _run_study(
    study: Study, setup: StudySetup, trials: int, timeout: float | None, tracking: Store, root: Path
) -> Outcome:
    """Run one study's trials on this machine and log them to MLflow.

    Raises:
        TuningError: too many failures in a row, or no complete trial.
        TrackingError: MLflow's store refuses; what it lacks is logged when the study is continued.
    """
    tags = {"method": setup.method, "objective": setup.objective.name, "dataset": setup.schema.source}
    with study_run(
        tracking,
        name=study.study_name,
        identity=study.user_attrs[IDENTITY],
        tags=tags,
        params={**study.user_attrs[SETTINGS], "store": without_password(setup.store)},
        config_file=root / PARAMS_FILE,
    ) as run:
        started = time.monotonic()
        recover_trials(study, shared=is_database(setup.store))
        _log_missing(study, setup, run)

        def on_trial(trial: FrozenTrial, message: Finished | None) -> None:
            _log_trial(trial, message, setup, run)
            say(_progress_line(study, trial, setup.method, trials))

        Pool(study, setup, trials, timeout, on_trial).run()
        # Once more: another process of this machine may have been killed between its trial and its log.
        _log_missing(study, setup, run)
        found = outcome_of(study, setup.config, setup.method, setup.space)
        _log_outcome(study, found, setup.config, run, time.monotonic() - started)
    return found


def _log_trial(trial: FrozenTrial, message: Finished | None, setup: StudySetup, run: StudyRun) -> None:
    rounds: list[tuple[int, dict[str, float | None]]]
    metrics: dict[str, float | None] = {"objective": max(trial.intermediate_values.values(), default=None)}
    if message is None:
        # This process did not see the trial: the store of studies has the objective alone.
        rounds = [(number, {"val/objective": value}) for number, value in trial.intermediate_values.items()]
    else:
        rounds = list(enumerate(message.rounds, start=1))
        metrics["training_seconds"] = message.training_seconds
        metrics["resident_megabytes"] = message.resident_megabytes
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    values = values_of(trial.params, setup.space)
    span = (trial.datetime_start, trial.datetime_complete)
    run.log_trial(TrialRecord(trial.number, state_of(trial), reason_of(trial), values, rounds, metrics, *span))


def _log_missing(study: Study, setup: StudySetup, run: StudyRun) -> None:
    """Log ended trials of this machine that have no MLflow run.

    The process that should have logged them was killed.
    """
    logged = run.logged_trials()
    for trial in study.get_trials(deepcopy=False):
        ours = was_killed(trial) or ran_on_this_machine(trial)
        if trial.state.is_finished() and ours and trial.number not in logged:
            _log_trial(trial, None, setup, run)


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


def _progress_line(study: Study, trial: FrozenTrial, method: str, trials: int) -> str:
    done = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and not is_retried(t)]
    text = f"{method} {len(done)}/{trials}  trial {trial.number} {state_of(trial)}"
    if trial.state == TrialState.COMPLETE:
        text += f", validation AUC {trial.value:.4f}"
    reason = reason_of(trial)
    if reason:
        text += f": {reason}"
    values = [t.value for t in done if t.state == TrialState.COMPLETE and t.value is not None]
    return f"{text}; best so far {max(values):.4f}" if values else text
