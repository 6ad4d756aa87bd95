"""FedAvg, fine-tuned by every client for itself.

The standard baseline of personalisation (e.g. Yu et al. 2020, "Salvaging federated learning by local adaptation").

    w    <- FedAvg
    v_k  <- some steps of local training on F_k from the model that FedAvg serves client k: w_received and its private
            part

Client k evaluates and serves v_k; only FedAvg's upload leaves, and FedAvg goes on from w as if there were no v_k. With
0 steps v_k is FedAvg's model. The steps are those of local training, with a rate of their own: SGD on what is averaged,
Adam with FedAvg's moments on private tables, on the batches from the round's first one on. So with FedAvg's rate, and
as many steps as a round has, v_k is the model that client k uploads in that round.

Departure: a client fine-tunes what it received at the beginning of a round, not the mean at its end, which would need
another exchange. It serves the fine-tuned model of the round before.
"""

from typing import Any

from pydantic import Field

from pfmsmt.config.blocks import Federated
from pfmsmt.config.kinds import Positive
from pfmsmt.core import arrays
from pfmsmt.core.types import NamedArrays, Stream, Template
from pfmsmt.methods import ClientState, LocalTrain, Method, Upload
from pfmsmt.methods.averaging import SHARED, averaging
from pfmsmt.methods.declaration import (
    RIDGE_SEARCH,
    SERVER_SEARCH,
    Declaration,
    MethodFacts,
    Setup,
    choice,
    log_range,
    own_settings,
)
from pfmsmt.methods.ditto import join_states, split_state
from pfmsmt.methods.server_optimizer import FedOpt, server_step


class FedAvgFinetune(Federated):
    """The block `methods.fedavg_finetune`."""

    finetune_steps: int = Field(
        default=16, ge=0, description="Steps from the received model to the one that a client serves; 0 is fedavg."
    )
    finetune_rate: Positive = Field(default=1.0, description="Rate of SGD in these steps.")


def fedavg_finetune(
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    finetune_steps: int,
    finetune_rate: float,
    optimizer: FedOpt,
) -> Method:
    """Build FedAvg with fine-tuning."""
    base = averaging(
        "fedavg", local_train, template,
        learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay, optimizer=optimizer,
    )._replace(name="fedavg_finetune")  # fmt: skip
    if finetune_steps == 0:
        return base
    (round_,) = base.phases

    def init_client(parameters: NamedArrays) -> ClientState:
        return join_states(base.init_client(parameters), ClientState(parameters, {}))

    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        common, _ = split_state(state)
        tuned = local_train(
            arrays.merge(common.private, received), common.optimizer, data, stream,
            federated=round_.uploads, learning_rate=finetune_rate, private_learning_rate=private_learning_rate,
            private_weight_decay=private_weight_decay, steps=finetune_steps,
        )  # fmt: skip
        upload, common = round_.client_update(received, common, data, stream)
        # Adam's moments of the fine-tuned model are dropped: the next one starts from FedAvg's.
        return upload, join_states(common, ClientState(tuned.parameters, {}))

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        return split_state(state)[1].private

    phases = (round_._replace(client_update=client_update),)
    return base._replace(init_client=init_client, phases=phases, personalise=personalise)


def _build(block: FedAvgFinetune, setup: Setup) -> Method:
    return fedavg_finetune(setup.local_train, setup.template, **own_settings(block), optimizer=server_step(block))


def _facts(block: FedAvgFinetune) -> MethodFacts:
    if block.finetune_steps == 0:
        return MethodFacts(SHARED["fedavg"])
    return MethodFacts(SHARED["fedavg"], serves="own", keeps="all", two_models=True)


FEDAVG_FINETUNE = Declaration(
    "fedavg_finetune",
    FedAvgFinetune,
    "fedavg; clients serve its model fine-tuned on their rows.",
    _build,
    _facts,
    search={
        "finetune_steps": choice(8, 16, 32, 64, 128),
        "finetune_rate": log_range(0.1, 3.0),
        "learning_rate": log_range(0.05, 0.5),
        **SERVER_SEARCH,
        **RIDGE_SEARCH,
    },
)
