"""A Grid whose nodes are ClientApps of this process; every message is turned into its wire bytes and back."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from flwr.app import Context, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from pfmsmt.flower.site.client_app import client_app

SERVER = 1


class Passed(NamedTuple):
    """One message on its way."""

    site: str
    direction: str
    content: RecordDict
    wire: dict[str, bytes]
    """The message's parts as Flower sends them, serialised"""


class InProcessGrid(Grid):
    """Nodes are named after their sites, as with node authentication, or nameless."""

    def __init__(self, folders: Mapping[str, Path], *, names: bool = True) -> None:
        self.contexts = {
            number: Context(0, number, {"scenario": site, "data-dir": str(folder), "track": False}, RecordDict({}), {})
            for number, (site, folder) in enumerate(folders.items(), start=100)
        }
        self._names = names
        self.passed: list[Passed] = []
        self.absent: set[str] = set()
        self.before: Callable[[str, Message], Message | None] = lambda site, message: None
        """Called with each message that reaches a site; an answer of its own takes the place of the site's."""
        self._replies: dict[str, Message] = {}
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 0, SERVER, 0

    def set_run(self, run) -> None: ...

    @property
    def run(self): ...

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None): ...

    def site(self, node: int) -> str:
        return str(self.contexts[node].node_config["scenario"])

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self.contexts if self.site(node) not in self.absent]

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=n, name=self.site(n) if self._names else "") for n in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = message.object_id
            reply = self._deliver(node, self._travel(node, "down", message))
            if reply is not None:
                self._replies[message.metadata.message_id] = self._travel(node, "up", reply)
            ids.append(message.metadata.message_id)
        return ids

    def _deliver(self, node: int, message: Message) -> Message | None:
        try:
            answer = self.before(self.site(node), message)
            return client_app(message, self.contexts[node]) if answer is None else answer
        except TimeoutError:
            return None
        except Exception as error:
            return Message(Error(2, f"{type(error)}:<'{error}'>"), reply_to=message)

    def _travel(self, node: int, direction: str, message: Message) -> Message:
        if message.has_error():
            return message
        wire = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        received = inflate_object_from_contents(message.object_id, dict(wire))
        assert isinstance(received, Message)
        received.metadata.__dict__["_message_id"] = message.object_id
        self.passed.append(Passed(self.site(node), direction, received.content, wire))
        return received

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages, *, timeout=None): ...
