"""The exchange of requests and answers, in threads of this process."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import torch

from pfmsmt.core.errors import TrainingError
from pfmsmt.methods import Upload
from pfmsmt.training.client import Client, Request
from pfmsmt.training.scores import Validation

_logger = logging.getLogger(__name__)


class Failure(NamedTuple):
    """The reason why a client did not answer."""

    reason: str
    diverged: bool = False
    """The loss is not finite: going on would hide it."""


Answers = tuple[dict[str, Upload | Validation], dict[str, Failure]]
Exchange = Callable[[Mapping[str, Request]], Answers]
"""{client: request} -> {client: answer}, {client: failure}; the driver's only way to a client."""


class InProcess:
    """Clients in threads: torch releases the interpreter lock while it computes."""

    def __init__(self, clients: Mapping[str, Client], workers: int, threads: int) -> None:
        """Answer in `workers` threads, each with `threads` for torch's own operations."""
        self._clients = clients
        self._pool = ThreadPoolExecutor(workers, "client", prepare_thread, (threads,))

    def __call__(self, requests: Mapping[str, Request]) -> Answers:
        """Send every client its request and wait for all.

        An exception in a client is its failure.
        """
        waiting = {name: self._pool.submit(self._clients[name].answer, request) for name, request in requests.items()}
        answers: dict[str, Upload | Validation] = {}
        failures: dict[str, Failure] = {}
        for name, future in waiting.items():
            error = future.exception()
            if error is None:
                answers[name] = future.result()
            elif isinstance(error, TrainingError):
                failures[name] = Failure(str(error), diverged=True)
            elif isinstance(error, Exception):
                _logger.debug("client %s failed", name, exc_info=error)
                failures[name] = Failure(f"{type(error).__name__}: {error}")
            else:
                raise error
        return answers, failures

    def __enter__(self) -> "InProcess":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads; what has not started is dropped."""
        self._pool.shutdown(cancel_futures=True)


def prepare_thread(threads: int) -> None:
    """Prepare a thread that trains.

    `threads` are for torch's own operations; denormal numbers are flushed, as they are slow.
    """
    # Both are settings of a thread, not of the process.
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
