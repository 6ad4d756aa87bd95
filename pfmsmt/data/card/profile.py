"""The contents of the shards, column by column, read once in blocks.

Legend: F categorical, M numerical fields, C cells.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.data.schema import OUT_OF_VOCABULARY, SPLITS, ScenarioSchema, Schema, SplitCounts, encoded_column
from pfmsmt.data.shards.reader import ShardFile

CELLS_PER_DEVIATION = 64
REACH = 8
"""Standard deviations to either side; what lies beyond is in the outermost cells."""
CELLS = 2 * REACH * CELLS_PER_DEVIATION


class Categorical(NamedTuple):
    """A categorical column of one split."""

    counts: NDArray[np.int64]
    """Rows of each code"""
    missing: int
    """Rows without a value"""

    @property
    def distinct(self) -> int:
        """Categories of the vocabulary that were seen."""
        return int(np.count_nonzero(self.counts[OUT_OF_VOCABULARY + 1 :]))

    @property
    def unknown(self) -> float:
        """Share of rows whose category is out of vocabulary."""
        return float(self.counts[OUT_OF_VOCABULARY] / max(self.counts.sum(), 1))

    @property
    def constant(self) -> bool:
        """Whether all rows have the same code."""
        return int(np.count_nonzero(self.counts)) <= 1


class Numerical(NamedTuple):
    """A numerical column of one split, standardised."""

    counts: NDArray[np.int64]
    """[C] rows in each cell of a fine histogram"""
    missing: int
    """Rows without a finite value"""
    low: float
    high: float

    @property
    def constant(self) -> bool:
        """Whether all rows have the same value."""
        return self.low >= self.high


class Split(NamedTuple):
    """One split of one scenario."""

    counts: SplitCounts
    categorical: dict[str, Categorical]
    numerical: dict[str, Numerical]

    def column(self, name: str) -> Categorical | Numerical:
        """Return one feature column."""
        return self.categorical[name] if name in self.categorical else self.numerical[name]


Profile = dict[str, dict[str, Split]]
"""scenario -> split (train, val, test) -> what it holds"""


def profile(schema: Schema, shards: Path) -> Profile:
    """Read all shards once.

    Raises:
        DataError: a shard is missing or damaged.
    """
    return {
        scenario: {split: _read(ShardFile(shards, split, own), own, schema.counts[scenario][split]) for split in SPLITS}
        for scenario in schema.scenarios
        for own in [schema.scenario(scenario)]
    }


def _read(file: ShardFile, schema: ScenarioSchema, held: SplitCounts) -> Split:
    codes = {field.name: np.zeros(field.codes, np.int64) for field in schema.categorical}
    cells = {field.name: np.zeros(CELLS, np.int64) for field in schema.numerical}
    lows, highs = dict.fromkeys(cells, np.inf), dict.fromkeys(cells, -np.inf)
    missing = dict.fromkeys((*codes, *cells), 0)
    for table in file.tables(range(len(file.sizes)), [*file.fields, *file.numbers]):
        for name, total in codes.items():
            column = table.column(encoded_column(name))
            missing[name] += column.null_count
            counts = np.bincount(column.drop_null().to_numpy(), minlength=len(total))
            total += counts[: len(total)]
        for name, total in cells.items():
            values = table.column(encoded_column(name)).to_numpy(zero_copy_only=False)
            finite = values[np.isfinite(values)]
            missing[name] += len(values) - len(finite)
            if len(finite):
                lows[name] = min(lows[name], float(finite.min()))
                highs[name] = max(highs[name], float(finite.max()))
            place = np.floor((finite + REACH) * CELLS_PER_DEVIATION).clip(0, CELLS - 1).astype(np.int64)
            total += np.bincount(place, minlength=CELLS)
    return Split(
        held,
        {name: Categorical(counts, missing[name]) for name, counts in codes.items()},
        {
            name: Numerical(counts, missing[name], float(lows[name]), float(highs[name]))
            for name, counts in cells.items()
        },
    )
