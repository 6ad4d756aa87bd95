"""The driver: communication rounds, whatever the method and however clients are reached."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pfmsmt.core import arrays
from pfmsmt.core.errors import TrainingError
from pfmsmt.core.types import FloatArray
from pfmsmt.methods import Method, Phase, ServerState, Upload
from pfmsmt.training.client import Request
from pfmsmt.training.exchange import Exchange, Failure
from pfmsmt.training.ledger import Transfer, transfers
from pfmsmt.training.scores import Validation

RELEASES = "/releases"
"""Ends the metric that counts a client's noised uploads: `privacy/NL/releases`."""


@dataclass
class RoundResult:
    """One round: the new server state, and figures about it."""

    round: int
    server: ServerState
    clients: tuple[str, ...] = ()
    """Sorted; the order within `diagnostics`."""
    validation: dict[str, Validation] = field(default_factory=dict)
    """client -> scenario -> task -> metrics"""
    metrics: dict[str, float] = field(default_factory=dict)
    """`train/...` and `server/...`, as they are logged"""
    diagnostics: dict[str, Mapping[str, FloatArray]] = field(default_factory=dict)
    """See `ServerUpdate.diagnostics`."""
    transfers: list[Transfer] = field(default_factory=list)
    """All that passed, validation included."""
    failures: dict[str, str] = field(default_factory=dict)


def run_rounds(
    method: Method,
    exchange: Exchange,
    server: ServerState,
    clients: tuple[str, ...],
    *,
    rounds: int,
    quorum: float,
    first: int = 1,
) -> Iterator[RoundResult]:
    """Run rounds `first` to `rounds`, yielding after each.

    Args:
        method: what server and clients compute.
        exchange: how they reach each other.
        server: state before the first round.
        clients: names; answers are taken in sorted order, so sums do not depend on who was first.
        rounds: the last round.
        quorum: share of clients that must answer each exchange.
        first: the first round; more than 1 when resuming.

    Raises:
        TrainingError: a client's loss or upload is not finite, or fewer than the quorum answered.
    """
    # Less a little, as 0.07 * 100 is more than 7.
    needed = math.ceil(quorum * len(clients) - 1e-9)
    names = tuple(sorted(clients))
    for number in range(first, rounds + 1):
        start = time.perf_counter()
        result = RoundResult(number, server, names)
        losses: dict[str, list[float]] = {}
        for index, phase in enumerate(method.phases):
            suffix = "" if phase.name == method.phases[0].name else f"_{phase.name}"
            for k, loss in _run_phase(result, phase, index, exchange, names, needed).items():
                losses.setdefault(f"train/{k}/loss{suffix}", []).append(loss)
        # A mean over phases of the same name.
        result.metrics |= {name: sum(found) / len(found) for name, found in losses.items()}
        trained = time.perf_counter()
        sent = {k: Request("validate", number, 0, method.broadcast(result.server, k)) for k in names}
        answers, failures = exchange(sent)
        result.transfers += transfers("validation", sent, answers)
        _check(failures, len(answers), needed, result)
        result.validation = {k: answers[k] for k in sorted(answers)}  # type: ignore[misc]
        server = result.server
        result.metrics["server/seconds"] = trained - start
        result.metrics["server/validation_seconds"] = time.perf_counter() - trained
        result.metrics["server/failures"] = float(len(result.failures))
        result.metrics |= _bytes(result)
        yield result


def _run_phase(
    result: RoundResult, phase: Phase, index: int, exchange: Exchange, names: tuple[str, ...], needed: int
) -> dict[str, float]:
    """Run one exchange; return each client's loss."""
    sent = {k: Request("train", result.round, index, phase.broadcast(result.server, k)) for k in names}
    answers, failures = exchange(sent)
    result.transfers += transfers(phase.name, sent, answers)
    uploads = {k: answer for k in sorted(answers) if isinstance(answer := answers[k], Upload)}
    for k in list(uploads):
        parts = (uploads[k].arrays, *uploads[k].by_task.values())
        bad = next((name for part in parts if (name := arrays.first_not_finite(part)) is not None), None)
        if bad is not None:
            failures[k] = Failure(f"round {result.round}, client {k}: upload {bad!r} is not finite", diverged=True)
            del uploads[k]
    _check(failures, len(uploads), needed, result)
    start = time.perf_counter()
    update = phase.server_update(result.server, uploads)
    metrics = result.metrics
    metrics["server/step_seconds"] = metrics.get("server/step_seconds", 0.0) + time.perf_counter() - start
    metrics.update({f"server/{name}": value for name, value in update.metrics.items()})
    metrics.update({f"privacy/{k}{RELEASES}": float(u.releases) for k, u in uploads.items() if u.releases})
    result.server = update.server
    result.diagnostics.update(update.diagnostics)
    return {k: upload.loss for k, upload in uploads.items()}


def _bytes(result: RoundResult) -> dict[str, float]:
    """Return the bytes of a round's messages, in all and by client."""
    places = ("server", *(f"server/{k}" for k in result.clients))
    total = {f"{place}/bytes_{direction}": 0.0 for place in places for direction in ("up", "down")}
    for transfer in result.transfers:
        for place in ("server", f"server/{transfer.client}"):
            total[f"{place}/bytes_{transfer.direction}"] += transfer.bytes
    return total


def _check(failures: Mapping[str, Failure], answered: int, needed: int, result: RoundResult) -> None:
    result.failures.update({k: failure.reason for k, failure in failures.items()})
    diverged = [failure.reason for failure in failures.values() if failure.diverged]
    if diverged:
        raise TrainingError("\n".join(diverged))
    if answered < needed:
        reasons = "; ".join(f"{k}: {failure.reason}" for k, failure in sorted(failures.items()))
        raise TrainingError(f"round {result.round}: {answered} clients answered, the quorum is {needed}. {reasons}")
