"""Arithmetic on named arrays; no function changes its inputs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfmsmt.core.types import ANCHOR, FloatArray, NamedArrays, Role, Template

PRODUCT_COLUMNS = 2**16
"""Columns that are in double precision at one time: with 100 clients 52 MB, whatever the model's size."""


def _float(array: NDArray[Any]) -> FloatArray:
    if array.dtype.kind != "f":
        raise TypeError(f"expected floating-point arrays, found {array.dtype}")
    return array.view()


def _check_same_names(first: NamedArrays, second: NamedArrays) -> None:
    if first.keys() != second.keys():
        raise KeyError(f"names differ: {sorted(first.keys() ^ second.keys())}")


def subtract(first: NamedArrays, second: NamedArrays) -> dict[str, NDArray[Any]]:
    """Return first - second.

    Raises:
        KeyError: their names differ.
        TypeError: an array is not of floating point.
    """
    _check_same_names(first, second)
    return {name: _float(array) - _float(second[name]) for name, array in first.items()}


def combine(terms: Sequence[NamedArrays], coefficients: Sequence[float] | FloatArray) -> dict[str, NDArray[Any]]:
    """Return sum_i coefficients[i] * terms[i], in the terms' own precision.

    The terms are added in the order given: another order may give other last bits.

    Raises:
        ValueError: no terms, or as many coefficients are not given.
        KeyError: the terms' names differ.
        TypeError: an array is not of floating point.
    """
    if len(terms) != len(coefficients) or not terms:
        raise ValueError(f"{len(terms)} terms but {len(coefficients)} coefficients")
    total = {name: _float(array) * array.dtype.type(coefficients[0]) for name, array in terms[0].items()}
    for term, coefficient in zip(terms[1:], coefficients[1:], strict=True):
        _check_same_names(total, term)
        for name, array in term.items():
            total[name] = total[name] + _float(array) * array.dtype.type(coefficient)
    return total


def flatten(arrays: NamedArrays) -> NDArray[Any]:
    """Return all numbers as one vector, in the order of names given."""
    return np.concatenate([_float(array).ravel() for array in arrays.values()])


def unflatten(vector: NDArray[Any], like: NamedArrays) -> dict[str, NDArray[Any]]:
    """Cut a vector into the names and shapes of `like`.

    Raises:
        ValueError: the sizes do not add up to the vector's.
    """
    total = sum(array.size for array in like.values())
    if total != len(vector):
        raise ValueError(f"{len(vector)} numbers for arrays that hold {total}")
    parts, start = {}, 0
    for name, array in like.items():
        parts[name] = vector[start : start + array.size].reshape(array.shape)
        start += array.size
    return parts


def products(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Return the inner products [S, R] of two sets of vectors.

    They are summed in double precision, some columns at a time.

    Args:
        first: [S, P], S vectors of P numbers.
        second: [R, P]; the same object as `first` for all pairs of one set.
    """
    total = np.zeros((len(first), len(second)))
    for start in range(0, first.shape[1], PRODUCT_COLUMNS):
        part = slice(start, start + PRODUCT_COLUMNS)
        rows = first[:, part].astype(np.float64)
        total += rows @ (rows if second is first else second[:, part].astype(np.float64)).T
    return total


def lengths(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the lengths [S] of vectors [S, P].

    They are summed as `products` sums.
    """
    squares = np.zeros(len(vectors))
    for start in range(0, vectors.shape[1], PRODUCT_COLUMNS):
        part = vectors[:, start : start + PRODUCT_COLUMNS].astype(np.float64)
        squares += np.einsum("sp,sp->s", part, part)
    return np.sqrt(squares)


def select(arrays: NamedArrays, template: Template, roles: Collection[Role]) -> dict[str, NDArray[Any]]:
    """Return the arrays whose role is one of `roles`.

    Raises:
        KeyError: the template does not label an array.
    """
    return {name: array for name, array in arrays.items() if template[name].role in roles}


def by_group(arrays: NamedArrays, template: Template) -> dict[str, dict[str, NDArray[Any]]]:
    """Split arrays by their group, groups and names sorted."""
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    for name in sorted(arrays):
        groups.setdefault(template[name].group, {})[name] = arrays[name]
    return dict(sorted(groups.items()))


def first_not_finite(arrays: NamedArrays) -> str | None:
    """Return the first array's name that holds NaN or infinity, or None."""
    return next((name for name, array in arrays.items() if not np.isfinite(_float(array)).all()), None)


def merge(*parts: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the union; a later part wins."""
    return {name: array for part in parts for name, array in part.items()}


def split_anchor(received: NamedArrays) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return parameters, and the anchors beside them, both by parameters' names."""
    anchors = {name.removeprefix(ANCHOR): array for name, array in received.items() if name.startswith(ANCHOR)}
    return {name: array for name, array in received.items() if not name.startswith(ANCHOR)}, anchors
