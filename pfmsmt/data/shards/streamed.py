"""A client's shard on disk, read in windows or in blocks.

Training reads windows of row groups ahead of use. Evaluation reads blocks.

Legend: B batch, N rows of a shard, F categorical fields, M numerical fields, T tasks.
"""

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfmsmt.core.types import Stream
from pfmsmt.data.schema import ScenarioSchema
from pfmsmt.data.shards.order import Shuffle, Span, Window, batch_spans
from pfmsmt.data.shards.reader import Block, RowGroups, ShardFile
from pfmsmt.data.shards.resident import Batch

THREAD_NAME = "rows"
WINDOWS_HELD = 2
"""Windows of each phase: the one that training is in, and the next one, which is read meanwhile."""


class ReadingThread(Executor):
    """Runs calls one after the other, in a thread that then ends.

    So nobody has to own it and shut it down: shards may share one, and be dropped at any time. A thread of a pool
    would wait for further calls as long as the pool lives.
    """

    def __init__(self) -> None:
        """Start without a thread."""
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a call made, after those that were submitted before."""
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.append((future, functools.partial(fn, *args, **kwargs)))
            if not self._running:
                self._running = True
                threading.Thread(target=self._work, name=THREAD_NAME).start()
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                entry = self._waiting.popleft()
            _make(*entry)
            del entry  # it holds a window of rows, which may be let go while the next one is read


def _make(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)


class _Place(NamedTuple):
    epoch: int
    window: int


class _Reader:
    """The windows that one client and phase hold."""

    def __init__(self) -> None:
        self.plans: dict[int, tuple[Window, ...]] = {}
        self.held: dict[_Place, Future[Block]] = {}


class StreamedShard:
    """Rows that stay on disk, of which training holds a few windows.

    There are at most WINDOWS_HELD for each phase of the method.

    Batches are those of a `Shard` with the same `Shuffle`, to the bit.
    """

    def __init__(self, source: RowGroups, window: int, executor: Executor, device: torch.device | None = None) -> None:
        """Hold the source; `window` is that of `Shuffle`, `executor` reads.

        One thread for all shards bounds the memory that reading takes.
        """
        self._source, self._executor = source, executor
        self._device = device or torch.device("cpu")
        self.shuffle = Shuffle(source.sizes, window)
        self._readers: dict[Stream, _Reader] = {}

    @property
    def rows(self) -> int:
        """N."""
        return self._source.rows

    @property
    def labels(self) -> Tensor:
        """[N, T] uint8."""
        return torch.from_numpy(self._labels)

    @property
    def groups(self) -> NDArray[np.int64]:
        """[N] search ids."""
        return self._source.groups()

    @functools.cached_property
    def _labels(self) -> NDArray[np.uint8]:
        return self._source.labels()

    def to(self, device: torch.device) -> "StreamedShard":
        """Return the same rows, whose batches come on `device`."""
        assert self.shuffle.window is not None
        return StreamedShard(self._source, self.shuffle.window, self._executor, device)

    def blocks(self, rows_at_once: int) -> Iterator[Batch]:
        """Yield all rows in order, in blocks.

        A block is valid until the next one is asked for.

        Raises:
            DataError: the file is damaged.
        """
        for codes, values, labels, _ in self._source.blocks(rows_at_once):
            yield Batch(torch.from_numpy(codes), torch.from_numpy(values), torch.from_numpy(labels))

    def batches(self, stream: Stream, batch: int, first_step: int, steps: int) -> Iterator[Batch]:
        """Yield the batches of `steps` steps, from `first_step` on.

        Windows are kept for the steps that follow.

        Raises:
            DataError: the file is damaged.
        """
        for spans in batch_spans(self.rows, batch, first_step, steps):
            parts = [part for span in spans for part in self._cut(stream, span)]
            merged = parts[0] if len(parts) == 1 else Batch(*(torch.cat(kind) for kind in zip(*parts, strict=True)))
            yield Batch(*(tensor.to(self._device) for tensor in merged))

    def _cut(self, stream: Stream, span: Span) -> Iterator[Batch]:
        """Yield the rows of a span, window by window."""
        reader = self._readers.setdefault(stream._replace(round=0), _Reader())
        for window in self._plan(reader, stream, span.epoch):
            start, stop = max(span.start, window.first), min(span.stop, window.first + window.rows)
            if start < stop:
                rows = slice(start - window.first, stop - window.first)
                yield self._take(reader, stream, _Place(span.epoch, window.number), rows)

    def _take(self, reader: _Reader, stream: Stream, place: _Place, rows: slice) -> Batch:
        # Copies, so that nothing keeps a window that has been let go.
        block = self._hold(reader, stream, place)
        return Batch(*(torch.from_numpy(kind[rows].copy()) for kind in block[:3]))

    def _plan(self, reader: _Reader, stream: Stream, epoch: int) -> tuple[Window, ...]:
        if epoch not in reader.plans:
            # The epoch before may be asked for again, when a round is repeated.
            reader.plans = {known: plan for known, plan in reader.plans.items() if abs(known - epoch) <= 1}
            reader.plans[epoch] = self.shuffle.windows(stream._replace(round=epoch))
        return reader.plans[epoch]

    def _hold(self, reader: _Reader, stream: Stream, place: _Place) -> Block:
        """Return a window, and have the next one read."""
        following = _Place(place.epoch, place.window + 1)
        if following.window == len(self._plan(reader, stream, place.epoch)):
            following = _Place(place.epoch + 1, 0)
        # What is let go makes room before anything is read.
        for other in reader.held.keys() - {place, following}:
            reader.held.pop(other).cancel()
        for each in (place, following):
            if each not in reader.held:
                plan = self._plan(reader, stream, each.epoch)
                reader.held[each] = self._executor.submit(self._read, plan, stream, each)
        return reader.held[place].result()

    def _read(self, plan: tuple[Window, ...], stream: Stream, place: _Place) -> Block:
        window = plan[place.window]
        return self._source.read(window.groups, self.shuffle.order_in(window, stream._replace(round=place.epoch)))


def open_shard(folder: Path, split: str, schema: ScenarioSchema) -> StreamedShard:
    """Open `<folder>/<scenario>/<split>.parquet` to be read in blocks.

    Raises:
        DataError: missing, damaged, or other columns than the schema's.
    """
    source = RowGroups([ShardFile(folder, split, schema)])
    return StreamedShard(source, source.rows, ReadingThread())
