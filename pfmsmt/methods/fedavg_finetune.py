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

from pfmsmt.core import arrays
from pfmsmt.core.types import NamedArrays, Stream, Template
from pfmsmt.methods import ClientState, LocalTrain, Method, Upload
from pfmsmt.methods.averaging import averaging
from pfmsmt.methods.ditto import join_states, split_state
from pfmsmt.methods.server_optimizer import FedOpt


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
