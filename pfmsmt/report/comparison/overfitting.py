"""The rule that says whether a training overfits, and what to change.

A scenario overfits where its validation AUC, mean over tasks, is best in the first half of the rounds, and the mean of
the last tenth of them is lower by more than FALL and by more than the standard error of an AUC on these validation
rows. Rounds are compared on the same rows, so that this error is a cautious measure of their noise.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from pfmsmt.config import Methods
from pfmsmt.data.schema import SplitCounts

FALL = 0.005
"""A smaller fall of the AUC is of no concern, however many the rows."""


class Overfit(NamedTuple):
    """A scenario whose validation AUC was best early and fell."""

    scenario: str
    best_round: int
    rounds: int
    fall: float


def overfits(history: pd.DataFrame, validation: Mapping[str, SplitCounts]) -> tuple[Overfit, ...]:
    """Return the scenarios that overfit, in the order of their counts.

    Args:
        history: round, scenario, task, auc; undefined AUCs are missing values.
        validation: scenario -> counts of its validation rows.
    """
    found = []
    for scenario, counts in validation.items():
        own = history[history["scenario"] == scenario].dropna(subset="auc")
        by_round = own.groupby("round")["auc"].mean()
        if len(by_round) < 2:
            continue
        best, rounds = int(by_round.index[int(by_round.to_numpy().argmax())]), int(by_round.index.max())
        late = by_round[by_round.index > 0.9 * rounds]
        fall = float(by_round.max() - late.mean())
        scores = own[own["round"] == best].set_index("task")["auc"]
        errors = [standard_error(float(auc), counts.positives[str(task)], counts.rows) for task, auc in scores.items()]
        if best <= rounds / 2 and fall > max(FALL, sum(errors) / len(errors)):
            found.append(Overfit(scenario, best, rounds, fall))
    return tuple(found)


def standard_error(auc: float, positives: int, rows: int) -> float:
    """Return the standard error of an AUC (Hanley and McNeil 1982).

    Args:
        auc: on rows of both classes.
        positives: rows with label 1.
        rows: all of them.
    """
    negatives = rows - positives
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (one - auc**2) + (negatives - 1) * (two - auc**2)
    return float((max(spread, 0.0) / (positives * negatives)) ** 0.5)


def remedies_of(method: str, methods: Methods) -> tuple[str, ...]:
    """Return the keys of params.yaml that act against overfitting."""
    block = type(getattr(methods, method)).model_fields
    decays = [key for key in ("private_weight_decay", "weight_decay") if key in block]
    # Without decay there are no experts, whose dropout could help.
    more = ["model.dropout", *(f"methods.{method}.{key}" for key in decays)] if decays else [f"methods.{method}.ridge"]
    return ("train.rounds", *more)


def overfit_text(name: str, cases: Sequence[Overfit], remedies: Sequence[str]) -> str:
    """Return a sentence on a run's scenarios that overfit.

    Empty without such a scenario.
    """
    if not cases:
        return ""
    where = "; ".join(
        f"{case.scenario} (best in round {case.best_round} of {case.rounds}, {case.fall:.4f} lower at the end)"
        for case in cases
    )
    text = f"{name} overfits, by validation AUC: {where}. The models of the best rounds are served."
    if not remedies:
        return text
    fewer, *more = remedies
    return f"{text} Lower {fewer}, or raise {' or '.join(more)}."
