"""The rule that says whether a training overfits, and what to change.

A scenario overfits where its validation AUC is best in the first half of the rounds, and the mean of the last tenth of
them is lower by more than FALL, by more than the standard error of an AUC on these validation rows, and by more than
four times the noise from round to round. Rounds are compared on the same rows, so the error is a cautious measure.
As where the best round is chosen, tasks are weighted by their positives.
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
        positives = own["task"].map(counts.positives).astype("float64")
        sums = pd.DataFrame({"round": own["round"], "auc": own["auc"] * positives, "weight": positives})
        totals = sums.groupby("round").sum()
        by_round = totals["auc"] / totals["weight"]
        if len(by_round) < 2:
            continue
        best, rounds = int(by_round.index[int(by_round.to_numpy().argmax())]), int(by_round.index.max())
        fall = float(by_round.max() - by_round[by_round.index > 0.9 * rounds].mean())
        error = _error_of_mean(own[own["round"] == best], counts)
        if best <= rounds / 2 and fall > max(FALL, error, 4 * _noise(by_round)):
            found.append(Overfit(scenario, best, rounds, fall))
    return tuple(found)


def _noise(by_round: "pd.Series[float]") -> float:
    """Return a round's deviation, from the steps of the second half."""
    steps = by_round[by_round.index > by_round.index.max() / 2].diff().dropna()
    return float(steps.std()) / 2**0.5 if len(steps) > 1 else 0.0


def _error_of_mean(scores: pd.DataFrame, counts: SplitCounts) -> float:
    """Return the error of the weighted mean, as if tasks erred together."""
    found = [(counts.positives[task], auc) for task, auc in zip(scores["task"], scores["auc"], strict=True)]
    errors = [positives * standard_error(float(auc), positives, counts.rows) for positives, auc in found]
    return sum(errors) / sum(positives for positives, _ in found)


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
