"""Facts about methods, and the toy method of the interface's docstring."""

import doctest
from typing import get_args

import pytest

import pfmsmt.methods
from pfmsmt.config import Deployable, MethodName, Train, load_config
from pfmsmt.core.types import NEVER_LEAVES, Role
from pfmsmt.methods.averaging import SHARED
from pfmsmt.methods.catalogue import build_method, method_facts
from pfmsmt.methods.fedavg_finetune import FedAvgFinetune
from tests.support.quadratic import PARAMS, REFERENCES, quadratic_train

COMMON = {
    "fedavg": set(Role) - NEVER_LEAVES,
    "fedprox": set(Role) - NEVER_LEAVES,
    "fedbn": set(Role) - NEVER_LEAVES - {Role.NORM},
    "fedper": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER, Role.NORM},
    "fedrep": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER, Role.NORM},
    "joint": set(Role) - NEVER_LEAVES - {Role.NORM, Role.GATE},
    "centralized": {Role.EXPERT, Role.EMBEDDING, Role.FIRST_ORDER},
    "local": set(),
    "linear": set(),
}
SERVES = {
    **dict.fromkeys(COMMON, "shared"),
    "apfl": "mixed",
    **dict.fromkeys(("ditto", "fedavg_finetune", "fedamp", "fedhca2", "pf_msmtrec", "pf_msmtrec_paper"), "own"),
}


def test_facts_about_the_methods():
    """Two are references, so all others can be deployed; phases are those of the method that is built."""
    methods = load_config(PARAMS).methods
    facts = {name: method_facts(name, methods) for name in get_args(MethodName)}
    assert [name for name, found in facts.items() if not found.deployable and name in SERVES] == [
        "joint",
        "centralized",
    ]
    assert {name for name, found in facts.items() if found.deployable} == set(get_args(Deployable))
    two = [name for name, found in facts.items() if found.two_models]
    assert [name for name in two if name in SERVES] == ["ditto", "fedavg_finetune", "apfl"]
    assert {name: facts[name].serves for name in SERVES} == SERVES
    # The roles that all clients serve alike, or mixed with their own, whoever took part.
    assert {name: facts[name].shared for name in COMMON} == COMMON
    for steps in (0, 2):
        own = methods.model_copy(update={"pf_msmtrec": methods.pf_msmtrec.model_copy(update={"tower_steps": steps})})
        for name in facts:
            # The exchanges of a reference have one order of rows, and so count as one.
            phases = len(build_method(name, own, quadratic_train, {}, Train(local_steps=5)).phases)
            assert (method_facts(name, own).phases, phases) == ((1, 5) if name in REFERENCES else (phases, phases))
    off = methods.model_copy(update={"fedavg_finetune": FedAvgFinetune(finetune_steps=0)})
    assert not method_facts("fedavg_finetune", off).two_models
    with pytest.raises(ValueError, match="no method 'fedsgd'"):
        method_facts("fedsgd", methods)


def test_no_averaging_method_shares_what_never_leaves():
    assert all(not shared & NEVER_LEAVES for shared in SHARED.values())


def test_the_toy_method_of_the_docstring_runs_as_it_says():
    outcome = doctest.testmod(pfmsmt.methods, raise_on_error=True)
    assert outcome.attempted > 10
