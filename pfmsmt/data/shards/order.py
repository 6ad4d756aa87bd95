"""The order in which training sees the rows of a shard.

Legend: B batch, N rows of a shard.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.core.types import Stream


class Window(NamedTuple):
    """Row groups whose rows are mixed with each other."""

    number: int
    """Its place in the epoch."""
    groups: tuple[int, ...]
    """In the order in which they are read."""
    first: int
    """Rows of the epoch that come before it."""
    rows: int


class Shuffle(NamedTuple):
    """An epoch's order of rows: all mixed, or windows of row groups.

    It is drawn anew for each epoch, and no row comes twice in one.

    With windows (ours; a shuffle buffer, filled by whole row groups in random order) an epoch can be read in pieces:
    the rows of a window are mixed with each other, those of different windows are not.
    """

    sizes: tuple[int, ...]
    """Rows of each row group, in the order of the file."""
    window: int | None
    """Rows that are mixed at a time, cut at whole row groups, of which there is at least one; None: all of them."""

    @property
    def rows(self) -> int:
        """N."""
        return sum(self.sizes)

    @property
    def largest_window(self) -> int:
        """Rows that a window has at most."""
        return self.rows if self.window is None else min(self.rows, max(self.window, max(self.sizes, default=0)))

    def windows(self, epoch: Stream) -> tuple[Window, ...]:
        """Return the windows of an epoch, which `epoch.round` numbers."""
        if self.window is None:
            return (Window(0, tuple(range(len(self.sizes))), 0, self.rows),)
        windows: list[Window] = []
        groups: list[int] = []
        first = rows = 0
        for group in epoch.generator("order of row groups").permutation(len(self.sizes)).tolist():
            if groups and rows + self.sizes[group] > self.window:
                windows.append(Window(len(windows), tuple(groups), first, rows))
                groups, first, rows = [], first + rows, 0
            groups.append(group)
            rows += self.sizes[group]
        return (*windows, Window(len(windows), tuple(groups), first, rows))

    def order_in(self, window: Window, epoch: Stream) -> NDArray[np.int64]:
        """Return the order in which training sees a window's rows, [rows].

        Entry i is the place, as the rows are read, of the i-th row in training.
        """
        name = "order of rows" if self.window is None else f"order of rows in window {window.number}"
        return epoch.generator(name).permutation(window.rows)


class RowOrder:
    """The order of all rows in an epoch, for rows in memory.

    The last one of each client and phase is kept.
    """

    def __init__(self, shuffle: Shuffle) -> None:
        """`shuffle` draws it."""
        self.shuffle = shuffle
        self._last: dict[Stream, tuple[int, NDArray[np.signedinteger[Any]]]] = {}
        self._starts = np.cumsum((0, *shuffle.sizes))
        self._type = np.int32 if shuffle.rows < 2**31 else np.int64

    def rows(self, stream: Stream, epoch: int) -> NDArray[np.signedinteger[Any]]:
        """Return the row numbers [N] in the order of an epoch."""
        owner = stream._replace(round=0)
        last = self._last.get(owner)
        if last is None or last[0] != epoch:
            last = self._last[owner] = (epoch, self._draw(stream._replace(round=epoch)))
        return last[1]

    def _draw(self, epoch: Stream) -> NDArray[np.signedinteger[Any]]:
        order: NDArray[np.signedinteger[Any]] = np.empty(self.shuffle.rows, self._type)
        for window in self.shuffle.windows(epoch):
            place = self.shuffle.order_in(window, epoch)
            own = order[window.first : window.first + window.rows]
            if self.shuffle.window is None:
                own[:] = place
            else:
                parts = [np.arange(self._starts[g], self._starts[g + 1], dtype=self._type) for g in window.groups]
                own[:] = np.concatenate(parts)[place]
        return order


class Span(NamedTuple):
    """Some rows of an epoch, in its order."""

    epoch: int
    start: int
    stop: int


def batch_spans(rows: int, batch: int, first_step: int, steps: int) -> Iterator[list[Span]]:
    """Yield the spans of rows of `steps` batches, from `first_step` on.

    One batch may take from several epochs.
    """
    for step in range(first_step, first_step + steps):
        start, stop = step * batch, (step + 1) * batch
        spans = []
        while start < stop:
            epoch, offset = divmod(start, rows)
            taken = min(rows - offset, stop - start)
            spans.append(Span(epoch, offset, offset + taken))
            start += taken
        yield spans


def batch_rows(
    stream: Stream, rows: int, batch: int, first_step: int, steps: int, order: RowOrder | None = None
) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers [B] of `steps` batches, from `first_step` on.

    Rows come in a new random order each epoch, none twice in it; which rows a step takes depends on the seed,
    the client, the phase and the step alone, so a round can be repeated, or resumed, anywhere.

    Args:
        order: of the rows; all are mixed if left out.
    """
    order = order or RowOrder(Shuffle((rows,), None))
    for spans in batch_spans(rows, batch, first_step, steps):
        parts = [order.rows(stream, span.epoch)[span.start : span.stop] for span in spans]
        yield (parts[0] if len(parts) == 1 else np.concatenate(parts)).astype(np.int64)
