"""Statistics of training rows that encoding needs, gathered batch by batch."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_SMALL_RANGE = 4_096
"""Integers that lie so close together are counted in a table."""


class CategoryCounts:
    """Rows of each integer category."""

    def __init__(self) -> None:
        """Start with none."""
        self._values = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._new: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._waiting = 0

    def add(self, values: NDArray[np.int64]) -> None:
        """Count the categories of some rows [B]."""
        if not len(values):
            return
        lowest = values.min()
        if int(values.max()) - int(lowest) < _SMALL_RANGE:
            table = np.bincount(values - lowest)
            found = np.flatnonzero(table)
            self._new.append((found + lowest, table[found]))
        else:
            self._new.append(np.unique(values, return_counts=True))
        self._waiting += len(self._new[-1][0])
        # Merged when as much is waiting as is known, so that a column of millions of ids is not sorted for each batch.
        if self._waiting > max(len(self._values), 65_536):
            self._merge()

    def _merge(self) -> None:
        values = np.concatenate([self._values, *(values for values, _ in self._new)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._new)])
        self._values, place = np.unique(values, return_inverse=True)
        self._counts = np.zeros(len(self._values), np.int64)
        np.add.at(self._counts, place, counts)
        self._new, self._waiting = [], 0

    def add_counted(self, values: Sequence[int], counts: Sequence[int]) -> None:
        """Take in categories [K] that were counted elsewhere, each once."""
        self._new.append((np.asarray(values, np.int64), np.asarray(counts, np.int64)))
        self._waiting += len(values)

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the categories [K], sorted, and the rows of each [K]."""
        self._merge()
        return self._values, self._counts

    def vocabulary(self, min_count: int) -> tuple[int, ...]:
        """Return, sorted, the categories seen in at least `min_count` rows."""
        self._merge()
        return tuple(self._values[self._counts >= min_count].tolist())


class TextCounts:
    """Rows of each category of text."""

    def __init__(self) -> None:
        """Start with none."""
        self._counts: Counter[str] = Counter()

    def add(self, values: NDArray[np.object_]) -> None:
        """Count the categories of some rows [B]."""
        for entry in pc.value_counts(pa.array(values, pa.string())).to_pylist():
            self._counts[entry["values"]] += entry["counts"]

    def add_counted(self, values: Sequence[str], counts: Sequence[int]) -> None:
        """Take in categories [K] that were counted elsewhere, each once."""
        self._counts.update(dict(zip(values, counts, strict=True)))

    def result(self) -> tuple[list[str], list[int]]:
        """Return the categories [K], sorted, and the rows of each [K]."""
        values = sorted(self._counts)
        return values, [self._counts[value] for value in values]

    def vocabulary(self, min_count: int) -> tuple[str, ...]:
        """Return, sorted, the categories seen in at least `min_count` rows."""
        return tuple(sorted(value for value, count in self._counts.items() if count >= min_count))


class MomentState(NamedTuple):
    """The moments of some rows that may leave a site.

    Each list is [F], or empty where there are no rows.
    """

    rows: int
    mean: list[float]
    squares: list[float]
    """Sums of squared distances from the mean."""
    lowest: list[float]
    """A constant column's value, else something below the mean that is no row's value; `highest` likewise."""
    highest: list[float]


class Moments:
    """Mean and standard deviation of F columns, updated pairwise.

    The update is that of Chan, Golub and LeVeque (1983).
    """

    def __init__(self, columns: int) -> None:
        """Start with no rows of F columns."""
        self._rows = 0
        self._mean = np.zeros(columns)
        self._squares = np.zeros(columns)
        self._lowest = np.full(columns, np.inf)
        self._highest = np.full(columns, -np.inf)

    def add(self, values: Sequence[NDArray[np.float64]] | NDArray[np.float64]) -> None:
        """Take in some rows: F columns [B].

        One column comes after the other, as each then stays in the processor's cache.
        """
        rows = len(values[0]) if len(values) else 0
        if rows == 0:
            return
        mean, squares = np.empty_like(self._mean), np.empty_like(self._mean)
        lowest, highest = np.empty_like(self._mean), np.empty_like(self._mean)
        for at, column in enumerate(values):
            mean[at] = column.mean()
            squares[at] = ((column - mean[at]) ** 2).sum()
            lowest[at], highest[at] = column.min(), column.max()
        self._merge(rows, mean, squares, lowest, highest)

    def add_state(self, state: MomentState) -> None:
        """Take in rows that were seen elsewhere."""
        if state.rows:
            self._merge(state.rows, *(np.asarray(part, np.float64) for part in state[1:]))

    def state(self) -> MomentState:
        """Return the moments so far, which may leave a site."""
        spread = np.where(self._lowest == self._highest, 0.0, np.sqrt(self._squares / max(self._rows, 1)))
        middle = np.where(self._lowest == self._highest, self._lowest, self._mean)
        parts = (self._mean, self._squares, middle - spread, middle + spread)
        return MomentState(self._rows, *(part.tolist() if self._rows else [] for part in parts))

    def _merge(
        self,
        rows: int,
        mean: NDArray[np.float64],
        squares: NDArray[np.float64],
        lowest: NDArray[np.float64],
        highest: NDArray[np.float64],
    ) -> None:
        total = self._rows + rows
        step = mean - self._mean
        self._squares += squares + step**2 * (self._rows * rows / total)
        self._mean = self._mean + step * (rows / total)
        self._rows = total
        self._lowest = np.minimum(self._lowest, lowest)
        self._highest = np.maximum(self._highest, highest)

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return means [F] and population standard deviations [F].

        A constant column has exactly its value and 0.
        """
        constant = self._lowest == self._highest
        mean = np.where(constant, self._lowest, self._mean)
        return mean, np.where(constant, 0.0, np.sqrt(self._squares / max(self._rows, 1)))
