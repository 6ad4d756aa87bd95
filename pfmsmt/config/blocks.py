"""Blocks from which the methods' own blocks derive."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from pfmsmt.config.kinds import Frozen, NonNegative, Positive


def keep_parameters(block: BaseModel, rate: str, decay: str) -> None:
    """Refuse a decoupled decay that would turn a parameter's sign at once.

    Raises:
        ValueError: the values of the keys `rate` and `decay` multiply to 1 or more.
    """
    taken = getattr(block, rate) * getattr(block, decay)
    if taken >= 1:
        raise ValueError(f"{rate} x {decay} is {taken:g}: a step would take all of a parameter away; keep it below 1")


class ServerOptimizer(Frozen):
    """The step that applies an averaged update (FedOpt, Reddi et al. 2021)."""

    server_optimizer: Literal["adam", "plain"] = Field(
        default="adam", description="How the server applies the clients' averaged update."
    )
    server_learning_rate: Positive = Field(
        default=0.02, description="Rate of adam; plain uses it as a factor, where 1 is the mean itself."
    )
    server_beta1: float = Field(default=0.9, ge=0, lt=1, description="adam's share of the past in the mean.")
    server_beta2: float = Field(default=0.99, ge=0, lt=1, description="adam's share of the past in the variance.")
    server_weight_decay: NonNegative = Field(
        default=0.03,
        description="Decay of that step, decoupled: a step also takes rate x this x the parameter.",
    )

    @model_validator(mode="after")
    def _server_keeps_parameters(self) -> Self:
        keep_parameters(self, "server_learning_rate", "server_weight_decay")
        return self


class FirstOrderTraining(Frozen):
    """Training of the first-order path."""

    first_order_rate: Positive = Field(
        default=0.02,
        description="Rate of Adam on a client's own first-order weights, which have a ridge and no decay.",
    )
    ridge: NonNegative = Field(
        default=8.0,
        description="Ridge of shared first-order weights: half of it times their squares, on a client's summed losses.",
    )
    private_ridge: NonNegative = Field(default=100.0, description="The same of a client's own first-order weights.")


class PrivateTraining(FirstOrderTraining):
    """Training of what stays with the clients."""

    private_learning_rate: Positive = Field(default=0.01, description="Rate of clients' Adam on private parameters.")
    private_weight_decay: NonNegative = Field(
        default=2.0, description="Decay of that Adam, decoupled: a step also takes rate x this x the parameter."
    )

    @model_validator(mode="after")
    def _clients_keep_parameters(self) -> Self:
        keep_parameters(self, "private_learning_rate", "private_weight_decay")
        return self


class Federated(PrivateTraining, ServerOptimizer):
    """Settings of every federated method with a server optimiser.

    `methods.fedavg`, `fedbn` and `fedper` have no others: they differ in the shared roles alone.
    """

    learning_rate: Positive = Field(default=0.2, description="Rate of clients' SGD on federated parameters.")


class Proximal(Federated):
    """Settings of methods with a proximal term, mu/2 |theta - received|^2."""

    regularizer: NonNegative = Field(default=0.0, description="mu of mu/2 |theta - received|^2; 0 switches it off.")
