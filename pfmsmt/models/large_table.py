"""A private table too large to copy: trained in place.

It is trained row by row, with a log that undoes a training.

All else of a client's state is copied from round to round. Of this table only the rows that a training changes are
saved as they were, so that a round can be repeated, a broken one left out, and the best round's table given back.

Rows are trained by lazy Adam (torch.optim.SparseAdam) with decoupled decay: a step takes the rows that its batch
holds and leaves the others, whereas dense Adam also moves rows on that were met before, by their momentum, and decays
all rows at each step. A row moves in the first step that meets it as dense Adam (without decay before) moves it, and
where every batch holds the same rows both are the same but for rounding.

Legend: N rows of the table, D numbers in a row, K rows of one training.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfmsmt.core.errors import CheckpointError
from pfmsmt.core.files import new_file

_EPSILON = 1e-8
"""Keeps Adam from dividing by zero."""

SUFFIX = ".table.npz"
"""Ends the name of the file in a checkpoint."""
_STATE = ("exp_avg", "exp_avg_sq")


class _Rows(NamedTuple):
    """Rows as they were."""

    places: Tensor
    """[K]"""
    values: Tensor
    """[K, D]"""
    moments: tuple[Tensor, ...]
    """[K, D] each"""


class _Training(NamedTuple):
    """The log of one training, which undoes it."""

    step: int
    """Steps that Adam had taken before it."""
    rows: list[_Rows]
    """Each row once."""
    new: list[Tensor]
    """Places of the rows that no earlier training has met."""


class LargeTable:
    """A table, its optimiser's state, and trainings that can be undone.

    Versions count the trainings.
    """

    def __init__(self, table: torch.nn.Parameter) -> None:
        """Start with the table's present values as version 0."""
        self.table = table
        self.version = 0
        self._adam = torch.optim.SparseAdam([table])
        self._moments = tuple(torch.zeros_like(table, requires_grad=False) for _ in _STATE)
        self._adam.state[table] = {"step": 0, **dict(zip(_STATE, self._moments, strict=True))}
        self._trainings: list[_Training] = []
        self._open = False
        self._met, self._changed, self._since_best = (self._flags() for _ in range(3))
        self._best: list[tuple[Tensor, Tensor]] = []

    def begin(self, version: int, rate: float, decay: float) -> None:
        """Go back to `version` and open a training.

        Its learning rate is `rate`; `decay` is decoupled, as AdamW's.

        Raises:
            ValueError: that version is gone.
        """
        self.rewind(version)
        self._rate, self._decay, self._open = rate, decay, True
        self._trainings.append(_Training(self._state["step"], [], []))

    @torch.no_grad()
    def step(self) -> None:
        """Take one step along the table's gradient, which is sparse.

        Without a gradient there is nothing to do: the batch met no row.
        """
        if self.table.grad is None:
            return
        gradient = self.table.grad = self.table.grad.coalesce()
        places = gradient.indices()[0]
        training = self._trainings[-1]
        fresh = places[~self._changed[places]]
        self._changed[fresh] = True
        training.rows.append(_Rows(fresh, self.table[fresh], tuple(moment[fresh] for moment in self._moments)))
        training.new.append(fresh[~self._met[fresh]])
        self._met[fresh] = True
        self._keep_best(fresh)
        if self._decay:
            self.table.index_copy_(0, places, self.table[places] * (1 - self._rate * self._decay))
        group = self._adam.param_groups[0]
        # SparseAdam adds its epsilon before the correction of bias, Adam after: scaled, both are the same.
        correction = math.sqrt(1 - group["betas"][1] ** (self._state["step"] + 1))
        group["lr"], group["eps"] = self._rate, _EPSILON * correction
        self._adam.step()  # type: ignore[no-untyped-call]

    def finish(self) -> int:
        """Close the training and return the version that it made."""
        self._close()
        self.version += 1
        return self.version

    @torch.no_grad()
    def rewind(self, version: int) -> None:
        """Go back to an earlier version.

        A training that was left open is undone as well.

        Raises:
            ValueError: that version is gone.
        """
        if self._open:
            self._close()
            self._undo()
        if not self.version - len(self._trainings) <= version <= self.version:
            raise ValueError(f"version {version} of a large table is gone; it is at {self.version}")
        while self.version > version:
            self._undo()
            self.version -= 1

    def forget(self, version: int) -> None:
        """Give up what would lead back before `version`."""
        del self._trainings[: len(self._trainings) - (self.version - version)]

    def mark_best(self) -> None:
        """Remember the present values as the best."""
        for places, _ in self._best:
            self._since_best[places] = False
        self._best = []

    @torch.no_grad()
    def best(self) -> NDArray[np.float32]:
        """Return a copy of the best values, [N, D].

        As they were when `mark_best` was called last, or at the start.
        """
        values = self.table.detach().clone()
        for places, before in self._best:
            values[places] = before
        return values.cpu().numpy()

    @torch.no_grad()
    def restore_best(self) -> None:
        """Write the best values into the table.

        No training can follow, or be undone.
        """
        for places, before in self._best:
            self.table[places] = before
        self.mark_best()
        self._trainings, self.version = [], -1

    @torch.no_grad()
    def save(self, path: Path, version: int) -> None:
        """Write `version` and the best values.

        Only rows that were trained are written: the others are as at the start.
        """
        undone = self._trainings[len(self._trainings) - (self.version - version) :]
        met = self._met.clone()
        for training in undone:
            for places in training.new:
                met[places] = False
        places = met.nonzero()[:, 0]
        sources = [self.table, *self._moments]
        values, *moments = self._as_before(undone, places, sources)
        changed = [rows for rows, _ in self._best] + [rows.places for training in undone for rows in training.rows]
        others = torch.unique(torch.cat(changed)) if changed else places[:0]
        best = self._at_best(others)
        differs = (best != self._as_before(undone, others, [self.table])[0]).any(1)
        tensors = {"places": places, "values": values, **dict(zip(_STATE, moments, strict=True))}
        tensors |= {"best_places": others[differs], "best_values": best[differs]}
        step = undone[0].step if undone else self._state["step"]
        with new_file(path) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
            np.savez(file, version=np.array(version), step=np.array(step), **arrays)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Load the file that `save` wrote, onto the values of the start.

        Raises:
            CheckpointError: missing or damaged, or of another table.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                saved: dict[str, Any] = {
                    name: torch.from_numpy(file[name]).to(self.table.device) for name in file.files
                }
            self.table[saved["places"]] = saved["values"]
            for name, moment in zip(_STATE, self._moments, strict=True):
                moment[saved["places"]] = saved[name]
            self._met[saved["places"]] = True
            self._since_best[saved["best_places"]] = True
            self._best = [(saved["best_places"], saved["best_values"])]
            self._state["step"], self.version = int(saved["step"]), int(saved["version"])
        except Exception as error:  # numpy and zipfile raise many kinds, torch some more
            raise CheckpointError(f"{path} cannot be read ({error}); remove {path.parent} to start anew") from error
        self._trainings = []

    @property
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._adam.state[self.table]
        return state

    def _as_before(self, undone: list[_Training], places: Tensor, sources: list[Tensor]) -> list[Tensor]:
        """Return rows [K, D] as they were before some trainings.

        Of `sources`: the table and perhaps its moments.
        """
        found = [source[places] for source in sources]
        where = torch.full((len(self.table),), -1, dtype=torch.int64, device=places.device)
        where[places] = torch.arange(len(places), device=places.device)
        for training in reversed(undone):
            for rows in training.rows:
                asked = where[rows.places] >= 0
                for whole, before in zip(found, (rows.values, *rows.moments), strict=False):
                    whole[where[rows.places[asked]]] = before[asked]
        return found

    def _at_best(self, places: Tensor) -> Tensor:
        """Return rows [K, D] of the table at the best."""
        found = self.table[places]
        where = torch.full((len(self.table),), -1, dtype=torch.int64, device=places.device)
        where[places] = torch.arange(len(places), device=places.device)
        for changed, before in self._best:
            asked = where[changed] >= 0
            found[where[changed[asked]]] = before[asked]
        return found

    def _flags(self) -> Tensor:
        return torch.zeros(len(self.table), dtype=torch.bool, device=self.table.device)

    def _keep_best(self, places: Tensor) -> None:
        fresh = places[~self._since_best[places]]
        self._since_best[fresh] = True
        self._best.append((fresh, self.table[fresh]))

    def _close(self) -> None:
        for rows in self._trainings[-1].rows:
            self._changed[rows.places] = False
        self._open = False

    def _undo(self) -> None:
        training = self._trainings.pop()
        for rows in training.rows:
            self._keep_best(rows.places)
            self.table[rows.places] = rows.values
            for moment, before in zip(self._moments, rows.moments, strict=True):
                moment[rows.places] = before
        for places in training.new:
            self._met[places] = False
        self._state["step"] = training.step
