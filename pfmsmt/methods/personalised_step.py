"""The server's personalised step, one group at a time.

A group is an expert, or one task's tower. Legend: S clients, V vectors of each (1, or one for each task), T tasks, P
numbers of a group.

For clients s with received W_s, uploaded W'_s and updates D_s = W'_s - W_s, and the global part G:

    N        = where the updates of clients point, over rounds   (directions.py)
    g        = conflict-averse common update of D_1 .. D_S       (coordination.py)
    A        = attention between clients                         (attention.py)
    W_s     <- opt_s((1 - lambda) sum_j A_sj W_j + lambda G,  (1 - lambda) sum_j A_sj D_j + lambda g)
    G       <- opt(G, g)

With opt = plain addition that is (1 - lambda) sum_j A_sj W'_j + lambda (G + g) (docs/explanation/method.md, phase 1).
Adam (FedOpt; ours) is given the updates alone: differences between clients' parameters are far larger than a round's
updates, and would drown them in its moments.

With `aggregation: fedhca2` (FedHCA2, Lu et al. 2024) g is that of a single round around the uniform mean, A = I, and
D_s + alpha_s g takes the place of D_s. G then moves by the uniform mean of the clients' steps, so that it stays their
middle (ours): those steps are longer than g, and G would lag behind.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.core import arrays
from pfmsmt.core.types import NamedArrays, Role, Template
from pfmsmt.methods import ServerState, ServerUpdate, Upload
from pfmsmt.methods.aggregation import shares
from pfmsmt.methods.attention import AttentionRule
from pfmsmt.methods.coordination import Coordination, coordinate
from pfmsmt.methods.directions import Directions
from pfmsmt.methods.fedhca2 import plain_coordination
from pfmsmt.methods.server_optimizer import FedOpt

ROWS = "rows"
"""Name of a group's matrix [S, P] where the optimiser wants names; clients in sorted order."""
_HEADS = frozenset({Role.TOWER, Role.GATE})


class PersonalisedStep(NamedTuple):
    """The step with its settings.

    Called with server state and uploads, it returns the update.
    """

    template: Template
    conflict: float
    """c, how far g may turn from the mean of the updates, relative to its length"""
    coupling: float
    """lambda, the global part's share"""
    directions: Directions
    attention: AttentionRule
    optimizer: FedOpt
    coordinate_towers: bool = True
    """Whether towers and gates are coordinated too; otherwise c = 0 for them"""

    def start(self, common: NamedArrays, clients: tuple[str, ...]) -> dict[str, Any]:
        """Return the server state in which every client holds `common`."""
        groups = arrays.by_group(common, self.template)
        rows = {g: np.tile(arrays.flatten(part), (len(clients), 1)) for g, part in groups.items()}
        return {
            "global": dict(common),
            "global_optimizer": {group: self.optimizer.start(part) for group, part in groups.items()},
            "clients": {k: dict(common) for k in sorted(clients)},
            "client_optimizer": {g: self.optimizer.start({ROWS: r}, (len(clients), 1)) for g, r in rows.items()},
            "directions": {group: {} for group in rows},
            "attention": {group: self.attention.start(matrix) for group, matrix in rows.items()},
        }

    def __call__(self, server: ServerState, uploads: Mapping[str, Upload]) -> ServerUpdate:
        """Update every uploaded group; clients without an upload keep their parameters."""
        present = sorted(uploads)
        weights = shares(np.array([uploads[k].examples for k in present], dtype=np.float64))
        new: dict[str, Any] = {key: dict(part) for key, part in server.items()}
        new["clients"] = {k: dict(part) for k, part in server["clients"].items()}
        fallbacks: dict[str, float] = {}
        diagnostics = {}
        for group, names in arrays.by_group(uploads[present[0]].arrays, self.template).items():
            uploaded = {k: {n: uploads[k].arrays[n] for n in names} for k in present}
            # Averaged as it is: an adaptive step would push running variances below zero.
            if self.template[next(iter(names))].role is Role.NORM:
                mean = arrays.combine(list(uploaded.values()), weights)
                new["global"].update(mean)
                for k in present:
                    new["clients"][k].update(mean)
                continue
            # Only groups of the roles in `Phase.reported` come task by task.
            reported = [[part for part in uploads[k].by_task.values() if names.keys() <= part.keys()] for k in present]
            by_task = [[arrays.flatten({n: part[n] for n in names}) for part in parts] for parts in reported]
            diagnostics[group], converged = self._group(group, server, new, uploaded, weights, np.array(by_task))
            # Counted by kind of group (expert, tower, ...), as they are logged.
            key = f"{group.split('/')[0]}_solver_fallbacks"
            fallbacks[key] = fallbacks.get(key, 0.0) + float(not converged)
        return ServerUpdate(new, fallbacks | self._learned_shares(new, present, list(diagnostics)), diagnostics)

    def _learned_shares(self, server: ServerState, present: list[str], groups: list[str]) -> dict[str, float]:
        """Return each client's mean alpha over groups, and beta over heads."""
        if self.attention.rule != "fedhca2":
            return {}
        everyone = sorted(server["clients"])
        found: dict[str, float] = {}
        for name, heads in (("alpha", False), ("beta", True)):
            weights = [server["attention"][group]["weights"] for group in groups if self._is_head(group) is heads]
            if weights:
                mean = np.mean(weights, axis=0)
                found |= {f"{k}/{name}": float(mean[everyone.index(k)]) for k in present}
        return found

    def _is_head(self, group: str) -> bool:
        return any(slot.role in _HEADS for slot in self.template.values() if slot.group == group)

    def _group(
        self,
        group: str,
        server: ServerState,
        new: dict[str, Any],
        uploaded: Mapping[str, NamedArrays],
        weights: NDArray[np.float64],
        by_task: NDArray[Any],
    ) -> tuple[dict[str, NDArray[np.float64]], bool]:
        """Write one group's step into `new`; return diagnostics and convergence.

        Convergence of coordination, that is. `by_task` [S, T, P] holds what each task moved, or nothing ([S, 0]) where
        clients do not report it.
        """
        everyone = sorted(server["clients"])
        places = [everyone.index(k) for k in uploaded]
        like = next(iter(uploaded.values()))
        before = arrays.flatten({n: server["global"][n] for n in like})
        received = np.stack([arrays.flatten({n: server["clients"][k][n] for n in like}) for k in uploaded])
        sent = np.stack([arrays.flatten(part) for part in uploaded.values()])
        updates = sent - received
        vectors = _vectors(updates, by_task)
        # Empty before the first round: how many vectors a client has is known from its first upload.
        seen = server["directions"][group] or self.directions.start(len(everyone), vectors)
        new["directions"][group] = self.directions.update(seen, places, vectors)
        signal, cosines = self.directions.compare(new["directions"][group], places)
        head = self._is_head(group)
        coordination, common = self._coordinate(vectors, signal, weights, head)
        rows, new["attention"][group] = self.attention.rows(
            server["attention"][group], places, weights, cosines=cosines, updates=updates, received=received, sent=sent
        )
        if extended := self.attention.rule == "fedhca2":
            known = new["attention"][group]
            updates, new["attention"][group] = self.attention.extend(known, places, updates, None if head else common)
        # W_s: where each client's step starts, its direction, and the optimiser's states of the present clients alone.
        start, direction = self._mix(rows, received, before), self._mix(rows, updates, common)
        states = _take(server["client_optimizer"][group], places)
        moved, state = self.optimizer.step({ROWS: start}, {ROWS: direction}, states)
        new["client_optimizer"][group] = _put(server["client_optimizer"][group], places, state)
        for k, row in zip(uploaded, moved[ROWS], strict=True):
            new["clients"][k].update(arrays.unflatten(row, like))
        # G: the global part moves along g, for clients to be coupled to and for drift to be measured from.
        if extended:
            stepped = arrays.unflatten(before + (moved[ROWS] - received).mean(axis=0), like)
        else:
            stepped, new["global_optimizer"][group] = self.optimizer.step(
                arrays.unflatten(before, like), arrays.unflatten(common, like), server["global_optimizer"][group]
            )
        new["global"].update(stepped)
        drift = _drift(moved[ROWS], arrays.flatten(stepped))
        diagnosis = _spread(len(everyone), places, rows, cosines, coordination.coefficients, drift)
        return diagnosis, coordination.converged

    def _coordinate(
        self, vectors: NDArray[Any], signal: NDArray[np.float64], weights: NDArray[np.float64], head: bool
    ) -> tuple[Coordination, NDArray[Any]]:
        """Return each client's coefficient [S], and g [P].

        From `vectors` [S, V, P] with shares p_s / V.
        """
        conflict = self.conflict if self.coordinate_towers or not head else 0.0
        clients, each, _ = vectors.shape
        flat = vectors.reshape(clients * each, -1)
        # Every task of a client counts as a participant of its own, with an equal part of the client's share.
        if self.attention.rule == "fedhca2":
            found = plain_coordination(flat, conflict)
        else:
            found = coordinate(signal, arrays.products(flat, flat), np.repeat(weights / each, each), conflict)
        common = found.coefficients.astype(vectors.dtype) @ flat
        return found._replace(coefficients=found.coefficients.reshape(clients, each).sum(axis=1)), common

    def _mix(self, rows: NDArray[np.float64], own: NDArray[Any], common: NDArray[Any]) -> NDArray[Any]:
        """Return (1 - lambda) A own + lambda common, [S, P]."""
        # The identity without a product: it would cost S^2 P and change nothing.
        mixed = own if self.attention.keeps_own else rows.astype(own.dtype) @ own
        return (1 - self.coupling) * mixed + self.coupling * common if self.coupling else mixed


def _vectors(updates: NDArray[Any], by_task: NDArray[Any]) -> NDArray[Any]:
    """Return the vectors that are coordinated, [S, V, P].

    Each client's update or, where it reports them, its tasks' parts. Client s then stands for T vectors, T times what
    each task moved and what none did: their mean is its update.
    """
    if by_task.ndim < 3:
        return updates[:, None]
    rest = updates - by_task.sum(axis=1)
    return np.asarray(by_task.shape[1] * by_task + rest[:, None])


def _take(state: dict[str, NamedArrays], places: list[int]) -> dict[str, NamedArrays]:
    """Return the present clients' rows of the optimiser's state.

    All of it, uncopied, where nobody is missing: it is twice as large as all clients' models.
    """
    if _all_there(state, places):
        return state
    return {part: {name: array[places] for name, array in named.items()} for part, named in state.items()}


def _all_there(state: Mapping[str, NamedArrays], places: list[int]) -> bool:
    return all(len(array) == len(places) for named in state.values() for array in named.values())


def _put(
    state: Mapping[str, NamedArrays], places: list[int], rows: Mapping[str, NamedArrays]
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the state with the present clients' rows replaced."""
    if _all_there(state, places):
        return {part: dict(named) for part, named in rows.items()}
    new = {part: {name: array.copy() for name, array in named.items()} for part, named in state.items()}
    for part, named in rows.items():
        for name, array in named.items():
            new[part][name][places] = array
    return new


def _drift(own: NDArray[Any], common: NDArray[Any]) -> NDArray[np.float64]:
    """Return the drift |W_s - G| / |G| as [S].

    nan where G is zero.
    """
    length = float(np.linalg.norm(common))
    return np.linalg.norm(own - common, axis=1) / length if length > 0 else np.full(len(own), np.nan)


def _spread(
    clients: int,
    places: list[int],
    rows: NDArray[np.float64],
    cosines: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    drift: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Spread diagnostics of the present clients over all S, as `ServerUpdate.diagnostics` says."""
    rows_, cosines_ = np.eye(clients), np.full((clients, clients), np.nan)
    coefficients_, drift_ = np.full(clients, np.nan), np.full(clients, np.nan)
    pairs = np.ix_(places, places)
    rows_[pairs], cosines_[pairs], coefficients_[places], drift_[places] = rows, cosines, coefficients, drift
    return {"listening": rows_, "cosine": cosines_, "coefficients": coefficients_, "drift": drift_}
