"""FedAvg (McMahan et al. 2017): every tensor is averaged, weighted by examples; only private ids stay.

w <- opt(w, sum_k (n_k / n) (w_k - w)),   opt = plain addition, or Adam on the server (FedOpt)
"""

from pfmsmt.core.types import NEVER_LEAVES, Role, Template
from pfmsmt.methods import LocalTrain, Method
from pfmsmt.methods.partial import partial
from pfmsmt.methods.server_optimizer import ServerOptimizer


def fedavg(
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    optimizer: ServerOptimizer,
) -> Method:
    """Build FedAvg."""
    return partial(
        "fedavg", local_train, template, shared=frozenset(Role) - NEVER_LEAVES,
        learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay, optimizer=optimizer,
    )  # fmt: skip
