"""FedAMP: clients with models near to each other are drawn together.

Huang et al. 2021, "Personalized cross-silo federated learning on non-IID data", algorithm 1: attentive message passing.
It descends along sum_k F_k(w_k) + lambda sum_{i<j} A(|w_i - w_j|^2), A(x) = 1 - exp(-x / sigma), by turns at the server
and at the clients:

    server_update    xi_ij  =  alpha A'(|w_i - w_j|^2) for j other than i,   xi_ii = 1 - sum of these
                     u_i    <-  sum_j xi_ij w_j,   the cloud model of client i
    client_update    w_i    <-  local training of F_i(w) + lambda / (2 alpha) |w - u_i|^2, from w_i

Client i goes on from, evaluates and serves w_i, its own; u_i only pulls.

alpha, the server's step, is given as attraction / (S - 1) x sigma, for S clients: xi_ij = attraction / (S - 1)
exp(-|w_i - w_j|^2 / sigma), so that a row's weights are those of a mean whatever the distances. The regularizer is
lambda / alpha. With 0 the method is `local`.

Departures: w_i is all that may leave but BatchNorm, whose running statistics are no parameters of F. The clients'
problem is not solved, but trained for a round's steps, by Adam with the pull in its decoupled form, as Ditto's personal
models are. Clients that do not answer keep their cloud models, and the others' distances are among themselves.

Legend: S clients that answered, P numbers of a model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pfmsmt.config.blocks import PrivateTraining
from pfmsmt.config.kinds import Fraction, NonNegative, Positive
from pfmsmt.core import arrays
from pfmsmt.core.types import NEVER_LEAVES, NamedArrays, Role, Stream, Template
from pfmsmt.methods import ClientState, LocalTrain, Method, Phase, ServerState, ServerUpdate, Upload
from pfmsmt.methods.declaration import (
    PRIVATE_SEARCH,
    RIDGE_SEARCH,
    Declaration,
    MethodFacts,
    Setup,
    log_range,
    own_settings,
)

_SENT = frozenset(Role) - NEVER_LEAVES - {Role.NORM}


class FedAmp(PrivateTraining):
    """The block `methods.fedamp`.

    No server optimiser, as there are no parameters that all clients hold alike.
    """

    attraction: Fraction = Field(
        default=0.9,
        description="Weight of the others together in a client's cloud model, were they equal to it.",
    )
    sigma: Positive = Field(
        default=100.0, description="Squared distance between models at which their weight has fallen to 1/e."
    )
    regularizer: NonNegative = Field(
        default=10.0, description="lambda / alpha of lambda/(2 alpha) |w - cloud model|^2; 0 is local."
    )


def fedamp(
    local_train: LocalTrain,
    template: Template,
    *,
    private_learning_rate: float,
    private_weight_decay: float,
    attraction: float,
    sigma: float,
    regularizer: float,
) -> Method:
    """Build FedAMP."""

    def init(parameters: NamedArrays, clients: tuple[str, ...]) -> ServerState:
        common = arrays.select(parameters, template, _SENT)
        return {"clients": {k: dict(common) for k in sorted(clients)}}

    def init_client(parameters: NamedArrays) -> ClientState:
        return ClientState(parameters, {})

    def broadcast(server: ServerState, client: str) -> NamedArrays:
        return dict(server["clients"][client])

    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        result = local_train(
            state.private, state.optimizer, data, stream,
            # Nothing is averaged in place: Adam trains everything, and there is no rate of SGD.
            federated=frozenset(), learning_rate=private_learning_rate, private_learning_rate=private_learning_rate,
            private_weight_decay=private_weight_decay, anchor=received, regularizer=regularizer,
        )  # fmt: skip
        upload = Upload(arrays.select(result.parameters, template, _SENT), result.examples, result.loss)
        return upload, ClientState(result.parameters, result.optimizer)

    def server_update(server: ServerState, uploads: Mapping[str, Upload]) -> ServerUpdate:
        clients = sorted(uploads)
        models = np.stack([arrays.flatten(uploads[k].arrays) for k in clients])
        cloud = _cloud_weights(models, attraction, sigma).astype(models.dtype) @ models
        drawn = {k: arrays.unflatten(row, uploads[k].arrays) for k, row in zip(clients, cloud, strict=True)}
        return ServerUpdate({"clients": {**server["clients"], **drawn}})

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        return state.private

    phase = Phase("round", broadcast, client_update, server_update, uploads=_SENT)
    return Method("fedamp", init, init_client, (phase,), broadcast, personalise)


def _build(block: FedAmp, setup: Setup) -> Method:
    return fedamp(setup.local_train, setup.template, **own_settings(block))


FEDAMP = Declaration(
    "fedamp",
    FedAmp,
    "Clients' models attract those that are near to them.",
    _build,
    lambda _: MethodFacts(_SENT, serves="own", keeps="all"),
    search={
        "attraction": log_range(0.1, 1.0),
        "sigma": log_range(1.0, 10000.0),
        "regularizer": log_range(0.1, 300.0),
        **PRIVATE_SEARCH,
        **RIDGE_SEARCH,
    },
)


def _cloud_weights(models: NDArray[Any], attraction: float, sigma: float) -> NDArray[np.float64]:
    """Return xi [S, S] for models [S, P]; rows sum to 1."""
    others = len(models) - 1
    if others == 0:
        return np.ones((1, 1))
    # From the middle of all: squares of large equal numbers would lose the digits that count.
    apart = models - models.mean(axis=0)
    products = arrays.products(apart, apart)
    squares = np.diag(products)
    distances = np.clip(squares[:, None] + squares - 2 * products, 0.0, None)
    weights = attraction / others * np.exp(-distances / sigma)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights + np.diag(1 - weights.sum(axis=1)))
