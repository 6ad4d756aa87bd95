"""PF-MSMTrec, bottom-up: experts first, then task towers.

Ding et al. 2025; our reading, and what of it is a guess: docs/explanation/method.md.

    phase 1   all roles train locally, pulled by mu/2 |theta - anchor|^2 towards what was received, or the global part;
              every expert (and the federated tables) takes the personalised step
    phase 2   with the new experts in place and frozen, towers and gates train for a few steps;
              every task's tower (and gate) takes the personalised step
Private experts, adapters, the scenario's part of experts, BatchNorm (FedBN, Li et al. 2021) and private tables stay
with the client.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from pfmsmt.core import arrays
from pfmsmt.core.types import ANCHOR, NamedArrays, Role, Stream, Template
from pfmsmt.methods import ClientState, LocalTrain, Method, Phase, ServerState, ServerUpdate, Upload
from pfmsmt.methods.personalised_step import PersonalisedStep

_REPORTED = frozenset({Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER})
"""Roles whose movement is reported task by task, where tasks are coordinated as well."""
_HEADS = frozenset({Role.TOWER, Role.GATE})


def shared_roles(*, gate: str, federated_batch_norm: bool) -> frozenset[Role]:
    """Return the roles that PF-MSMTrec's clients share."""
    shared = frozenset({Role.EXPERT, Role.TOWER, Role.EMBEDDING, Role.FIRST_ORDER})
    if gate == "federated":
        shared |= {Role.GATE}
    if not federated_batch_norm:
        shared |= {Role.NORM}
    return shared


def pf_msmtrec(
    local_train: LocalTrain,
    template: Template,
    step: PersonalisedStep,
    *,
    name: str = "pf_msmtrec",
    federated_batch_norm: bool,
    gate: str,
    coordinate: str,
    tower_steps: int,
    regularizer: float,
    anchor: str,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
) -> Method:
    """Build PF-MSMTrec; `step` is the server's, for each expert and tower.

    With `anchor` "global" and a regulariser the server sends its global part beside the client's own: of all federated
    roles in phase 1, of the heads in phase 2.
    """
    federated = shared_roles(gate=gate, federated_batch_norm=federated_batch_norm)
    private = frozenset(Role) - federated
    reported = _REPORTED if coordinate == "clients_and_tasks" else frozenset()
    heads = federated & _HEADS
    body = federated - heads
    # With a second phase, trained towers and gates wait at the client until the experts have arrived.
    held, sent = (private | heads, body) if tower_steps else (private, federated)
    train = functools.partial(
        local_train, federated=federated, learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay,
    )  # fmt: skip

    def init(parameters: NamedArrays, clients: tuple[str, ...]) -> ServerState:
        return step.start(arrays.select(parameters, template, federated), clients)

    def init_client(parameters: NamedArrays) -> ClientState:
        return ClientState(arrays.select(parameters, template, private), {})

    def broadcast(server: ServerState, client: str) -> NamedArrays:
        return dict(server["clients"][client])

    def sending(anchored: frozenset[Role]) -> Callable[[ServerState, str], NamedArrays]:
        if anchor == "received" or not regularizer:
            return broadcast

        def with_anchor(server: ServerState, client: str) -> NamedArrays:
            common = arrays.select(server["global"], template, anchored)
            return {**broadcast(server, client), **{ANCHOR + name: array for name, array in common.items()}}

        return with_anchor

    def train_all(received: NamedArrays, state: ClientState, data: Any, stream: Stream) -> tuple[Upload, ClientState]:
        received, common = arrays.split_anchor(received)
        result = train(
            arrays.merge(state.private, received), state.optimizer, data, stream,
            anchor=common or received, regularizer=regularizer, by_task=reported,
        )  # fmt: skip
        upload = Upload(arrays.select(result.parameters, template, sent), result.examples, result.loss, result.by_task)
        return upload, ClientState(arrays.select(result.parameters, template, held), result.optimizer)

    def train_heads(received: NamedArrays, state: ClientState, data: Any, stream: Stream) -> tuple[Upload, ClientState]:
        received, common = arrays.split_anchor(received)
        # A client that missed phase 1 starts from the server's heads, or from those that wait since it missed phase 2.
        result = train(
            arrays.merge(received, state.private), state.optimizer, data, stream,
            frozen=frozenset(Role) - _HEADS, steps=tower_steps,
            anchor=common or arrays.select(received, template, heads), regularizer=regularizer,
        )  # fmt: skip
        upload = Upload(arrays.select(result.parameters, template, heads), result.examples, result.loss)
        return upload, ClientState(arrays.select(result.parameters, template, private), result.optimizer)

    def server_update(server: ServerState, uploads: Mapping[str, Upload]) -> ServerUpdate:
        return step(server, uploads)

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        return arrays.merge(state.private, received)

    experts = Phase("experts", sending(federated), train_all, server_update, sent, reported)
    towers = Phase("towers", sending(heads), train_heads, server_update, heads)
    phases = (experts, towers) if tower_steps else (experts,)
    return Method(name, init, init_client, phases, broadcast, personalise)
