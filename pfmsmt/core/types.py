"""Words that every floor shares.

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
    """Who owns a tensor of a client's model, decided by the module that holds it (method.md, parameter template)."""

    EXPERT = "expert"
    TOWER = "tower"
    GATE = "gate"
    TASK = "task"
    EMBEDDING = "embedding"
    NORM = "norm"
    PRIVATE = "private"


NEVER_LEAVES = frozenset({Role.TASK, Role.PRIVATE})
"""Roles that no method may send: task-specific parts of experts, and tables of private ids."""


RUNNING_VARIANCE = "norm_variance"
"""How names of BatchNorm's running variances end."""


class Slot(NamedTuple):
    """The place of one named array in the parameter template."""

    role: Role
    group: str
    """What is aggregated together: one expert (`expert/2`), one task's tower (`tower/ctr`), ..."""


Template = Mapping[str, Slot]


class Stream(NamedTuple):
    """Names one independent source of randomness; never global state."""

    seed: int
    client: str
    round: int
    phase: int = 0

    def generator(self, purpose: str = "") -> np.random.Generator:
        """Return a generator that depends on nothing but these four values and what it is for."""
        words = f"{self.client}|{purpose}".encode()
        return np.random.default_rng([self.seed, self.round, self.phase, *words])
