"""A federated method: a handful of pure functions over named arrays.

No torch, mlflow or flwr here.

A round goes through the method's phases in order. In each, the server sends every client its own message (`broadcast`),
the client answers (`client_update`), and the server computes its new state from the answers (`server_update`). Server
state and client state are plain values: the functions return new ones and change none.

A whole method, the mean of numbers that never leave their clients, and a round of it:

    >>> import numpy as np
    >>> def broadcast(server, client):
    ...     return {"mean": server["mean"]}
    >>> def client_update(received, state, data, stream):
    ...     return Upload({"mean": np.mean(data, keepdims=True)}, examples=len(data), loss=0.0), state
    >>> def server_update(server, uploads):
    ...     total = sum(upload.examples for upload in uploads.values())
    ...     parts = [upload.examples / total * upload.arrays["mean"] for _, upload in sorted(uploads.items())]
    ...     return ServerUpdate({"mean": np.sum(parts, axis=0)})
    >>> phase = Phase("round", broadcast, client_update, server_update, uploads=frozenset({Role.EMBEDDING}))
    >>> mean = Method(
    ...     "mean",
    ...     init=lambda parameters, clients: {"mean": parameters["mean"]},
    ...     init_client=lambda parameters: ClientState(private={}, optimizer={}),
    ...     phases=(phase,),
    ...     broadcast=broadcast,
    ...     personalise=lambda received, state: received,
    ... )
    >>> data = {"ES": np.array([1.0, 2.0]), "NL": np.array([6.0])}
    >>> server = mean.init({"mean": np.zeros(1)}, tuple(data))
    >>> states = {client: mean.init_client({}) for client in data}
    >>> uploads = {}
    >>> for client, rows in data.items():
    ...     received = phase.broadcast(server, client)
    ...     stream = Stream(seed=0, client=client, round=1)
    ...     uploads[client], states[client] = phase.client_update(received, states[client], rows, stream)
    >>> server = phase.server_update(server, uploads).server
    >>> mean.personalise(mean.broadcast(server, "NL"), states["NL"])
    {'mean': array([3.])}

The driver (`pfmsmt.training.rounds`) runs such rounds; `averaging.py` is the first method to read after this one.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from pfmsmt.core.types import FloatArray, NamedArrays, Role, Stream

ServerState = Mapping[str, Any]
"""Nested mappings whose leaves are arrays, so that any method's state can be written to disk."""


class ClientState(NamedTuple):
    """A client's own state between rounds; it never leaves the client."""

    private: NamedArrays
    optimizer: NamedArrays
    """State of its optimiser, by the method's own names"""


class Blend(NamedTuple):
    """The blend a theta + (1 - a) other, trained in theta.

    The loss is the blend's.
    """

    other: NamedArrays
    """Whole roles; tensors of other roles are not blended."""
    weight: float
    """a at the start, 0 <= a <= 1"""
    rate: float
    """Rate of a's own gradient steps, after which it is clipped to [0, 1]; 0 leaves it as it is"""


class LocalResult(NamedTuple):
    """The result of local training."""

    parameters: NamedArrays
    optimizer: NamedArrays
    loss: float
    examples: int
    by_task: Mapping[str, NamedArrays] = {}
    """task -> the part of the movement that is that task's loss's, for the roles asked for"""
    blend_weight: float = 1.0
    """a of the blend after training; 1 without one"""


class FirstOrderLearning(NamedTuple):
    """Training of the first-order path."""

    rate: float
    """Rate of Adam on the client's own weights; shared ones have their role's optimiser"""
    ridge: float
    """Of shared weights and their mixture.

    Half of it times their squares is added to the sum of the client's losses.
    """
    private_ridge: float
    """The same ridge of the client's own weights"""


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
        part: tuple[float, float] = ...,
        round_steps: int | None = ...,
        by_task: frozenset[Role] = ...,
        blend: Blend | None = ...,
        first_order: FirstOrderLearning = ...,
    ) -> LocalResult:
        """See `pfmsmt.training.local.local_train`."""
        ...


class Upload(NamedTuple):
    """A client's answer to the server; nothing else leaves it."""

    arrays: NamedArrays
    examples: int
    loss: float
    by_task: Mapping[str, NamedArrays] = {}
    """task -> the part of the movement that is that task's loss's; where a method coordinates tasks as well"""
    releases: int = 0
    """Noised uploads of this client in the run so far, with this one; 0 where there is no noise"""


class ServerUpdate(NamedTuple):
    """The server's new state after one phase, and figures about the step."""

    server: ServerState
    metrics: Mapping[str, float] = {}
    diagnostics: Mapping[str, Mapping[str, FloatArray]] = {}
    """Diagnostics of the step: group -> quantity -> values, clients in sorted order.

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
    reported: frozenset[Role] = frozenset()
    """... and of which of these it also reports each task's share"""
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
