"""Conflict coordination: the common update that does most for the worst-off client, from inner products alone.

CAGrad (Liu et al. 2021, eq. 3 and its dual), as FedHCA2 (Lu et al. 2024) uses it between federated clients:

    g = argmax_g min_s <D_s, g>   subject to   |g - m| <= c |m|,   m = sum_s p_s D_s

Dual: w = argmin over the simplex of <D_w, m> + c |m| |D_w| with D_w = sum_s w_s D_s; then
g = m + c |m| / |D_w| D_w, here scaled by 1 / (1 + c) so that identical clients get exactly their own update.

Between clients the inner products are not those of a round's updates, which are mostly noise, but those of the
directions that emerge over rounds (directions.py; ours): see `coordinate`.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

TOLERANCE = 1e-6
"""Accepted duality gap, relative to |m|^2 (1 + c)."""


class Coordination(NamedTuple):
    """How to build the common update g = sum_s coefficients[s] D_s."""

    coefficients: NDArray[np.float64]
    """[S]"""
    converged: bool
    """False: the solver failed and `coefficients` are those of plain averaging."""


def coordinate(signal: NDArray[np.float64], shares: NDArray[np.float64], radius: float) -> Coordination:
    """Find the common update of S clients from what is known of their directions.

    Who shows no direction yet takes part with its share of the mean, and nobody turns for it.

    Args:
        signal: [S, S] inner products of directions; where the diagonal is not positive none is known. Free of noise's
            own products, it need not be positive semidefinite: the nearest such matrix takes its place.
        shares: [S] weights p of the mean, on the simplex.
        radius: c, 0 <= c < 1; 0 gives the mean itself.

    Raises:
        ValueError: as `conflict_averse`.
    """
    known = np.diag(signal) > 0
    values, vectors = np.linalg.eigh(signal[np.ix_(known, known)])
    gram = (vectors * np.clip(values, 0.0, None)) @ vectors.T
    together = shares[known].sum()
    found = conflict_averse(gram, shares[known] / together, radius)
    coefficients = shares.copy()
    coefficients[known] = together * found.coefficients
    return Coordination(coefficients, found.converged)


def conflict_averse(gram: NDArray[np.float64], shares: NDArray[np.float64], radius: float) -> Coordination:
    """Find the conflict-averse common update of S clients.

    Args:
        gram: [S, S] inner products of the updates.
        shares: [S] weights p of the mean, on the simplex.
        radius: c, 0 <= c < 1; 0 gives the mean itself.

    Raises:
        ValueError: radius outside [0, 1), or shapes that do not fit.
    """
    if not 0 <= radius < 1:
        raise ValueError(f"radius c = {radius} is outside [0, 1)")
    clients = len(shares)
    if gram.shape != (clients, clients):
        raise ValueError(f"gram has shape {gram.shape}, expected {(clients, clients)}")
    mean_norm = _length(shares, gram)
    if radius == 0 or clients == 1 or mean_norm == 0:
        return Coordination(shares.copy(), True)
    # In units of |m| the problem is the same at any scale of the updates.
    scaled = gram / mean_norm**2
    solved = _dual(scaled, shares, radius)
    if solved is None:
        return Coordination(shares.copy(), False)
    length = _length(solved, scaled)
    if length <= TOLERANCE:
        # Opposed updates cancel: the set of common descent directions is empty and the mean is all there is.
        return Coordination(shares / (1 + radius), True)
    return Coordination((shares + radius / length * solved) / (1 + radius), True)


def _dual(gram: NDArray[np.float64], shares: NDArray[np.float64], radius: float) -> NDArray[np.float64] | None:
    along_mean = gram @ shares

    def objective(weights: NDArray[np.float64]) -> float:
        return float(weights @ along_mean + radius * _length(weights, gram))

    def gradient(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        length = max(_length(weights, gram), 1e-12)
        return np.asarray(along_mean + radius * (gram @ weights) / length)

    result = minimize(
        objective,
        shares,
        jac=gradient,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(shares),
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1.0, "jac": np.ones_like},
        options={"maxiter": 200, "ftol": 1e-12},
    )
    weights = np.clip(np.asarray(result.x, dtype=np.float64), 0.0, None)
    if not np.isfinite(weights).all() or weights.sum() <= 0:
        return None
    weights /= weights.sum()
    if _length(weights, gram) <= TOLERANCE:
        return weights
    # The problem is convex, so the Frank-Wolfe gap bounds the distance to the optimum: trust it, not the solver's flag.
    slope = gradient(weights)
    gap = float(slope @ weights - slope.min())
    return weights if gap <= TOLERANCE * (1 + radius) * max(1.0, float(np.abs(slope).max())) else None


def _length(weights: NDArray[np.float64], gram: NDArray[np.float64]) -> float:
    """Return |sum_s weights_s D_s|."""
    return math.sqrt(max(float(weights @ gram @ weights), 0.0))
