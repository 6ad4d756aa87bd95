"""A challenger beside a champion: idle, shadowing, or with a share.

In the shadow it scores what the champion has answered. With a share it answers requests itself.
"""

import asyncio
import hashlib
from typing import Literal

import numpy as np

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.schema import ScenarioSchema
from pfmsmt.serving.batcher import Batcher
from pfmsmt.serving.counters import Counters
from pfmsmt.serving.rows import FeatureRows
from pfmsmt.serving.scorer import ScoredRows

Mode = Literal["none", "shadow", "split"]
SHADOWS = 8
"""Requests that wait for the challenger at a time; more are not compared, so that it never holds up the champion."""


def takes(key: str, scenario: str, share: float) -> bool:
    """Say whether the challenger answers requests with this key.

    The same key always gets the same answer, and a share of all keys gets True.
    """
    digest = hashlib.sha256(f"{scenario}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


class Shadow:
    """Scores with challengers what champions have answered already."""

    def __init__(self, counters: Counters) -> None:
        """Start without work."""
        self._counters = counters
        self._running: set[asyncio.Task[None]] = set()

    def compare(
        self, challenger: Batcher, champion_schema: ScenarioSchema, rows: FeatureRows, answered: ScoredRows
    ) -> None:
        """Compare in the background; give up at once where the challenger cannot."""
        scenario = champion_schema.scenario
        if _columns(challenger.scorer.schema) != _columns(champion_schema):
            self._counters.shadow_lost.labels(scenario, "other columns").inc()
        elif len(self._running) >= SHADOWS:
            self._counters.shadow_lost.labels(scenario, "busy").inc()
        elif len(rows.categories):
            task = asyncio.create_task(self._compare(challenger, scenario, rows, answered))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _compare(self, challenger: Batcher, scenario: str, rows: FeatureRows, answered: ScoredRows) -> None:
        try:
            found = await challenger.score(rows.encode(challenger.scorer.encoder))
        except (SchemaError, RuntimeError):
            self._counters.shadow_lost.labels(scenario, "failed").inc()
            return
        difference = np.abs(found.probabilities - answered.probabilities).mean(axis=0)
        if not np.isfinite(difference).all():
            self._counters.shadow_lost.labels(scenario, "failed").inc()
            return
        for task, value in zip(challenger.scorer.tasks, difference.tolist(), strict=True):
            self._counters.shadow.labels(scenario, task).observe(value)


def _columns(schema: ScenarioSchema) -> tuple[object, ...]:
    """Return the parts of a schema that decide which `FeatureRows` fit."""
    texts = tuple(field.vocabulary for field in schema.categorical if field.text)
    names = tuple(f.name for f in schema.categorical), tuple(f.name for f in schema.numerical)
    return *names, len(schema.tasks), texts, schema.fill
