"""FedHCA2: clients keep their own updates, and add learned shares of others'.

Lu et al. 2024, "FedHCA2: Towards hetero-client federated multi-task learning" (CVPR). D_k is what client k's parameters
moved by in a round, W_k what they were before.

    encoder, all clients       g    =  argmax_g min_k <D_k, g>,  |g - m| <= c |m|,  m = mean of the D_k;  / (1 + c^2)
                               W_k <-  W_k + D_k + alpha_k g
    decoders, all clients'     G_i  =  sum_j softmax_j(<D_i, D_j> / sqrt(d)) D_j,  layer by layer, of d numbers each
    and all tasks' alike       W_i <-  W_i + D_i + beta_i G_i,  one beta for each layer of each decoder
    both weights               a   <-  clip(a + rate v, 0, 1),  v <- momentum v + <D_k of the next round, G>

As minus the next round's D_k is the slope of client k's loss along its parameters, minus <D_k, G> is the slope along
the weight with which G was added. Nobody's parameters are mixed in, and every client counts the same, whatever its
rows.

Here the encoder is all that leaves but towers: experts and federated tables. The decoders are the towers; one attends
to those whose layer has the same shape. Gates, which the paper's models have not, stay, and so does BatchNorm.

Of the authors' released code are c, the start of alpha and beta (both 0.1) and the momentum. Departures: it takes a
layer's weight and bias apart in the attention; it clips a weight where it is used, here it stays clipped; its decay of
the weights (0.0001) is left out, and so is its averaging of clients that have the same data set and tasks, as no two
scenarios have. Its rate of 0.01 is for other updates: <D_k, G> grows with their length and number, so the rate is tuned
here. Local training is what it is for all methods: SGD on what leaves.

Legend: S clients that answered, K towers' layers of one shape, P and d numbers of an update.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pfmsmt.config.blocks import PrivateTraining
from pfmsmt.config.kinds import Fraction, NonNegative, Positive
from pfmsmt.core import arrays
from pfmsmt.core.types import NEVER_LEAVES, NamedArrays, Role, Stream, Template
from pfmsmt.methods import ClientState, LocalTrain, Method, Phase, ServerState, ServerUpdate, Upload
from pfmsmt.methods.coordination import Coordination, conflict_averse
from pfmsmt.methods.declaration import (
    PRIVATE_SEARCH,
    RIDGE_SEARCH,
    Declaration,
    MethodFacts,
    Setup,
    log_range,
    own_settings,
)

_ENCODER = frozenset(Role) - NEVER_LEAVES - {Role.NORM, Role.GATE, Role.TOWER}
_SENT = _ENCODER | {Role.TOWER}
_WHOLE_ENCODER = "encoder"
_MOMENTUM = 0.9


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


def fedhca2(
    local_train: LocalTrain,
    template: Template,
    *,
    learning_rate: float,
    private_learning_rate: float,
    private_weight_decay: float,
    conflict: float,
    alpha: float,
    beta: float,
    hyper_rate: float,
) -> Method:
    """Build FedHCA2.

    alpha and beta are the weights at the start, `conflict` is c, and `hyper_rate` that of both weights' steps.
    """
    private = frozenset(Role) - _SENT

    def init(parameters: NamedArrays, clients: tuple[str, ...]) -> ServerState:
        sent = arrays.select(parameters, template, _SENT)
        weights = {unit: np.array(alpha if unit == _WHOLE_ENCODER else beta) for unit in _units(sent, template)}
        return {
            "clients": {k: dict(sent) for k in sorted(clients)},
            # What each client's weights were put before when it answered last; nothing before that.
            "added": {k: {n: np.zeros_like(a) for n, a in sent.items()} for k in sorted(clients)},
            "weights": {k: dict(weights) for k in sorted(clients)},
            "velocities": {k: {unit: np.zeros(()) for unit in weights} for k in sorted(clients)},
        }

    def init_client(parameters: NamedArrays) -> ClientState:
        return ClientState(arrays.select(parameters, template, private), {})

    def broadcast(server: ServerState, client: str) -> NamedArrays:
        return dict(server["clients"][client])

    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        result = local_train(
            arrays.merge(state.private, received), state.optimizer, data, stream,
            federated=_SENT, learning_rate=learning_rate, private_learning_rate=private_learning_rate,
            private_weight_decay=private_weight_decay,
        )  # fmt: skip
        upload = Upload(arrays.select(result.parameters, template, _SENT), result.examples, result.loss)
        return upload, ClientState(arrays.select(result.parameters, template, private), result.optimizer)

    def server_update(server: ServerState, uploads: Mapping[str, Upload]) -> ServerUpdate:
        new: dict[str, Any] = {key: dict(part) for key, part in server.items()}
        moved = {k: arrays.subtract(uploads[k].arrays, server["clients"][k]) for k in sorted(uploads)}
        units = _units(next(iter(moved.values())), template)
        added, converged = _common_update(moved, units[_WHOLE_ENCODER], conflict)
        for k, parts in _attended(moved, units).items():
            added[k].update(parts)
        metrics = {"encoder_solver_fallbacks": float(not converged)}
        for k, update in moved.items():
            # The weights first: what they were learned from is the last step, and they are used for this one.
            weights, velocities = server["weights"][k], server["velocities"][k]
            progress = {unit: _along(update, server["added"][k], names) for unit, names in units.items()}
            learned = {unit: learn(weights[unit], velocities[unit], progress[unit], hyper_rate) for unit in units}
            new["weights"][k] = {unit: weight for unit, (weight, _) in learned.items()}
            new["velocities"][k] = {unit: velocity for unit, (_, velocity) in learned.items()}
            new["added"][k] = added[k]
            new["clients"][k] = {
                n: uploads[k].arrays[n] + added[k][n].dtype.type(new["weights"][k][unit]) * added[k][n]
                for unit, names in units.items()
                for n in names
            }
            of_towers = [float(weight) for unit, weight in new["weights"][k].items() if unit != _WHOLE_ENCODER]
            metrics[f"{k}/alpha"] = float(new["weights"][k][_WHOLE_ENCODER])
            metrics[f"{k}/beta"] = float(np.mean(of_towers))
        return ServerUpdate(new, metrics)

    def personalise(received: NamedArrays, state: ClientState) -> NamedArrays:
        return arrays.merge(state.private, received)

    phase = Phase("round", broadcast, client_update, server_update, uploads=_SENT)
    return Method("fedhca2", init, init_client, (phase,), broadcast, personalise)


def _build(block: FedHca2, setup: Setup) -> Method:
    return fedhca2(setup.local_train, setup.template, **own_settings(block))


FEDHCA2 = Declaration(
    "fedhca2",
    FedHca2,
    "Own updates, and learned shares of a conflict-averse one and of other towers.",
    _build,
    lambda _: MethodFacts(_SENT, serves="own"),
    search={
        "hyper_rate": log_range(0.01, 1000.0),
        "learning_rate": log_range(0.1, 5.0),
        **PRIVATE_SEARCH,
        **RIDGE_SEARCH,
    },
)


def _units(sent: NamedArrays, template: Template) -> dict[str, list[str]]:
    """Return the names that share a weight.

    Those of the encoder do, and those of each layer of each tower.
    """
    units: dict[str, list[str]] = {}
    for name in sorted(sent):
        tower = template[name].role is Role.TOWER
        # A layer's tensors differ in the last word of their names: weight, bias.
        units.setdefault(name.rpartition(".")[0] if tower else _WHOLE_ENCODER, []).append(name)
    return units


def _common_update(
    moved: Mapping[str, NamedArrays], names: list[str], conflict: float
) -> tuple[dict[str, dict[str, NDArray[Any]]], bool]:
    """Return g for every client, and whether the dual was solved."""
    encoders = {k: {n: update[n] for n in names} for k, update in moved.items()}
    rows = np.stack([arrays.flatten(part) for part in encoders.values()])
    found = plain_coordination(rows, conflict)
    common = found.coefficients.astype(rows.dtype) @ rows
    return {k: arrays.unflatten(common, part) for k, part in encoders.items()}, found.converged


def _attended(moved: Mapping[str, NamedArrays], units: Mapping[str, list[str]]) -> dict[str, dict[str, NDArray[Any]]]:
    """Return what attention between towers gives each of their layers.

    It is between layers of the same place in a tower, and of the same shape.
    """
    alike: dict[Any, list[tuple[str, list[str]]]] = {}
    for k, update in moved.items():
        for unit, names in units.items():
            if unit != _WHOLE_ENCODER:
                # The place within its tower, which has two words in front: tower/ctr/layers.0.
                kind = (unit.split("/", 2)[-1], tuple(update[n].shape for n in names))
                alike.setdefault(kind, []).append((k, names))
    heard: dict[str, dict[str, NDArray[Any]]] = {k: {} for k in moved}
    for layers in alike.values():
        parts = [{n: moved[k][n] for n in names} for k, names in layers]
        rows = np.stack([arrays.flatten(part) for part in parts])
        for (k, _), part, row in zip(layers, parts, attend(rows), strict=True):
            heard[k].update(arrays.unflatten(row, part))
    return heard


def plain_coordination(rows: NDArray[Any], conflict: float) -> Coordination:
    """Return the coefficients [K] of g for updates [K, P].

    CAGrad around the uniform mean, in a single round's own inner products, divided by 1 + c^2.
    """
    uniform = np.full(len(rows), 1 / len(rows))
    return conflict_averse(arrays.products(rows, rows), uniform, conflict, scale=1 + conflict**2)


def attend(rows: NDArray[Any]) -> NDArray[Any]:
    """Return softmax(R R' / sqrt(d)) R for rows R [K, d]."""
    logits = arrays.products(rows, rows) / math.sqrt(rows.shape[1])
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray((weights / weights.sum(axis=1, keepdims=True)).astype(rows.dtype) @ rows)


def _along(update: NamedArrays, added: NamedArrays, names: list[str]) -> float:
    """Return <D, G> of the arrays of these names."""
    return sum(float(np.sum(update[n] * added[n], dtype=np.float64)) for n in names)


def learn(
    weights: NDArray[np.float64], velocities: NDArray[np.float64], progress: NDArray[np.float64] | float, rate: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights and their velocities after a step of SGD."""
    moved = _MOMENTUM * velocities + progress
    return np.asarray(np.clip(weights + rate * moved, 0.0, 1.0)), np.asarray(moved)
