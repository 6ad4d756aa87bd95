"""PF-MSMTrec, bottom-up: experts first, then task towers.

Ding et al. 2025; our reading, and what of it is a guess: docs/explanation/method.md.

    phase 1   all roles train locally, pulled by mu/2 |theta - anchor|^2 towards what was received, or the global part;
              every expert (and the federated tables) takes the personalised step
    phase 2   with the new experts in place and frozen, towers and gates train for a few steps;
              every task's tower (and gate) takes the personalised step
Private experts, adapters, the scenario's part of experts, BatchNorm (FedBN, Li et al. 2021) and private tables stay
with the client.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from pfmsmt.config.blocks import PrivateTraining, Proximal
from pfmsmt.config.kinds import Fraction, Frozen, NonNegative, Positive
from pfmsmt.core import arrays
from pfmsmt.core.types import ANCHOR, NamedArrays, Role, Stream, Template
from pfmsmt.methods import ClientState, LocalTrain, Method, Phase, ServerState, ServerUpdate, Upload
from pfmsmt.methods.attention import AttentionRule
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
from pfmsmt.methods.directions import Directions
from pfmsmt.methods.personalised_step import PersonalisedStep
from pfmsmt.methods.server_optimizer import PLAIN_STEP, FedOpt, server_step

_REPORTED = frozenset({Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER})
"""Roles whose movement is reported task by task, where tasks are coordinated as well."""
_HEADS = frozenset({Role.TOWER, Role.GATE})

# What clients do with their block; the rest of it is the server's step.
_CLIENT_SIDE = {
    "federated_batch_norm", "gate", "coordinate", "tower_steps", "regularizer", "anchor",
    "learning_rate", "private_learning_rate", "private_weight_decay",
}  # fmt: skip


class Architecture(Frozen):
    """The keys shape PF-MSMTrec's model, and say what of it clients share."""

    private_experts: int = Field(
        default=1, ge=0, description="Experts of each task at each client, beside model.experts; 0: none."
    )
    linear_experts: int = Field(
        default=3, ge=0, description="Linear models that clients share, and that each mixes in its own way; 0: none."
    )
    rank: int = Field(
        default=0,
        ge=0,
        description="Rank of task-specific adapters in every layer of the shared experts; 0 switches them off.",
    )
    scenario_rank: int = Field(
        default=0,
        ge=0,
        description="Rank of the scenario's own part in every layer of the shared experts; 0 switches it off.",
    )
    federated_batch_norm: bool = Field(
        default=True, description="true: BatchNorm stays with the client (FedBN); false: it is averaged."
    )
    gate: Literal["private", "federated"] = Field(
        default="private",
        description="private: who uses which expert is the client's own affair; federated: gates go with the towers.",
    )


class PfMsmtrecParts(Architecture):
    """The modules of PF-MSMTrec, each with its switch."""

    conflict: float = Field(
        default=0.4, ge=0, lt=1, description="c of conflict coordination, the radius around the mean; 0 is the mean."
    )
    coordinate: Literal["clients", "clients_and_tasks"] = Field(
        default="clients",
        description="Updates that coordination brings together: of clients, or also of tasks (experts and tables).",
    )
    coordinate_towers: bool = Field(
        default=True, description="Whether towers (and federated gates) are coordinated as experts are; false: c = 0."
    )
    aggregation: Literal["similarity", "learned", "uniform", "identity", "fedhca2"] = Field(
        default="similarity",
        description="Rows of the weights A; uniform: by numbers of examples; identity: a client's own update only; "
        "fedhca2: own updates and learned shares of the common one.",
    )
    temperature: Positive = Field(default=0.1, description="Temperature of the similarity's softmax; large is uniform.")
    smoothing: float = Field(
        default=0.9, ge=0, lt=1, description="Share of the past in the updates that are compared and coordinated."
    )
    learned_rate: Positive = Field(
        default=0.1, description="Rate of what the aggregations learned and fedhca2 learn, a round."
    )
    alpha: Fraction = Field(
        default=0.1, description="Learned share at the start; used by the aggregation fedhca2 alone."
    )
    coupling: Fraction = Field(
        default=0.2, description="lambda: share of the coordinated global part in what a client receives."
    )
    tower_steps: int = Field(
        default=4, ge=0, description="Steps of phase 2: towers and gates, with the experts frozen; 0 reuses phase 1."
    )
    anchor: Literal["received", "global"] = Field(
        default="received",
        description="What the regularizer pulls towards; global: the server's global part, sent beside the client's.",
    )


class PfMsmtrec(PfMsmtrecParts, Proximal):
    """The block `methods.pf_msmtrec`."""


def _preset(key: str, value: Any) -> Any:
    """Return a field of `PfMsmtrecParts` with another default."""
    return FieldInfo.merge_field_infos(PfMsmtrecParts.model_fields[key], default=value)


class PfMsmtrecPaper(PfMsmtrecParts, PrivateTraining):
    """The block `methods.pf_msmtrec_paper`.

    The same modules with other defaults: as near to what is known of the paper as can be built. FedHCA2's rule takes
    plain steps, so there is no server optimiser, and the rate is not that of the others.
    """

    learning_rate: Positive = Field(
        default=3.0,
        description="Rate of clients' SGD on federated parameters, which no server optimiser scales.",
    )
    regularizer: NonNegative = Field(default=0.01, description="mu of mu/2 |theta - anchor|^2; 0 switches it off.")
    private_experts: int = _preset("private_experts", 0)
    linear_experts: int = _preset("linear_experts", 1)
    rank: int = _preset("rank", 4)
    scenario_rank: int = _preset("scenario_rank", 4)
    coordinate: Literal["clients", "clients_and_tasks"] = _preset("coordinate", "clients_and_tasks")
    coordinate_towers: bool = _preset("coordinate_towers", False)
    aggregation: Literal["similarity", "learned", "uniform", "identity", "fedhca2"] = _preset("aggregation", "fedhca2")
    learned_rate: Positive = _preset("learned_rate", 10.0)
    coupling: Fraction = _preset("coupling", 0.0)
    anchor: Literal["received", "global"] = _preset("anchor", "global")


def shared_roles(*, gate: str, federated_batch_norm: bool) -> frozenset[Role]:
    """Return the roles that PF-MSMTrec's clients share."""
    shared = frozenset({Role.EXPERT, Role.TOWER, Role.EMBEDDING, Role.FIRST_ORDER})
    if gate == "federated":
        shared |= {Role.GATE}
    if not federated_batch_norm:
        shared |= {Role.NORM}
    return shared


def pf_msmtrec(
    local_train: LocalTrain,
    template: Template,
    step: PersonalisedStep,
    *,
    name: str = "pf_msmtrec",
    federated_batch_norm: bool,
    gate: str,
    coordinate: str,
    tower_steps: int,
    regularizer: float,
    anchor: str,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
) -> Method:
    """Build PF-MSMTrec; `step` is the server's, for each expert and tower.

    With `anchor` "global" and a regulariser the server sends its global part beside the client's own: of all federated
    roles in phase 1, of the heads in phase 2.
    """
    federated = shared_roles(gate=gate, federated_batch_norm=federated_batch_norm)
    private = frozenset(Role) - federated
    reported = _REPORTED if coordinate == "clients_and_tasks" else frozenset()
    heads = federated & _HEADS
    body = federated - heads
    # With a second phase, trained towers and gates wait at the client until the experts have arrived.
    held, sent = (private | heads, body) if tower_steps else (private, federated)
    train = functools.partial(
        local_train, federated=federated, learning_rate=learning_rate, private_learning_rate=private_learning_rate,
        private_weight_decay=private_weight_decay,
    )  # fmt: skip

    def init(parameters: NamedArrays, clients: tuple[str, ...]) -> ServerState:
        return step.start(arrays.select(parameters, template, federated), clients)

    def init_client(parameters: NamedArrays) -> ClientState:
        return ClientState(arrays.select(parameters, template, private), {})

    def broadcast(server: ServerState, client: str) -> NamedArrays:
        return dict(server["clients"][client])

    def sending(anchored: frozenset[Role]) -> Callable[[ServerState, str], NamedArrays]:
        if anchor == "received" or not regularizer:
            return broadcast

        def with_anchor(server: ServerState, client: str) -> NamedArrays:
            common = arrays.select(server["global"], template, anchored)
            return {**broadcast(server, client), **{ANCHOR + name: array for name, array in common.items()}}

        return with_anchor

    def train_all(received: NamedArrays, state: ClientState, data: Any, stream: Stream) -> tuple[Upload, ClientState]:
        received, common = arrays.split_anchor(received)
        result = train(
            arrays.merge(state.private, received), state.optimizer, data, stream,
            anchor=common or received, regularizer=regularizer, by_task=reported,
        )  # fmt: skip
        upload = Upload(arrays.select(result.parameters, template, sent), result.examples, result.loss, result.by_task)
        return upload, ClientState(arrays.select(result.parameters, template, held), result.optimizer)

    def train_heads(received: NamedArrays, state: ClientState, data: Any, stream: Stream) -> tuple[Upload, ClientState]:
        received, common = arrays.split_anchor(received)
        # A client that missed phase 1 starts from the server's heads, or from those that wait since it missed phase 2.
        result = train(
            arrays.merge(received, state.private), state.optimizer, data, stream,
            frozen=frozenset(Role) - _HEADS, steps=tower_steps,
            anchor=common or arrays.select(received, template, heads), regularizer=regularizer,
        )  # fmt: skip
        upload = Upload(arrays.select(result.parameters, template, heads), result.examples, result.loss)
        return upload, ClientState(arrays.select(result.parameters, template, private), result.optimizer)

    def server_update(server: ServerState, uploads: Mapping[str, Upload]) -> ServerUpdate:
        return step(server, uploads)

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        return arrays.merge(state.private, received)

    experts = Phase("experts", sending(federated), train_all, server_update, sent, reported)
    towers = Phase("towers", sending(heads), train_heads, server_update, heads)
    phases = (experts, towers) if tower_steps else (experts,)
    return Method(name, init, init_client, phases, broadcast, personalise)


def architecture_facts(block: Architecture) -> MethodFacts:
    """Return the facts about a method that has this architecture."""
    return MethodFacts(
        shared_roles(gate=block.gate, federated_batch_norm=block.federated_batch_norm),
        rank=block.rank,
        private_experts=block.private_experts,
        scenario_rank=block.scenario_rank,
        linear_experts=block.linear_experts,
    )


def _facts(block: PfMsmtrecParts) -> MethodFacts:
    return architecture_facts(block)._replace(serves="own", phases=2 if block.tower_steps else 1)


def _build(name: str, block: PfMsmtrecParts, setup: Setup, optimizer: FedOpt) -> Method:
    attention = AttentionRule(block.aggregation, block.temperature, block.learned_rate, block.alpha)
    directions = Directions(block.smoothing)
    step = PersonalisedStep(
        setup.template, block.conflict, block.coupling, directions, attention, optimizer, block.coordinate_towers
    )
    own = block.model_dump(include=_CLIENT_SIDE)
    return pf_msmtrec(setup.local_train, setup.template, step, name=name, **own)


def _build_ours(block: PfMsmtrec, setup: Setup) -> Method:
    return _build("pf_msmtrec", block, setup, server_step(block))


def _build_paper(block: PfMsmtrecPaper, setup: Setup) -> Method:
    return _build("pf_msmtrec_paper", block, setup, PLAIN_STEP)


PF_MSMTREC = Declaration(
    "pf_msmtrec",
    PfMsmtrec,
    "Personalised federated learning, ours.",
    _build_ours,
    _facts,
    search={**PRIVATE_SEARCH, "gate": choice("private", "federated"), **SERVER_SEARCH, **RIDGE_SEARCH},
)
PF_MSMTREC_PAPER = Declaration(
    "pf_msmtrec_paper",
    PfMsmtrecPaper,
    "pf_msmtrec as near to what is known of the paper as can be built.",
    _build_paper,
    _facts,
    search={
        "learned_rate": log_range(0.01, 1000.0),
        "learning_rate": log_range(0.1, 5.0),
        "regularizer": log_range(1e-3, 1.0),
        **PRIVATE_SEARCH,
        **RIDGE_SEARCH,
    },
)
