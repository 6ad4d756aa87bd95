"""The non-private reference: local training of one client that holds everybody's rows.

The scenario is a categorical feature; pooling the rows is the experiment's business (data/batches.py).
"""

from pfmsmt.core.types import Template
from pfmsmt.methods import LocalTrain, Method
from pfmsmt.methods.local import local


def centralized(local_train: LocalTrain, template: Template, *, learning_rate: float, weight_decay: float) -> Method:
    """Build centralised training."""
    return local(local_train, template, learning_rate=learning_rate, weight_decay=weight_decay, name="centralized")
