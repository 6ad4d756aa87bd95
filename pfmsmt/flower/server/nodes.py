"""Flower's nodes by the names of their sites, and questions to them."""

import time
from collections.abc import Mapping, Sequence

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from pfmsmt.core.console import say
from pfmsmt.flower.wire import NOTES, one_line
from pfmsmt.training.exchange import Failure

_POLL_SECONDS = 0.5
_NOT_CONNECTED = Failure("its site is not connected")
_TWICE = Failure("two nodes are connected as it; stop one of them")
_NODE_GONE = 5
"""Flower's error code for a node that stopped sending signs of life."""


class Nodes:
    """Sites that are connected.

    One that fails, is late or is missing is a failure of its own.
    """

    def __init__(self, grid: Grid, *, deadline: float, trust_nodes: bool) -> None:
        """Reach sites through `grid`.

        Args:
            grid: Flower's.
            deadline: seconds from sending to the last answer that counts.
            trust_nodes: without node authentication nodes have no names; believe what they say themselves.
        """
        self._grid, self._deadline, self._trust_nodes = grid, deadline, trust_nodes
        self._introduced: dict[int, str] = {}

    def wait(self, clients: Sequence[str]) -> None:
        """Wait until all of these are connected, at most until the deadline."""
        end = time.monotonic() + self._deadline
        reported: list[str] = []
        while missing := sorted(set(clients) - self.sites().keys()):
            if missing != reported:
                say(f"waiting for sites {', '.join(missing)}")
                reported = missing
            if time.monotonic() >= end:
                break
            time.sleep(_POLL_SECONDS)

    def sites(self) -> dict[str, int]:
        """Return client -> node of the sites that are connected now, once.

        A site that came back may have a new node.
        """
        return {name: nodes[0] for name, nodes in self._nodes().items() if len(nodes) == 1}

    def _nodes(self) -> dict[str, list[int]]:
        """Return client -> nodes that are connected as it now."""
        nodes = list(self._grid.get_nodes())
        named = {node.node_id: node.name for node in nodes if node.name}
        if self._trust_nodes:
            named |= self._introduce([node.node_id for node in nodes if not node.name])
        found: dict[str, list[int]] = {}
        for node, name in named.items():
            found.setdefault(name, []).append(node)
        return found

    def ask(self, questions: Mapping[str, RecordDict], kind: str) -> dict[str, RecordDict | Failure]:
        """Send every client its question; return client -> answer or failure.

        Waits for all, at most until the deadline.
        """
        nodes = self._nodes()
        present = {client: nodes[client][0] for client in questions if len(nodes.get(client, ())) == 1}
        replies = self._send({node: questions[client] for client, node in present.items()}, kind)
        answers = {client: self._read(replies.get(node)) for client, node in present.items()}
        absent = {client: _TWICE if client in nodes else _NOT_CONNECTED for client in questions}
        return {client: answers.get(client, absent[client]) for client in questions}

    def _send(self, contents: Mapping[int, RecordDict], kind: str) -> dict[int, Message]:
        """Send each node its content; return node -> reply in time."""
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
            time.sleep(_POLL_SECONDS)
        return replies

    def _read(self, reply: Message | None) -> RecordDict | Failure:
        if reply is None:
            return Failure(f"no answer within {self._deadline:g} s (federate.deadline)")
        if not reply.has_error():
            return reply.content
        if reply.error.code == _NODE_GONE:
            return Failure("its site went away")
        return Failure(f"Flower's error {reply.error.code}: {one_line(str(reply.error.reason))}")

    def _introduce(self, nodes: list[int]) -> dict[int, str]:
        """Ask nodes without a name for their scenario, once each."""
        question = RecordDict({NOTES: ConfigRecord({"json": "{}"})})
        replies = self._send({node: question for node in nodes if node not in self._introduced}, "query")
        for node, reply in replies.items():
            if not reply.has_error():
                self._introduced[node] = str(reply.content.config_records[NOTES]["json"])
        return {node: self._introduced[node] for node in nodes if node in self._introduced}
