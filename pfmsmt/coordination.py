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

from pfmsmt.coordination_dual import minimise_dual, optimality_gap

TOLERANCE = 1e-6
"""Accepted duality gap, relative to |m|^2 (1 + c) or to the steepest slope."""


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
    if not np.isfinite(signal).all():
        return Coordination(shares.copy(), False)
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
    solved = minimise_dual(scaled, shares, radius)
    cancelled = _length(solved, scaled) <= TOLERANCE
    if not cancelled and not optimality_gap(scaled, shares, radius, solved) <= TOLERANCE * (1 + radius):
        return Coordination(shares.copy(), False)
    length = _length(solved, gram)
    if cancelled or length == 0:
        # Opposed updates cancel, so no update helps everybody. The mean is as good as any if it harms nobody; else the
        # dual does not tell which update costs the worst client least.
        harmless = float((scaled @ shares).min()) >= -TOLERANCE
        return Coordination(shares / (1 + radius) if harmless else shares.copy(), harmless)
    return Coordination((shares + radius * _length(shares, gram) / length * solved) / (1 + radius), True)


def _length(weights: NDArray[np.float64], gram: NDArray[np.float64]) -> float:
    """Return |sum_s weights_s D_s|."""
    return math.sqrt(max(float(weights @ gram @ weights), 0.0))
