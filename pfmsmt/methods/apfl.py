"""APFL: clients blend the common model with one of their own.

Deng et al. 2020, "Adaptive personalized federated learning", algorithm 1.

    w       <- FedAvg
    v_k     <- v_k - eta grad_v F_k(a_k v_k + (1 - a_k) w)           at each local step
    a_k     <- clip(a_k - rate <v_k - w, grad F_k(a_k v_k + (1 - a_k) w)>, 0, 1)
    served  =  a_k v_k + (1 - a_k) w

Only FedAvg's upload leaves. a_k = 0 serves FedAvg's model, a_k = 1 trains and serves v_k alone, which is `local`.

Departures: w in these equations is what client k received, not its own iterate of w at the same step, as the local
steps of w and v_k are not interleaved; what is served is blended with the newest w. v_k trains with Adam, as `local`
does, in place of SGD; the gradient's factor a_k then does not shorten its steps. a_k has a rate of its own. BatchNorm
is not blended, since running statistics are measured on the blend: it is v_k's, and the same goes for tables of private
ids and task-specific parts, of which each of the two models has its own.
"""

from typing import Any

import numpy as np
from pydantic import Field

from pfmsmt.config.blocks import Federated
from pfmsmt.config.kinds import Fraction, NonNegative
from pfmsmt.core import arrays
from pfmsmt.core.types import NamedArrays, Role, Stream, Template
from pfmsmt.methods import Blend, ClientState, LocalTrain, Method, Upload
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
from pfmsmt.methods.ditto import join_states, split_state
from pfmsmt.methods.server_optimizer import FedOpt, server_step

_ALPHA = "alpha"
"""Name of a_k in the client's state."""


class Apfl(Federated):
    """The block `methods.apfl`."""

    alpha: Fraction = Field(
        default=0.5,
        description="Weight of the personal part at the start; 0 is fedavg, 1 the personal part alone.",
    )
    alpha_rate: NonNegative = Field(
        default=0.1, description="Rate of alpha's own gradient steps, at each client; 0 leaves alpha as it is."
    )


def apfl(
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    alpha: float,
    alpha_rate: float,
    optimizer: FedOpt,
) -> Method:
    """Build APFL.

    alpha is a_k at the start, `alpha_rate` that of its steps; the private learning rate is v_k's.
    """
    base = averaging(
        "fedavg", local_train, template,
        learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay, optimizer=optimizer,
    )  # fmt: skip
    (round_,) = base.phases
    blended = round_.uploads - {Role.NORM}

    def init_client(parameters: NamedArrays) -> ClientState:
        return join_states(base.init_client(parameters), ClientState(parameters, {_ALPHA: np.array(alpha)}))

    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        common, own = split_state(state)
        upload, common = round_.client_update(received, common, data, stream)
        other = arrays.select(received, template, blended)
        result = local_train(
            own.private, own.optimizer, data, stream,
            federated=frozenset(), learning_rate=learning_rate, private_learning_rate=private_learning_rate,
            private_weight_decay=private_weight_decay, blend=Blend(other, float(own.optimizer[_ALPHA]), alpha_rate),
        )  # fmt: skip
        memory = {**result.optimizer, _ALPHA: np.array(result.blend_weight)}
        return upload, join_states(common, ClientState(result.parameters, memory))

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        common, own = split_state(state)
        weight = float(own.optimizer[_ALPHA])
        if weight == 0:
            # Nothing of v_k is left, BatchNorm included.
            return base.personalise(received, common)
        other = arrays.select(received, template, blended)
        pair = [{name: own.private[name] for name in other}, other]
        return arrays.merge(own.private, arrays.combine(pair, [weight, 1 - weight]))

    phases = (round_._replace(client_update=client_update),)
    return base._replace(name="apfl", init_client=init_client, phases=phases, personalise=personalise)


def _build(block: Apfl, setup: Setup) -> Method:
    return apfl(setup.local_train, setup.template, **own_settings(block), optimizer=server_step(block))


APFL = Declaration(
    "apfl",
    Apfl,
    "Each client learns how to mix fedavg's model with its own.",
    _build,
    lambda _: MethodFacts(SHARED["fedavg"], serves="mixed", keeps="all", two_models=True),
    search={"alpha_rate": log_range(0.01, 10.0), **PRIVATE_SEARCH, **SERVER_SEARCH, **RIDGE_SEARCH},
)
