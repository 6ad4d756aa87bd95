"""Answers prediction requests: admission, reading, scoring, counting."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response

from pfmsmt.config import Serve
from pfmsmt.core.errors import SchemaError
from pfmsmt.models.saved import check_scored
from pfmsmt.serving import arrow, bodies
from pfmsmt.serving.batcher import Batcher
from pfmsmt.serving.challenge import Shadow, takes
from pfmsmt.serving.counters import Counters
from pfmsmt.serving.deployments import Fleet
from pfmsmt.serving.guards import Refusal, read_body
from pfmsmt.serving.rows import FeatureRows, RowReader
from pfmsmt.serving.scorer import ScoredRows, Scorer
from pfmsmt.tracking.registry import CHALLENGER, CHAMPION

KEY_HEADER = "x-request-key"
VERSION_HEADER = "X-Model-Version"


class Predictor:
    """All that a prediction request passes through; for one event loop."""

    def __init__(self, fleet: Fleet, settings: Serve, counters: Counters) -> None:
        """One thread scores; torch may use `settings.threads` within a product."""
        self._fleet, self._settings, self.counters = fleet, settings, counters
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._desks: dict[Scorer, tuple[RowReader, Batcher]] = {}
        self._shadow = Shadow(counters)
        self._running = 0

    def close(self) -> None:
        """Let the scoring thread go."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def answer(self, scenario: str, request: Request, gates: bool) -> Response:
        """Answer one request; every outcome is counted.

        Raises:
            Refusal: with the status that says why.
        """
        start, status = time.perf_counter(), 500
        label = scenario if scenario in self._fleet.scenarios else "unknown"
        try:
            async with self._admitted():
                response = await self._answer(scenario, request, gates)
            status = response.status_code
            return response
        except Refusal as refusal:
            status = refusal.status
            raise
        finally:
            self.counters.requests.labels(label, str(status)).inc()
            self.counters.seconds.labels(label).observe(time.perf_counter() - start)

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        limit = self._settings.concurrency
        if self._running >= limit:
            raise Refusal(429, f"{limit} requests are being answered (serve.concurrency)", {"Retry-After": "1"})
        self._running += 1
        self.counters.running.set(self._running)
        try:
            yield
        finally:
            self._running -= 1
            self.counters.running.set(self._running)

    async def _answer(self, scenario: str, request: Request, gates: bool) -> Response:
        # Before the body is read: what cannot be answered need not be sent.
        self._choose(scenario, None)
        limit = self._settings.timeout_seconds
        deadline = asyncio.get_running_loop().time() + limit
        try:
            async with asyncio.timeout_at(deadline):
                body = await read_body(request, int(self._settings.max_body_mib * 2**20))
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {limit:g} s (serve.timeout_seconds)") from None
        # After it: the version that answers is the one in service now, and stays in hand until the end.
        scorer, alias = self._choose(scenario, request.headers.get(KEY_HEADER, ""))
        reader, batcher = self._desk(scorer)
        rows = bodies.parse_rows(body, request.headers.get("content-type", ""), reader, self._settings.max_rows)
        try:
            async with asyncio.timeout_at(deadline):
                scores = await self._score(scorer, batcher, reader, rows)
        except TimeoutError:
            raise Refusal(504, f"no answer within {limit:g} s (serve.timeout_seconds)") from None
        if self._settings.challenger == "shadow" and (challenger := self._fleet.scorer(scenario, CHALLENGER)):
            self._shadow.compare(self._desk(challenger)[1], scorer.schema, rows, scores)
        self.counters.rows.labels(scenario, alias, scorer.version).inc(len(rows.categories))
        accepts = request.headers.get("accept", "")
        own = request.headers.get("content-type", "")
        in_arrow = arrow.STREAM in accepts or (bodies.JSON not in accepts and own.startswith(arrow.STREAM))
        write, media = (bodies.arrow_answer, arrow.STREAM) if in_arrow else (bodies.json_answer, bodies.JSON)
        return Response(write(scorer, alias, scores, gates), media_type=media, headers={VERSION_HEADER: scorer.version})

    async def _score(self, scorer: Scorer, batcher: Batcher, reader: RowReader, rows: FeatureRows) -> ScoredRows:
        try:
            encoded = rows.encode(scorer.encoder)
            scores = await batcher.score(encoded)
            check_scored(scores.probabilities, encoded, scorer.schema)
        except SchemaError as error:
            raise Refusal(422, str(error)) from None
        unknown = bodies.unknown_cells(rows, encoded.codes, reader)
        self.counters.count_cells(scorer.schema.scenario, unknown, rows.filled)
        return scores

    def champion(self, scenario: str) -> Scorer:
        """Return the scorer that answers a scenario's requests.

        Raises:
            Refusal: 404, no such scenario; 503, no version of its model is loaded.
        """
        return self._choose(scenario, None)[0]

    def _choose(self, scenario: str, key: str | None) -> tuple[Scorer, str]:
        """Return the scorer that answers, and its alias.

        `key` is None before the request is read.
        """
        if scenario not in self._fleet.scenarios:
            raise Refusal(404, f"no scenario {scenario[:64]!r}; GET /v1/scenarios lists them")
        if self._settings.challenger == "split" and key is not None:
            challenger = self._fleet.scorer(scenario, CHALLENGER)
            if not key:
                self.counters.keyless.labels(scenario).inc()
            elif challenger and takes(key, scenario, self._settings.challenger_share):
                return challenger, CHALLENGER
        champion = self._fleet.scorer(scenario)
        if champion is None:
            raise Refusal(
                503, f"no version of scenario {scenario}'s model is loaded; see /readyz", {"Retry-After": "5"}
            )
        return champion, CHAMPION

    def _desk(self, scorer: Scorer) -> tuple[RowReader, Batcher]:
        """Return what reads and batches for a scorer."""
        desk = self._desks.get(scorer)
        if desk is None:
            # Versions that serve no more are let go here, tables and all; requests under way hold their own.
            serving = {deployment.scorer for deployment in self._fleet.deployments().values()}
            self._desks = {held: own for held, own in self._desks.items() if held in serving}
            reader = RowReader(scorer.schema, self._settings.optional_columns)
            batcher = Batcher(scorer, self._executor, self._settings.batch_rows, self.counters.batch_rows.observe)
            desk = self._desks[scorer] = (reader, batcher)
        return desk
