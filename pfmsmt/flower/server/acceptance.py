"""The server's checks of sites' answers.

A wrong one is that site's failure, not the run's.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pfmsmt.core import arrays
from pfmsmt.core.types import RUNNING_VARIANCE, NamedArrays, Role, Template
from pfmsmt.flower.wire import SiteResult
from pfmsmt.methods import Method, Upload
from pfmsmt.training.client import Request
from pfmsmt.training.scores import Validation

_MOST_RELEASES = 1_000_000
"""Noised uploads that a site may report of a run: far more than any run has."""


class Acceptance(NamedTuple):
    """The checks of every answer, and the values that they need."""

    method: Method
    template: Template
    tasks: Sequence[str]
    rows: Mapping[str, int]
    """Training rows of each client, as its site declared them when the schema was agreed on"""
    rounds: int
    """Rounds of the run"""
    largest_update: float
    noise: float
    """Standard deviation of the noise that uploads carry; 0: none"""
    validates: bool = True
    """Whether sites have rows to validate on; not so in a second training"""

    def refusal(self, client: str, request: Request | None, answer: Upload | Validation | SiteResult) -> str | None:
        """Return why the answer to a request is refused, or None.

        No request: the site's report at the end of the run.
        """
        if request is None:
            fits = isinstance(answer, SiteResult) and self._result(client, answer)
            return None if fits else "its answer does not fit"
        if isinstance(answer, SiteResult):
            return "its answer does not fit the question"
        if request.kind == "validate" and not self.validates:
            return None if answer == {} else "its answer does not fit the question"
        if request.kind == "validate":
            return self._validation(client, answer)
        if not isinstance(answer, Upload):
            return "upload rejected: it holds no parameters"
        fault = self._upload(client, request, answer)
        return None if fault is None else f"upload rejected: {fault}"

    def _upload(self, client: str, request: Request, upload: Upload) -> str | None:
        phase, sent = self.method.phases[request.phase], request.arrays
        expected = self._of(sent, phase.uploads)
        if fault := _misshapen(upload.arrays, expected):
            return fault
        for name, array in upload.arrays.items():
            if name.endswith(RUNNING_VARIANCE) and (array < 0).any():
                return f"{name!r} is a variance, and below 0"
        reported = self._of(sent, phase.reported)
        if upload.by_task.keys() != (set(self.tasks) if phase.reported else set()):
            return f"it reports shares of the tasks {sorted(upload.by_task)}"
        for task, part in upload.by_task.items():
            if fault := _misshapen(part, reported):
                return f"share of task {task}: {fault}"
        if type(upload.examples) is not int or upload.examples != self.rows[client]:
            return f"it says {upload.examples!r} examples, the agreed schema {self.rows[client]}"
        if type(upload.loss) is not float or not math.isfinite(upload.loss):
            return f"its loss is {upload.loss!r}"
        releases = upload.releases
        if type(releases) is not int or not (1 <= releases <= _MOST_RELEASES if self.noise else releases == 0):
            return f"it says {str(releases)[:20]} noised uploads"
        changes = self._of(upload.arrays, phase.changes)
        ends = {name: array for name, array in upload.arrays.items() if name not in changes}
        moved = arrays.subtract(ends, {name: expected[name] for name in ends})
        parts = [{**moved, **changes}, *upload.by_task.values()]
        numbers = sum(array.size for array in expected.values())
        # Noise alone is nearly always within 1 +- 1 / sqrt(numbers) of its expected length.
        limit = self.largest_update * max(_length(expected), 1.0) + 2 * self.noise * math.sqrt(numbers)
        longest = max((_length(part) for part in parts), default=0.0)
        if longest > limit:
            return f"it is {longest:.3g} away from what was sent; at most {limit:.3g} is taken"
        return None

    def _of(self, sent: NamedArrays, roles: frozenset[Role]) -> NamedArrays:
        own, _ = arrays.split_anchor(sent)
        return arrays.select(own, self.template, roles)

    def _validation(self, client: str, answer: Upload | Validation) -> str | None:
        wrong = "validation rejected: it does not hold AUC and log-loss of each task"
        if isinstance(answer, Upload) or answer.keys() != {client} or not isinstance(answer[client], Mapping):
            return wrong
        if answer[client].keys() != set(self.tasks):
            return wrong
        for cell in answer[client].values():
            if not isinstance(cell, Mapping) or cell.keys() != {"auc", "logloss"}:
                return wrong
            if not _is_share(cell["auc"]) or not (cell["logloss"] is None or _within(cell["logloss"], 0, math.inf)):
                return wrong
        return None

    def _result(self, client: str, best: SiteResult) -> bool:
        return (
            type(best.round) is int
            and 0 < best.round <= self.rounds
            and _is_share(best.mean_auc)
            and isinstance(best.validation, Mapping)
            and self._validation(client, {client: best.validation}) is None
        )


def _is_share(value: object) -> bool:
    """Return whether a value is undefined, or from 0 to 1."""
    return value is None or _within(value, 0, 1)


def _within(value: object, lowest: float, highest: float) -> bool:
    return isinstance(value, float) and math.isfinite(value) and lowest <= value <= highest


def _misshapen(found: NamedArrays, expected: NamedArrays) -> str | None:
    """Return a difference from what is expected, or None.

    Of names, shapes, types or values.
    """
    if found.keys() != expected.keys():
        lacking, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        return f"it lacks {lacking[0]!r}" if lacking else f"it holds {extra[0]!r}, which is not to be uploaded"
    for name, array in found.items():
        like = expected[name]
        if (array.shape, array.dtype) != (like.shape, like.dtype):
            return f"{name!r} is {array.dtype} of shape {array.shape}, expected {like.dtype} of shape {like.shape}"
    bad = arrays.first_not_finite(found)
    return None if bad is None else f"{bad!r} is not finite"


def _length(parts: NamedArrays) -> float:
    return math.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in parts.values()))
