"""Conflict coordination: the common update that does most for the worst-off client, from inner products alone.

CAGrad (Liu et al. 2021, eq. 3 and its dual), as FedHCA2 (Lu et al. 2024) uses it between federated clients:

    g = argmax_g min_s <D_s, g>   subject to   |g - m| <= c |m|,   m = sum_s p_s D_s

Dual: w = argmin over the simplex of <D_w, m> + c |m| |D_w| with D_w = sum_s w_s D_s; then
g = m + c |m| / |D_w| D_w, here scaled by 1 / (1 + c) so that identical clients get exactly their own update.

Between clients who is opposed to whom is read from the directions that emerge over rounds (directions.py; ours), as a
round's updates are mostly noise; how far g may turn from the mean, c |m|, is measured on the updates themselves.
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


def coordinate(
    signal: NDArray[np.float64], gram: NDArray[np.float64], shares: NDArray[np.float64], radius: float
) -> Coordination:
    """Find the common update of S clients from what is known of their directions.

    Who shows no direction takes part with its share of the mean, and nobody turns for it.

    Args:
        signal: [S, S] inner products of directions; where the diagonal is not positive there is none. Free of noise's
            own products, it need not be positive semidefinite: the nearest such matrix takes its place.
        gram: [S, S] inner products of this round's updates.
        shares: [S] weights p of the mean, on the simplex.
        radius: c, 0 <= c < 1; 0 gives the mean itself.

    Raises:
        ValueError: as `conflict_averse`.
    """
    known = np.diag(signal) > 0
    there = np.ix_(known, known)
    values, vectors = np.linalg.eigh(signal[there])
    nearest = (vectors * np.clip(values, 0.0, None)) @ vectors.T
    together = shares[known].sum()
    found = conflict_averse(nearest, shares[known] / together, radius, gram[there])
    coefficients = shares.copy()
    coefficients[known] = together * found.coefficients
    return Coordination(coefficients, found.converged)


def conflict_averse(
    products: NDArray[np.float64],
    shares: NDArray[np.float64],
    radius: float,
    gram: NDArray[np.float64] | None = None,
) -> Coordination:
    """Find the conflict-averse common update of S clients.

    Args:
        products: [S, S] inner products that say who is opposed to whom; positive semidefinite.
        shares: [S] weights p of the mean, on the simplex.
        radius: c, 0 <= c < 1; 0 gives the mean itself.
        gram: [S, S] inner products of the updates that are combined, in which |g - m| <= c |m| is measured; those of
            `products` if left out.

    Raises:
        ValueError: radius outside [0, 1), or shapes that do not fit.
    """
    if not 0 <= radius < 1:
        raise ValueError(f"radius c = {radius} is outside [0, 1)")
    clients = len(shares)
    gram = products if gram is None else gram
    for name, matrix in (("products", products), ("gram", gram)):
        if matrix.shape != (clients, clients):
            raise ValueError(f"{name} has shape {matrix.shape}, expected {(clients, clients)}")
    mean_norm = _length(shares, products)
    if radius == 0 or clients == 1 or mean_norm == 0:
        return Coordination(shares.copy(), True)
    # In units of |m| the problem is the same at any scale of the updates.
    scaled = products / mean_norm**2
    solved = _dual(scaled, shares, radius)
    if solved is None:
        return Coordination(shares.copy(), False)
    length = _length(solved, gram)
    if _length(solved, scaled) <= TOLERANCE or length == 0:
        # Opposed updates cancel: the set of common descent directions is empty and the mean is all there is.
        return Coordination(shares / (1 + radius), True)
    return Coordination((shares + radius * _length(shares, gram) / length * solved) / (1 + radius), True)


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
