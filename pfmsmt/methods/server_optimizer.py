"""The server's step along an aggregated update: FedOpt (Reddi et al. 2021, algorithm 2)."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt import arrays
from pfmsmt.types import NamedArrays

EPSILON = 1e-8


class ServerOptimizer(NamedTuple):
    """theta <- theta + rate * update (plain), or Adam with the update in the place of the negative gradient."""

    kind: str
    rate: float
    beta1: float
    beta2: float

    def start(self, parameters: NamedArrays) -> dict[str, NamedArrays]:
        """Return the state before the first step, as a tree of arrays."""
        if self.kind == "plain":
            return {}
        zeros = {name: np.zeros_like(array) for name, array in parameters.items()}
        return {"first": zeros, "second": zeros, "steps": {"count": np.zeros((), np.int64)}}

    def step(
        self, parameters: NamedArrays, update: NamedArrays, state: dict[str, NamedArrays]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NamedArrays]]:
        """Return new parameters and state; all three have the same names."""
        if self.kind == "plain":
            return arrays.combine([parameters, update], [1.0, self.rate]), state
        steps = int(state["steps"]["count"]) + 1
        first = {n: self.beta1 * state["first"][n] + (1 - self.beta1) * d for n, d in update.items()}
        second = {n: self.beta2 * state["second"][n] + (1 - self.beta2) * np.square(d) for n, d in update.items()}
        scale1, scale2 = 1 - self.beta1**steps, 1 - self.beta2**steps
        moved = {
            n: (p + self.rate * (first[n] / scale1) / (np.sqrt(second[n] / scale2) + EPSILON)).astype(p.dtype)
            for n, p in parameters.items()
        }
        return moved, {"first": first, "second": second, "steps": {"count": np.asarray(steps, np.int64)}}
