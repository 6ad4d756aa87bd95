"""Partial personalisation: clients share some roles and keep the others (Pillutla et al. 2022, algorithm FedSim).

    w_k, v_k  <- local training of F_k(w, v_k) + mu/2 |w - w_received|^2
    w         <- opt(w, sum_k p_k (w_k - w)),   p_k = n_k / sum n
for shared roles w and private roles v_k; local training starts from w_received.

FedAvg, local training and their relatives differ in nothing but the set of shared roles.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pfmsmt.core import arrays
from pfmsmt.core.types import NEVER_LEAVES, NamedArrays, Role, Stream, Template
from pfmsmt.methods import ClientState, LocalTrain, Method, Phase, ServerState, ServerUpdate, Upload
from pfmsmt.methods.aggregation import shares
from pfmsmt.methods.server_optimizer import ServerOptimizer


def partial(
    name: str,
    local_train: LocalTrain,
    template: Template,
    *,
    shared: frozenset[Role],
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    optimizer: ServerOptimizer,
    regularizer: float = 0.0,
) -> Method:
    """Build the method in which `shared` roles are averaged over clients; the regularizer is mu.

    Raises:
        ValueError: a role that must never leave the client is among the shared ones.
    """
    if shared & NEVER_LEAVES:
        raise ValueError(f"roles that never leave a client cannot be shared: {sorted(shared & NEVER_LEAVES)}")
    private = frozenset(Role) - shared

    def init(parameters: NamedArrays, clients: tuple[str, ...]) -> ServerState:
        common = arrays.select(parameters, template, shared)
        return {"global": common, "optimizer": optimizer.start(_stepped(common))}

    def init_client(parameters: NamedArrays) -> ClientState:
        return ClientState(arrays.select(parameters, template, private), {})

    def broadcast(server: ServerState, client: str) -> NamedArrays:
        return dict(server["global"])

    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        result = local_train(
            arrays.merge(state.private, received), state.optimizer, data, stream,
            federated=shared, learning_rate=learning_rate, private_learning_rate=private_learning_rate,
            private_weight_decay=private_weight_decay, anchor=received, regularizer=regularizer,
        )  # fmt: skip
        kept = ClientState(arrays.select(result.parameters, template, private), result.optimizer)
        return Upload(arrays.select(result.parameters, template, shared), result.examples, result.loss), kept

    def server_update(server: ServerState, uploads: Mapping[str, Upload]) -> ServerUpdate:
        if not shared:
            return ServerUpdate(server)
        clients = sorted(uploads)
        weights = shares(np.array([uploads[k].examples for k in clients], dtype=np.float64))
        mean = arrays.combine([uploads[k].arrays for k in clients], weights)
        before = _stepped(server["global"])
        update = arrays.subtract({n: mean[n] for n in before}, before)
        after, state = optimizer.step(before, update, server["optimizer"])
        return ServerUpdate({"global": arrays.merge(mean, after), "optimizer": state})

    def _stepped(common: NamedArrays) -> NamedArrays:
        # An adaptive step would push running variances below zero: BatchNorm is averaged as it is.
        return {n: a for n, a in common.items() if template[n].role is not Role.NORM}

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        return arrays.merge(state.private, received)

    phase = Phase("round", broadcast, client_update, server_update, shared)
    return Method(name, init, init_client, (phase,), broadcast, personalise)
