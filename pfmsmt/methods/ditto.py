"""Ditto: a personal model beside the global one, pulled towards it.

Li et al. 2021, "Ditto: Fair and robust federated learning through personalization".

w   <- FedAvg
v_k <- local training of F_k(v_k) + lambda/2 |v_k - w_received|^2;   lambda = 0 is `local`

Client k evaluates and serves v_k; only FedAvg's upload leaves. v_k trains with Adam, as `local` does, on the batches
and dropout masks that w sees too. It is pulled towards all that is learned and received: neither tables of private
fields, which have no counterpart at the server, nor BatchNorm's running statistics. The two models have nothing in
common but the rows: each has private tables (and Adam's moments) of its own, so w is FedAvg's to the bit. A round
costs a client twice the steps.
"""

from typing import Any

from pydantic import Field

from pfmsmt.config.blocks import Proximal
from pfmsmt.config.kinds import NonNegative
from pfmsmt.core.types import NamedArrays, Stream, Template
from pfmsmt.methods import ClientState, LocalTrain, Method, Upload
from pfmsmt.methods.averaging import SHARED, averaging
from pfmsmt.methods.declaration import (
    PRIVATE_SEARCH,
    RIDGE_SEARCH,
    SERVER_SEARCH,
    Declaration,
    MethodFacts,
    Setup,
    log_range,
    own_settings,
)
from pfmsmt.methods.server_optimizer import FedOpt, server_step

GLOBAL = "global:"
"""Begins names in the client's state of the global model; names of v_k are the model's own."""


class Ditto(Proximal):
    """The block `methods.ditto`."""

    regularizer: NonNegative = Field(default=0.1, description="lambda of lambda/2 |personal - received|^2; 0 is local.")


def ditto(
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    regularizer: float,
    optimizer: FedOpt,
) -> Method:
    """Build Ditto.

    The regularizer is lambda, the private learning rate that of the personal models.
    """
    base = averaging(
        "fedavg", local_train, template,
        learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay, optimizer=optimizer,
    )  # fmt: skip
    (round_,) = base.phases

    def init_client(parameters: NamedArrays) -> ClientState:
        return join_states(base.init_client(parameters), ClientState(parameters, {}))

    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        common, own = split_state(state)
        upload, common = round_.client_update(received, common, data, stream)
        result = local_train(
            own.private, own.optimizer, data, stream,
            federated=frozenset(), learning_rate=learning_rate, private_learning_rate=private_learning_rate,
            private_weight_decay=private_weight_decay, anchor=received, regularizer=regularizer,
        )  # fmt: skip
        return upload, join_states(common, ClientState(result.parameters, result.optimizer))

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        return split_state(state)[1].private

    phases = (round_._replace(client_update=client_update),)
    return base._replace(name="ditto", init_client=init_client, phases=phases, personalise=personalise)


def _build(block: Ditto, setup: Setup) -> Method:
    return ditto(setup.local_train, setup.template, **own_settings(block), optimizer=server_step(block))


DITTO = Declaration(
    "ditto",
    Ditto,
    "Personal models beside fedavg's global one.",
    _build,
    lambda _: MethodFacts(SHARED["fedavg"], serves="own", keeps="all", two_models=True),
    search={**PRIVATE_SEARCH, "regularizer": log_range(0.1, 300.0), **SERVER_SEARCH, **RIDGE_SEARCH},
)


def join_states(common: ClientState, own: ClientState) -> ClientState:
    """Return the state of a client that has two models."""
    pairs = zip(common, own, strict=True)
    return ClientState(*({**{GLOBAL + n: a for n, a in w.items()}, **v} for w, v in pairs))


def split_state(state: ClientState) -> tuple[ClientState, ClientState]:
    """Return the client's state for the global model, and for its own."""
    common = ({n.removeprefix(GLOBAL): a for n, a in part.items() if n.startswith(GLOBAL)} for part in state)
    own = ({n: a for n, a in part.items() if not n.startswith(GLOBAL)} for part in state)
    return ClientState(*common), ClientState(*own)
