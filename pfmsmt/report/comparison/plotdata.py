"""Long tables behind the pictures, also drawn by DVC: one row per point, the method in a column."""

import pandas as pd

from pfmsmt.report.comparison.results import Results, RunResult


def rounds_table(results: Results) -> pd.DataFrame:
    """Return method, seed, scenario, round, auc, logloss: validation, mean over the tasks where defined."""
    parts = []
    for run in results.runs:
        known = run.history[run.history["scenario"].isin(results.scenarios)]
        order = known["scenario"].map(results.scenarios.index)
        means = known.assign(order=order).groupby(["order", "scenario", "round"], sort=True)[["auc", "logloss"]].mean()
        parts.append(_of_run(run, means.reset_index().drop(columns="order")))
    return pd.concat(parts, ignore_index=True)


def roc_table(results: Results) -> pd.DataFrame:
    """Return method, seed, scenario, task, false_positive_rate, true_positive_rate: each method's lowest seed."""
    return pd.concat([_of_run(run, run.roc) for run in first_seeds(results)], ignore_index=True)


def calibration_table(results: Results) -> pd.DataFrame:
    """Return method, seed, scenario, task, predicted, actual, rows: each method's lowest seed."""
    return pd.concat([_of_run(run, run.calibration) for run in first_seeds(results)], ignore_index=True)


def first_seeds(results: Results) -> tuple[RunResult, ...]:
    """Return each method's run with the lowest seed: curves of several seeds would only cover each other."""
    return tuple(results.of(method)[0] for method in results.methods)


def csv_text(table: pd.DataFrame) -> str:
    """Return the table as CSV: shortest exact numbers, an undefined one as an empty cell."""
    text = table.to_csv(index=False, lineterminator="\n")
    assert isinstance(text, str)
    return text


def _of_run(run: RunResult, table: pd.DataFrame) -> pd.DataFrame:
    labelled = table.copy()
    labelled.insert(0, "method", run.method)
    labelled.insert(1, "seed", run.seed)
    return labelled
