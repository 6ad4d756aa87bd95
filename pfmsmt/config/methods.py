"""The `methods` block: one for each method."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pfmsmt.config.values import Fraction, Frozen, NonNegative, Positive


def _keeps(block: BaseModel, rate: str, decay: str) -> None:
    """Refuse a decoupled decay that would turn the parameters' sign in a single step."""
    taken = getattr(block, rate) * getattr(block, decay)
    if taken >= 1:
        raise ValueError(f"{rate} x {decay} is {taken:g}: a step would take all of a parameter away; keep it below 1")


class ServerOptimizer(Frozen):
    """How the server applies an averaged update (FedOpt, Reddi et al. 2021)."""

    server_optimizer: Literal["adam", "plain"]
    server_learning_rate: Positive
    server_beta1: Annotated[float, Field(ge=0, lt=1)]
    server_beta2: Annotated[float, Field(ge=0, lt=1)]
    server_weight_decay: NonNegative

    @model_validator(mode="after")
    def _server_keeps_parameters(self) -> Self:
        _keeps(self, "server_learning_rate", "server_weight_decay")
        return self


class Federated(ServerOptimizer):
    """What every federated method has; `methods.fedavg`, `fedbn` and `fedper` differ in the shared roles alone."""

    learning_rate: Positive
    private_learning_rate: Positive
    private_weight_decay: NonNegative

    @model_validator(mode="after")
    def _clients_keep_parameters(self) -> Self:
        _keeps(self, "private_learning_rate", "private_weight_decay")
        return self


class Proximal(Federated):
    """`methods.fedprox` (the regularizer is mu) and `methods.ditto` (lambda)."""

    regularizer: NonNegative


class PfMsmtrec(Proximal):
    """`methods.pf_msmtrec`."""

    private_experts: Annotated[int, Field(ge=0)]
    rank: Annotated[int, Field(ge=0)]
    federated_batch_norm: bool
    conflict: Annotated[float, Field(ge=0, lt=1)]
    coordinate: Literal["clients", "clients_and_tasks"]
    aggregation: Literal["similarity", "learned", "uniform", "identity"]
    temperature: Positive
    smoothing: Annotated[float, Field(ge=0, lt=1)]
    learned_rate: Positive
    coupling: Fraction
    gate: Literal["private", "federated"]
    tower_steps: Annotated[int, Field(ge=0)]


class PlainLearning(Frozen):
    """`methods.local` and `methods.centralized`: nothing is federated, Adam trains everything."""

    learning_rate: Positive
    weight_decay: NonNegative

    @model_validator(mode="after")
    def _keeps_parameters(self) -> Self:
        _keeps(self, "learning_rate", "weight_decay")
        return self


class Methods(Frozen):
    """One block for each method."""

    pf_msmtrec: PfMsmtrec
    fedavg: Federated
    fedprox: Proximal
    fedbn: Federated
    fedper: Federated
    ditto: Proximal
    local: PlainLearning
    centralized: PlainLearning
