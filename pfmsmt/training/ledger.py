"""The privacy ledger: all that passed between server and clients.

Written from the messages themselves, not from what a method says of itself.

A message's kind, round and phase are the server's own words and are not listed. All else is: every array by name,
shape, type and bytes, and every single number that a client reports (examples, loss, validation metrics).
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from pfmsmt.core.types import ANCHOR, NamedArrays, Template
from pfmsmt.methods import Upload
from pfmsmt.training.client import Request
from pfmsmt.training.scores import Validation

NUMBER_ROLE, UNLABELLED_ROLE = "number", "unlabelled"
"""Roles of what is no tensor of the template: a reported number; a tensor that the template does not know."""

TASK_MARK = "@"
"""Stands between a tensor's name and the task whose share of its update was reported."""

LEDGER_COLUMNS = ("round", "client", "phase", "direction", "name", "role", "shape", "dtype", "bytes")
TRAFFIC_COLUMNS = ("round", "client", "tensors_up", "bytes_up", "tensors_down", "bytes_down")


class Item(NamedTuple):
    """One array or number of a message."""

    name: str
    tensor: bool
    shape: tuple[int, ...]
    dtype: str
    bytes: int


class Transfer(NamedTuple):
    """One client's and the server's items, in one direction of an exchange."""

    client: str
    phase: str
    direction: str
    """`up` leaves the client, `down` reaches it."""
    items: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """Size of all items."""
        return sum(item.bytes for item in self.items)


def transfers(
    phase: str, requests: Mapping[str, Request], answers: Mapping[str, Upload | Validation]
) -> list[Transfer]:
    """Return one exchange's transfers: requests down, answers up; clients sorted."""
    down = [Transfer(k, phase, "down", _tensors(requests[k].arrays)) for k in sorted(requests)]
    return down + [Transfer(k, phase, "up", _answer(answers[k])) for k in sorted(answers)]


def _answer(answer: Upload | Validation) -> tuple[Item, ...]:
    if isinstance(answer, Upload):
        by_task = {f"{name}{TASK_MARK}{task}": a for task, part in answer.by_task.items() for name, a in part.items()}
        tensors = _tensors({**answer.arrays, **by_task})
        releases = (_number("releases", "int64"),) if answer.releases else ()
        return (*tensors, _number("examples", "int64"), _number("loss", "float64"), *releases)
    return tuple(
        _number(f"{scenario}/{task}/{metric}", "float64")
        for scenario, tasks in answer.items()
        for task, cell in tasks.items()
        for metric in cell
    )


def _number(name: str, dtype: str) -> Item:
    return Item(name, False, (), dtype, 8)


def _tensors(arrays: NamedArrays) -> tuple[Item, ...]:
    return tuple(Item(name, True, array.shape, str(array.dtype), array.nbytes) for name, array in arrays.items())


class Ledger:
    """The ledger of a run.

    Every item at its first sight, and the traffic of every round.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._items: dict[tuple[str, str, str, str, tuple[int, ...], str], tuple[int, bool, int]] = {}
        self._traffic: dict[tuple[int, str], list[int]] = {}
        self._last: dict[tuple[str, str, str], tuple[Item, ...]] = {}

    def add(self, round: int, passed: Iterable[Transfer]) -> None:
        """Add the transfers of one round."""
        for transfer in passed:
            counts = self._traffic.setdefault((round, transfer.client), [0, 0, 0, 0])
            at = 0 if transfer.direction == "up" else 2
            counts[at] += sum(item.tensor for item in transfer.items)
            counts[at + 1] += transfer.bytes
            route = transfer[:3]
            # Nearly always the same as the round before: no need to look at each item again.
            if self._last.get(route) == transfer.items:
                continue
            self._last[route] = transfer.items
            for item in transfer.items:
                self._items.setdefault((*route, item.name, item.shape, item.dtype), (round, item.tensor, item.bytes))

    def table(self, template: Template) -> pd.DataFrame:
        """Return the items that passed, one row each.

        The columns are LEDGER_COLUMNS; `round` is the first in which the item passed.
        """
        rows = [
            (round, *route, name, _role(name, tensor, template), "x".join(map(str, shape)) or "scalar", dtype, size)
            for (*route, name, shape, dtype), (round, tensor, size) in self._items.items()
        ]
        return pd.DataFrame(rows, columns=list(LEDGER_COLUMNS))

    def traffic(self) -> pd.DataFrame:
        """Return TRAFFIC_COLUMNS, one row for each round and client."""
        return pd.DataFrame([(*key, *counts) for key, counts in self._traffic.items()], columns=list(TRAFFIC_COLUMNS))

    def summary(self, template: Template) -> str:
        """Return one line: roles that left clients, and roles that did not."""
        table = self.table(template)
        up = table[(table["direction"] == "up") & (table["role"] != NUMBER_ROLE)]
        left = sorted(set(up["role"]))
        never = sorted({slot.role for slot in template.values()} - set(left))
        silent = f"; never: {', '.join(never)}" if never else ""
        if not left:
            return f"no tensor left a client, only counts, losses and metrics{silent}"
        by_client = up.groupby("client")["bytes"].agg(["count", "sum"])
        tensors, sizes = _range(by_client["count"], "{:,.0f}"), _range(by_client["sum"] / 1024, "{:,.1f}")
        return f"{tensors} tensors, {sizes} KiB, left each client in a round ({', '.join(left)}){silent}"

    def save(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "items": [[*key, *value] for key, value in self._items.items()],
            "traffic": [[*key, *counts] for key, counts in self._traffic.items()],
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Load the values that `save` returned."""
        self._items = {
            (client, phase, direction, name, tuple(shape), dtype): (round, tensor, size)
            for client, phase, direction, name, shape, dtype, round, tensor, size in saved["items"]
        }
        self._traffic = {(round, client): counts for round, client, *counts in saved["traffic"]}
        self._last = {}


def _role(name: str, tensor: bool, template: Template) -> str:
    if not tensor:
        return NUMBER_ROLE
    name = name.partition(TASK_MARK)[0].removeprefix(ANCHOR)
    return str(template[name].role) if name in template else UNLABELLED_ROLE


def _range(values: "pd.Series[float]", form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"
