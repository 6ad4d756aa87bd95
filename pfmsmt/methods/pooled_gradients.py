"""References: central training, as federated averaging after every single step (FedSGD).

McMahan et al. 2017, section 2: where each client takes one step of SGD and the server averages, the server's update is
the gradient of all clients' rows together,

    sum_k p_k (w_k - w)  =  - eta sum_k p_k grad F_k(w, v_k)  =  - eta grad F(w, v_1, ..., v_K),

and Adam on the server is then Adam on that gradient. Here p_k is the share of the client's rows; as its batch has the
same share, F is the mean loss over the union of the batches. So nothing is pooled but gradients, and scenarios can
have private roles v_k in a training that is central in all others.

    a round     `steps` exchanges, each with the next batch of every client
    clients     one step of SGD on shared roles w, one of Adam on private roles v_k
    server      one step of Adam on w (FedOpt, Reddi et al. 2021), whose rate falls over rounds as clients' rates do

    joint         shares what PF-MSMTrec shares, with its architecture: its upper reference
    centralized   shares experts, federated tables and first-order weights, and knows the scenario by what is its own:
                  BatchNorm, gates, towers, and first-order deviations

No federation could afford `steps` exchanges a round, so nobody deploys these.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from pfmsmt.config.blocks import PrivateTraining, keep_parameters
from pfmsmt.config.kinds import Count, NonNegative, Positive
from pfmsmt.core import arrays
from pfmsmt.core.types import NEVER_LEAVES, NamedArrays, Role, Stream, Template
from pfmsmt.methods import ClientState, LocalTrain, Method, Phase, Upload
from pfmsmt.methods.averaging import HEADS, averaging
from pfmsmt.methods.declaration import (
    PRIVATE_SEARCH,
    RIDGE_SEARCH,
    SERVER_SEARCH,
    Declaration,
    MethodFacts,
    Setup,
    choice,
    log_range,
)
from pfmsmt.methods.pf_msmtrec import Architecture, architecture_facts
from pfmsmt.methods.server_optimizer import FedOpt

CENTRALIZED = frozenset(Role) - NEVER_LEAVES - HEADS - {Role.NORM}
"""Roles that `centralized` shares."""


class PooledGradients(PrivateTraining):
    """`methods.joint` and `methods.centralized`: clients' gradients are pooled at every step."""

    steps: Count | None = Field(default=None, description="Steps of a round; null: as many as train.local_steps.")
    server_learning_rate: Positive = Field(default=0.005, description="Rate of the server's Adam on shared parameters.")
    server_weight_decay: NonNegative = Field(
        default=0.03, description="Decay of that Adam, decoupled: a step also takes rate x this x the parameter."
    )
    private_learning_rate: Positive = Field(default=0.008, description="Rate of clients' Adam on private parameters.")

    @model_validator(mode="after")
    def _server_keeps_parameters(self) -> Self:
        keep_parameters(self, "server_learning_rate", "server_weight_decay")
        return self


class Joint(PooledGradients, Architecture):
    """The block `methods.joint`.

    A run's results depend on its own block alone, so the model has its keys here too: change both blocks alike.
    """


class DecayingStep(NamedTuple):
    """A server's Adam on the gradient, whose rate falls over rounds."""

    optimizer: FedOpt
    rate_share: Callable[[int], float]
    """round -> share of the rates, the server's and the clients', that is taken in it"""
    steps: int
    """Steps of a round"""

    def start(self, parameters: NamedArrays) -> dict[str, NamedArrays]:
        """Return the state before the first step."""
        return self.optimizer.start(parameters)

    def step(
        self, parameters: NamedArrays, update: NamedArrays, state: dict[str, NamedArrays]
    ) -> tuple[dict[str, Any], dict[str, NamedArrays]]:
        """Return new parameters and state.

        `update` is minus the gradient, times the share that clients' rate of 1 has fallen to.
        """
        share = self.rate_share(int(state["steps"]["count"]) // self.steps + 1)
        # The share is taken out, or the moments would mix gradients of different scales.
        gradient = arrays.combine([update], [1 / share])
        return self.optimizer._replace(rate=self.optimizer.rate * share).step(parameters, gradient, state)


def pooled_gradients(
    name: str,
    local_train: LocalTrain,
    template: Template,
    shared: frozenset[Role],
    optimizer: FedOpt | DecayingStep,
    *,
    steps: int,
    private_learning_rate: float,
    private_weight_decay: float,
    learning_rate: float = 1.0,
) -> Method:
    """Build a reference that shares these roles; `optimizer` is the server's.

    With the learning rate 1 of clients' SGD an update is minus the gradient, which Adam takes at any scale.
    """

    def method(train: LocalTrain) -> Method:
        return averaging(
            name, train, template, shared=shared, learning_rate=learning_rate, optimizer=optimizer,
            private_learning_rate=private_learning_rate, private_weight_decay=private_weight_decay,
        )  # fmt: skip

    def exchange(index: int) -> Phase:
        part = (index / steps, (index + 1) / steps)
        (phase,) = method(functools.partial(local_train, part=part, round_steps=steps)).phases

        def client_update(
            received: NamedArrays, state: ClientState, data: Any, stream: Stream
        ) -> tuple[Upload, ClientState]:
            # One order of rows for all exchanges, each of which takes the next batch of it.
            return phase.client_update(received, state, data, stream._replace(phase=0))

        return phase._replace(client_update=client_update)

    return method(local_train)._replace(phases=tuple(exchange(index) for index in range(steps)))


def _build(name: str, block: PooledGradients, setup: Setup, shared: frozenset[Role]) -> Method:
    steps = block.steps or setup.budget.local_steps
    # Adam as it is in central training: clients' private parts have it with the same memory.
    adam = FedOpt("adam", block.server_learning_rate, 0.9, 0.999, block.server_weight_decay)
    return pooled_gradients(
        name, setup.local_train, setup.template,
        shared, DecayingStep(adam, setup.budget.rate_share, steps),
        steps=steps,
        private_learning_rate=block.private_learning_rate,
        private_weight_decay=block.private_weight_decay,
    )  # fmt: skip


def _build_joint(block: Joint, setup: Setup) -> Method:
    return _build("joint", block, setup, architecture_facts(block).shared)


def _build_centralized(block: PooledGradients, setup: Setup) -> Method:
    return _build("centralized", block, setup, CENTRALIZED)


_SEARCH = {
    "steps": choice(None, 16, 32),
    **PRIVATE_SEARCH,
    **SERVER_SEARCH,
    "server_learning_rate": log_range(0.001, 0.02),
    **RIDGE_SEARCH,
}
JOINT = Declaration(
    "joint",
    Joint,
    "pf_msmtrec's model on gradients pooled at every step: a reference, not deployable.",
    _build_joint,
    architecture_facts,
    deployable=False,
    search=_SEARCH,
)
CENTRALIZED_METHOD = Declaration(
    "centralized",
    PooledGradients,
    "Experts and tables on gradients pooled at every step: a reference, not deployable.",
    _build_centralized,
    lambda _: MethodFacts(CENTRALIZED),
    deployable=False,
    search=_SEARCH,
)
