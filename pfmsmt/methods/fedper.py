"""FedPer (Arivazhagan et al. 2019, "Federated learning with personalization layers").

w   <- opt(w, sum_k p_k (w_k - w))      body: experts, federated tables, BatchNorm; p_k = n_k / sum n
v_k <- local training                   heads: towers and gates
"""

from pfmsmt.core.types import Role, Template
from pfmsmt.methods import LocalTrain, Method
from pfmsmt.methods.partial import partial
from pfmsmt.methods.server_optimizer import ServerOptimizer

BODY = frozenset({Role.EXPERT, Role.EMBEDDING, Role.NORM})


def fedper(
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    optimizer: ServerOptimizer,
) -> Method:
    """Build FedPer."""
    return partial(
        "fedper", local_train, template, shared=BODY,
        learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay, optimizer=optimizer,
    )  # fmt: skip
