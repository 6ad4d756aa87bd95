"""Validation and test parts, cut from training by hash or by time.

Whole groups are drawn by a hash, or the last part in time is taken. Test is cut only where none is given.
"""

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-12
"""1 - 0.7 is a little more than 3 / 10, and must not be."""
_TEST = 2**32
"""Beyond every seed: the draw of the test part has a key of its own."""


def in_validation(groups: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Say for each row [B] whether its group belongs to validation.

    A group is a search or a user.

    That depends on (seed, group id) alone, by the SplitMix64 hash (Steele et al. 2014), so that no group is in two
    parts, whatever the order of rows or the size of blocks.
    """
    return uniform_of(groups, seed) < fraction


def in_test(groups: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Say for each row [B] whether its group belongs to test.

    The draw is independent of `in_validation`.
    """
    return uniform_of(groups, seed + _TEST) < fraction


def uniform_of(groups: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each row [B].

    It depends on (seed, group id) alone.
    """
    key = _mix(np.asarray([seed], dtype=np.uint64))
    return (_mix(groups.view(np.uint64) ^ key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def in_last_part(places: NDArray[np.float64], fraction: float) -> NDArray[np.bool_]:
    """Say for each row [B] whether its group's last part holds it.

    The part has floor(n * fraction) of n rows.

    Args:
        places: [B], the share of its group's rows that come before a row: 0 / n, 1 / n, ..., (n - 1) / n.
        fraction: 0 < x < 1, so that a group's first row is never in the last part.
    """
    return places >= 1 - fraction - _ROUNDING


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
