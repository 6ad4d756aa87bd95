"""The `methods` block: one for each method, and one that is shared."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from pfmsmt.config.kinds import Count, Fraction, Frozen, NonNegative, Positive


def _keeps(block: BaseModel, rate: str, decay: str) -> None:
    """Refuse a decoupled decay that would turn a parameter's sign at once."""
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
        _keeps(self, "server_learning_rate", "server_weight_decay")
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
        _keeps(self, "private_learning_rate", "private_weight_decay")
        return self


class Federated(PrivateTraining, ServerOptimizer):
    """Settings of every federated method with a server optimiser.

    `methods.fedavg`, `fedbn` and `fedper` have no others: they differ in the shared roles alone.
    """

    learning_rate: Positive = Field(default=0.2, description="Rate of clients' SGD on federated parameters.")


class Proximal(Federated):
    """Settings of methods with a proximal term, mu/2 |theta - received|^2."""

    regularizer: NonNegative = Field(default=0.0, description="mu of mu/2 |theta - received|^2; 0 switches it off.")


class FedProx(Proximal):
    """The block `methods.fedprox`."""

    regularizer: NonNegative = Field(default=0.01, description="mu of mu/2 |theta - received|^2; 0 is fedavg.")


class Ditto(Proximal):
    """The block `methods.ditto`."""

    regularizer: NonNegative = Field(default=0.1, description="lambda of lambda/2 |personal - received|^2; 0 is local.")


class FedRep(Federated):
    """The block `methods.fedrep`."""

    head_share: Fraction = Field(
        default=0.5,
        description="Share of a round's steps, the first ones, in which towers and gates train; the body has the rest.",
    )


class FedAvgFinetune(Federated):
    """The block `methods.fedavg_finetune`."""

    finetune_steps: int = Field(
        default=16, ge=0, description="Steps from the received model to the one that a client serves; 0 is fedavg."
    )
    finetune_rate: Positive = Field(default=1.0, description="Rate of SGD in these steps.")


class Apfl(Federated):
    """The block `methods.apfl`."""

    alpha: Fraction = Field(
        default=0.5,
        description="Weight of the personal part at the start; 0 is fedavg, 1 the personal part alone.",
    )
    alpha_rate: NonNegative = Field(
        default=0.1, description="Rate of alpha's own gradient steps, at each client; 0 leaves alpha as it is."
    )


class FedAmp(PrivateTraining):
    """The block `methods.fedamp`.

    No server optimiser, as there are no parameters that all clients hold alike.
    """

    attraction: Fraction = Field(
        default=0.9,
        description="Weight of the others together in a client's cloud model, were they equal to it.",
    )
    sigma: Positive = Field(
        default=100.0, description="Squared distance between models at which their weight has fallen to 1/e."
    )
    regularizer: NonNegative = Field(
        default=10.0, description="lambda / alpha of lambda/(2 alpha) |w - cloud model|^2; 0 is local."
    )


class FedHca2(PrivateTraining):
    """The block `methods.fedhca2`.

    Its server has steps of its own in place of an optimiser, so clients' rate is not that of the others.
    """

    learning_rate: Positive = Field(
        default=1.5,
        description="Rate of clients' SGD on federated parameters, which no server optimiser scales.",
    )

    conflict: float = Field(
        default=0.4, ge=0, lt=1, description="c of the conflict-averse update, the radius around the plain mean."
    )
    alpha: Fraction = Field(
        default=0.1, description="Weight of the conflict-averse update at the start; each client learns its own."
    )
    beta: Fraction = Field(
        default=0.1,
        description="Weight of towers' attention at the start; each layer of each tower learns its own.",
    )
    hyper_rate: NonNegative = Field(
        default=10.0, description="Rate of alpha's and beta's SGD, a round; 0 leaves them as they are."
    )


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
        _keeps(self, "learning_rate", "weight_decay")
        return self


class Linear(Frozen):
    """The block `methods.linear`.

    The first-order path is the whole model, and nothing is federated.
    """

    learning_rate: Positive = Field(default=0.02, description="Rate of Adam.")
    ridge: NonNegative = Field(
        default=25.0, description="Ridge: half of it times the squares of weights, on a client's summed losses."
    )


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
        _keeps(self, "server_learning_rate", "server_weight_decay")
        return self


class Joint(PooledGradients, Architecture):
    """The block `methods.joint`.

    A run's results depend on its own block alone, so the model has its keys here too: change both blocks alike.
    """


WITH_SHARED = (
    "pf_msmtrec", "fedavg", "fedprox", "fedbn", "fedper", "ditto", "fedrep", "fedavg_finetune", "apfl",
)  # fmt: skip
"""Names of the methods that have what `methods.shared` has."""
WITH_PRIVATE_SHARED = ("fedamp", "fedhca2", "pf_msmtrec_paper")
"""Names of those without a server optimiser, which have its keys of private training alone."""


class Methods(Frozen):
    """One block for each method.

    A federated method has what `shared` has where its own block is silent.
    """

    shared: Federated = Field(default=Federated(), description="What all federated methods have in common.")
    pf_msmtrec: PfMsmtrec = Field(default=PfMsmtrec(), description="Personalised federated learning, ours.")
    fedavg: Federated = Field(default=Federated(), description="All parameters are averaged.")
    fedprox: FedProx = Field(default=FedProx(), description="fedavg with a proximal term at the clients.")
    fedbn: Federated = Field(default=Federated(), description="All parameters but BatchNorm are averaged.")
    fedper: Federated = Field(default=Federated(), description="The body is averaged; towers and gates are private.")
    ditto: Ditto = Field(default=Ditto(), description="Personal models beside fedavg's global one.")
    fedrep: FedRep = Field(default=FedRep(), description="fedper that trains heads first, then the body.")
    fedavg_finetune: FedAvgFinetune = Field(
        default=FedAvgFinetune(), description="fedavg; clients serve its model fine-tuned on their rows."
    )
    apfl: Apfl = Field(default=Apfl(), description="Each client learns how to mix fedavg's model with its own.")
    fedamp: FedAmp = Field(default=FedAmp(), description="Clients' models attract those that are near to them.")
    fedhca2: FedHca2 = Field(
        default=FedHca2(), description="Own updates, and learned shares of a conflict-averse one and of other towers."
    )
    pf_msmtrec_paper: PfMsmtrecPaper = Field(
        default=PfMsmtrecPaper(), description="pf_msmtrec as near to what is known of the paper as can be built."
    )
    local: PlainLearning = Field(default=PlainLearning(), description="Every client for itself.")
    linear: Linear = Field(default=Linear(), description="A logistic regression of each scenario and task: a floor.")
    joint: Joint = Field(
        default=Joint(),
        description="pf_msmtrec's model on gradients pooled at every step: a reference, not deployable.",
    )
    centralized: PooledGradients = Field(
        default=PooledGradients(),
        description="Experts and tables on gradients pooled at every step: a reference, not deployable.",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_what_is_shared(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        try:
            shared = Federated.model_validate(tree.get("shared", {}))
        except ValidationError:
            # It is reported where it stands, not at every method as well.
            return tree
        common = {key: getattr(shared, key) for key in shared.model_fields_set}
        blocks = {name: tree.get(name, {}) for name in (*WITH_SHARED, *WITH_PRIVATE_SHARED)}
        merged = {
            name: {**{key: value for key, value in common.items() if key in shared_keys(name)}, **block}
            for name, block in blocks.items()
            if isinstance(block, dict)
        }
        return {**tree, **merged}


def shared_keys(method: str) -> frozenset[str]:
    """Return the keys of `methods.shared` that a method has as well.

    None of a method that is not federated.
    """
    if method in WITH_SHARED:
        return frozenset(Federated.model_fields)
    return frozenset(PrivateTraining.model_fields if method in WITH_PRIVATE_SHARED else ())
