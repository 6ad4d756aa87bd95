"""The tables of the comparison, free of any markup: methods down, scenarios x tasks across."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pfmsmt.report.comparison.means import Estimate, Place, estimate, mean, places
from pfmsmt.report.comparison.results import Results

UNDEFINED = "\N{EN DASH}"


class Cell(NamedTuple):
    """One value, ready to print."""

    value: str
    spread: str = ""
    """Deviation over seeds, interval."""
    best: bool = False


class Row(NamedTuple):
    """One method."""

    method: str
    cells: tuple[Cell, ...]


class Table(NamedTuple):
    """One metric."""

    title: str
    explanation: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Heading and the columns under it."""
    rows: tuple[Row, ...]


class _Metric(NamedTuple):
    name: str
    title: str
    explanation: str
    distance: Callable[[float], float]
    """From the ideal; the smallest is best."""
    with_means: bool = True


AUC = _Metric("auc", "AUC", "Probability that a random positive scores above a random negative.", lambda v: -v)
OTHERS = (
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


def auc_table(results: Results) -> Table:
    """Return the headline table, with deviations over seeds and bootstrap intervals."""
    return _table(results, AUC)


def other_tables(results: Results) -> tuple[Table, ...]:
    """Return GAUC, log-loss, calibration error and predicted/actual."""
    return tuple(_table(results, metric) for metric in OTHERS)


def notes(results: Results) -> tuple[str, ...]:
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


def _table(results: Results, metric: _Metric) -> Table:
    columns: list[list[Place]] = []
    groups: list[tuple[str, tuple[str, ...]]] = []
    if metric.with_means:
        columns = [places(results), *(places(results, task) for task in results.tasks)]
        groups = [("mean", ("all", *(task.upper() for task in results.tasks)))]
    columns += [[place] for place in places(results)]
    groups += [(scenario, tuple(task.upper() for task in results.tasks)) for scenario in results.scenarios]
    by_column = [_column(results, metric, column) for column in columns]
    rows = tuple(
        Row(method, tuple(cells[number] for cells in by_column)) for number, method in enumerate(results.shown)
    )
    return Table(metric.title, metric.explanation, tuple(groups), rows)


def _column(results: Results, metric: _Metric, column: Sequence[Place]) -> list[Cell]:
    estimates = [estimate(results, method, metric.name, column) for method in results.shown]
    distances = [
        metric.distance(value)
        for method, (value, _) in zip(results.shown, estimates, strict=True)
        if value is not None and results.deployable(method)
    ]
    cells = []
    for method, found in zip(results.shown, estimates, strict=True):
        if found.value is None:
            cells.append(Cell(UNDEFINED))
            continue
        best = results.deployable(method) and metric.distance(found.value) == min(distances)
        interval = _interval(results, method, column[0]) if metric is AUC and len(column) == 1 else ""
        cells.append(Cell(f"{found.value:.4f}", " ".join(filter(None, [_deviation(found), interval])), best))
    return cells


def _deviation(found: Estimate) -> str:
    return f"± {found.deviation:.4f}" if found.deviation is not None else ""


def _interval(results: Results, method: str, place: Place) -> str:
    """Bounds are averaged over seeds: they speak of the test rows, the deviation speaks of the seeds."""
    scenario, task = place
    low = mean(tree[scenario][task].auc_low for tree in results.scores(method))
    high = mean(tree[scenario][task].auc_high for tree in results.scores(method))
    return f"[{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
