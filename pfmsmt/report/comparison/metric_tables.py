"""A table for each metric: methods down, scenarios x tasks across."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pfmsmt.core.display import Cell, DisplayTable, Heading, Row, terminal_notes, terminal_table
from pfmsmt.report.comparison.inputs import Place, Results
from pfmsmt.report.comparison.summaries import estimate, mean, places


class _Metric(NamedTuple):
    name: str
    title: str
    explanation: str
    distance: Callable[[float], float]
    """From the ideal; the smallest is best."""
    with_means: bool = True


_AUC = _Metric("auc", "AUC", "Probability that a random positive scores above a random negative.", lambda v: -v)
_OTHERS = (
    _Metric(
        "gauc",
        "GAUC",
        "AUC within each search, mean over the searches that hold both classes, weighted by their rows.",
        lambda v: -v,
    ),
    _Metric("logloss", "Log-loss", "Mean cross-entropy in nats; lower is better.", lambda v: v),
    _Metric(
        "ece",
        "Expected calibration error",
        "Mean distance between predicted and actual rate over bins of equal size; lower is better.",
        lambda v: v,
    ),
    _Metric(
        "predicted_to_actual",
        "Predicted / actual",
        "Sum of predictions over number of positives; 1 is unbiased, above 1 predicts too much.",
        lambda v: abs(v - 1.0),
        with_means=False,  # biases of opposite sign would cancel
    ),
)


def auc_table(results: Results) -> DisplayTable:
    """Return AUCs with bootstrap intervals, and notes on undefined values."""
    return _table(results, _AUC)._replace(notes=undefined_notes(results))


def other_tables(results: Results) -> tuple[DisplayTable, ...]:
    """Return GAUC, log-loss, calibration error and predicted/actual."""
    return tuple(_table(results, metric) for metric in _OTHERS)


def undefined_notes(results: Results) -> tuple[str, ...]:
    """Say for each undefined value why it is undefined."""
    found = []
    for scenario, task in places(results):
        score = results.runs[0].scores[scenario][task]
        place = f"{scenario} {task.upper()}: {score.rows} test rows, {score.positives} positives"
        if score.auc is None:
            found.append(f"{place}. With one class only, AUC and GAUC are undefined and left out of the means.")
        elif score.gauc is None:
            found.append(f"{place}. No search holds both classes, so GAUC is undefined and left out of the means.")
    return tuple(found)


def terminal_comparison(results: Results, width: int = 100) -> str:
    """Return the AUC table as ASCII text of at most `width` columns."""
    table = auc_table(results)
    parts = [
        "Test AUC, * marks the best of the methods that could be deployed",
        terminal_table(table, width),
        terminal_notes(table, width),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _table(results: Results, metric: _Metric) -> DisplayTable:
    columns: list[tuple[Heading, Sequence[Place]]] = []
    if metric.with_means:
        columns.append((Heading("all", "mean", ".4f"), places(results)))
        columns += [(Heading(task.upper(), "mean", ".4f"), places(results, task)) for task in results.tasks]
    columns += [(Heading(task.upper(), scenario, ".4f"), [(scenario, task)]) for scenario, task in places(results)]
    by_column = [_column(results, metric, averaged) for _, averaged in columns]
    rows = tuple(
        Row((Cell(method), *(cells[number] for cells in by_column)), reference=not results.deployable(method))
        for number, method in enumerate(results.shown)
    )
    headings = (Heading("method", align="left"), *(heading for heading, _ in columns))
    return DisplayTable(headings, rows, metric.title, metric.explanation)


def _column(results: Results, metric: _Metric, averaged: Sequence[Place]) -> list[Cell]:
    """Return one column's cells, the best of the deployable methods marked.

    Equally good ones are all marked.
    """
    estimates = [estimate(results, method, metric.name, averaged) for method in results.shown]
    distances = [
        metric.distance(value)
        for method, (value, _) in zip(results.shown, estimates, strict=True)
        if value is not None and results.deployable(method)
    ]
    cells = []
    for method, (value, deviation) in zip(results.shown, estimates, strict=True):
        if value is None:
            cells.append(Cell(None))
            continue
        best = results.deployable(method) and metric.distance(value) == min(distances)
        interval = _interval(results, method, averaged[0]) if metric is _AUC and len(averaged) == 1 else ""
        cells.append(Cell(value, deviation, interval, best))
    return cells


def _interval(results: Results, method: str, place: Place) -> str:
    """Return an AUC's interval; its bounds are averaged over seeds.

    The interval is about the test rows, the deviation about the seeds.
    """
    scenario, task = place
    low = mean(tree[scenario][task].auc_low for tree in results.scores(method))
    high = mean(tree[scenario][task].auc_high for tree in results.scores(method))
    return f"[{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
