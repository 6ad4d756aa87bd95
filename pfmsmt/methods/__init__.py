"""What a federated method is: a handful of pure functions over named arrays. No torch, mlflow or flwr here.

A round goes through the method's phases in order. In each, the server sends every client its own message
(`broadcast`), the client answers (`client_update`), and the server takes in what came back (`server_update`).
Server state and client state are plain values: the functions return new ones and change none.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from pfmsmt.core.types import FloatArray, NamedArrays, Role, Stream

ServerState = Mapping[str, Any]
"""Nested mappings whose leaves are arrays, so that any method's state can be written to disk."""


class ClientState(NamedTuple):
    """What a client keeps to itself between rounds."""

    private: NamedArrays
    optimizer: NamedArrays


class LocalResult(NamedTuple):
    """What local training gives back to the client."""

    parameters: NamedArrays
    optimizer: NamedArrays
    loss: float
    examples: int
    by_task: Mapping[str, NamedArrays] = {}
    """task -> what that task's loss alone moved, for the roles asked for"""


class LocalTrain(Protocol):
    """Local training as methods see it; `data` is opaque to them."""

    def __call__(
        self,
        parameters: NamedArrays,
        optimizer: NamedArrays,
        data: Any,
        stream: Stream,
        *,
        federated: frozenset[Role],
        learning_rate: float,
        private_learning_rate: float,
        private_weight_decay: float = ...,
        frozen: frozenset[Role] = ...,
        anchor: NamedArrays | None = ...,
        regularizer: float = ...,
        steps: int | None = ...,
        by_task: frozenset[Role] = ...,
    ) -> LocalResult:
        """See `pfmsmt.training.local_train`."""
        ...


class Upload(NamedTuple):
    """All that a client tells the server in one phase."""

    arrays: NamedArrays
    examples: int
    loss: float
    by_task: Mapping[str, NamedArrays] = {}
    """task -> what that task's loss alone moved; where a method coordinates tasks as well"""
    releases: int = 0
    """Noised uploads of this client in the run so far, with this one; 0 where there is no noise"""


class ServerUpdate(NamedTuple):
    """What the server knows after one phase."""

    server: ServerState
    metrics: Mapping[str, float] = {}
    diagnostics: Mapping[str, Mapping[str, FloatArray]] = {}
    """What explains the step: group -> quantity -> values, clients in sorted order.

    listening [S, S]: row s of A says how much client s takes from each client; of an absentee, the identity's row.
    cosine [S, S] of where updates point over rounds, 0 where that is not known yet; coefficients [S] of conflict
    coordination; drift [S], |W_s - G| / |G| after the step: nan for absentees.
    """


class Phase(NamedTuple):
    """One exchange between server and clients within a round."""

    name: str
    broadcast: Callable[[ServerState, str], NamedArrays]
    """(server, client) -> what that client receives"""
    client_update: Callable[[NamedArrays, ClientState, Any, Stream], tuple[Upload, ClientState]]
    """(received, client state, data, stream) -> upload, new client state"""
    server_update: Callable[[ServerState, Mapping[str, Upload]], ServerUpdate]
    """(server, {client: upload}) -> update; clients that did not answer are absent"""
    uploads: frozenset[Role]
    """Whose tensors a client uploads in this phase, all of them and no others"""
    told: frozenset[Role] = frozenset()
    """... and of which of these it also tells each task's share"""
    changes: frozenset[Role] = frozenset()
    """... and of which of these it uploads the change from what it received, in place of the value"""


class Method(NamedTuple):
    """A federated method."""

    name: str
    init: Callable[[NamedArrays, tuple[str, ...]], ServerState]
    """(initial parameters, clients) -> server state"""
    init_client: Callable[[NamedArrays], ClientState]
    """(a client's initial parameters) -> client state"""
    phases: tuple[Phase, ...]
    broadcast: Callable[[ServerState, str], NamedArrays]
    """(server, client) -> all that the server holds for that client, between rounds"""
    personalise: Callable[[NamedArrays, ClientState], NamedArrays]
    """(received, client state) -> the parameters that the client evaluates and serves"""
