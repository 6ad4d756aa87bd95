"""FedRep: a common representation, and heads that are fitted to it first.

Collins et al. 2021, "Exploiting shared representations for personalized federated learning", algorithm 1.

    broadcast        phi, the body, to every client
    client_update    h_k    <-  the first steps of the round on F_k(phi, h), phi as received
                     phi_k  <-  the other steps of the round on F_k(phi, h_k), h_k as it now is
    server_update    phi    <-  opt(phi, sum_k p_k (phi_k - phi)),   p_k = n_k / sum n

The body is what FedPer averages: experts, federated tables and BatchNorm. h_k is all that stays: towers and gates,
tables of private ids, task-specific parts. The heads' steps leave BatchNorm's running statistics as received.

Departures: the paper counts the heads' steps and the body's apart, and has many more of the first; here both share the
round's steps, so that a round costs what FedAvg's costs. Its server takes the plain mean of the body. Its heads take
gradient steps; ours are Adam's, whose moments wait from round to round.
"""

import functools
from typing import Any

from pydantic import Field

from pfmsmt.config.blocks import Federated
from pfmsmt.config.kinds import Fraction
from pfmsmt.core import arrays
from pfmsmt.core.types import NamedArrays, Role, Stream, Template
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


class FedRep(Federated):
    """The block `methods.fedrep`."""

    head_share: Fraction = Field(
        default=0.5,
        description="Share of a round's steps, the first ones, in which towers and gates train; the body has the rest.",
    )


def fedrep(
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    head_share: float,
    optimizer: FedOpt,
) -> Method:
    """Build FedRep; `head_share` of a round's steps are the heads'."""
    base = averaging(
        "fedper", local_train, template,
        learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay, optimizer=optimizer,
    )  # fmt: skip
    (round_,) = base.phases
    body = round_.uploads
    heads = frozenset(Role) - body
    train = functools.partial(
        local_train, federated=body, learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay,
    )  # fmt: skip

    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        whole = arrays.merge(state.private, received)
        fitted = train(whole, state.optimizer, data, stream, frozen=body, part=(0.0, head_share))
        result = train(fitted.parameters, fitted.optimizer, data, stream, frozen=heads, part=(head_share, 1.0))
        loss = head_share * fitted.loss + (1 - head_share) * result.loss
        upload = Upload(arrays.select(result.parameters, template, body), result.examples, loss)
        return upload, ClientState(arrays.select(result.parameters, template, heads), result.optimizer)

    phases = (round_._replace(client_update=client_update),)
    return base._replace(name="fedrep", phases=phases)


def _build(block: FedRep, setup: Setup) -> Method:
    return fedrep(setup.local_train, setup.template, **own_settings(block), optimizer=server_step(block))


FEDREP = Declaration(
    "fedrep",
    FedRep,
    "fedper that trains heads first, then the body.",
    _build,
    lambda _: MethodFacts(SHARED["fedper"]),
    search={"head_share": log_range(0.125, 0.875), **PRIVATE_SEARCH, **SERVER_SEARCH, **RIDGE_SEARCH},
)
