"""Messages in half precision: half the bytes, with a stated rounding.

    down   float16 of what the method sends
    up     float16 of the change w_k - received, and of tasks' shares; the server adds it to what it holds in full

A number x arrives within max(2^-11 |x|, 2^-25). Rounding what is sent moves where clients start, never the server's own
parameters, and of an upload the change alone is rounded, not the parameters around it. BatchNorm, which is small, and
whose variances must not be rounded below zero, stays in full.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pfmsmt.core import arrays
from pfmsmt.core.errors import TrainingError
from pfmsmt.core.types import ANCHOR, NamedArrays, Role, Stream, Template
from pfmsmt.methods import ClientState, Method, Phase, ServerState, ServerUpdate, Upload

_FULL = frozenset({Role.NORM})
"""Roles that travel in full."""
_LARGEST = float(np.finfo(np.float16).max)


def half_precision(method: Method, template: Template) -> Method:
    """Return the method with messages in half precision.

    Raises:
        TrainingError: in a round, by client or server: a number is larger than float16 holds.
    """

    def broadcast(server: ServerState, client: str) -> NamedArrays:
        return shorten(method.broadcast(server, client), template)

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        return method.personalise(_widen(received), state)

    phases = tuple(_half_phase(phase, template) for phase in method.phases)
    return method._replace(phases=phases, broadcast=broadcast, personalise=personalise)


def _half_phase(phase: Phase, template: Template) -> Phase:
    def broadcast(server: ServerState, client: str) -> NamedArrays:
        return shorten(phase.broadcast(server, client), template)

    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        start = _widen(received)
        upload, after = phase.client_update(start, state, data, stream)
        whole, changed = _by_form(upload.arrays, template)
        changes = arrays.subtract(changed, {name: start[name] for name in changed})
        by_task = {task: shorten(part, template) for task, part in upload.by_task.items()}
        return upload._replace(arrays={**whole, **shorten(changes, template)}, by_task=by_task), after

    def server_update(server: ServerState, uploads: Mapping[str, Upload]) -> ServerUpdate:
        return phase.server_update(server, {client: full(server, client, upload) for client, upload in uploads.items()})

    def full(server: ServerState, client: str, upload: Upload) -> Upload:
        sent = phase.broadcast(server, client)
        whole, changes = _by_form(upload.arrays, template)
        ends = {name: sent[name] + change.astype(sent[name].dtype) for name, change in changes.items()}
        by_task = {task: _widen(part) for task, part in upload.by_task.items()}
        return upload._replace(arrays={**whole, **ends}, by_task=by_task)

    return phase._replace(
        broadcast=broadcast, client_update=client_update, server_update=server_update, changes=phase.uploads - _FULL
    )


def shorten(parts: NamedArrays, template: Template) -> NamedArrays:
    """Return the arrays as they travel: float16, but for BatchNorm's.

    Raises:
        TrainingError: a number is larger than float16 holds.
    """
    short = {}
    for name, array in parts.items():
        if template[name.removeprefix(ANCHOR)].role in _FULL:
            short[name] = array
            continue
        # What is not finite already is found, and said, by whoever receives it.
        largest = float(np.max(np.abs(array), initial=0.0))
        if _LARGEST < largest < np.inf:
            raise TrainingError(
                f"{name!r} holds {largest:.3g}, and float16 at most {_LARGEST:,.0f}; set privacy.wire to float32"
            )
        short[name] = array.astype(np.float16)
    return short


def _widen(parts: NamedArrays) -> NamedArrays:
    return {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in parts.items()}


def _by_form(parts: NamedArrays, template: Template) -> tuple[NamedArrays, NamedArrays]:
    """Return the arrays that travel whole, and those sent as changes."""
    whole = arrays.select(parts, template, _FULL)
    return whole, {name: array for name, array in parts.items() if name not in whole}
