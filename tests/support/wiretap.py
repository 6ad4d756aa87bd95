"""An exchange that listens, and a search for secrets in what it heard."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pfmsmt.methods import Upload
from pfmsmt.training.client import Client, Request
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.scores import Validation
from pfmsmt.training.tree import read_tree


class Exchanged(NamedTuple):
    """One request and its answer."""

    client: str
    request: Request
    answer: Upload | Validation

    @property
    def arrays(self) -> list[tuple[str, np.ndarray]]:
        """All arrays of both, by name."""
        parts = [self.request.arrays]
        if isinstance(self.answer, Upload):
            parts += [self.answer.arrays, *self.answer.by_task.values()]
        return [item for part in parts for item in part.items()]

    @property
    def told(self) -> set[str]:
        """Names of the arrays that are told task by task."""
        by_task = self.answer.by_task if isinstance(self.answer, Upload) else {}
        return {name for part in by_task.values() for name in part}


class Wiretap:
    """An exchange that passes messages on and notes them, and after each what every client keeps on its disk."""

    def __init__(self, exchange: InProcess, clients: Mapping[str, Client], folder: Path) -> None:
        self._exchange, self._clients, self._folder = exchange, clients, folder
        self.exchanged: list[Exchanged] = []
        self.kept: list[tuple[str, dict]] = []

    def __call__(self, requests):
        answers, failures = self._exchange(requests)
        assert not failures
        self.exchanged += [Exchanged(k, requests[k], answers[k]) for k in requests]
        for k, client in self._clients.items():
            client.save(self._folder, max(request.round for request in requests.values()))
            self.kept.append((k, read_tree(self._folder / f"{k}.safetensors")[0]))
        return answers, failures


def leaves(tree: Mapping) -> Iterator[np.ndarray]:
    """All arrays of a tree."""
    for value in tree.values():
        if isinstance(value, Mapping):
            yield from leaves(value)
        else:
            yield np.asarray(value)


def pairs(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Every two neighbouring numbers of the arrays as one integer; those that are only 0 and 1 tell nothing.

    So whatever is hidden in another array, in part or whole, is found by any two of its numbers side by side.
    """
    found = [np.zeros(0, np.uint64)]
    for array in arrays:
        flat = np.ascontiguousarray(array, dtype=np.float32).ravel()
        trivial = (flat == 0) | (flat == 1)
        bits = flat.view(np.uint32).astype(np.uint64)
        found.append(((bits[:-1] << np.uint64(32)) | bits[1:])[~(trivial[:-1] & trivial[1:])])
    return np.unique(np.concatenate(found))
