"""Directions of clients' updates, apart from single rounds' noise (ours).

    a_s <- beta a_s + (1 - beta) D_s in a client's odd rounds, b_s likewise in its even ones
    N    = symmetric part of <a_s, b_r>, a and b divided by what their weights add up to
    C    = symmetric part of cos(a_s, b_r)

A round's update is mostly noise. Compared as it is, every client is alike to itself (cosine 1) and to no other, and
the length of an update says how few rows a client has rather than how far it has to go. So updates are smoothed, and
no round's noise ever meets itself: odd rounds are compared with even ones, a client with itself as well. C_ss says
how much of client s's smoothed updates is direction rather than noise, and every C_sr is the cosine of two directions
shrunk by how well both are known: pure noise gives about 0 everywhere, steady updates 1 on the diagonal.
Legend: S clients, V vectors of each (1, or one for each task), P numbers of a group.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.core import arrays

DirectionState = dict[str, NDArray[Any]]
"""Smoothed updates of one group: {odd [S, V, P], even [S, V, P], rounds [S]}."""


class Comparison(NamedTuple):
    """Directions of clients, compared with each other."""

    signal: NDArray[np.float64]
    """N [S V, S V]; where its diagonal is not positive, a vector points nowhere."""
    cosines: NDArray[np.float64]
    """C [S, S] of the means of each client's vectors; 0 where a client's odd or even rounds are not known yet."""


class Directions(NamedTuple):
    """The rule that smooths a group's updates over rounds."""

    smoothing: float
    """beta, the share of the past"""

    def start(self, clients: int, vectors: NDArray[Any]) -> DirectionState:
        """Return the state before the first round.

        For `vectors` [any, V, P] of each of S clients.
        """
        zeros = np.zeros((clients, *vectors.shape[1:]), vectors.dtype)
        return {"odd": zeros, "even": zeros.copy(), "rounds": np.zeros(clients, np.int64)}

    def update(self, state: DirectionState, places: list[int], vectors: NDArray[Any]) -> DirectionState:
        """Return the state with this round's vectors.

        `vectors` [present, V, P] are those of the clients at `places`.
        """
        new = {key: array.copy() for key, array in state.items()}
        for place, vector in zip(places, vectors, strict=True):
            # By the client's own count of rounds: one that missed a round still alternates.
            half = new["even" if new["rounds"][place] % 2 else "odd"]
            half[place] = self.smoothing * half[place] + (1 - self.smoothing) * vector
            new["rounds"][place] += 1
        return new

    def compare(self, state: DirectionState, places: list[int]) -> Comparison:
        """Compare directions of clients, odd rounds with even ones.

        Of the clients at `places` among all S.
        """
        # These are as large as all clients' models: nothing is copied where nobody is missing.
        present = places if len(places) < len(state["rounds"]) else slice(None)
        odd, even = (state[half][present] for half in ("odd", "even"))
        clients, each, _ = odd.shape
        flat = (clients * each, -1)
        found = arrays.products(odd.reshape(flat), even.reshape(flat))
        # The averages started from zero: divided by the sum of their weights, they are not biased towards it.
        rounds = state["rounds"][places]
        weights = [np.repeat(self._weight(count), each) for count in ((rounds + 1) // 2, rounds // 2)]
        signal = found / np.outer(*weights)
        # Cosines need no such correction: it cancels with the lengths.
        lengths = [arrays.lengths(half[:, 0] if each == 1 else half.mean(axis=1)) for half in (odd, even)]
        known = (lengths[0] > 0) & (lengths[1] > 0)
        scale = np.outer(*lengths)
        # The product of two means of vectors is the mean of the vectors' products.
        means = found.reshape(clients, each, clients, each).mean(axis=(1, 3))
        cosines = np.divide(means, scale, out=np.zeros_like(scale), where=np.outer(known, known))
        return Comparison((signal + signal.T) / 2, np.clip((cosines + cosines.T) / 2, -1.0, 1.0))

    def _weight(self, count: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of the weights of `count` rounds.

        1 - beta^count; 1 where there was none, whose mean is zero anyway.
        """
        return np.where(count > 0, 1 - self.smoothing ** count.astype(np.float64), 1.0)
