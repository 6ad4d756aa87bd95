"""Searches of the quality benchmark: what is tuned, within which ranges, and what is kept of every study.

Methods and floors have the same number of trials, the same sampler and, where a training has rounds, the same pruner.
Trials see a world of their own, `TUNING_SEED`, which is in no table. So planted worlds' large test parts are free to
score trials: on validation rows, of which a world has 30 times fewer, a search finds noise (docs/decisions/tuning.md).
Within a trial validation rows choose the round, as in the runs of the tables. Real data have one test part, which no
search may see: there a trial's score is the mean validation AUC of its best round. The first trial has the values of
params.yaml, with what lies outside of a range at its edge; in other settings than the default one the second trial has
the default setting's best.
"""

import csv
import datetime
from collections.abc import Callable
from typing import Any

import optuna
import torch
import yaml
from floors import FLOORS, START, floor_auc, mean_of
from floors import space as floor_space
from optuna.trial import FrozenTrial, TrialState
from worlds import DEFAULT, DEFAULTS_BEST, REAL, SEARCHED, START_VALUES, Bench, configure, shards, train

from pfmsmt.config import Parameter
from pfmsmt.config.keys import value_at
from pfmsmt.core.errors import TrainingError
from pfmsmt.methods.discovery import find_methods
from pfmsmt.training.rounds import RoundResult
from pfmsmt.training.scores import mean_auc

TUNING_SEED = 1000
FIRST_TRIALS = 5
"""So many trials are given or random, and none of them is pruned."""

DROPOUT = "model.dropout"
"""Key of the model that is tuned for every method."""
PARAMETERS: dict[str, Parameter] = {
    DROPOUT: Parameter(type="float", low=0.3, high=0.65),
    **{
        f"methods.{method}.{key}": parameter
        for method, declared in find_methods().methods.items()
        for key, parameter in declared.search.items()
    },
}
"""Dotted key -> values that it may take; each method's own are of its declaration."""
SPACE: dict[str, tuple[str, ...]] = {
    "model": (DROPOUT,),
    **{
        method: tuple(f"methods.{method}.{key}" for key in declared.search)
        for method, declared in find_methods().methods.items()
    },
}
"""Keys that are tuned: for every method (model), and for each."""


def tune(bench: Bench, setting: str, method: str, trials: int) -> str:
    """Search the parameters of a method or floor; write the best with the study's figures, and all trials.

    `<method>.yaml` has `study` (figures) and `params` (the best trial's); `<method>.csv` has a line for each trial.
    """
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rounds = configure(bench, setting, TUNING_SEED, {}).train.rounds
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=FIRST_TRIALS, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner(rounds))
    study.enqueue_trial(START[method] if method in FLOORS else _start(bench, setting, method))
    from_default = setting != DEFAULT and bench.tuned_file(DEFAULT, method).exists()
    if from_default:
        study.enqueue_trial(bench.tuned(DEFAULT, method))
    # A trial whose training diverges counts, and is no candidate.
    study.optimize(objective(bench, setting, method), n_trials=trials, catch=(TrainingError,))

    best, start = study.best_trial, study.trials[0].value
    states = [trial.state for trial in study.trials]
    path = bench.tuned_file(setting, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {
        "setting": setting,
        "data_seed": TUNING_SEED,
        "trials": trials,
        "complete": states.count(TrialState.COMPLETE),
        "pruned": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAIL),
        "rounds_saved": None if method in FLOORS else round(_saved(study.trials, rounds), 3),
        "sampler": f"multivariate TPE, seed 0; the first {FIRST_TRIALS} trials are given or random",
        "pruner": "none: a floor has no rounds" if method in FLOORS else PRUNER,
        "scored_on": JUDGES[judge(setting)],
        "auc": round(study.best_value, 5),
        "auc_of_the_start": None if start is None else round(start, 5),
        "best_trial": best.number,
        "ended_at": ended_at(best.number, from_default),
        "date": datetime.date.today().isoformat(),
    }
    found = {"study": figures, "params": _short(best.params)}
    path.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")
    with path.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*_LOGGED, *best.params], lineterminator="\n")
        writer.writeheader()
        writer.writerows(_logged(trial) for trial in study.trials)
    begin = "diverged" if start is None else f"{start:.4f}"
    return f"{study.best_value:.4f} (start {begin}), {figures['pruned']} of {trials} trials pruned"


def objective(bench: Bench, setting: str, method: str) -> Callable[[optuna.Trial], float]:
    """Return the score of a trial; a method's trial is pruned by its mean validation AUC after each round."""

    def score(trial: optuna.Trial) -> float:
        if method in FLOORS:
            schema, folder, _ = shards(bench, setting, TUNING_SEED)
            return floor_auc(method, schema, folder, floor_space(trial, method), judge(setting))
        changes = space(trial, method) | {"train.refit": False}
        rounds = configure(bench, setting, TUNING_SEED, changes).train.rounds

        def on_round(result: RoundResult) -> None:
            value = mean_auc(result.validation.values())
            if value is None:
                return
            trial.report(value, result.round)
            if result.round < rounds and trial.should_prune():
                raise optuna.TrialPruned

        trained = train(bench, setting, TUNING_SEED, method, changes, on_round)
        if judge(setting) == "val":
            return trained.best_validation()
        return mean_of(trained.test(*shards(bench, setting, TUNING_SEED)[:2]))

    return score


JUDGES = {"val": "validation rows", "test": "test rows of the tuning world"}


def judge(setting: str) -> str:
    """Return the split by whose AUC trials are compared."""
    return "val" if setting in REAL else "test"


def pruner(rounds: int) -> optuna.pruners.BasePruner:
    """Return the pruner of trainings of so many rounds, which `PRUNER` describes.

    It waits, as slow rates are behind for long and end well: on a development world, ranks after a quarter of the
    rounds said nothing about pf_msmtrec's last ones.
    """
    return optuna.pruners.MedianPruner(n_startup_trials=FIRST_TRIALS, n_warmup_steps=rounds // 2)


PRUNER = f"median of complete trials, from half of the rounds on, after {FIRST_TRIALS} trials"


def ended_at(best_trial: int, from_default: bool) -> str:
    """Say whose values a search ends with, by the number of its best trial."""
    if best_trial == 0:
        return START_VALUES
    return DEFAULTS_BEST if best_trial == 1 and from_default else SEARCHED


def space(trial: optuna.Trial, method: str) -> dict[str, Any]:
    """Draw a trial's parameters by dotted keys."""
    drawn: dict[str, Any] = {}
    for key in SPACE["model"] + SPACE[method]:
        parameter = PARAMETERS[key]
        if parameter.choices is not None:
            drawn[key] = trial.suggest_categorical(key, parameter.choices)
        else:
            drawn[key] = trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)
    return drawn


def _start(bench: Bench, setting: str, method: str) -> dict[str, Any]:
    """Return the values of params.yaml, with what lies outside of a range at its edge."""
    config = configure(bench, setting, TUNING_SEED, {})
    start = {key: value_at(config, key) for key in SPACE["model"] + SPACE[method]}
    for key in start:
        parameter = PARAMETERS[key]
        if parameter.choices is None:
            start[key] = float(min(max(start[key], parameter.low), parameter.high))
    return start


_LOGGED = ("number", "state", "auc", "validation_auc", "rounds", "seconds")
"""Columns of every log; one for each parameter follows."""


def _logged(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's line of the log.

    `auc` is the score of a complete trial, `validation_auc` that of the best round so far; floors have no rounds.
    """
    reached = trial.intermediate_values.values()
    complete = trial.state == TrialState.COMPLETE
    seconds = None if trial.duration is None else round(trial.duration.total_seconds(), 1)
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "auc": round(trial.value, 5) if complete and trial.value is not None else None,
        "validation_auc": round(max(reached), 5) if reached else None,
        "rounds": trial.last_step,
        "seconds": seconds,
        **_short(trial.params),
    }


def _saved(trials: list[FrozenTrial], rounds: int) -> float:
    """Return the share of rounds that pruning left out, of trials that did not fail."""
    trained = [trial.last_step or 0 for trial in trials if trial.state != TrialState.FAIL]
    return 1 - sum(trained) / (rounds * len(trained))


def _short(params: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in params.items()}
