"""Conflict coordination: the common update that does most for the worst-off client.

Computed from inner products of updates alone, as CAGrad (Liu et al. 2021, eq. 3 and its dual) does for tasks. To do so
between federated clients is FedHCA2's (Lu et al. 2024), with the uniform mean, 1 + c^2 and a round's own updates;
shares of examples, 1 + c and directions are ours:

    g = argmax_g min_s <D_s, g>   subject to   |g - m| <= c |m|,   m = sum_s p_s D_s

Dual: w = argmin over the simplex of <D_w, m> + c |m| |D_w| with D_w = sum_s w_s D_s; then
g = m + c |m| / |D_w| D_w, here scaled by 1 / (1 + c) so that identical clients get exactly their own update.

Between clients, who is opposed to whom is read from the directions that emerge over rounds (directions.py; ours), as a
round's updates are mostly noise; how far g may turn from the mean, c |m|, is measured on the updates themselves.

From top to bottom: `coordinate` takes directions and updates of clients; `conflict_averse` finds g for given inner
products; `minimise_dual` solves the dual exactly (the algorithm is ours). With G the inner products, b = G p and
|w|_G = sqrt(w' G w), the dual is a convex problem over a small simplex:

    minimise  <b, w> + c |w|_G   over w >= 0, sum w = 1

For a set A of clients whose weights may differ from zero, the optimum has a closed form. With u = G_A^-1 1,
v = G_A^-1 b_A, alpha = sum u, beta = sum v, gamma = <b_A, v>:

    lambda = (beta + sqrt(beta^2 - alpha (gamma - c^2))) / alpha,     w_A = (lambda u - v) / (lambda alpha - beta)

and where the root is not real the objective falls without end along beta / alpha u - v. So, as active set methods do
(Lawson & Hanson 1974): go towards the optimum of A, dropping each client whose weight reaches zero on the way; once
there, let in the client along whose weight the objective falls most; stop when it falls along none.

Legend: S clients, A clients of the active set.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DUALITY_TOLERANCE = 1e-6
"""Accepted duality gap, relative to |m|^2 (1 + c) or to the steepest slope."""
_RIDGE = 1e-13
"""Added to G's diagonal, relative to it: clients with the very same direction, or with none, leave G_A singular."""
_SLOPE_TOLERANCE = 1e-9
"""A client is let in if the objective falls along its weight by more than this, relative to its steepest slope."""


class Coordination(NamedTuple):
    """Coefficients of the common update g = sum_s coefficients[s] D_s."""

    coefficients: NDArray[np.float64]
    """[S]"""
    converged: bool
    """False: the solver failed and `coefficients` are those of plain averaging."""


def coordinate(
    signal: NDArray[np.float64], gram: NDArray[np.float64], shares: NDArray[np.float64], radius: float
) -> Coordination:
    """Find the common update of S clients from their directions.

    A client that shows no direction takes part with its share of the mean, and nobody turns for it.

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
    scale: float | None = None,
) -> Coordination:
    """Find the conflict-averse common update of S clients.

    Args:
        products: [S, S] inner products that say who is opposed to whom; positive semidefinite.
        shares: [S] weights p of the mean, on the simplex.
        radius: c, 0 <= c < 1; 0 gives the mean itself.
        gram: [S, S] inner products of the updates that are combined, in which |g - m| <= c |m| is measured; those of
            `products` if left out.
        scale: divides g; 1 + c if left out, so that identical clients get exactly their own update. Where the dual has
            no answer, the mean stands for g, and is not divided.

    Raises:
        ValueError: radius outside [0, 1), or shapes that do not fit.
    """
    if not 0 <= radius < 1:
        raise ValueError(f"radius c = {radius} is outside [0, 1)")
    clients = len(shares)
    gram = products if gram is None else gram
    scale = 1 + radius if scale is None else scale
    for name, matrix in (("products", products), ("gram", gram)):
        if matrix.shape != (clients, clients):
            raise ValueError(f"{name} has shape {matrix.shape}, expected {(clients, clients)}")
    mean_norm = _length(shares, products)
    if radius == 0 or clients == 1 or mean_norm == 0:
        # All point the same way: g = (1 + c) m, before the scale.
        return Coordination(shares * ((1 + radius) / scale), True)
    # In units of |m| the problem is the same at any scale of the updates.
    scaled = products / mean_norm**2
    solved = minimise_dual(scaled, shares, radius)
    cancelled = _length(solved, scaled) <= DUALITY_TOLERANCE
    if not cancelled and not optimality_gap(scaled, shares, radius, solved) <= DUALITY_TOLERANCE * (1 + radius):
        return Coordination(shares.copy(), False)
    length = _length(solved, gram)
    if cancelled or length == 0:
        # Opposed updates cancel, so no update helps everybody. The mean is as good as any if it harms nobody; else the
        # dual does not say which update costs the worst client least.
        harmless = float((scaled @ shares).min()) >= -DUALITY_TOLERANCE
        return Coordination(shares / scale if harmless else shares.copy(), harmless)
    return Coordination((shares + radius * _length(shares, gram) / length * solved) / scale, True)


def _length(weights: NDArray[np.float64], gram: NDArray[np.float64]) -> float:
    """Return |sum_s weights_s D_s|."""
    return math.sqrt(max(float(weights @ gram @ weights), 0.0))


def minimise_dual(products: NDArray[np.float64], shares: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Return the weights w [S] that minimise the dual.

    Rounding may stop it early: `optimality_gap` says how far from the optimum they are.

    Args:
        products: G [S, S], positive semidefinite, scaled so that |shares|_G = 1.
        shares: p [S] on the simplex.
        radius: c, 0 < c < 1.
    """
    along_mean = products @ shares
    squares = np.diag(products)
    # The ridge keeps G_A invertible; the gap is measured without it.
    lifted = products + np.diag(_RIDGE * np.maximum(squares, _RIDGE * squares.max()))
    right = np.stack([np.ones_like(along_mean), along_mean], axis=1)
    weights, free = shares.copy(), shares > 0
    # Every client enters and leaves once or twice; the bound is there for rounding alone.
    for _ in range(10 * len(shares) + 10):
        inside = np.flatnonzero(free)
        held = weights[inside]
        direction, longest = _towards_optimum(lifted[inside][:, inside], right[inside], held, radius)
        ratios = np.divide(held, -direction, out=np.full(len(inside), np.inf), where=direction < 0)
        first = ratios.argmin()
        if ratios[first] < longest:
            weights[inside] = np.maximum(held + ratios[first] * direction, 0.0)
            weights[inside[first]], free[inside[first]] = 0.0, False
            continue
        weights[inside] = np.maximum(held + direction, 0.0)
        slopes = dual_slopes(products, along_mean, weights, radius)
        steepest = slopes.argmin()
        if free[steepest] or slopes[steepest] >= slopes[inside].min() - _SLOPE_TOLERANCE * np.abs(slopes).max():
            break
        free[steepest] = True
    return np.asarray(weights / weights.sum())


def optimality_gap(
    products: NDArray[np.float64], shares: NDArray[np.float64], radius: float, weights: NDArray[np.float64]
) -> float:
    """Return the Frank-Wolfe gap at `weights`.

    Relative to the steepest slope, or to 1 where that is less.

    The problem is convex, so the gap bounds how far the objective is above its minimum, however `weights` were found.
    """
    slopes = dual_slopes(products, products @ shares, weights, radius)
    return float(slopes @ weights - slopes.min()) / max(1.0, float(np.abs(slopes).max()))


def dual_slopes(
    products: NDArray[np.float64], along_mean: NDArray[np.float64], weights: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Return the objective's gradient [S]."""
    ahead = products @ weights
    return np.asarray(along_mean + radius / max(math.sqrt(max(float(weights @ ahead), 0.0)), 1e-12) * ahead)


def _towards_optimum(
    products: NDArray[np.float64], right: NDArray[np.float64], weights: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.float64], float]:
    """Return the direction [A] from `weights`, and how far the objective falls.

    How far along it: 1 to the optimum, or inf. `right` [A, 2] holds 1 and b_A.
    """
    solved = np.linalg.solve(products, right)
    (alpha, beta), gamma = solved.sum(axis=0), right[:, 1] @ solved[:, 1]
    ray = beta / alpha * solved[:, 0] - solved[:, 1]
    square = beta**2 - alpha * (gamma - radius**2)
    if square <= 0:
        return ray, math.inf
    root = math.sqrt(square)
    return solved[:, 0] / alpha + ray / root - weights, 1.0
