"""What encoding needs to know of the training rows, gathered batch by batch."""

import numpy as np
from numpy.typing import NDArray


class CategoryCounts:
    """How often each category was seen."""

    def __init__(self) -> None:
        """Start with none."""
        self._values = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)

    def add(self, values: NDArray[np.int64]) -> None:
        """Count the categories of some rows [B]."""
        new, counts = np.unique(values, return_counts=True)
        merged, place = np.unique(np.concatenate([self._values, new]), return_inverse=True)
        total = np.zeros(len(merged), np.int64)
        np.add.at(total, place, np.concatenate([self._counts, counts]))
        self._values, self._counts = merged, total

    def vocabulary(self, min_count: int) -> tuple[int, ...]:
        """Return, sorted, the categories seen in at least `min_count` rows."""
        return tuple(self._values[self._counts >= min_count].tolist())


class Moments:
    """Mean and standard deviation of F columns, by the pairwise update of Chan, Golub and LeVeque (1983)."""

    def __init__(self, columns: int) -> None:
        """Start with no rows of F columns."""
        self._rows = 0
        self._mean = np.zeros(columns)
        self._squares = np.zeros(columns)
        self._lowest = np.full(columns, np.inf)
        self._highest = np.full(columns, -np.inf)

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in some rows; values [F, B], a column's values side by side."""
        rows = values.shape[1]
        if rows == 0:
            return
        mean = values.mean(axis=1)
        total = self._rows + rows
        step = mean - self._mean
        self._squares += ((values - mean[:, None]) ** 2).sum(axis=1) + step**2 * (self._rows * rows / total)
        self._mean = self._mean + step * (rows / total)
        self._rows = total
        self._lowest = np.minimum(self._lowest, values.min(axis=1))
        self._highest = np.maximum(self._highest, values.max(axis=1))

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return means [F] and population standard deviations [F]; a constant column has exactly its value and 0."""
        constant = self._lowest == self._highest
        mean = np.where(constant, self._lowest, self._mean)
        return mean, np.where(constant, 0.0, np.sqrt(self._squares / max(self._rows, 1)))
