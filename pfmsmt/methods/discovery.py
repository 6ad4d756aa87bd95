"""Methods are found in this room, and in other packages.

A package beside this one declares a method in its pyproject.toml, and every process of the environment finds it:

    [project.entry-points."pfmsmt.methods"]
    fedavgm = "fedavgm:FEDAVGM"
"""

import functools
import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

import pfmsmt.methods
from pfmsmt.methods.declaration import Declaration, faults_of

GROUP = "pfmsmt.methods"
"""Group of the entry points."""
_CATALOGUE = "catalogue"
"""The module that builds methods needs all settings, which are made of declarations; it declares nothing."""
_FIRST = (
    "pf_msmtrec", "fedavg", "fedprox", "fedbn", "fedper", "ditto", "fedrep", "fedavg_finetune", "apfl", "fedamp",
    "fedhca2", "pf_msmtrec_paper", "local", "linear", "joint", "centralized",
)  # fmt: skip
"""The order in tables and pages; methods that are not in it follow by name."""


class FoundMethods(NamedTuple):
    """The methods of this environment."""

    methods: dict[str, Declaration]
    """name -> declaration: deployable ones first, then references"""
    packages: dict[str, str]
    """Name of a method of another package -> that distribution and its version"""
    broken: dict[str, str]
    """Name of a method that cannot be used -> why, and what to do"""


@functools.cache
def find_methods() -> FoundMethods:
    """Return all methods of this environment.

    A method of another package that cannot be used is in the way of nobody who does not name it.

    Raises:
        TypeError: a declaration of this room is not whole, or two have one name.
    """
    methods = _built_in()
    packages: dict[str, str] = {}
    broken: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else point.module
        found = _load(point, package)
        if point.name in methods:
            owner = packages.get(point.name, "pfmsmt")
            broken[point.name] = f"{owner} and {package} both have a method of this name; rename one or uninstall it"
        elif isinstance(found, str):
            broken[point.name] = found
        else:
            methods[point.name], packages[point.name] = found, package
    # A name that two packages claim belongs to neither.
    for name in broken.keys() & packages.keys():
        del methods[name], packages[name]
    ordered = sorted(methods.values(), key=lambda found: not found.deployable)
    return FoundMethods({found.name: found for found in ordered}, packages, broken)


def _built_in() -> dict[str, Declaration]:
    found: dict[str, tuple[Declaration, str]] = {}
    for module in pkgutil.iter_modules(pfmsmt.methods.__path__, f"{pfmsmt.methods.__name__}."):
        if module.name.endswith(f".{_CATALOGUE}"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if not isinstance(value, Declaration):
                continue
            if faults := faults_of(value):
                raise TypeError(f"{module.name}: the declaration of {value.name!r}: {'; '.join(faults)}")
            other, place = found.setdefault(value.name, (value, module.name))
            if other is not value:
                raise TypeError(f"{place} and {module.name} both declare a method {value.name!r}; rename one")
    rank = {name: number for number, name in enumerate(_FIRST)}
    names = sorted(found, key=lambda name: (rank.get(name, len(rank)), name))
    return {name: found[name][0] for name in names}


def _load(point: EntryPoint, package: str) -> Declaration | str:
    """Return the declaration at an entry point, or why there is none."""
    place = f"{point.value} of {package}"
    try:
        found = point.load()
    # Whatever the other package does when it is imported, it must not end ours.
    except Exception as error:
        circular = "partially initialized" in str(error)
        hint = (
            "a method's file must not import Config or the catalogue" if circular else "mend or uninstall that package"
        )
        return f"{place} cannot be imported: {type(error).__name__}: {error}; {hint}"
    faults = faults_of(found)
    if isinstance(found, Declaration) and found.name != point.name:
        faults.append(f"it is called {found.name!r}, and its entry point {point.name!r}; call both alike")
    return f"{place}: {'; '.join(faults)}" if faults else found
