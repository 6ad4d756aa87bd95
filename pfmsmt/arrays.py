"""Arithmetic on named arrays: add, subtract, combine, gram, select. No function changes its inputs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfmsmt.types import FloatArray, NamedArrays, Role, Template


def _float(array: NDArray[Any]) -> FloatArray:
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"expected floating-point arrays, found {array.dtype}")
    return array.view()


def _check_same_names(first: NamedArrays, second: NamedArrays) -> None:
    if first.keys() != second.keys():
        raise KeyError(f"names differ: {sorted(first.keys() ^ second.keys())}")


def add(first: NamedArrays, second: NamedArrays) -> dict[str, NDArray[Any]]:
    """Return first + second; KeyError where their names differ."""
    _check_same_names(first, second)
    return {name: _float(array) + _float(second[name]) for name, array in first.items()}


def subtract(first: NamedArrays, second: NamedArrays) -> dict[str, NDArray[Any]]:
    """Return first - second; KeyError where their names differ."""
    _check_same_names(first, second)
    return {name: _float(array) - _float(second[name]) for name, array in first.items()}


def combine(terms: Sequence[NamedArrays], coefficients: Sequence[float] | FloatArray) -> dict[str, NDArray[Any]]:
    """Return sum_i coefficients[i] * terms[i], summed in the order given, in the terms' own precision."""
    if len(terms) != len(coefficients) or not terms:
        raise ValueError(f"{len(terms)} terms but {len(coefficients)} coefficients")
    total = {name: _float(array) * array.dtype.type(coefficients[0]) for name, array in terms[0].items()}
    for term, coefficient in zip(terms[1:], coefficients[1:], strict=True):
        _check_same_names(total, term)
        for name, array in term.items():
            total[name] = total[name] + _float(array) * array.dtype.type(coefficient)
    return total


def gram(terms: Sequence[NamedArrays]) -> NDArray[np.float64]:
    """Return the inner products [S, S] of S sets of arrays, each flattened to one vector (float64)."""
    count = len(terms)
    total = np.zeros((count, count))
    for name in terms[0]:
        rows = np.stack([_float(term[name]).ravel() for term in terms]).astype(np.float64)
        total += rows @ rows.T
    return total


def select(arrays: NamedArrays, template: Template, roles: Collection[Role]) -> dict[str, NDArray[Any]]:
    """Return the arrays whose role is one of `roles`; KeyError for an array that the template does not label."""
    return {name: array for name, array in arrays.items() if template[name].role in roles}


def by_group(arrays: NamedArrays, template: Template) -> dict[str, dict[str, NDArray[Any]]]:
    """Split arrays by their group, groups and names sorted."""
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    for name in sorted(arrays):
        groups.setdefault(template[name].group, {})[name] = arrays[name]
    return dict(sorted(groups.items()))


def nbytes(arrays: NamedArrays) -> int:
    """Return the size of all arrays in bytes."""
    return sum(array.nbytes for array in arrays.values())


def first_not_finite(arrays: NamedArrays) -> str | None:
    """Return the name of the first array that holds a NaN or an infinity, or None."""
    return next((name for name, array in arrays.items() if not np.isfinite(_float(array)).all()), None)


def merge(*parts: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the union; a later part wins."""
    return {name: array for part in parts for name, array in part.items()}
