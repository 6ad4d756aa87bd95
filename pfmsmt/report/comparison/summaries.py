"""Means over seeds and scenarios, and the long tables behind pictures.

An undefined value is left out of a mean and counted, never filled in.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from pfmsmt.report.comparison.inputs import Place, Results, RunResult

METRICS = ("auc", "gauc", "logloss", "ece")
"""Metrics in metrics.json for each scenario and task."""


class Estimate(NamedTuple):
    """A value over the seeds of one method."""

    value: float | None
    deviation: float | None
    """Sample standard deviation over seeds (n - 1); None with fewer than two."""


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are defined; None if there is none."""
    defined = [value for value in values if value is not None]
    return statistics.fmean(defined) if defined else None


def estimate(results: Results, method: str, metric: str, places: Sequence[Place]) -> Estimate:
    """Average one metric over places within each seed, then over seeds."""
    by_seed = [mean(getattr(tree[s][t], metric) for s, t in places) for tree in results.scores(method)]
    defined = [value for value in by_seed if value is not None]
    return Estimate(mean(defined), statistics.stdev(defined) if len(defined) > 1 else None)


def places(results: Results, task: str | None = None) -> list[Place]:
    """Return every scenario with every task, or with one."""
    return [(scenario, name) for scenario in results.scenarios for name in results.tasks if task in (None, name)]


def metrics_tree(results: Results) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    """Return method -> scenario -> task -> metric, means over seeds."""
    return {
        method: {
            scenario: {
                task: {metric: estimate(results, method, metric, [(scenario, task)]).value for metric in METRICS}
                for task in results.tasks
            }
            for scenario in results.scenarios
        }
        for method in results.shown
    }


def summary_tree(results: Results) -> dict[str, dict[str, float | int | None]]:
    """Return method -> mean_auc, mean_<task>_auc, undefined_aucs, seeds.

    With several seeds also the deviation of each mean, `*_std`.
    """
    return {method: _summary(results, method) for method in results.shown}


def _summary(results: Results, method: str) -> dict[str, float | int | None]:
    names: dict[str, str | None] = {"mean_auc": None} | {f"mean_{task}_auc": task for task in results.tasks}
    summary: dict[str, float | int | None] = {}
    for name, task in names.items():
        summary[name], deviation = estimate(results, method, "auc", places(results, task))
        if results.several_seeds and deviation is not None:
            summary[f"{name}_std"] = deviation
    aucs = (estimate(results, method, "auc", [place]).value for place in places(results))
    summary["undefined_aucs"] = sum(auc is None for auc in aucs)
    summary["seeds"] = len(results.scores(method))
    return summary


def ranked(results: Results) -> list[tuple[str, float]]:
    """Return the deployable methods with their mean AUC, best first."""
    means = [(name, estimate(results, name, "auc", places(results)).value) for name in results.methods]
    defined = [(name, value) for name, value in means if value is not None and results.deployable(name)]
    return sorted(defined, key=lambda pair: -pair[1])


def rounds_table(results: Results) -> pd.DataFrame:
    """Return the validation scores of each round.

    Columns: method, seed, scenario, round, auc, logloss; means over the tasks where they are defined.
    """
    parts = []
    for run in results.runs:
        known = run.history[run.history["scenario"].isin(results.scenarios)]
        order = known["scenario"].map(results.scenarios.index)
        means = known.assign(order=order).groupby(["order", "scenario", "round"], sort=True)[["auc", "logloss"]].mean()
        parts.append(_of_run(run, means.reset_index().drop(columns="order")))
    return pd.concat(parts, ignore_index=True)


def mean_history(results: Results, method: str) -> pd.DataFrame:
    """Return a method's validation AUC, mean over seeds.

    Columns: round, scenario, task, auc.
    """
    whole = pd.concat([run.history for run in results.of(method)])
    return whole.groupby(["round", "scenario", "task"])["auc"].mean().reset_index()


def roc_table(results: Results) -> pd.DataFrame:
    """Return the ROC curves of each method's lowest seed.

    Columns: method, seed, scenario, task, false_positive_rate, true_positive_rate.
    """
    return pd.concat([_of_run(run, run.roc) for run in first_seeds(results)], ignore_index=True)


def calibration_table(results: Results) -> pd.DataFrame:
    """Return the calibration bins of each method's lowest seed.

    Columns: method, seed, scenario, task, predicted, actual, rows.
    """
    return pd.concat([_of_run(run, run.calibration) for run in first_seeds(results)], ignore_index=True)


def first_seeds(results: Results) -> tuple[RunResult, ...]:
    """Return each method's run with the lowest seed.

    Curves of several seeds would only cover each other.
    """
    return tuple(results.of(method)[0] for method in results.methods)


def csv_text(table: pd.DataFrame) -> str:
    """Return the table as CSV.

    Numbers are the shortest that are exact; an undefined one is an empty cell.
    """
    text = table.to_csv(index=False, lineterminator="\n")
    assert isinstance(text, str)
    return text


def _of_run(run: RunResult, table: pd.DataFrame) -> pd.DataFrame:
    labelled = table.copy()
    labelled.insert(0, "method", run.method)
    labelled.insert(1, "seed", run.seed)
    return labelled
