"""Attention between clients: the rows of A in personalised aggregation.

Legend: S clients, P numbers of a group.

A_sj is how much client s takes from client j in the personalised step; every row sums to 1.

    uniform      A_sj = p_j, the shares of examples: FedAvg's weights
    identity     A_sj = 1 for j = s: the client alone
    similarity   A_sj ~ p_j exp(cos_sj / tau), cos of the directions that updates show over rounds (directions.py; ours)
    learned      A_sj ~ p_j exp(h_sj),   h_sj <- h_sj + rate cos(D_s, W'_j - W_s), W' of the round before
                 (FedHCA2, Lu et al. 2024: the next update is the slope of the loss along A; the softmax is ours)
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.methods.aggregation import progress, similarity_rows

AttentionState = dict[str, NDArray[Any]]
"""A rule's memory of one group: nothing, or {logits [S, S], sent [S, P], seen [S]} where it is learned."""


class AttentionRule(NamedTuple):
    """A rule for the rows of A, with its settings."""

    rule: str
    """One of the names above."""
    temperature: float
    """tau; used by `similarity` alone"""
    learned_rate: float
    """Step size of h; used by `learned` alone"""

    def start(self, rows: NDArray[Any]) -> AttentionState:
        """Return the state before the first round, for parameters `rows` [S, P]."""
        if self.rule == "learned":
            clients = len(rows)
            return {"logits": np.zeros((clients, clients)), "sent": np.zeros_like(rows), "seen": np.zeros(clients)}
        return {}

    def rows(
        self,
        state: AttentionState,
        places: list[int],
        shares: NDArray[np.float64],
        *,
        cosines: NDArray[np.float64],
        updates: NDArray[Any],
        received: NDArray[Any],
        sent: NDArray[Any],
    ) -> tuple[NDArray[np.float64], AttentionState]:
        """Return A over the present clients, and the new state.

        Args:
            state: of all S clients.
            places: of the present clients among all.
            shares: [present] of their examples.
            cosines: [present, present] of directions; 0 where one is unknown.
            updates: [present, P] D.
            received: [present, P] W.
            sent: [present, P] W' = W + D.
        """
        if self.rule == "uniform":
            return np.tile(shares, (len(shares), 1)), state
        if self.rule == "identity":
            return np.eye(len(shares)), state
        if self.rule == "similarity":
            return similarity_rows(cosines, shares, self.temperature), state
        new = {key: array.copy() for key, array in state.items()}
        pairs = np.ix_(places, places)
        # A client that has uploaded nothing before gives no slope: its column of h stays.
        known = state["seen"][places] > 0
        found = progress(*(matrix.astype(np.float64) for matrix in (updates, received, state["sent"][places])))
        new["logits"][pairs] += self.learned_rate * np.where(known, found, 0.0)
        new["sent"][places], new["seen"][places] = sent, 1.0
        return similarity_rows(new["logits"][pairs], shares, 1.0), new
