"""The dual of conflict coordination, exactly: a convex problem over a small simplex (the algorithm is ours).

    minimise  <b, w> + c |w|_G   over w >= 0, sum w = 1      with b = G p, |w|_G = sqrt(w' G w)      (coordination.py)

For a set A of clients whose weights may differ from zero, the optimum has a closed form. With u = G_A^-1 1,
v = G_A^-1 b_A, alpha = sum u, beta = sum v, gamma = <b_A, v>:

    lambda = (beta + sqrt(beta^2 - alpha (gamma - c^2))) / alpha,     w_A = (lambda u - v) / (lambda alpha - beta)

and where the root is not real the objective falls without end along beta / alpha u - v. So, as active set methods do
(Lawson & Hanson 1974): go towards the optimum of A, dropping each client whose weight reaches zero on the way; once
there, let in the client along whose weight the objective falls most; stop when it falls along none.
"""

import math

import numpy as np
from numpy.typing import NDArray

RIDGE = 1e-13
"""Added to G's diagonal, relative to it: clients with the very same direction, or with none, leave G_A singular."""
SLOPE_TOLERANCE = 1e-9
"""A client is let in if the objective falls along its weight by more than this, relative to its steepest slope."""


def minimise_dual(products: NDArray[np.float64], shares: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Return the weights w [S]; whether they are the optimum, `optimality_gap` tells.

    Args:
        products: G [S, S], positive semidefinite, scaled so that |shares|_G = 1.
        shares: p [S] on the simplex.
        radius: c, 0 < c < 1.
    """
    along_mean = products @ shares
    squares = np.diag(products)
    lifted = products + np.diag(RIDGE * np.maximum(squares, RIDGE * squares.max()))
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
        if free[steepest] or slopes[steepest] >= slopes[inside].min() - SLOPE_TOLERANCE * np.abs(slopes).max():
            break
        free[steepest] = True
    return np.asarray(weights / weights.sum())


def optimality_gap(
    products: NDArray[np.float64], shares: NDArray[np.float64], radius: float, weights: NDArray[np.float64]
) -> float:
    """Return the Frank-Wolfe gap at `weights`, relative to the steepest slope or 1.

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
    """Return the direction [A] from `weights`, and how far along it the objective falls: 1 to the optimum, or inf.

    `right` [A, 2] holds 1 and b_A.
    """
    solved = np.linalg.solve(products, right)
    (alpha, beta), gamma = solved.sum(axis=0), right[:, 1] @ solved[:, 1]
    ray = beta / alpha * solved[:, 0] - solved[:, 1]
    square = beta**2 - alpha * (gamma - radius**2)
    if square <= 0:
        return ray, math.inf
    root = math.sqrt(square)
    return solved[:, 0] / alpha + ray / root - weights, 1.0
