"""FedProx (Li et al. 2020, "Federated optimization in heterogeneous networks"): FedAvg, but no client strays far.

w_k <- local training of F_k(w) + mu/2 |w - w_received|^2
w   <- opt(w, sum_k p_k (w_k - w)),   p_k = n_k / sum n;   mu = 0 is FedAvg

The pull is on all that is learned and shared; BatchNorm's running statistics are measured, not learned.
"""

from pfmsmt.core.types import NEVER_LEAVES, Role, Template
from pfmsmt.methods import LocalTrain, Method
from pfmsmt.methods.partial import partial
from pfmsmt.methods.server_optimizer import ServerOptimizer


def fedprox(
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    regularizer: float,
    optimizer: ServerOptimizer,
) -> Method:
    """Build FedProx; the regularizer is mu."""
    return partial(
        "fedprox", local_train, template, shared=frozenset(Role) - NEVER_LEAVES, regularizer=regularizer,
        learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay, optimizer=optimizer,
    )  # fmt: skip
