"""The planted world of the synthetic source: features, and the labels' functions.

The features have AliExpress's shape.

The logit of a click in scenario s is b_s + k_s z_s with z_s = sqrt(shared) f + sqrt(cluster) (+-) f_cluster(s) +
sqrt(own) f_s, each f a random nonlinear function of unit variance. Conversions follow functions of their own, made the
same way and correlated with the click's.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.data.sources.aliexpress.columns import CATEGORICAL, NUMERICAL

CARDINALITIES = (2, 3, 4, 6, 8, 12, 20, 30, 50, 3, 5, 10, 16, 24, 40, 50)
"""Categories of categorical_1 to 16."""
UNBOUNDED = (22, 62)
"""Places of the numerical columns that leave [0, 1]: a price and a count, say."""
DECIMALS = 4
USER_CATEGORICAL = 9
USER_NUMERICAL = 23

# Variance of one planted function by kind: mostly what a small network learns from little data.
_MAIN, _LINEAR, _SMOOTH, _INTERACTION = 0.4, 0.25, 0.25, 0.1
_FACTORS = 6
_HIDDEN = 4
_STEEPNESS = 1.5
"""Scale of the hidden units: how far from linear they are."""
_PAIRS = 3
_ACTIVE_CATEGORICAL = 6
_ACTIVE_NUMERICAL = 8


class Features(NamedTuple):
    """Feature columns of B rows.

    Or of B searches: the user's columns alone.
    """

    categories: NDArray[np.int64]
    """[B, categorical columns]"""
    numbers: NDArray[np.float64]
    """[B, numerical columns], rounded as they are written"""


class Distribution(NamedTuple):
    """The distribution from which one scenario's features are drawn."""

    cumulative: tuple[NDArray[np.float64], ...]
    """Per categorical column: the distribution function over its values."""
    loadings: NDArray[np.float64]
    """[2 * factors, numerical columns]: the user's columns load on the first half, the item's on the second."""
    noise: NDArray[np.float64]
    shift: NDArray[np.float64]
    slope: NDArray[np.float64]
    offset: NDArray[np.float64]


def distribution(common: np.random.Generator, own: np.random.Generator, covariate_shift: float) -> Distribution:
    """Draw a scenario's feature distribution.

    It is the common one, its means moved by `covariate_shift` deviations.
    """
    cumulative = []
    for values in CARDINALITIES:
        logits = common.permutation(-common.uniform(0.8, 1.6) * np.log(np.arange(1, values + 1)))
        weights = np.exp(logits + covariate_shift * own.standard_normal(values))
        cumulative.append(np.cumsum(weights) / weights.sum())
    columns = len(NUMERICAL)
    loadings = common.standard_normal((2 * _FACTORS, columns))
    loadings[_FACTORS:, :USER_NUMERICAL] = 0
    loadings[:_FACTORS, USER_NUMERICAL:] = 0
    explained = common.uniform(0.1, 0.6, columns)
    loadings *= np.sqrt(explained / (loadings**2).sum(axis=0))
    return Distribution(
        tuple(cumulative),
        loadings,
        np.sqrt(1 - explained),
        covariate_shift * own.standard_normal(columns),
        common.uniform(0.6, 1.4, columns),
        common.uniform(-1.0, 0.5, columns),
    )


def draw_users(law: Distribution, rng: np.random.Generator, searches: int) -> Features:
    """Draw the user's columns of some searches."""
    return _draw(law, rng, searches, slice(0, USER_CATEGORICAL), slice(0, USER_NUMERICAL))


def draw_items(law: Distribution, rng: np.random.Generator, rows: int) -> Features:
    """Draw the item's columns of some rows."""
    return _draw(law, rng, rows, slice(USER_CATEGORICAL, len(CATEGORICAL)), slice(USER_NUMERICAL, len(NUMERICAL)))


def join(users: Features, items: Features, search: NDArray[np.int64]) -> Features:
    """Put the user's columns of each row's search before its item's columns.

    Row i belongs to search `search[i]`.
    """
    return Features(
        np.concatenate([users.categories[search], items.categories], axis=1),
        np.concatenate([users.numbers[search], items.numbers], axis=1),
    )


def _draw(law: Distribution, rng: np.random.Generator, rows: int, categorical: slice, numerical: slice) -> Features:
    categories = [np.searchsorted(law_of, rng.random(rows), side="right") for law_of in law.cumulative[categorical]]
    factors = rng.standard_normal((rows, 2 * _FACTORS))
    latent = factors @ law.loadings[:, numerical] + law.shift[numerical]
    latent += rng.standard_normal(latent.shape) * law.noise[numerical]
    latent = latent * law.slope[numerical] + law.offset[numerical]
    numbers = 1 / (1 + np.exp(-latent))
    for column in UNBOUNDED:
        if numerical.start <= column < numerical.stop:
            numbers[:, column - numerical.start] = np.exp(latent[:, column - numerical.start])
    limits = np.asarray([len(law_of) - 1 for law_of in law.cumulative[categorical]])
    return Features(np.minimum(np.stack(categories, axis=1), limits), np.round(numbers, DECIMALS))


class Function:
    """A random function of the features.

    It has mean 0 and variance 1 over a reference sample.
    """

    def __init__(self, rng: np.random.Generator, reference: Features) -> None:
        """Draw it, and standardise it and its parts over the reference rows."""
        self._columns = rng.permutation(len(CARDINALITIES))[:_ACTIVE_CATEGORICAL]
        self._numbers = rng.permutation(len(NUMERICAL))[:_ACTIVE_NUMERICAL]
        self._effects = [rng.standard_normal(CARDINALITIES[column]) for column in self._columns]
        numbers = self._active(reference.numbers)
        self._center, self._scale = numbers.mean(axis=0), numbers.std(axis=0)
        self._linear = rng.standard_normal(_ACTIVE_NUMERICAL)
        self._inner = rng.standard_normal((_ACTIVE_NUMERICAL, _HIDDEN))
        self._inner *= _STEEPNESS / np.sqrt((self._inner**2).sum(axis=0))
        self._bias = rng.standard_normal(_HIDDEN)
        self._outer = rng.standard_normal(_HIDDEN)
        self._slopes = [rng.standard_normal(CARDINALITIES[column]) for column in self._columns[:_PAIRS]]
        self._weights = np.sqrt([_MAIN, _LINEAR, _SMOOTH, _INTERACTION])
        parts = self._parts(reference)
        self._part_mean, self._part_std = parts.mean(axis=0), parts.std(axis=0)
        self._mean, self._std = 0.0, 1.0
        whole = self(reference)
        self._mean, self._std = float(whole.mean()), float(whole.std())

    def __call__(self, features: Features) -> NDArray[np.float64]:
        """Return its value for each row [B]."""
        parts = (self._parts(features) - self._part_mean) / self._part_std
        value: NDArray[np.float64] = (parts @ self._weights - self._mean) / self._std
        return value

    def _parts(self, features: Features) -> NDArray[np.float64]:
        """Return [B, 4]: main effects, linear, smooth, interactions."""
        scaled = (self._active(features.numbers) - self._center) / self._scale
        codes = features.categories[:, self._columns].T
        main = sum(effect[code] for effect, code in zip(self._effects, codes, strict=True))
        smooth = np.tanh(scaled @ self._inner + self._bias) @ self._outer
        interaction = sum(slope[codes[i]] * scaled[:, i] for i, slope in enumerate(self._slopes))
        return np.stack([main, scaled @ self._linear, smooth, interaction], axis=1)

    def _active(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the columns that matter, the unbounded ones tamed."""
        active = numbers[:, self._numbers]
        tamed = np.isin(self._numbers, UNBOUNDED)
        active[:, tamed] = np.log1p(active[:, tamed])
        return active
