"""Where clients' updates point, apart from the noise of single rounds (ours).

    a_s <- beta a_s + (1 - beta) D_s in a client's odd rounds, b_s likewise in its even ones
    N    = symmetric part of <a_s, b_r>, a and b divided by what their weights add up to

A round's update is mostly noise. Compared as it is, everybody is alike to himself (cosine 1) and to nobody else, and
the length of an update tells how few rows a client has rather than how far it has to go. So updates are smoothed, and
no round's noise ever meets itself: odd rounds are compared with even ones, a client with itself as well. (Rounds of one
epoch share no rows, so their noise leans to opposite sides: a weak direction is found late, but none is invented.)
Legend: S clients, V vectors of each (1, or one for each task), P numbers of a group.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt import arrays

Memory = dict[str, NDArray[Any]]


class Directions(NamedTuple):
    """What the server remembers of a group's updates, and how long."""

    smoothing: float
    """beta, the share of the past"""

    def start(self, clients: int, vectors: NDArray[Any]) -> Memory:
        """Return what is remembered before the first round, for `vectors` [any, V, P] of each of S clients."""
        zeros = np.zeros((clients, *vectors.shape[1:]), vectors.dtype)
        return {"odd": zeros, "even": zeros.copy(), "rounds": np.zeros(clients, np.int64)}

    def remember(self, memory: Memory, places: list[int], vectors: NDArray[Any]) -> Memory:
        """Return the memory with this round's `vectors` [present, V, P] of the clients at `places`."""
        new = {key: array.copy() for key, array in memory.items()}
        for place, vector in zip(places, vectors, strict=True):
            half = new["even" if new["rounds"][place] % 2 else "odd"]
            half[place] = self.smoothing * half[place] + (1 - self.smoothing) * vector
            new["rounds"][place] += 1
        return new

    def signal(self, memory: Memory, places: list[int]) -> NDArray[np.float64]:
        """Return N [present V, present V]; where its diagonal is not positive, no direction is known."""
        odd, even = (memory[half][places] for half in ("odd", "even"))
        rounds, each = memory["rounds"][places], odd.shape[1]
        weights = [np.repeat(self._weight(count), each) for count in ((rounds + 1) // 2, rounds // 2)]
        flat = (len(places) * each, -1)
        found = arrays.products(odd.reshape(flat), even.reshape(flat)) / np.outer(*weights)
        return np.asarray((found + found.T) / 2)

    def _weight(self, count: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what the weights of `count` rounds add up to, 1 - beta^count; 1 of none, whose mean is zero anyway."""
        return np.where(count > 0, 1 - self.smoothing ** count.astype(np.float64), 1.0)


def of_clients(signal: NDArray[np.float64], clients: int) -> NDArray[np.float64]:
    """Return the signal [S, S] of the means of each client's V vectors, from that of all vectors [S V, S V]."""
    each = len(signal) // clients
    return np.asarray(signal.reshape(clients, each, clients, each).mean(axis=(1, 3)))


def known(signal: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return [S]: whose updates point anywhere."""
    return np.asarray(np.diag(signal) > 0)
