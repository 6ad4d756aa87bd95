"""Distance of two samples of a column: Jensen-Shannon divergence over bins.

Legend: K bins.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

CATEGORIES = 50
"""So many of the most frequent categories have a bin of their own; the others share one."""
QUANTILES = 20
"""Bins of a numerical column, with as many rows in each as its values allow."""
NOTABLE = 0.01
"""Bits. Below that a drift is not worth a word, however many rows show it: two normal distributions a quarter of a
standard deviation apart are 0.011 bits apart."""
CHANCE_FACTOR = 3.0
"""So many times what chance alone makes on average is no chance."""


class Drift(NamedTuple):
    """The distance of two samples."""

    divergence: float
    """Bits: 0 for equal shares in all bins, 1 where no bin has rows of both"""
    chance: float
    """Bits that two samples of one distribution lie apart on average"""

    @property
    def notable(self) -> bool:
        """Whether it is neither small nor chance."""
        return self.divergence > max(NOTABLE, CHANCE_FACTOR * self.chance)


def drift(first: NDArray[np.int64], second: NDArray[np.int64], groups: tuple[int, int]) -> Drift:
    """Compare counts [K] of the same bins.

    Chance is (K - 1) (1 / n + 1 / m) / (8 ln 2), the mean of the divergence where it is small (half a chi-square,
    Lin 1991); n and m are searches or users, not rows, as rows of one search are much alike.

    Args:
        first: rows in each bin.
        second: rows in each bin.
        groups: searches or users in each sample; > 0.
    """
    if not first.sum() or not second.sum():
        return Drift(0.0, 0.0)
    distance = float(jensenshannon(first, second, base=2))
    used = int(np.count_nonzero(first + second))
    chance = (used - 1) * (1 / groups[0] + 1 / groups[1]) / (8 * math.log(2))
    return Drift(0.0 if math.isnan(distance) else distance**2, chance)


def category_bins(pooled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each code's bin, given how often each code is seen.

    The most frequent codes have bins of their own, the others share one.
    """
    bins = np.full(len(pooled), min(CATEGORIES, len(pooled)), np.int64)
    frequent = np.argsort(-pooled, kind="stable")[:CATEGORIES]
    bins[frequent] = np.arange(len(frequent))
    return bins


def quantile_bins(pooled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bins of a fine histogram's cells, about equally full."""
    total = int(pooled.sum())
    if not total:
        return np.zeros(len(pooled), np.int64)
    # By the rows before a cell: a cell of many equal values is a bin of its own.
    before = np.cumsum(pooled) - pooled
    bins: NDArray[np.int64] = np.minimum(before * QUANTILES // total, QUANTILES - 1)
    return bins


def rebin(counts: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add up counts by bin, [K]."""
    return np.bincount(bins, weights=counts).astype(np.int64)
