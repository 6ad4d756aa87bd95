"""All that a comparison is made from. Undefined values are None."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
from pydantic import Field

ORACLE = "oracle"
"""Pseudo-method of generated data: the true probabilities, scored like predictions. The ceiling."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class TaskScore:
    """One task of one scenario, on the test shard."""

    auc: Finite | None
    gauc: Finite | None
    logloss: Finite | None
    ece: Finite | None
    predicted_to_actual: Finite | None
    auc_low: Finite | None = None
    auc_high: Finite | None = None
    rows: int | None = None
    positives: int | None = None


Scores = Mapping[str, Mapping[str, TaskScore]]
"""scenario -> task -> score"""


@dataclass(frozen=True)
class Diagnostics:
    """What explains a run, by round."""

    table: pd.DataFrame
    """round, group (`expert/0`, `tower/ctr`), quantity, client, other, value.

    Quantities: `listening` (row `client` of A: what it takes from `other`) and `cosine` of the updates of `client` and
    `other`; `coefficients` and `drift` of `client`; `conflicts`, the share of pairs with a negative cosine.
    """
    traffic: pd.DataFrame
    """round, client, bytes_up, bytes_down"""


@dataclass(frozen=True)
class RunResult:
    """One method with one seed."""

    method: str
    seed: int
    scores: Scores
    history: pd.DataFrame
    """round, scenario, task, auc, logloss on the validation shards; an undefined auc is NaN"""
    roc: pd.DataFrame
    """scenario, task, false_positive_rate, true_positive_rate"""
    calibration: pd.DataFrame
    """scenario, task, predicted, actual, rows"""
    diagnostics: Diagnostics | None = None


@dataclass(frozen=True)
class Results:
    """Runs of several methods on the same test rows."""

    runs: tuple[RunResult, ...]
    """In the order in which methods are shown; a method's seeds rise."""
    scenarios: tuple[str, ...]
    tasks: tuple[str, ...]
    oracle: Scores | None = None
    references: frozenset[str] = frozenset()
    """Methods that nobody could deploy (pooled data): shown, never marked best."""
    confidence: float | None = None
    """Of the AUC intervals."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Each method once."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    @property
    def shown(self) -> tuple[str, ...]:
        """The methods, and the oracle last where there is one."""
        return (*self.methods, ORACLE) if self.oracle is not None else self.methods

    @property
    def several_seeds(self) -> bool:
        """Whether any method ran more than once."""
        return len(self.runs) > len(self.methods)

    def of(self, method: str) -> tuple[RunResult, ...]:
        """Return the runs of one method."""
        return tuple(run for run in self.runs if run.method == method)

    def scores(self, method: str) -> tuple[Scores, ...]:
        """Return a method's scores, one tree per seed; the oracle has one."""
        if method == ORACLE and self.oracle is not None:
            return (self.oracle,)
        return tuple(run.scores for run in self.of(method))

    def deployable(self, method: str) -> bool:
        """Whether a method could serve a scenario."""
        return method != ORACLE and method not in self.references
