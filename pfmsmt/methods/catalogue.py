"""From a method's block of params.yaml to the method: the one place that knows all methods by name."""

from collections.abc import Callable

from pfmsmt.config import METHOD_NAMES, Federated, Methods, PfMsmtrec, PlainLearning, Privacy
from pfmsmt.config import ServerOptimizer as ServerOptimizerBlock
from pfmsmt.core.types import Template
from pfmsmt.methods import LocalTrain, Method
from pfmsmt.methods.attention import Listening
from pfmsmt.methods.centralized import centralized
from pfmsmt.methods.directions import Directions
from pfmsmt.methods.ditto import ditto
from pfmsmt.methods.fedavg import fedavg
from pfmsmt.methods.fedbn import fedbn
from pfmsmt.methods.fedper import fedper
from pfmsmt.methods.fedprox import fedprox
from pfmsmt.methods.half_precision import half_precision
from pfmsmt.methods.local import local
from pfmsmt.methods.noise import Entropy, noised, seeded
from pfmsmt.methods.personalised_step import PersonalisedStep
from pfmsmt.methods.pf_msmtrec import pf_msmtrec
from pfmsmt.methods.server_optimizer import ServerOptimizer

POOLED = frozenset({"centralized"})
"""Methods whose one client holds everybody's rows."""

TWO_MODELS = frozenset({"ditto"})
"""Methods whose clients train two models, with private tables of their own."""

FEDERATED: dict[str, Callable[..., Method]] = {
    "fedavg": fedavg, "fedprox": fedprox, "fedbn": fedbn, "fedper": fedper, "ditto": ditto,
}  # fmt: skip


LOCAL = ("learning_rate", "private_learning_rate", "private_weight_decay")
"""What every federated method says about local training."""


def expert_parts(name: str, methods: Methods) -> dict[str, int]:
    """Return what the method's models have beside shared experts: {rank, private_experts}; 0: none."""
    block = getattr(methods, name)
    parts = {"rank", "private_experts"}
    return block.model_dump(include=parts) if isinstance(block, PfMsmtrec) else dict.fromkeys(parts, 0)


def phases(name: str, methods: Methods) -> int:
    """Return how many phases a round of the method has."""
    block = getattr(methods, name)
    return 2 if isinstance(block, PfMsmtrec) and block.tower_steps else 1


def build_method(name: str, methods: Methods, local_train: LocalTrain, template: Template) -> Method:
    """Build a method from its block.

    Raises:
        ValueError: no method of that name.
    """
    block = getattr(methods, name, None)
    if isinstance(block, PfMsmtrec):
        listening = Listening(block.aggregation, block.temperature, block.learned_rate)
        step = PersonalisedStep(
            template, block.conflict, block.coupling, Directions(block.smoothing), listening, _optimizer(block)
        )
        client_side = ("federated_batch_norm", "gate", "coordinate", "tower_steps", "regularizer", *LOCAL)
        return pf_msmtrec(local_train, template, step, **block.model_dump(include=set(client_side)))
    if isinstance(block, Federated):
        own = block.model_dump(exclude=set(ServerOptimizerBlock.model_fields))
        return FEDERATED[name](local_train, template, **own, optimizer=_optimizer(block))
    if isinstance(block, PlainLearning):
        build = centralized if name in POOLED else local
        return build(local_train, template, **block.model_dump())
    raise ValueError(f"no method {name!r}; there are {', '.join(METHOD_NAMES)}")


def _optimizer(block: ServerOptimizerBlock) -> ServerOptimizer:
    return ServerOptimizer(
        block.server_optimizer,
        block.server_learning_rate,
        block.server_beta1,
        block.server_beta2,
        block.server_weight_decay,
    )


def with_messages(method: Method, template: Template, privacy: Privacy, entropy: Entropy = seeded) -> Method:
    """Return the method with uploads clipped, noised and shortened as `privacy` says; as it is by default.

    Args:
        method: as its own file builds it.
        template: roles of all tensors.
        privacy: `clip`, `noise` and `wire`.
        entropy: where noise comes from; at a site, which keeps it secret, not from the seed.
    """
    if privacy.clip is not None:
        method = noised(method, clip=privacy.clip, noise=privacy.noise, entropy=entropy)
    # Last, as rounding noised numbers tells nothing new.
    return half_precision(method, template) if privacy.wire == "float16" else method
