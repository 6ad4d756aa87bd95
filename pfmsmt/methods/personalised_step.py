"""The server's personalised step, one group (an expert, a task's tower) at a time. Legend: S clients.

For clients s with received W_s, uploaded W'_s and updates D_s = W'_s - W_s, and the global part G:

    g        = conflict-averse common update of D_1 .. D_S       (coordination.py)
    A        = who listens to whom, from smoothed cosines of D   (aggregation.py)
    M_s      = (1 - lambda) sum_j A_sj W'_j + lambda (G + g)     (method.md, phase 1)
    W_s     <- opt_s(W_s, M_s - W_s),    G <- opt(G, g)          (FedOpt; ours)
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt import arrays
from pfmsmt.aggregation import cosine, shares, similarity_rows
from pfmsmt.coordination import conflict_averse
from pfmsmt.methods import ServerState, ServerUpdate, Upload
from pfmsmt.methods.server_optimizer import ServerOptimizer
from pfmsmt.types import NamedArrays, Role, Template


class PersonalisedStep(NamedTuple):
    """The knobs of the step."""

    template: Template
    conflict: float
    aggregation: str
    temperature: float
    smoothing: float
    coupling: float
    optimizer: ServerOptimizer

    def start(self, common: NamedArrays, clients: tuple[str, ...]) -> dict[str, Any]:
        """Return the server state in which every client holds `common`."""
        groups = arrays.by_group(common, self.template)
        moments = {group: self.optimizer.start(part) for group, part in groups.items()}
        similarity = {group: {"matrix": np.eye(len(clients)), "pairs": np.eye(len(clients))} for group in groups}
        return {
            "global": dict(common),
            "global_optimizer": moments,
            "clients": {k: dict(common) for k in sorted(clients)},
            "client_optimizer": dict.fromkeys(sorted(clients), moments),
            "similarity": similarity,
        }

    def __call__(self, server: ServerState, uploads: Mapping[str, Upload]) -> ServerUpdate:
        """Take in the groups that the clients uploaded; clients without an upload keep their parameters."""
        present = sorted(uploads)
        weights = shares(np.array([uploads[k].examples for k in present], dtype=np.float64))
        new: dict[str, Any] = {key: dict(part) for key, part in server.items()}
        new["clients"] = {k: dict(part) for k, part in server["clients"].items()}
        new["client_optimizer"] = {k: dict(part) for k, part in server["client_optimizer"].items()}
        metrics: dict[str, list[float]] = {}
        diagnostics = {}
        for group, names in arrays.by_group(uploads[present[0]].arrays, self.template).items():
            uploaded = [{n: uploads[k].arrays[n] for n in names} for k in present]
            if self.template[next(iter(names))].role is Role.NORM:
                mean = arrays.combine(uploaded, weights)
                new["global"].update(mean)
                for k in present:
                    new["clients"][k].update(mean)
                continue
            diagnosis, found = self._group(group, server, new, dict(zip(present, uploaded, strict=True)), weights)
            diagnostics[group] = diagnosis
            for key, value in found.items():
                metrics.setdefault(key, []).append(value)
        totals = {k: float(np.sum(v) if k.endswith("_solver_fallbacks") else np.mean(v)) for k, v in metrics.items()}
        return ServerUpdate(new, totals, diagnostics)

    def _group(
        self,
        group: str,
        server: ServerState,
        new: dict[str, Any],
        uploaded: dict[str, NamedArrays],
        weights: NDArray[np.float64],
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
        """Write one group's step into `new`; return its diagnostics and what else there is to report."""
        names = next(iter(uploaded.values())).keys()
        received = {k: {n: server["clients"][k][n] for n in names} for k in uploaded}
        deltas = [arrays.subtract(uploaded[k], received[k]) for k in uploaded]
        gram = arrays.gram(deltas)
        cosines = cosine(gram)
        coordination = conflict_averse(gram, weights, self.conflict)
        common = arrays.combine(deltas, coordination.coefficients)
        before = {n: server["global"][n] for n in names}
        coordinated = arrays.add(before, common)
        places = [sorted(server["clients"]).index(k) for k in uploaded]
        rows = self._rows(group, server, new, cosines, places, weights)
        everyone = list(uploaded.values())
        for row, k in zip(rows, uploaded, strict=True):
            mixed = arrays.combine([arrays.combine(everyone, row), coordinated], [1 - self.coupling, self.coupling])
            update = arrays.subtract(mixed, received[k])
            moved, state = self.optimizer.step(received[k], update, server["client_optimizer"][k][group])
            new["clients"][k].update(moved)
            new["client_optimizer"][k][group] = state
        moved, state = self.optimizer.step(before, common, server["global_optimizer"][group])
        new["global"].update(moved)
        new["global_optimizer"][group] = state
        drift = _drift([{n: new["clients"][k][n] for n in names} for k in uploaded], moved)
        diagnosis = _over_all(len(server["clients"]), places, rows, cosines, coordination.coefficients, drift)
        kind = group.split("/")[0]
        return diagnosis, {f"{kind}_solver_fallbacks": float(not coordination.converged)}

    def _rows(
        self,
        group: str,
        server: ServerState,
        new: dict[str, Any],
        cosines: NDArray[np.float64],
        places: list[int],
        weights: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return A over the present clients, and smooth the similarity of updates over rounds (ours)."""
        if self.aggregation == "uniform":
            return np.tile(weights, (len(weights), 1))
        if self.aggregation == "identity":
            return np.eye(len(weights))
        pairs = np.ix_(places, places)
        matrix, seen = (server["similarity"][group][key].copy() for key in ("matrix", "pairs"))
        # The first value of a pair is taken whole: a past of zeros would bias it towards "unrelated".
        keep = np.where(seen[pairs] > 0, self.smoothing, 0.0)
        matrix[pairs] = keep * matrix[pairs] + (1 - keep) * cosines
        seen[pairs] = 1.0
        new["similarity"][group] = {"matrix": matrix, "pairs": seen}
        return similarity_rows(matrix[pairs], weights, self.temperature)


def _drift(own: list[NamedArrays], common: NamedArrays) -> NDArray[np.float64]:
    """Return |W_s - G| / |G| as [S]; nan where G is zero."""
    length = _length(common)
    apart = [_length(arrays.subtract(theta, common)) for theta in own]
    return np.array(apart) / length if length > 0 else np.full(len(own), np.nan)


def _length(vector: NamedArrays) -> float:
    return float(np.sqrt(sum(float(np.square(array).sum()) for array in vector.values())))


def _over_all(
    clients: int,
    places: list[int],
    rows: NDArray[np.float64],
    cosines: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    drift: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Spread what the present clients show over all S of them, as `ServerUpdate.diagnostics` says."""
    listening, cosine_ = np.eye(clients), np.full((clients, clients), np.nan)
    coefficients_, drift_ = np.full(clients, np.nan), np.full(clients, np.nan)
    pairs = np.ix_(places, places)
    listening[pairs], cosine_[pairs], coefficients_[places], drift_[places] = rows, cosines, coefficients, drift
    return {"listening": listening, "cosine": cosine_, "coefficients": coefficients_, "drift": drift_}
