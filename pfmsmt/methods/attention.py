"""Attention between clients: the rows of A in personalised aggregation.

Legend: S clients, P numbers of a group.

A_sj is how much client s takes from client j in the personalised step; every row sums to 1.

    uniform      A_sj = p_j, the shares of examples: FedAvg's weights
    identity     A_sj = 1 for j = s: the client alone
    similarity   A_sj ~ p_j exp(cos_sj / tau), cos of the directions that updates show over rounds (directions.py; ours)
    learned      A_sj ~ p_j exp(h_sj),   h_sj <- h_sj + rate cos(D_s, W'_j - W_s), W' of the round before
                 (ours; FedHCA2, Lu et al. 2024, has the idea that the next update is the slope along a weight)
    fedhca2      A_sj = 1 for j = s, and the client's update becomes D_s + alpha_s G_s with a learned alpha_s (FedHCA2:
                 nobody's parameters are mixed in); G_s is the step's g, or of towers and gates what attention between
                 the clients' updates gives
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.methods.aggregation import progress, similarity_rows
from pfmsmt.methods.fedhca2 import attend, learn

AttentionState = dict[str, NDArray[Any]]
"""A rule's memory of one group: nothing, or what it learns.

{logits [S, S], sent [S, P], seen [S]} of `learned`; {weights [S], velocities [S], added [S, P]} of `fedhca2`.
"""


class AttentionRule(NamedTuple):
    """A rule for the rows of A, with its settings."""

    rule: str
    """One of the names above."""
    temperature: float
    """tau; used by `similarity` alone"""
    learned_rate: float
    """Step size of h in `learned`, of alpha in `fedhca2`"""
    alpha: float = 0.1
    """Weight of what is added at the start; used by `fedhca2` alone"""

    @property
    def keeps_own(self) -> bool:
        """Whether rows of A are the identity's: nobody's parameters are mixed in."""
        return self.rule in ("identity", "fedhca2")

    def start(self, rows: NDArray[Any]) -> AttentionState:
        """Return the state before the first round, for parameters `rows` [S, P]."""
        if self.rule == "learned":
            clients = len(rows)
            return {"logits": np.zeros((clients, clients)), "sent": np.zeros_like(rows), "seen": np.zeros(clients)}
        if self.rule == "fedhca2":
            weights = np.full(len(rows), self.alpha)
            return {"weights": weights, "velocities": np.zeros(len(rows)), "added": np.zeros_like(rows)}
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
        if self.keeps_own:
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

    def extend(
        self, state: AttentionState, places: list[int], updates: NDArray[Any], common: NDArray[Any] | None
    ) -> tuple[NDArray[Any], AttentionState]:
        """Return D_s + alpha_s G_s [present, P], and the new state.

        Of `fedhca2` alone.

        Args:
            state: of all S clients.
            places: of the present clients among all.
            updates: [present, P] D.
            common: [P] g, which is G_s of every client; None: attention between the updates gives each its own.
        """
        new = {key: array.copy() for key, array in state.items()}
        added = attend(updates) if common is None else np.tile(common, (len(places), 1))
        # The weights first: what they are learned from was added in the round before.
        along = np.einsum("sp,sp->s", updates.astype(np.float64), state["added"][places].astype(np.float64))
        weights, velocities = learn(state["weights"][places], state["velocities"][places], along, self.learned_rate)
        new["weights"][places], new["velocities"][places], new["added"][places] = weights, velocities, added
        return updates + weights.astype(updates.dtype)[:, None] * added, new
