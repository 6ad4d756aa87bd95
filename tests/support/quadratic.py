"""Closed-form clients: client k minimises 1/2 |theta - target_k|^2 over numpy arrays, by plain gradient steps."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pfmsmt.config import METHOD_NAMES, Methods, load_config
from pfmsmt.config.methods import WITH_SHARED
from pfmsmt.core.types import ANCHOR, NamedArrays, Role, Slot, Stream, Template
from pfmsmt.methods import Blend, ClientState, FirstOrderLearning, LocalResult, Method, Upload
from pfmsmt.methods.catalogue import build_method, declaration_of

PARAMS = Path(__file__).parents[2] / "params.yaml"

SHAPES: dict[str, tuple[Slot, tuple[int, ...]]] = {
    "expert/0/layers.0.weight": (Slot(Role.EXPERT, "expert/0"), (3, 2)),
    "expert/0/layers.1.weight": (Slot(Role.EXPERT, "expert/0"), (2, 2)),
    "expert/1/layers.0.weight": (Slot(Role.EXPERT, "expert/1"), (3, 2)),
    "tower/ctr/layers.0.weight": (Slot(Role.TOWER, "tower/ctr"), (2, 1)),
    "tower/ctr/layers.0.bias": (Slot(Role.TOWER, "tower/ctr"), (1, 1)),
    "tower/ctcvr/layers.0.weight": (Slot(Role.TOWER, "tower/ctcvr"), (2, 1)),
    "gate/ctr/linear.weight": (Slot(Role.GATE, "gate/ctr"), (3, 2)),
    "gate/ctcvr/linear.weight": (Slot(Role.GATE, "gate/ctcvr"), (3, 2)),
    "task/layers.0.adapter_up": (Slot(Role.TASK, "task"), (2, 2)),
    "embedding/table": (Slot(Role.EMBEDDING, "embedding"), (4, 2)),
    "norm/layers.0.norm_mean": (Slot(Role.NORM, "norm"), (2,)),
    "norm/layers.0.norm_variance": (Slot(Role.NORM, "norm"), (2,)),
    "private/table": (Slot(Role.PRIVATE, "private"), (5, 2)),
    "first_order/shared_table": (Slot(Role.FIRST_ORDER, "first_order"), (2, 4, 2)),
}
TEMPLATE: Template = {name: slot for name, (slot, _) in SHAPES.items()}
TASK_SHARES = {"ctr": 0.75, "ctcvr": 0.25}
EVERY_METHOD = METHOD_NAMES
REFERENCES = tuple(name for name in METHOD_NAMES if not declaration_of(name).deployable)
"""Their server is always Adam, with a step for each of their clients'."""
WITHOUT_TASK: Template = {name: slot for name, slot in TEMPLATE.items() if slot.role is not Role.TASK}


class Quadratic(NamedTuple):
    """One client's data."""

    target: NamedArrays
    examples: int


def role_of(name: str) -> Role:
    """Return the role of an array in a message: an anchor has that of what it is the anchor of."""
    return TEMPLATE[name.removeprefix(ANCHOR)].role


def values(seed: int, template: Template = TEMPLATE, dtype: type = np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn = {name: rng.normal(size=shape).astype(dtype) for name, (_, shape) in SHAPES.items()}
    return locked({name: array for name, array in drawn.items() if name in template})


def federation(count: int = 3, template: Template = TEMPLATE, dtype: type = np.float64) -> dict[str, Quadratic]:
    names = ("ES", "FR", "NL", "US")[:count]
    return {k: Quadratic(values(100 + i, template, dtype), 10 * (i + 1)) for i, k in enumerate(names)}


def quadratic_train(
    parameters: NamedArrays,
    optimizer: NamedArrays,
    data: Quadratic,
    stream: Stream,
    *,
    federated: Collection[Role],
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float = 0.0,
    frozen: Collection[Role] = (),
    anchor: NamedArrays | None = None,
    regularizer: float = 0.0,
    steps: int | None = None,
    part: tuple[float, float] = (0.0, 1.0),
    round_steps: int | None = None,
    by_task: Collection[Role] = (),
    blend: Blend | None = None,
    first_order: FirstOrderLearning | None = None,
) -> LocalResult:
    """3 steps of gradient descent, unless told otherwise; `optimizer` counts all steps so far.

    TASK_SHARES says how much of a movement each task made.
    """
    assert parameters.keys() == data.target.keys(), sorted(parameters.keys() ^ data.target.keys())
    begin, end = (round(share * (round_steps or 3)) for share in part)
    steps = end - begin if steps is None else steps
    if blend is not None:
        return _blended(parameters, optimizer, data, blend, private_learning_rate, private_weight_decay, steps)
    new = {}
    for name, start in parameters.items():
        role = SHAPES[name][0].role
        theta = start.copy()
        rate = theta.dtype.type(learning_rate if role in federated else private_learning_rate)
        kept = theta.dtype.type(1.0 if role in federated else 1.0 - private_learning_rate * private_weight_decay)
        for _ in range(0 if role in frozen else steps):
            slope = theta - data.target[name]
            if anchor is not None and name in anchor:
                slope = slope + theta.dtype.type(regularizer) * (theta - anchor[name])
            theta = kept * theta - rate * slope
        new[name] = theta
    loss = sum(0.5 * float(np.sum((parameters[n] - data.target[n]) ** 2)) for n in new)
    count = np.asarray(optimizer.get("count", np.zeros(())) + steps)
    moved = {name: new[name] - start for name, start in parameters.items() if SHAPES[name][0].role in by_task}
    told = {task: {name: share * array for name, array in moved.items()} for task, share in TASK_SHARES.items()}
    return LocalResult(locked(new), locked({"count": count}), loss, data.examples, locked(told) if moved else {})


def _blended(
    parameters: NamedArrays,
    optimizer: NamedArrays,
    data: Quadratic,
    blend: Blend,
    rate: float,
    decay: float,
    steps: int,
) -> LocalResult:
    """The same for a theta + (1 - a) other where `other` has the array; a takes steps along its own gradient."""
    new, a = dict(parameters), blend.weight
    for _ in range(steps):
        slope = 0.0
        for name, theta in new.items():
            kind = theta.dtype.type
            own = kind(a if name in blend.other else 1.0)
            mixed = own * theta + (kind(1) - own) * blend.other.get(name, theta)
            gradient = mixed - data.target[name]
            slope += float(np.sum((theta - blend.other.get(name, theta)) * gradient))
            new[name] = kind(1 - rate * decay) * theta - kind(rate) * own * gradient
        a = min(max(a - blend.rate * slope, 0.0), 1.0)
    count = np.asarray(optimizer.get("count", np.zeros(())) + steps)
    return LocalResult(locked(new), locked({"count": count}), 0.0, data.examples, {}, a)


class Outcome(NamedTuple):
    """Where a run of rounds arrived."""

    served: dict[str, NamedArrays]
    server: Mapping[str, Any]
    states: dict[str, ClientState]
    sent: list[tuple[str, str, frozenset[str]]]
    """(phase, direction, names)"""
    metrics: list[Mapping[str, float]]
    diagnostics: list[Mapping[str, Mapping[str, np.ndarray]]]


def run(
    method: Method,
    start: NamedArrays,
    data: Mapping[str, Quadratic],
    *,
    rounds: int = 3,
    order: Sequence[str] | None = None,
    absent: Collection[tuple[int, int, str]] = (),
) -> Outcome:
    """Run rounds; `order` is the order in which answers reach the server, `absent` holds (round, phase, client)."""
    order = list(data) if order is None else list(order)
    server = locked(method.init(start, tuple(order)))
    states = {k: locked(method.init_client(start)) for k in order}
    sent, metrics, diagnostics = [], [], []
    for number in range(1, rounds + 1):
        for index, phase in enumerate(method.phases):
            uploads: dict[str, Upload] = {}
            for k in order:
                if (number, index, k) in absent:
                    continue
                received = locked(phase.broadcast(server, k))
                sent.append((phase.name, "down", frozenset(received)))
                upload, states[k] = locked(
                    phase.client_update(received, states[k], data[k], Stream(0, k, number, index))
                )
                sent.append((phase.name, "up", frozenset(upload.arrays)))
                uploads[k] = upload
            update = phase.server_update(server, uploads)
            server = locked(update.server)
            metrics.append(update.metrics)
            diagnostics.append(update.diagnostics)
    served = {k: method.personalise(locked(method.broadcast(server, k)), states[k]) for k in sorted(data)}
    return Outcome(served, server, states, sent, metrics, diagnostics)


def locked(value: Any) -> Any:
    """Make every array in a tree read-only: whoever writes to it raises."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif isinstance(value, Mapping):
        for part in value.values():
            locked(part)
    elif isinstance(value, tuple):
        for part in value:
            locked(part)
    return value


def same(first: Any, second: Any) -> bool:
    """Equal, bit for bit, down to every array of a tree."""
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


def assert_close(first: NamedArrays, second: NamedArrays, atol: float = 1e-12) -> None:
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=atol, err_msg=name)


def blocks(**changes: Mapping[str, Any]) -> Methods:
    """The methods' blocks of params.yaml, with some values replaced: blocks(fedavg={"learning_rate": 0.1}).

    Without decay, and with all of PF-MSMTrec's parts, whatever the defaults are tuned to.
    """
    tree = load_config(PARAMS).methods.model_dump()
    for block in tree.values():
        block.update({key: 0.0 for key in block if key.endswith("weight_decay")})
    tree["pf_msmtrec"] |= {"gate": "federated", "federated_batch_norm": True, "tower_steps": 4}
    # These losses have the curvature 1: no rate of 2 or more can learn them.
    tree["pf_msmtrec_paper"] |= {"learning_rate": 0.5}
    for name, values_ in changes.items():
        # Of an unknown name the message lists those that there are.
        tree[declaration_of(name).name] |= values_
    return Methods.model_validate(tree)


def build(name: str, template: Template = TEMPLATE, **changes: Any) -> Method:
    """A method over quadratic clients, from its block of params.yaml with some values replaced."""
    return build_method(name, blocks(**{name: changes}), quadratic_train, template)


PLAIN = {"server_optimizer": "plain", "server_learning_rate": 1.0, "server_weight_decay": 0.0}
RATES = {"learning_rate": 0.1, "private_learning_rate": 0.1}
TRAINING_ALONE = {
    **{name: {**PLAIN, **RATES} for name in WITH_SHARED},
    "fedamp": {"private_learning_rate": 0.1, "regularizer": 0.0},
    "fedhca2": {**RATES, "alpha": 0.0, "beta": 0.0, "hyper_rate": 0.0},
    "pf_msmtrec_paper": {**RATES, "alpha": 0.0, "learned_rate": 1e-300, "regularizer": 0.0, "tower_steps": 0},
    "local": {"learning_rate": 0.1},
    "linear": {"learning_rate": 0.1},
}
"""Values with which one client, whatever the method, takes local steps at rate 0.1 and serves what they give."""
TRAINING_ALONE["pf_msmtrec"] |= {"regularizer": 0.0, "tower_steps": 0, "conflict": 0.0}
TRAINING_ALONE["ditto"] |= {"regularizer": 0.0}
TRAINING_ALONE["fedprox"] |= {"regularizer": 0.0}
TRAINING_ALONE["fedavg_finetune"] |= {"finetune_steps": 3, "finetune_rate": 0.1}
TRAINING_ALONE["apfl"] |= {"alpha": 1.0, "alpha_rate": 0.0}
EVERYTHING_OFF = {
    **PLAIN, **RATES, "rank": 0, "private_experts": 0, "federated_batch_norm": False, "conflict": 0.0,
    "linear_experts": 1, "aggregation": "uniform", "coupling": 0.0,
    "gate": "federated", "tower_steps": 0, "regularizer": 0.0,
}  # fmt: skip
