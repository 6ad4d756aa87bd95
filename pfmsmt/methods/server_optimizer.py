"""The server's step along an aggregated update: FedOpt.

Reddi et al. 2021, algorithm 2, with decoupled decay.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.config.blocks import ServerOptimizer
from pfmsmt.core import arrays
from pfmsmt.core.types import NamedArrays

_EPSILON = 1e-8


class FedOpt(NamedTuple):
    """A plain step along the update, or Adam's.

    Plain: theta <- (1 - rate * decay) theta + rate * update. Adam has the update in the gradient's place.

    With Adam the decay is decoupled from the moments (AdamW, Loshchilov and Hutter 2019).
    """

    kind: str
    rate: float
    beta1: float
    beta2: float
    decay: float = 0.0

    def start(self, parameters: NamedArrays, steps: tuple[int, ...] = ()) -> dict[str, NamedArrays]:
        """Return the state before the first step, as a tree of arrays.

        `steps` is the shape of the step counter.
        """
        if self.kind == "plain":
            return {}
        zeros = {name: np.zeros_like(array) for name, array in parameters.items()}
        return {"first": zeros, "second": zeros, "steps": {"count": np.zeros(steps, np.int64)}}

    def step(
        self, parameters: NamedArrays, update: NamedArrays, state: dict[str, NamedArrays]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NamedArrays]]:
        """Return new parameters and state; all three have the same names."""
        rest = 1.0 - self.rate * self.decay
        if self.kind == "plain":
            return arrays.combine([parameters, update], [rest, self.rate]), state
        steps = np.asarray(state["steps"]["count"] + 1)
        scale1, scale2 = 1 - self.beta1**steps, 1 - self.beta2**steps
        first, second, moved = {}, {}, {}
        for n, theta in parameters.items():
            first[n] = _mix(state["first"][n], update[n], self.beta1)
            second[n] = _mix(state["second"][n], np.square(update[n]), self.beta2)
            # Divided in place: these arrays are as large as the model, and memory is what the step waits for.
            length = second[n] / scale2.astype(theta.dtype)
            np.sqrt(length, out=length)
            length += theta.dtype.type(_EPSILON)
            np.divide(first[n], length, out=length)
            length *= (self.rate / scale1).astype(theta.dtype)
            length += theta if self.decay == 0 else theta * theta.dtype.type(rest)
            moved[n] = length
        return moved, {"first": first, "second": second, "steps": {"count": steps}}


PLAIN_STEP = FedOpt("plain", 1.0, 0.0, 0.0)
"""theta + update: what a method does that says nothing else."""


def server_step(block: ServerOptimizer) -> FedOpt:
    """Return the step that a block describes."""
    return FedOpt(
        block.server_optimizer,
        block.server_learning_rate,
        block.server_beta1,
        block.server_beta2,
        block.server_weight_decay,
    )


def _mix(past: NDArray[Any], now: NDArray[Any], share: float) -> NDArray[Any]:
    result: NDArray[Any] = past * past.dtype.type(share)
    result += now * now.dtype.type(1 - share)
    return result
