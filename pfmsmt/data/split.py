"""Cut the validation part from training, search by search."""

import numpy as np
from numpy.typing import NDArray


def in_validation(groups: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Say for each row [B] whether its search belongs to validation.

    A search's place depends on (seed, search id) alone, by the SplitMix64 hash (Steele et al. 2014), so that no
    search is in two parts, whatever the order of rows or the size of blocks.
    """
    key = _mix(np.asarray([seed], dtype=np.uint64))
    uniform = (_mix(groups.view(np.uint64) ^ key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform < fraction


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
