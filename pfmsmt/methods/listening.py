"""Who listens to whom: the rows of A in personalised aggregation, and what the server remembers for them.

    uniform      A_sj = p_j, the shares of examples: FedAvg's weights
    identity     A_sj = 1 for j = s: the client alone
    similarity   A_sj ~ p_j exp(cos_sj / tau),  cos_sj = N_sj / sqrt(N_ss N_jj),  N = sym <a_s, b_j>   (ours)
                 a <- beta a + (1 - beta) D in a client's odd rounds, b likewise in its even ones
    learned      A_sj ~ p_j exp(h_sj),   h_sj <- h_sj + rate cos(D_s, W'_j - W_s), W' of the round before
                 (FedHCA2, Lu et al. 2024: the next update is the slope of the loss along A; the softmax is ours)

A round's update is mostly noise. Compared as it is, everybody is alike to himself (cosine 1) and to nobody else. So
updates are smoothed, and no round's noise ever meets itself: odd rounds are compared with even ones, a client with
itself as well. (Rounds of one epoch share no rows, so their noise leans to opposite sides: a weak direction is found
late, but none is invented.) Legend: S clients, P numbers of a group.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt import arrays
from pfmsmt.aggregation import cosine, progress, similarity_rows

Memory = dict[str, NDArray[Any]]


class Listening(NamedTuple):
    """A rule for A, and its knobs."""

    rule: str
    temperature: float
    smoothing: float
    learned_rate: float

    def start(self, rows: NDArray[Any]) -> Memory:
        """Return what is remembered before the first round, for parameters `rows` [S, P]."""
        if self.rule == "similarity":
            return {"odd": np.zeros_like(rows), "even": np.zeros_like(rows), "rounds": np.zeros(len(rows), np.int64)}
        if self.rule == "learned":
            clients = len(rows)
            return {"logits": np.zeros((clients, clients)), "sent": np.zeros_like(rows), "seen": np.zeros(clients)}
        return {}

    def rows(
        self,
        memory: Memory,
        places: list[int],
        shares: NDArray[np.float64],
        *,
        updates: NDArray[Any],
        received: NDArray[Any],
        sent: NDArray[Any],
    ) -> tuple[NDArray[np.float64], Memory]:
        """Return A over the present clients, and the new memory.

        Args:
            memory: of all S clients.
            places: of the present clients among all.
            shares: [present] of their examples.
            updates: [present, P] D.
            received: [present, P] W.
            sent: [present, P] W' = W + D.
        """
        if self.rule == "uniform":
            return np.tile(shares, (len(shares), 1)), memory
        if self.rule == "identity":
            return np.eye(len(shares)), memory
        new = {key: array.copy() for key, array in memory.items()}
        if self.rule == "similarity":
            for place, update in zip(places, updates, strict=True):
                half = new["even" if new["rounds"][place] % 2 else "odd"]
                # Starting from zeros scales a client's mean, and a cosine does not see the scale.
                half[place] = self.smoothing * half[place] + (1 - self.smoothing) * update
                new["rounds"][place] += 1
            signal = arrays.products(new["odd"][places], new["even"][places])
            # Who shows no direction yet, but noise, listens to everybody, and is not what others look for.
            known = np.diag(signal) > 0
            found = np.where(np.outer(known, known), cosine(signal), 0.0)
            return similarity_rows(found, shares, self.temperature), new
        pairs = np.ix_(places, places)
        known = memory["seen"][places] > 0
        found = progress(*(matrix.astype(np.float64) for matrix in (updates, received, memory["sent"][places])))
        new["logits"][pairs] += self.learned_rate * np.where(known, found, 0.0)
        new["sent"][places], new["seen"][places] = sent, 1.0
        return similarity_rows(new["logits"][pairs], shares, 1.0), new
