"""The exchange over Flower's Grid: requests and answers as its messages."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pfmsmt.flower.plan import RunPlan
from pfmsmt.flower.server.nodes import Nodes
from pfmsmt.flower.wire import SAVE, SiteResult, pack_request, read_answer
from pfmsmt.methods import Upload
from pfmsmt.training.client import Request
from pfmsmt.training.exchange import Answers, Failure
from pfmsmt.training.scores import Validation

_MESSAGE_TYPES = {"train": "train", "validate": "evaluate"}
"""Kind of request -> Flower's message type."""

_Refusal = Callable[[str, Request | None, Any], str | None]
"""(client, request, answer) -> what is wrong with the answer, or None; see `Acceptance.refusal`"""


class OverGrid:
    """The exchange of one run with its sites."""

    def __init__(self, nodes: Nodes, clients: Sequence[str], plan: RunPlan, refusal: _Refusal) -> None:
        """`plan` goes with every request; `refusal` checks answers."""
        self._nodes, self._clients, self._plan, self._refusal = nodes, clients, plan, refusal

    def __enter__(self) -> "OverGrid":
        """Wait until all sites are connected, at most until the deadline.

        A quorum may then go on.
        """
        self._nodes.wait(self._clients)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the Grid to Flower."""

    def __call__(self, requests: Mapping[str, Request]) -> Answers:
        """Send every client its request and wait, until the deadline."""
        (kind,) = {_MESSAGE_TYPES[request.kind] for request in requests.values()}
        found = self._ask(requests, kind)
        answers: dict[str, Upload | Validation] = {}
        failures: dict[str, Failure] = {}
        for client, answer in found.items():
            fault = answer if isinstance(answer, Failure) else self._refusal(client, requests[client], answer)
            if fault is None:
                answers[client] = answer
            else:
                failures[client] = fault if isinstance(fault, Failure) else Failure(fault)
        return answers, failures

    def finish(self, clients: Iterable[str]) -> tuple[dict[str, SiteResult], dict[str, str]]:
        """Have sites save their best models.

        Returns:
            client -> its site's report, and client -> why a site did not save one.
        """
        found = self._ask(dict.fromkeys(clients), SAVE)
        faults = {
            client: answer.reason if isinstance(answer, Failure) else self._refusal(client, None, answer)
            for client, answer in found.items()
        }
        saved = {client: found[client] for client, fault in faults.items() if fault is None}
        return saved, {client: fault for client, fault in faults.items() if fault is not None}

    def _ask(self, requests: Mapping[str, Request | None], kind: str) -> dict[str, Any]:
        """Return what every client answered, or its failure."""
        questions = {client: pack_request(client, self._plan, request) for client, request in requests.items()}
        found = self._nodes.ask(questions, kind)
        return {
            client: answer if isinstance(answer, Failure) else read_answer(answer) for client, answer in found.items()
        }
