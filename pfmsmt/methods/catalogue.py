"""All methods by name: facts about each, and how each is built.

Whoever needs to know something about a method asks `method_facts`. What is answered stands in the method's declaration,
in its own file.
"""

import functools
from typing import Any

from pfmsmt.config import FirstOrderTraining, Methods, Privacy, Train
from pfmsmt.core.types import Template
from pfmsmt.methods import FirstOrderLearning, LocalTrain, Method
from pfmsmt.methods.declaration import Declaration, MethodFacts, Setup
from pfmsmt.methods.discovery import find_methods
from pfmsmt.methods.half_precision import half_precision
from pfmsmt.methods.noise import Entropy, noised, seeded


def declaration_of(name: str) -> Declaration:
    """Return the declaration of a method.

    Raises:
        ValueError: no method of that name, or one that cannot be used.
    """
    found = find_methods()
    if name in found.broken:
        raise ValueError(f"method {name!r} cannot be used: {found.broken[name]}")
    if name not in found.methods:
        raise ValueError(f"no method {name!r}; there are {', '.join(found.methods)}")
    return found.methods[name]


def method_facts(name: str, methods: Methods) -> MethodFacts:
    """Return the facts about a method with these settings.

    Raises:
        ValueError: no method of that name.
    """
    declared = declaration_of(name)
    facts = declared.facts(_block(declared, methods))
    return facts._replace(deployable=declared.deployable)


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
    declared = declaration_of(name)
    block = _block(declared, methods)
    if isinstance(block, FirstOrderTraining):
        first_order = FirstOrderLearning(block.first_order_rate, block.ridge, block.private_ridge)
        local_train = functools.partial(local_train, first_order=first_order)
    return declared.build(block, Setup(local_train, template, budget or Train()))


def _block(declared: Declaration, methods: Methods) -> Any:
    """Return a method's block as its own file defines it."""
    block = getattr(methods, declared.name)
    if type(block) is declared.block:
        return block
    # That of another package also says which one.
    return declared.block.model_validate(block.model_dump(include={*declared.block.model_fields}))


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
