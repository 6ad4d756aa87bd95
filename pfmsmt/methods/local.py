"""No federation: nothing is shared, every client trains its own model.

v_k <- local training
"""

from pfmsmt.core.types import Template
from pfmsmt.methods import LocalTrain, Method
from pfmsmt.methods.partial import partial
from pfmsmt.methods.server_optimizer import ServerOptimizer


def local(
    local_train: LocalTrain, template: Template, *, learning_rate: float, weight_decay: float, name: str = "local"
) -> Method:
    """Build local training."""
    return partial(
        name, local_train, template, shared=frozenset(), optimizer=ServerOptimizer("plain", 1.0, 0.0, 0.0, 0.0),
        learning_rate=learning_rate, private_learning_rate=learning_rate, private_weight_decay=weight_decay,
    )  # fmt: skip
