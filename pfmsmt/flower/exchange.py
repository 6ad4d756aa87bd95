"""How requests reach sites and answers come back: as messages over Flower's Grid."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from pfmsmt.client import Request
from pfmsmt.console import say
from pfmsmt.errors import FederationError
from pfmsmt.evaluation import Validation
from pfmsmt.exchange import Answers, Failure
from pfmsmt.flower.plan import Plan
from pfmsmt.flower.wire import NOTES, Best, pack_request, read_answer
from pfmsmt.methods import Upload

POLL_SECONDS = 0.5
KINDS = {"train": "train", "validate": "evaluate"}
"""Kind of request -> Flower's message type."""

NOT_CONNECTED = Failure("its site is not connected")
NODE_GONE = 5
"""Flower's error code for a node that stopped sending signs of life."""

Refusal = Callable[[str, Request, Any], str | None]
"""(client, request, answer) -> what is wrong with the answer, or None"""


class OverGrid:
    """Sites as Flower's nodes; a site that fails, is late or is missing is a failure of its own."""

    def __init__(
        self, grid: Grid, clients: Sequence[str], plan: Plan, refusal: Refusal, *, deadline: float, trust_nodes: bool
    ) -> None:
        """Reach sites through `grid`.

        Args:
            grid: Flower's.
            clients: who takes part.
            plan: sent with every request.
            refusal: checks answers.
            deadline: seconds from sending to the last answer that counts.
            trust_nodes: without node authentication nodes have no names; believe what they say themselves.
        """
        self._grid, self._clients, self._plan, self._refusal = grid, clients, plan, refusal
        self._deadline, self._trust_nodes = deadline, trust_nodes
        self._introduced: dict[int, str] = {}

    def __enter__(self) -> "OverGrid":
        """Wait until all sites are connected, at most until the deadline; then a quorum may go on."""
        end = time.monotonic() + self._deadline
        told: list[str] = []
        while missing := sorted(set(self._clients) - self.sites().keys()):
            if missing != told:
                say(f"waiting for sites {', '.join(missing)}")
                told = missing
            if time.monotonic() >= end:
                break
            time.sleep(POLL_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the Grid to Flower."""

    def __call__(self, requests: Mapping[str, Request]) -> Answers:
        """Send every client its request and wait for all, at most until the deadline."""
        (kind,) = {KINDS[request.kind] for request in requests.values()}
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

    def finish(self, clients: Iterable[str]) -> tuple[dict[str, Best], dict[str, str]]:
        """Ask sites to keep their best models; return what they tell of them, and client -> why one did not."""
        found = self._ask(dict.fromkeys(clients), "query.keep")
        kept = {client: answer for client, answer in found.items() if isinstance(answer, Best)}
        return kept, {
            client: answer.reason if isinstance(answer, Failure) else "its answer does not fit the question"
            for client, answer in found.items()
            if client not in kept
        }

    def sites(self) -> dict[str, int]:
        """Return client -> node of the sites that are connected now; one that came back may have a new node.

        Raises:
            FederationError: two nodes are the same client's.
        """
        nodes = list(self._grid.get_nodes())
        named = {node.node_id: node.name for node in nodes if node.name}
        if self._trust_nodes:
            named |= self._introduce([node.node_id for node in nodes if not node.name])
        found: dict[str, int] = {}
        for node, name in named.items():
            if name in found:
                raise FederationError(f"two nodes are connected as {name}; stop one of them")
            found[name] = node
        return found

    def _ask(self, requests: Mapping[str, Request | None], kind: str) -> dict[str, Any]:
        """Return what every client answered, or its failure."""
        sites = self.sites()
        present = {client: sites[client] for client in requests if client in sites}
        contents = {node: pack_request(client, self._plan, requests[client]) for client, node in present.items()}
        replies = self._send(contents, kind)
        return {
            client: self._read(replies.get(present[client])) if client in present else NOT_CONNECTED
            for client in requests
        }

    def _send(self, contents: Mapping[int, RecordDict], kind: str) -> dict[int, Message]:
        """Send each node its content; return node -> reply of those that came in time."""
        end = time.monotonic() + self._deadline
        messages = [Message(content, node, kind, ttl=self._deadline) for node, content in contents.items()]
        waiting = dict(zip(self._grid.push_messages(messages), contents, strict=True)) if messages else {}
        replies: dict[int, Message] = {}
        while waiting:
            for reply in self._grid.pull_messages(list(waiting)):
                node = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node is not None:
                    replies[node] = reply
            if not waiting or time.monotonic() >= end:
                break
            time.sleep(POLL_SECONDS)
        return replies

    def _read(self, reply: Message | None) -> Any:
        if reply is None:
            return Failure(f"no answer within {self._deadline:g} s (federate.deadline)")
        if not reply.has_error():
            return read_answer(reply.content)
        if reply.error.code == NODE_GONE:
            return Failure("its site went away")
        # The reason is another machine's text: one short line of it.
        return Failure(f"Flower's error {reply.error.code}: {' '.join(str(reply.error.reason).split())[:200]}")

    def _introduce(self, nodes: list[int]) -> dict[int, str]:
        """Ask nodes without a name whose they are; known ones are not asked again."""
        question = RecordDict({NOTES: ConfigRecord({"json": "{}"})})
        replies = self._send({node: question for node in nodes if node not in self._introduced}, "query")
        for node, reply in replies.items():
            if not reply.has_error():
                self._introduced[node] = str(reply.content.config_records[NOTES]["json"])
        return {node: self._introduced[node] for node in nodes if node in self._introduced}
