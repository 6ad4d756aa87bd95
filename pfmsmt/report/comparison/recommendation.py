"""The answer, scenario by scenario, to whether federation is worth it."""

from typing import NamedTuple

from pfmsmt.core.display import Cell, DisplayTable, Heading, Row
from pfmsmt.report.comparison.differences import Difference, advantage
from pfmsmt.report.comparison.inputs import Results
from pfmsmt.report.comparison.summaries import rounds_table

ALONE = "local"
"""The method that a federated one must beat: every client for itself."""
WORTHWHILE = 0.002
"""Gain in AUC, mean over tasks, below which a federation does not pay."""


class Gain(NamedTuple):
    """Advantages of the federated method in one scenario."""

    auc: Difference | None
    logloss: Difference | None
    ece: Difference | None

    @property
    def recommendation(self) -> str:
        """The word for the table; empty without an interval.

        One of: federated, for ranking only, local, more data.
        """
        if self.auc is None or self.auc.low is None or self.auc.high is None:
            return ""
        if self.auc.high < WORTHWHILE:
            return "local"
        if self.auc.low <= 0:
            return "more data"
        worse = self.logloss is not None and self.logloss.certain and self.logloss.value < 0
        return "for ranking only" if worse else "federated"


RULE = (
    f"Recommended is local where the AUC gain's interval ends below {WORTHWHILE}, less than a federation is worth. "
    "Otherwise it is federated where the interval begins above 0, but for ranking only where log-loss certainly gets "
    "worse; and more data where it does not, as these test rows and seeds cannot tell."
)
"""The rule of `Gain.recommendation`, for readers."""


def worth_table(results: Results, *, brief: bool = False) -> DisplayTable | None:
    """Return gains over training alone, and what they speak for.

    Args:
        results: the runs.
        brief: for a terminal, without positives, log-loss and calibration.

    Returns:
        None without a federated method, or without `local`.
    """
    method = federated_choice(results)
    if method is None or ALONE not in results.methods:
        return None
    headings = (
        Heading("scenario", align="left"),
        Heading("training rows", form=","),
        *(Heading(task.upper(), "training positives", ",") for task in results.tasks),
        Heading("AUC gain"),
        Heading("log-loss gain"),
        Heading("calibration gain"),
        Heading("recommended", align="left"),
    )
    rows = []
    for scenario in results.scenarios:
        gain = gain_of(results, method, scenario)
        train = results.counts.get(scenario, {}).get("train")
        counted = (
            (train.rows, *(train.positives[task] for task in results.tasks))
            if train
            else (None,) * (1 + len(results.tasks))
        )
        texts = (None if found is None else found.text for found in gain)
        cells = map(Cell, (scenario, *counted, *texts))
        rows.append(Row((*cells, Cell(gain.recommendation or None, best=not brief))))
    if brief:
        wanted = (0, 1, len(headings) - 4, len(headings) - 1)
        headings = tuple(headings[place] for place in wanted)
        rows = [Row(tuple(row.cells[place] for place in wanted)) for row in rows]
    return DisplayTable(headings, tuple(rows), f"When is it worth it: {method} against {ALONE}", _explanation(method))


def _explanation(method: str) -> str:
    return (
        f"What a scenario gains with {method}, the federated method with the best validation AUC, over training alone "
        f"({ALONE}): means over tasks, above 0 where {method} is better. {RULE}"
    )


def gain_of(results: Results, method: str, scenario: str) -> Gain:
    """Return the advantages of a method over training alone."""
    places = [(scenario, task) for task in results.tasks]
    return Gain(*(advantage(results, method, ALONE, metric, places) for metric in ("auc", "logloss", "ece")))


def federated_choice(results: Results) -> str | None:
    """Return the federated method with the best validation AUC.

    Mean over scenarios of each one's best round, as test rows must not choose. None without a federated method.
    """
    best = rounds_table(results).groupby(["method", "seed", "scenario"])["auc"].max().groupby("method").mean().dropna()
    known = [method for method in results.methods if method in results.federated and method in best]
    return max(known, key=lambda method: float(best[method]), default=None)
