"""The declaration of a method.

It is all that the rest of the package knows of the method, and stands in the method's own file. Settings, catalogue,
pages, searches and the tests of the contract derive from it. `pfmsmt.methods.discovery` finds it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from pfmsmt.config.blocks import FirstOrderTraining, ServerOptimizer
from pfmsmt.config.kinds import Frozen, Parameter
from pfmsmt.core.types import Role, Template
from pfmsmt.methods import LocalTrain, Method


class RoundBudget(Protocol):
    """The part of the block `train` that a method may ask for."""

    @property
    def local_steps(self) -> int:
        """Optimiser steps of each client in a round."""
        ...

    def rate_share(self, round: int) -> float:
        """Return the share of learning rates that a round takes."""
        ...


class Setup(NamedTuple):
    """The things that a method is built with, beside its block."""

    local_train: LocalTrain
    """With the first-order path's settings in it, where the block has them."""
    template: Template
    """Roles of all tensors."""
    budget: RoundBudget


class MethodFacts(NamedTuple):
    """Facts about one method.

    They decide how a run is set up, and what the tests of the contract expect.
    """

    shared: frozenset[Role]
    """Roles of all tensors in its messages; all others stay with their client"""
    serves: Literal["shared", "mixed", "own"] = "shared"
    """The shared roles of a served model: what all clients got alike, that mixed with a client's own, or its own"""
    keeps: Literal["rest", "all"] = "rest"
    """The roles in a client's state between rounds: those that are not shared, or all"""
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


class Declaration(NamedTuple):
    """One method: its name, its block, and how it is built."""

    name: str
    """Of the method, of its block `methods.<name>` and of its runs; lower case"""
    block: type[Frozen]
    """Model of the block, a default and a meaning for each key.

    One that derives from `Federated` also takes what `methods.shared` has; one from `PrivateTraining` takes of that
    what is about private parameters.
    """
    meaning: str
    """One sentence for the page of settings"""
    build: Callable[[Any, Setup], Method]
    """(block, setup) -> the method, under its name"""
    facts: Callable[[Any], MethodFacts]
    """block -> facts; `deployable` is filled in from below"""
    deployable: bool = True
    """Scenarios could train it, so its models may be registered; false: a reference"""
    search: Mapping[str, Parameter] = {}
    """key of the block -> values worth trying"""


def log_range(low: float, high: float) -> Parameter:
    """Return the search of a number that is drawn by its logarithm."""
    return Parameter(type="float", low=low, high=high, log=True)


def choice(*values: Any) -> Parameter:
    """Return the search among these values."""
    return Parameter(type="categorical", choices=values)


SERVER_SEARCH = {"server_learning_rate": log_range(0.005, 0.05), "server_weight_decay": log_range(0.03, 3.0)}
"""The search of federated parameters' training, where the server has an optimiser."""
PRIVATE_SEARCH = {"private_learning_rate": log_range(0.003, 0.03), "private_weight_decay": log_range(0.3, 10.0)}
"""The search of private parameters' training at clients."""
RIDGE_SEARCH = {"ridge": log_range(2.0, 60.0), "private_ridge": log_range(20.0, 500.0)}
"""The search of the first-order path's training; where nothing is shared, one of both says all."""


def own_settings(block: Frozen) -> dict[str, Any]:
    """Return the settings that are a method's own.

    Those of the server's optimiser and of the first-order path are left out.
    """
    return block.model_dump(exclude={*ServerOptimizer.model_fields, *FirstOrderTraining.model_fields})


def faults_of(declaration: Any) -> list[str]:
    """Say in words what a declaration lacks; nothing where it is whole."""
    if not isinstance(declaration, Declaration):
        kind = type(declaration).__name__
        return [f"it is a {kind}, not a pfmsmt.methods.declaration.Declaration"]
    faults = []
    name, block = declaration.name, declaration.block
    if not (name.isascii() and name.isidentifier() and name == name.lower()) or name == "shared":
        faults.append(f"{name!r} cannot be its name: use lower case letters, digits and _, and not `shared`")
    if not (isinstance(block, type) and issubclass(block, Frozen)):
        return [*faults, "its block is no class that derives from pfmsmt.config.kinds.Frozen"]
    for key, field in block.model_fields.items():
        if field.is_required():
            faults.append(f"the key {key} of its block has no default; give it one, as params.yaml may be silent")
        if not field.description:
            faults.append(f"the key {key} of its block has no description; say what it means in a sentence")
    if PACKAGE_KEY in block.model_fields:
        faults.append(f"its block has a key {PACKAGE_KEY}, which is kept for the package that a method is from")
    for key in declaration.search.keys() - block.model_fields.keys():
        faults.append(f"its search names {key}, which is no key of its block")
    if not declaration.meaning.strip():
        faults.append("its meaning is empty; say in a sentence what it does")
    return faults


PACKAGE_KEY = "package"
"""Key of a block from another package: distribution and version."""
