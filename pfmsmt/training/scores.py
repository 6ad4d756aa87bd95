"""Validation metrics, and the score of a round by them.

Needs no torch: reports and the registry read it too.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

Validation = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""scenario -> task -> {auc, logloss}; None: undefined, as the shard holds a single class."""
Positives = Mapping[str, Mapping[str, int]]
"""scenario -> task -> rows with label 1"""


def mean_auc(validations: Iterable[Validation]) -> float | None:
    """Return the mean AUC over clients, scenarios and tasks.

    None where no AUC is defined.
    """
    cells = [cell for found in validations for tasks in found.values() for cell in tasks.values()]
    defined = [cell["auc"] for cell in cells if cell["auc"] is not None]
    return float(np.mean(defined)) if defined else None


class Score(NamedTuple):
    """The score of a round, to choose a client's best.

    Compared in this order: the log-loss decides where AUCs are equal.
    """

    auc: float
    negative_logloss: float


def score(validation: Validation, weights: Positives | None = None) -> Score:
    """Return the mean AUC where defined, and minus the mean log-loss.

    Over scenarios and tasks. The variance of an AUC goes with one over its positives, so positives as weights make the
    least noisy mean (ours).
    """
    aucs, sizes, losses = [], [], []
    for scenario, tasks in validation.items():
        for task, cell in tasks.items():
            if cell["auc"] is not None:
                aucs.append(cell["auc"])
                sizes.append(weights[scenario][task] if weights else 1)
            if cell["logloss"] is not None:
                losses.append(cell["logloss"])
    mean = float(np.average(aucs, weights=sizes)) if aucs else 0.0
    return Score(mean, -float(np.mean(losses)) if losses else 0.0)
