"""FedBN (Li et al. 2021, "Federated learning on non-IID features via local batch normalization").

w   <- opt(w, sum_k p_k (w_k - w))      all but BatchNorm, p_k = n_k / sum n
v_k <- local training                   BatchNorm: scale, shift, running statistics

BatchNorm absorbs the shift between the clients' features, so that the rest can be averaged.
"""

from pfmsmt.core.types import NEVER_LEAVES, Role, Template
from pfmsmt.methods import LocalTrain, Method
from pfmsmt.methods.partial import partial
from pfmsmt.methods.server_optimizer import ServerOptimizer


def fedbn(
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    optimizer: ServerOptimizer,
) -> Method:
    """Build FedBN."""
    return partial(
        "fedbn", local_train, template, shared=frozenset(Role) - NEVER_LEAVES - {Role.NORM},
        learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay, optimizer=optimizer,
    )  # fmt: skip
