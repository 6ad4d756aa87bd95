"""Rows in memory or streamed: the needs of both, against `run.memory`."""

from collections.abc import Sequence
from typing import NamedTuple

from pfmsmt.config import Train
from pfmsmt.core.errors import ConfigError
from pfmsmt.data.shards.order import Shuffle
from pfmsmt.data.shards.reader import BLOCK_ROWS, RowGroups
from pfmsmt.data.shards.streamed import WINDOWS_HELD

GIB = 2**30
_PAGE_BYTES = 2**20
"""A Parquet page, the piece in which a column is decoded, as writers usually cut it."""
_ORDER_BYTES = 8
"""Bytes of a row in a permutation while it is drawn; half of it where it is kept."""


class RowPlan(NamedTuple):
    """The way in which all clients of one training read their rows."""

    streamed: bool
    window: int | None
    """The window of `Shuffle`; None where all rows of a client are mixed."""
    needed: int
    """Bytes that this takes at most, all clients together."""


def choose_plan(
    budget: Train, memory: float, train: Sequence[RowGroups], validation: Sequence[RowGroups], phases: int
) -> RowPlan:
    """Hold rows where they fit into `run.memory`, else stream them.

    Streams are windows of row groups.

    Args:
        budget: `shuffle` and `shuffle_rows`.
        memory: GiB, `run.memory`.
        train: training rows of each client.
        validation: validation rows of each client and scenario.
        phases: of the method; each sees the rows in an order of its own.

    Raises:
        ConfigError: `train.shuffle` is rows and they do not fit, or not even the windows do.
    """
    allowed = memory * GIB
    window = budget.shuffle_rows if budget.shuffle == "row_groups" else None
    whole = _whole(train, validation, phases)
    if whole <= allowed:
        return RowPlan(False, window, whole)
    if budget.shuffle == "rows":
        raise ConfigError(
            f"train.shuffle: rows needs all rows in memory, {whole / GIB:.2f} GiB, but run.memory is "
            f"{memory:g}; raise that, or set train.shuffle to auto or row_groups"
        )
    needed = _streamed(budget.shuffle_rows, train, validation, phases)
    if needed > allowed:
        least = _streamed(1, train, validation, phases)
        hint = "lower train.shuffle_rows, or raise run.memory" if least <= allowed else "raise run.memory"
        raise ConfigError(
            f"run.memory is {memory:g} GiB, but rows take {whole / GIB:.3f} in memory, {needed / GIB:.3f} "
            f"streamed with train.shuffle_rows = {budget.shuffle_rows:,}, and {least / GIB:.3f} streamed at least, "
            f"with the row groups of these shards; {hint}"
        )
    return RowPlan(True, budget.shuffle_rows, needed)


def _decoding(sources: Sequence[RowGroups]) -> int:
    """Return the bytes that reading takes beside its result.

    These are the pages of all columns, compressed and not, and two blocks.
    """
    pages = max(min(max(s.sizes, default=0) * s.row_bytes, s.columns * _PAGE_BYTES) for s in sources)
    block = max(min(max(s.sizes, default=0), BLOCK_ROWS) * s.row_bytes for s in sources)
    return 2 * pages + 2 * block


def _whole(train: Sequence[RowGroups], validation: Sequence[RowGroups], phases: int) -> int:
    rows = sum(source.rows * source.row_bytes for source in (*train, *validation))
    orders = sum(source.rows * (_ORDER_BYTES // 2 * phases + _ORDER_BYTES) for source in train)
    return rows + orders + _decoding([*train, *validation])


def _streamed(shuffle_rows: int, train: Sequence[RowGroups], validation: Sequence[RowGroups], phases: int) -> int:
    windows = [(source, Shuffle(source.sizes, shuffle_rows).largest_window) for source in train]
    held = sum(rows * source.row_bytes for source, rows in windows) * WINDOWS_HELD * phases
    orders = max(2 * _ORDER_BYTES * rows for _, rows in windows)
    labels = sum(source.rows * source.tasks for source in validation)
    # One thread reads for training, and each client for its validation.
    return held + orders + labels + _decoding(train) + len(train) * _decoding(validation)
