"""What a study found: its best trial beside params.yaml's own values, on the terminal and as a file."""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from optuna import Study
from optuna.trial import TrialState

from pfmsmt import __version__
from pfmsmt.atomic import write_text
from pfmsmt.config import Config
from pfmsmt.errors import TuningError
from pfmsmt.tuning.sampling import RANDOM_TRIALS, values_of
from pfmsmt.tuning.space import Space, plain_value
from pfmsmt.tuning.states import OUTSIDE, START, is_retried, state_of


class Outcome(NamedTuple):
    """The best of one method."""

    method: str
    study: str
    objective: str
    states: Mapping[str, int]
    """How many trials ended complete, pruned, failed, or were tried again after their worker was killed."""
    elsewhere: int
    """How many still run, on other machines or in other processes."""
    start: Mapping[str, Any]
    """params.yaml's own values."""
    start_value: float | None
    """The objective at the start; None where that trial is not complete."""
    outside: Sequence[str]
    """Keys whose start lies outside of the space, so that the first trial had other values."""
    best: Mapping[str, Any]
    best_value: float
    best_trial: int


def outcome_of(study: Study, config: Config, method: str, space: Space) -> Outcome:
    """Summarise a study.

    Raises:
        TuningError: none of its trials is complete.
    """
    trials = study.get_trials(deepcopy=False)
    states = Counter("tried again" if is_retried(t) else state_of(t) for t in trials if t.state.is_finished())
    if not states["complete"]:
        raise TuningError(
            f"study {study.study_name}: no trial is complete, so there is no best one; "
            "go on with --resume and more --trials, or a longer --timeout"
        )
    elsewhere = sum(trial.state == TrialState.RUNNING for trial in trials)
    best = study.best_trial
    first = [t.value for t in trials if START in t.user_attrs and t.state == TrialState.COMPLETE]
    return Outcome(
        method, study.study_name, config.tune.objective, states, elsewhere,
        {key: plain_value(config, key) for key in space},
        first[0] if first else None, study.user_attrs[OUTSIDE], values_of(best.params, space), study.best_value,
        best.number,
    )  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the best parameters against params.yaml's, one table for all methods."""
    rows: list[tuple[str, str, str]] = [("", "params.yaml", "best")]
    notes = []
    for found in outcomes:
        mark = "*" if found.outside else ""
        start = "not complete" if found.start_value is None else f"{found.start_value:.4f}{mark}"
        rows.append((f"{found.method}, validation AUC ({found.objective})", start, f"{found.best_value:.4f}"))
        for key, value in found.best.items():
            rows.append((f"  {key}", _shown(found.start[key]), _shown(value)))
        if found.outside:
            notes.append(f"* {', '.join(found.outside)}: outside of tune.space; the first trial had the nearest value")
        states = ", ".join(f"{number} {state}" for state, number in sorted(found.states.items()))
        running = f", {found.elsewhere} still running elsewhere" if found.elsewhere else ""
        notes.append(f"{found.study}: {states}{running}; the best is trial {found.best_trial}")
        if found.elsewhere:
            notes.append("  a machine that is gone is noticed after three minutes; --resume then runs its trials again")
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}".rstrip() for row in rows]
    return "\n".join([*lines, *notes])


def export(found: Outcome, config: Config, path: Path) -> None:
    """Write the best parameters, by dotted keys, with the study's figures; benchmarks/quality.py reads such files."""
    figures = {
        "study": found.study,
        "method": found.method,
        "objective": found.objective,
        "trials": sum(number for state, number in found.states.items() if state != "tried again"),
        "states": {state: number for state, number in sorted(found.states.items()) if number},
        "sampler": f"TPE, seed {config.seed}, {RANDOM_TRIALS} trials before it models anything",
        "pruner": config.tune.pruner,
        "training_seed": config.train.seeds[0],
        "validation_auc": round(found.best_value, 5),
        "validation_auc_of_the_start": None if found.start_value is None else round(found.start_value, 5),
        "best_trial": found.best_trial,
        "pfmsmt": __version__,
        "date": datetime.date.today().isoformat(),
    }
    write_text(path, yaml.safe_dump({"study": figures, "params": dict(found.best)}, sort_keys=False))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
