"""The test part of one scenario's rows, and the other rows' time.

Legend: B rows.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pfmsmt.data.split import in_test, uniform_of

CutBy = Literal["time", "split"]

PARTS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2}
"""Words of a split column, in lower case."""
_LAST = float(np.nextafter(1.0, 0.0))


class Cut:
    """Gathers the facts that the cut depends on while rows pass by.

    `settle` it, then `divide` the same rows.
    """

    def __init__(self, kind: CutBy | None) -> None:
        """Cut by times, by parts, or (None) by drawing whole groups.

        Times and parts stand in a column.
        """
        self._kind = kind
        self._times: list[NDArray[np.float64]] = []
        self._parts: set[int] = set()
        self._border = np.inf

    def add(self, apart: NDArray[Any] | None) -> None:
        """Take in the times or parts of some rows [B]."""
        if apart is None:
            return
        if self._kind == "time":
            self._times.append(np.asarray(apart, np.float64))
        else:
            self._parts |= set(np.unique(apart).astype(int).tolist())

    def settle(self, test_fraction: float) -> None:
        """Find the border in time; an instant's rows share one side."""
        if self._kind != "time":
            return
        times = np.concatenate(self._times)
        self._times = []
        times.sort()
        self._border = float(times[len(times) - max(int(len(times) * test_fraction), 1)])
        self._training = times[: np.searchsorted(times, self._border)]

    def divide(
        self, groups: NDArray[np.int64], apart: NDArray[Any] | None, test_fraction: float, seed: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return for each row [B] whether it is test, and its place.

        Places are those of `Columns.place`.
        """
        if apart is None:
            return in_test(groups, test_fraction, seed), np.zeros(len(groups))
        if self._kind == "time":
            before = np.searchsorted(self._training, apart, side="left")
            return apart >= self._border, before / max(len(self._training), 1)
        if PARTS["val"] in self._parts:
            return apart == PARTS["test"], np.where(apart == PARTS["val"], _LAST, 0.0)
        return apart == PARTS["test"], uniform_of(groups, seed)

    def why_empty(self, part: str, column: str | None, test_fraction: float, validation_fraction: float) -> str:
        """Say why a part has no rows, and what to do.

        `column` is that of times or parts.
        """
        if self._kind == "split":
            whole = PARTS["test"] if part == "test" else PARTS["train"]
            if PARTS["val"] in self._parts or whole not in self._parts:
                word = part if PARTS["val"] in self._parts else ("test" if part == "test" else "train")
                return f"(its column {column} says {word} in no row); let it say so, or set data.tabular.split to null"
            return _drawn(f"data.validation_fraction is {validation_fraction}")
        if self._kind is None:
            fractions = f"data.tabular.test_fraction is {test_fraction}, data.validation_fraction {validation_fraction}"
            return _drawn(fractions)
        if not len(self._training):
            share = f"the last {test_fraction} of the rows, the test part, begin with the first instant of {column}"
        else:
            share = f"the last instant of {column} before the test part has more than {validation_fraction} of the rows"
        return (
            f"(rows of one instant stay together, and {share}); give finer times, "
            "or set data.tabular.time to null, so that whole groups are drawn"
        )


def _drawn(fractions: str) -> str:
    return f"(whole groups are drawn by chance; {fractions}); change that, or give the scenario more groups"
