"""Types that all rooms share.

Legend: B batch, E experts, T tasks, S scenarios (= clients).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
NamedArrays = Mapping[str, NDArray[Any]]
"""Parameters as they travel: name -> array. A name starts with its group: `expert/2/layers.0.weight`."""


class Role(StrEnum):
    """The part of a client's model that a tensor belongs to.

    The module that holds the tensor decides it (models/template.py). Methods choose by roles what is sent, and how it
    is aggregated.
    """

    EXPERT = "expert"
    TOWER = "tower"
    GATE = "gate"
    TASK = "task"
    EMBEDDING = "embedding"
    FIRST_ORDER = "first_order"
    NORM = "norm"
    PRIVATE = "private"


NEVER_LEAVES = frozenset({Role.TASK, Role.PRIVATE})
"""Roles that no method may send: a task's or the scenario's own parts of experts, and tables of private ids."""


ANCHOR = "anchor/"
"""Begins the name of an array that is sent down only for a regulariser to pull towards."""
RUNNING_VARIANCE = "norm_variance"
"""The end of the names of BatchNorm's running variances."""


class Slot(NamedTuple):
    """The place of one named array in the parameter template."""

    role: Role
    group: str
    """The tensors that are aggregated together: one expert (`expert/2`), one task's tower (`tower/ctr`), ..."""


Template = Mapping[str, Slot]


class Stream(NamedTuple):
    """The name of one independent source of randomness.

    No randomness comes from global state: a training that goes on after a kill, or in another process, draws the same.
    """

    seed: int
    client: str
    round: int
    phase: int = 0

    def generator(self, purpose: str = "") -> np.random.Generator:
        """Return the generator of these four values and a purpose."""
        words = f"{self.client}|{purpose}".encode()
        return np.random.default_rng([self.seed, self.round, self.phase, *words])
