"""All methods by name: facts about each, and how each is built.

The one module that knows methods by their names. Whoever needs to know something about a method asks `method_facts`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pfmsmt.config import (
    METHOD_NAMES,
    Architecture,
    FedAmp,
    FedAvgFinetune,
    Federated,
    FedHca2,
    FirstOrderTraining,
    Linear,
    Methods,
    PfMsmtrecPaper,
    PfMsmtrecParts,
    PlainLearning,
    PooledGradients,
    Privacy,
    ServerOptimizer,
    Train,
)
from pfmsmt.core.types import Template
from pfmsmt.methods import FirstOrderLearning, LocalTrain, Method
from pfmsmt.methods.apfl import apfl
from pfmsmt.methods.attention import AttentionRule
from pfmsmt.methods.averaging import averaging
from pfmsmt.methods.directions import Directions
from pfmsmt.methods.ditto import ditto
from pfmsmt.methods.fedamp import fedamp
from pfmsmt.methods.fedavg_finetune import fedavg_finetune
from pfmsmt.methods.fedhca2 import fedhca2
from pfmsmt.methods.fedrep import fedrep
from pfmsmt.methods.half_precision import half_precision
from pfmsmt.methods.noise import Entropy, noised, seeded
from pfmsmt.methods.personalised_step import PersonalisedStep
from pfmsmt.methods.pf_msmtrec import pf_msmtrec, shared_roles
from pfmsmt.methods.pooled_gradients import CENTRALIZED, DecayingStep, pooled_gradients
from pfmsmt.methods.server_optimizer import PLAIN_STEP, FedOpt

# What PF-MSMTrec's clients do with their block; the rest of it is the server's step.
_CLIENT_SIDE = frozenset(
    {
        "federated_batch_norm", "gate", "coordinate", "tower_steps", "regularizer", "anchor",
        "learning_rate", "private_learning_rate", "private_weight_decay",
    }
)  # fmt: skip

_FIRST_ORDER = set(FirstOrderTraining.model_fields)
"""Keys of the first-order path's training, which is the same in all methods."""
_BESIDE_AVERAGING: Mapping[str, Callable[..., Method]] = {
    "ditto": ditto,
    "fedrep": fedrep,
    "fedavg_finetune": fedavg_finetune,
    "apfl": apfl,
}
"""Methods of a file of their own whose server takes FedAvg's step; all keys of their blocks are their settings."""
_Block = Federated | PfMsmtrecPaper | FedAmp | FedHca2 | PlainLearning | Linear | PooledGradients


class MethodFacts(NamedTuple):
    """Facts about one method that decide how a run is set up."""

    deployable: bool = True
    """Scenarios could train it; references exchange gradients at every step."""
    two_models: bool = False
    """Its clients train two models, with private tables of their own."""
    phases: int = 1
    """Exchanges in a round that have an order of rows each; a reference's have one in common."""
    rank: int = 0
    """Rank of the task-specific adapters in the experts; 0: none."""
    private_experts: int = 0
    """Experts of each task that stay with their client; 0: none."""
    scenario_rank: int = 0
    """Rank of the scenario's own part of the experts; 0: none."""
    linear_experts: int = 1
    """Linear models that clients share in the first-order path, beside their own; 0: none."""
    linear_alone: bool = False
    """Its models are the first-order path, without experts."""

    @property
    def model_parts(self) -> dict[str, int]:
        """Parts of the models that the method decides, named as in `ModelSpec`."""
        if self.linear_alone:
            return {"experts": 0, "first_order": True, "linear_experts": 0}
        return {
            "rank": self.rank,
            "private_experts": self.private_experts,
            "scenario_rank": self.scenario_rank,
            "linear_experts": self.linear_experts,
        }


def method_facts(name: str, methods: Methods) -> MethodFacts:
    """Return the facts about a method with these settings.

    Raises:
        ValueError: no method of that name.
    """
    block = _block(name, methods)
    if isinstance(block, Architecture):
        return MethodFacts(
            deployable=not isinstance(block, PooledGradients),
            phases=2 if isinstance(block, PfMsmtrecParts) and block.tower_steps else 1,
            rank=block.rank,
            private_experts=block.private_experts,
            scenario_rank=block.scenario_rank,
            linear_experts=block.linear_experts,
        )
    if isinstance(block, PooledGradients):
        return MethodFacts(deployable=False)
    if isinstance(block, Linear):
        return MethodFacts(linear_alone=True)
    tuned = isinstance(block, FedAvgFinetune) and block.finetune_steps > 0
    return MethodFacts(two_models=tuned or name in ("ditto", "apfl"))


def build_method(
    name: str, methods: Methods, local_train: LocalTrain, template: Template, budget: Train | None = None
) -> Method:
    """Build a method from its block.

    Args:
        name: of the method.
        methods: all blocks.
        local_train: see `LocalTrain`.
        template: roles of all tensors.
        budget: the run's, by which references count their rounds; the default one if left out.

    Raises:
        ValueError: no method of that name.
    """
    block = _block(name, methods)
    if isinstance(block, Linear):
        first_order = FirstOrderLearning(block.learning_rate, 0.0, block.ridge)
        return averaging(
            name, functools.partial(local_train, first_order=first_order), template,
            learning_rate=block.learning_rate, private_learning_rate=block.learning_rate, private_weight_decay=0.0,
        )  # fmt: skip
    first_order = FirstOrderLearning(block.first_order_rate, block.ridge, block.private_ridge)
    local_train = functools.partial(local_train, first_order=first_order)
    if isinstance(block, PlainLearning):
        # Nothing is federated: both rates are the same Adam's.
        rate, decay = block.learning_rate, block.weight_decay
        return averaging(
            name, local_train, template,
            learning_rate=rate, private_learning_rate=rate, private_weight_decay=decay,
        )  # fmt: skip
    if isinstance(block, PooledGradients):
        return _reference(name, block, local_train, template, budget or Train())
    if isinstance(block, FedAmp):
        return fedamp(local_train, template, **block.model_dump(exclude=_FIRST_ORDER))
    if isinstance(block, FedHca2):
        return fedhca2(local_train, template, **block.model_dump(exclude=_FIRST_ORDER))
    if isinstance(block, PfMsmtrecPaper):
        return _pf_msmtrec(name, block, local_train, template, PLAIN_STEP)
    optimizer = FedOpt(
        block.server_optimizer,
        block.server_learning_rate,
        block.server_beta1,
        block.server_beta2,
        block.server_weight_decay,
    )
    if isinstance(block, PfMsmtrecParts):
        return _pf_msmtrec(name, block, local_train, template, optimizer)
    own = block.model_dump(exclude={*ServerOptimizer.model_fields, *_FIRST_ORDER})
    if name in _BESIDE_AVERAGING:
        return _BESIDE_AVERAGING[name](local_train, template, **own, optimizer=optimizer)
    return averaging(name, local_train, template, **own, optimizer=optimizer)


def _reference(name: str, block: PooledGradients, local_train: LocalTrain, template: Template, budget: Train) -> Method:
    shared = CENTRALIZED
    if isinstance(block, Architecture):
        shared = shared_roles(gate=block.gate, federated_batch_norm=block.federated_batch_norm)
    steps = block.steps or budget.local_steps
    # Adam as it is in central training: clients' private parts have it with the same memory.
    adam = FedOpt("adam", block.server_learning_rate, 0.9, 0.999, block.server_weight_decay)
    return pooled_gradients(
        name, local_train, template,
        shared, DecayingStep(adam, budget.rate_share, steps),
        steps=steps,
        private_learning_rate=block.private_learning_rate,
        private_weight_decay=block.private_weight_decay,
    )  # fmt: skip


def _pf_msmtrec(
    name: str, block: PfMsmtrecParts, local_train: LocalTrain, template: Template, optimizer: FedOpt
) -> Method:
    attention = AttentionRule(block.aggregation, block.temperature, block.learned_rate, block.alpha)
    directions = Directions(block.smoothing)
    step = PersonalisedStep(
        template, block.conflict, block.coupling, directions, attention, optimizer, block.coordinate_towers
    )
    return pf_msmtrec(local_train, template, step, name=name, **block.model_dump(include=set(_CLIENT_SIDE)))


def _block(name: str, methods: Methods) -> _Block:
    if name not in METHOD_NAMES:
        raise ValueError(f"no method {name!r}; there are {', '.join(METHOD_NAMES)}")
    block: _Block = getattr(methods, name)
    return block


def with_messages(method: Method, template: Template, privacy: Privacy, entropy: Entropy = seeded) -> Method:
    """Return the method with uploads clipped, noised and shortened.

    As `privacy` says; by default the method stays as it is.

    Args:
        method: as its own file builds it.
        template: roles of all tensors.
        privacy: `clip`, `noise` and `wire`.
        entropy: where noise comes from; at a site not from the seed, which the server knows.
    """
    if privacy.clip is not None:
        method = noised(method, clip=privacy.clip, noise=privacy.noise, entropy=entropy)
    # Last, as rounding noised numbers reveals nothing new.
    return half_precision(method, template) if privacy.wire == "float16" else method
