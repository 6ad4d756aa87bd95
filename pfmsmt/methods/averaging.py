"""FedAvg and its relatives: clients share some roles, the server averages them.

A round, for shared roles w and private roles v_k of client k (partial personalisation, algorithm FedSim of Pillutla et
al. 2022); n_k are its examples:

    broadcast        w to every client
    client_update    w_k, v_k  <-  local training of F_k(w, v_k) + mu/2 |w - w_received|^2, from w_received and v_k
    server_update    w         <-  opt(w, sum_k p_k (w_k - w)),   p_k = n_k / sum n

opt is plain addition, or Adam on the server (FedOpt, Reddi et al. 2021). The methods differ in their shared roles alone
(SHARED), and FedProx in mu > 0:

    fedavg        McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data".
                  Every tensor is averaged; only private ids and task-specific parts stay.
    fedprox       Li et al. 2020, "Federated optimization in heterogeneous networks". FedAvg, but no client strays far:
                  the pull of mu is on all that is learned and shared. BatchNorm's running statistics are measured, not
                  learned, and not pulled.
    fedbn         Li et al. 2021, "FedBN: Federated learning on non-IID features via local batch normalization".
                  BatchNorm (scale, shift, running statistics) stays, and absorbs the shift between clients' features.
    fedper        Arivazhagan et al. 2019, "Federated learning with personalization layers". The body is averaged
                  (experts, federated tables, BatchNorm); the heads stay (towers and gates).
    local         No federation: nothing is shared, every client trains its own model.
    linear        As local, with a model of the first-order path alone: a logistic regression.
"""

import functools
from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pfmsmt.config.blocks import Federated, FirstOrderTraining, Proximal, keep_parameters
from pfmsmt.config.kinds import Frozen, NonNegative, Parameter, Positive
from pfmsmt.core import arrays
from pfmsmt.core.types import NEVER_LEAVES, NamedArrays, Role, Stream, Template
from pfmsmt.methods import ClientState, FirstOrderLearning, LocalTrain, Method, Phase, ServerState, ServerUpdate, Upload
from pfmsmt.methods.aggregation import shares
from pfmsmt.methods.declaration import (
    PRIVATE_SEARCH,
    RIDGE_SEARCH,
    SERVER_SEARCH,
    Declaration,
    MethodFacts,
    Setup,
    log_range,
    own_settings,
)
from pfmsmt.methods.server_optimizer import PLAIN_STEP, server_step

HEADS = frozenset({Role.TOWER, Role.GATE})
"""Roles that belong to a client's head where a method tells heads from the body."""
SHARED: Mapping[str, frozenset[Role]] = {
    "fedavg": frozenset(Role) - NEVER_LEAVES,
    "fedprox": frozenset(Role) - NEVER_LEAVES,
    "fedbn": frozenset(Role) - NEVER_LEAVES - {Role.NORM},
    "fedper": frozenset(Role) - NEVER_LEAVES - HEADS,
    "local": frozenset(),
    "linear": frozenset(),
}
"""method -> the roles that its clients share; all others stay with the client"""


class ServerStep(Protocol):
    """The server's optimiser, as `FedOpt` is one."""

    def start(self, parameters: NamedArrays) -> dict[str, NamedArrays]:
        """Return the state before the first step."""
        ...

    def step(
        self, parameters: NamedArrays, update: NamedArrays, state: dict[str, NamedArrays]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NamedArrays]]:
        """Return new parameters and state."""
        ...


def averaging(
    name: str,
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    regularizer: float = 0.0,
    optimizer: ServerStep = PLAIN_STEP,
    shared: frozenset[Role] | None = None,
) -> Method:
    """Build the method of this name; the regularizer is mu.

    `shared` are its shared roles, those in SHARED if left out.

    Raises:
        ValueError: SHARED has no such name.
    """
    if shared is None:
        if name not in SHARED:
            raise ValueError(f"averaging.SHARED has no roles of {name!r}; it has {', '.join(SHARED)}; pass `shared`")
        shared = SHARED[name]
    private = frozenset(Role) - shared

    def init(parameters: NamedArrays, clients: tuple[str, ...]) -> ServerState:
        common = arrays.select(parameters, template, shared)
        return {"global": common, "optimizer": optimizer.start(without_norm(common))}

    def init_client(parameters: NamedArrays) -> ClientState:
        return ClientState(arrays.select(parameters, template, private), {})

    def broadcast(server: ServerState, client: str) -> NamedArrays:
        return dict(server["global"])

    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        result = local_train(
            arrays.merge(state.private, received), state.optimizer, data, stream,
            federated=shared, learning_rate=learning_rate, private_learning_rate=private_learning_rate,
            private_weight_decay=private_weight_decay, anchor=received, regularizer=regularizer,
        )  # fmt: skip
        upload = Upload(arrays.select(result.parameters, template, shared), result.examples, result.loss)
        return upload, ClientState(arrays.select(result.parameters, template, private), result.optimizer)

    def server_update(server: ServerState, uploads: Mapping[str, Upload]) -> ServerUpdate:
        if not shared:
            return ServerUpdate(server)
        # Sorted, so that the sum does not depend on who answered first.
        clients = sorted(uploads)
        weights = shares(np.array([uploads[k].examples for k in clients], dtype=np.float64))
        mean = arrays.combine([uploads[k].arrays for k in clients], weights)
        before = without_norm(server["global"])
        update = arrays.subtract({n: mean[n] for n in before}, before)
        after, state = optimizer.step(before, update, server["optimizer"])
        return ServerUpdate({"global": arrays.merge(mean, after), "optimizer": state})

    def without_norm(common: NamedArrays) -> NamedArrays:
        # An adaptive step would push running variances below zero: BatchNorm is averaged as it is.
        return {n: a for n, a in common.items() if template[n].role is not Role.NORM}

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        return arrays.merge(state.private, received)

    phase = Phase("round", broadcast, client_update, server_update, uploads=shared)
    return Method(name, init, init_client, (phase,), broadcast, personalise)


class FedProx(Proximal):
    """The block `methods.fedprox`."""

    regularizer: NonNegative = Field(default=0.01, description="mu of mu/2 |theta - received|^2; 0 is fedavg.")


class PlainLearning(FirstOrderTraining):
    """The block `methods.local`: nothing is federated, Adam trains everything."""

    learning_rate: Positive = Field(default=0.008, description="Rate of Adam.")
    weight_decay: NonNegative = Field(
        default=2.0, description="Decay of Adam, decoupled: a step also takes rate x this x the parameter."
    )

    ridge: NonNegative = Field(
        default=30.0,
        description="As methods.shared.ridge, of weights that nothing is shared of: with private_ridge, on their sum.",
    )

    @model_validator(mode="after")
    def _keeps_parameters(self) -> Self:
        keep_parameters(self, "learning_rate", "weight_decay")
        return self


class Linear(Frozen):
    """The block `methods.linear`.

    The first-order path is the whole model, and nothing is federated.
    """

    learning_rate: Positive = Field(default=0.02, description="Rate of Adam.")
    ridge: NonNegative = Field(
        default=25.0, description="Ridge: half of it times the squares of weights, on a client's summed losses."
    )


def _averaged(
    name: str, meaning: str, search: Mapping[str, Parameter], block: type[Federated] = Federated
) -> Declaration:
    def build(settings: Federated, setup: Setup) -> Method:
        own = own_settings(settings)
        return averaging(name, setup.local_train, setup.template, **own, optimizer=server_step(settings))

    return Declaration(name, block, meaning, build, lambda _: MethodFacts(SHARED[name]), search=search)


_RATE = {"learning_rate": log_range(0.05, 0.5)}
FEDAVG = _averaged("fedavg", "All parameters are averaged.", {**_RATE, **SERVER_SEARCH, **RIDGE_SEARCH})
FEDPROX = _averaged(
    "fedprox",
    "fedavg with a proximal term at the clients.",
    {**_RATE, "regularizer": log_range(1e-4, 1.0), **SERVER_SEARCH, **RIDGE_SEARCH},
    FedProx,
)
FEDBN = _averaged(
    "fedbn", "All parameters but BatchNorm are averaged.", {**PRIVATE_SEARCH, **SERVER_SEARCH, **RIDGE_SEARCH}
)
FEDPER = _averaged(
    "fedper",
    "The body is averaged; towers and gates are private.",
    {**PRIVATE_SEARCH, **SERVER_SEARCH, **RIDGE_SEARCH},
)


def _build_local(block: PlainLearning, setup: Setup) -> Method:
    # Nothing is federated: both rates are the same Adam's.
    rate, decay = block.learning_rate, block.weight_decay
    return averaging(
        "local", setup.local_train, setup.template,
        learning_rate=rate, private_learning_rate=rate, private_weight_decay=decay,
    )  # fmt: skip


LOCAL = Declaration(
    "local",
    PlainLearning,
    "Every client for itself.",
    _build_local,
    lambda _: MethodFacts(SHARED["local"]),
    search={
        "learning_rate": log_range(0.003, 0.03),
        "weight_decay": log_range(0.3, 10.0),
        "ridge": RIDGE_SEARCH["ridge"],
    },
)


def _build_linear(block: Linear, setup: Setup) -> Method:
    first_order = FirstOrderLearning(block.learning_rate, 0.0, block.ridge)
    return averaging(
        "linear", functools.partial(setup.local_train, first_order=first_order), setup.template,
        learning_rate=block.learning_rate, private_learning_rate=block.learning_rate, private_weight_decay=0.0,
    )  # fmt: skip


LINEAR = Declaration(
    "linear",
    Linear,
    "A logistic regression of each scenario and task: a floor.",
    _build_linear,
    lambda _: MethodFacts(SHARED["linear"], linear_alone=True),
    search={"learning_rate": log_range(0.005, 0.05), "ridge": RIDGE_SEARCH["ridge"]},
)
