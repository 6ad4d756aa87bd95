"""Personalised aggregation: shares, rows of A, and what they are computed from.

Legend: S clients, P numbers of a group.
"""

import numpy as np
from numpy.typing import NDArray


def shares(examples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return n_s / sum n as [S] (FedAvg, McMahan et al. 2017).

    Raises:
        ValueError: a count that is not positive.
    """
    if len(examples) == 0 or (examples <= 0).any():
        raise ValueError(f"example counts must be positive, found {examples.tolist()}")
    return np.asarray(examples / examples.sum())


def conflict_share(cosines: NDArray[np.float64]) -> float:
    """Return the share of client pairs whose updates oppose each other.

    0 for a single client.
    """
    pairs = np.triu_indices(len(cosines), k=1)
    return float((cosines[pairs] < 0).mean()) if len(pairs[0]) else 0.0


def similarity_rows(
    similarity: NDArray[np.float64], weights: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """Return the rows A [S, S] of a softmax over similarities (ours).

    A_sj is proportional to weights_j exp(similarity_sj / temperature); rows sum to 1.

    A large temperature gives `weights` in every row, which is FedAvg; a small one the identity.

    Raises:
        ValueError: temperature not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} is not positive")
    logits = similarity / temperature + np.log(weights)
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))


def progress(
    updates: NDArray[np.float64], received: NDArray[np.float64], uploaded: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [S, S]: the progress of s's update towards j's upload.

    How far it points from where it started towards what client j uploaded before.

    cos(D_s, W'_j - W_s): minus the slope of s's loss along its weight A_sj, free of scale (ours). FedHCA2, Lu et al.
    2024, learns the weight of an added update along such a slope, and mixes no parameters. 0 where one of the two is
    zero.

    Args:
        updates: [S, P] D of this round.
        received: [S, P] W that these updates started from.
        uploaded: [S, P] W' of the round before.
    """
    # From the middle of all: differences of large equal numbers would lose the digits that count.
    middle = received.mean(axis=0)
    starts, ends = received - middle, uploaded - middle
    along = updates @ ends.T - (updates * starts).sum(axis=1)[:, None]
    apart = (starts**2).sum(axis=1)[:, None] + (ends**2).sum(axis=1) - 2 * starts @ ends.T
    scale = np.sqrt(np.clip(apart, 0.0, None) * (updates**2).sum(axis=1)[:, None])
    cosines = np.divide(along, scale, out=np.zeros_like(along), where=scale > 0)
    return np.asarray(np.clip(cosines, -1.0, 1.0))
