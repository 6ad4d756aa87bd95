"""Differences between two methods on the same test rows, with paired intervals.

A difference is an advantage: above 0 the first method is better, whatever the metric.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from pfmsmt.report.comparison.inputs import Place, Results, RunResult

PairedMetric = Literal["auc", "logloss", "ece"]
"""A metric whose bootstrap replicates are stored."""
SIGNS: dict[PairedMetric, int] = {"auc": 1, "logloss": -1, "ece": -1}
"""1 where more is better."""


class Difference(NamedTuple):
    """The advantage of one method over another, with its interval."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def certain(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def interval(self) -> str:
        """The interval in brackets; empty where there is none."""
        return f"[{self.low:z.4f}, {self.high:z.4f}]" if self.low is not None and self.high is not None else ""

    @property
    def text(self) -> str:
        """The signed value, and its interval."""
        return f"{self.value:+z.4f} {self.interval}".strip()

    @property
    def phrase(self) -> str:
        """The text within a sentence, which says where it may be chance."""
        doubt = ", which may be chance" if self.interval and not self.certain else ""
        return f"{self.text.removeprefix('+')}{doubt}"


def advantage(
    results: Results, method: str, other: str, metric: PairedMetric, places: Sequence[Place]
) -> Difference | None:
    """Return a method's mean advantage over places, paired by seeds and draws.

    The interval has two parts, added as independent errors. That of the test rows is the standard deviation of the
    differences of replicates, which have the same draws of searches for both methods. That of the trainings is
    Student's, from the differences of seeds that both methods have; of a single seed it is unknown and left out.

    Args:
        results: the runs.
        method: is subtracted from.
        other: is subtracted.
        metric: turned round where less is better.
        places: scenarios and tasks; those without the metric are left out.

    Returns:
        None where the metric is defined nowhere, and for methods without a seed in common.
    """
    pairs = [(run, twin) for run in results.of(method) for twin in results.of(other) if run.seed == twin.seed]
    defined = [
        (s, t) for s, t in places if all(_score(run, metric, (s, t)) is not None for pair in pairs for run in pair)
    ]
    if not pairs or not defined:
        return None
    by_seed = [_mean_difference(one, two, metric, defined) for one, two in pairs]
    value = statistics.fmean(by_seed)
    drawn = np.mean([_drawn(one, two, metric, defined) for one, two in pairs], axis=0)
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < 2 or results.confidence is None:
        return Difference(value)
    tail = (1.0 + results.confidence) / 2
    error = statistics.NormalDist().inv_cdf(tail) * float(drawn.std(ddof=1))
    if len(by_seed) > 1:
        quantile = float(stdtrit(len(by_seed) - 1, tail))
        error = math.hypot(error, quantile * statistics.stdev(by_seed) / math.sqrt(len(by_seed)))
    return Difference(value, value - error, value + error)


def _score(run: RunResult, metric: PairedMetric, place: Place) -> float | None:
    value: float | None = getattr(run.scores[place[0]][place[1]], metric)
    return value


def _mean_difference(one: RunResult, two: RunResult, metric: PairedMetric, places: Sequence[Place]) -> float:
    values = [(_score(one, metric, place), _score(two, metric, place)) for place in places]
    return statistics.fmean(SIGNS[metric] * (a - b) for a, b in values if a is not None and b is not None)


def _drawn(one: RunResult, two: RunResult, metric: PairedMetric, places: Sequence[Place]) -> NDArray[np.float64]:
    """Return each replicate's mean difference; empty where a place has none."""
    if not all(place in one.replicates for place in places):
        return np.zeros(0)
    values = [
        one.replicates[place][metric].to_numpy(np.float64) - two.replicates[place][metric].to_numpy(np.float64)
        for place in places
    ]
    return np.asarray(SIGNS[metric] * np.mean(values, axis=0), np.float64)
