"""Rows of concurrent requests are scored together.

While one batch is computed, the next one gathers. Nobody waits for company: a request that comes alone is scored at
once.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from pfmsmt.data.encoder import Encoded
from pfmsmt.serving.scorer import ScoredRows, Scorer


class _Waiting(NamedTuple):
    encoded: Encoded
    answer: "asyncio.Future[ScoredRows]"


class Batcher:
    """The queue in front of one scorer; for one event loop."""

    def __init__(self, scorer: Scorer, executor: Executor, batch_rows: int, observe: Callable[[int], None]) -> None:
        """`observe` gets the row count of every batch."""
        self.scorer = scorer
        self._executor, self._batch_rows, self._observe = executor, batch_rows, observe
        self._queue: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def score(self, encoded: Encoded) -> ScoredRows:
        """Score rows, together with those of others."""
        answer: asyncio.Future[ScoredRows] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(encoded, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._score(batch)
        finally:
            self._worker = None

    def _take(self) -> list[_Waiting]:
        """Take the longest waiting requests that fit, at least one.

        Requests that were given up are dropped.
        """
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            first = self._queue[0]
            count = len(first.encoded.codes)
            if batch and rows + count > self._batch_rows:
                break
            self._queue.popleft()
            if not first.answer.done():
                batch.append(first)
                rows += count
        return batch

    async def _score(self, batch: list[_Waiting]) -> None:
        sizes = [len(waiting.encoded.codes) for waiting in batch]
        together = batch[0].encoded
        if len(batch) > 1:
            together = Encoded(
                np.concatenate([waiting.encoded.codes for waiting in batch]),
                np.concatenate([waiting.encoded.values for waiting in batch]),
            )
        self._observe(sum(sizes))
        try:
            scores = await asyncio.get_running_loop().run_in_executor(self._executor, self.scorer.score, together)
        except Exception as error:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        start = 0
        for waiting, size in zip(batch, sizes, strict=True):
            part = slice(start, start + size)
            if not waiting.answer.done():
                waiting.answer.set_result(ScoredRows(scores.probabilities[part], scores.gates[part]))
            start += size
