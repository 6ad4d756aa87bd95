"""One scenario of the synthetic source: features and true probabilities.

The probabilities are those of click and conversion.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.config import Synthetic
from pfmsmt.data.sources.synthetic.planted import (
    Distribution,
    Features,
    Function,
    distribution,
    draw_items,
    draw_users,
    join,
)

CTR_AUC = 0.81
CTCVR_AUC = 0.88
"""AUCs that the true probabilities reach; real logs are of this order."""
CONVERSION_LIKE_CLICK = 0.6
"""Correlation of the planted conversion logit with the click's."""
REFERENCE_ROWS = 8_192

_COMMON, _OWN, _REFERENCE, _FUNCTION = range(4)
_Floats = NDArray[np.float64]


def generator(seed: int, *key: int, name: str = "") -> np.random.Generator:
    """Return a generator of the seed, the key and the name alone."""
    return np.random.default_rng([seed, len(key), *key, len(name), *name.encode()])


class Probabilities(NamedTuple):
    """True probabilities from which labels are drawn, per row [B]."""

    click: _Floats
    conversion: _Floats
    """Given a click."""


class PlantedScenario(NamedTuple):
    """Knows the truth about one scenario."""

    law: Distribution
    functions: tuple[tuple[float, Function], ...]
    """(weight, function) pairs of the click's z."""
    conversion_functions: tuple[tuple[float, Function], ...]
    click_logit: tuple[float, float] = (0.0, 1.0)
    """Intercept b and slope k: logit = b + k z."""
    conversion_logit: tuple[float, float] = (0.0, 1.0)

    def probabilities(self, features: Features) -> Probabilities:
        """Return the true probabilities of B rows."""
        click, conversion = self.scores(features)
        return Probabilities(_probability(click, *self.click_logit), _probability(conversion, *self.conversion_logit))

    def scores(self, features: Features) -> tuple[_Floats, _Floats]:
        """Return z of click and z of conversion, each [B]."""
        click = _weighted(self.functions, features)
        rest = _weighted(self.conversion_functions, features)
        return click, CONVERSION_LIKE_CLICK * click + np.sqrt(1 - CONVERSION_LIKE_CLICK**2) * rest


def plant(config: Synthetic, seed: int, scenario: str) -> PlantedScenario:
    """Draw a scenario's world and scale it.

    It then has the configured CTR and CVR, and AUCs of CTR_AUC and CTCVR_AUC.

    It depends on the scenario's name, on whether its position is even or odd and whether it is the last, but not on
    how many rows are drawn.
    """
    names = list(config.scenarios)
    position = names.index(scenario)
    sign = -1.0 if config.conflict and position == len(names) - 1 else 1.0
    parts = (
        (np.sqrt(config.shared), "shared"),
        (np.sqrt(config.cluster) * sign, f"cluster {position % 2}"),
        (np.sqrt(config.own), f"own {scenario}"),
    )
    reference = _sample(distribution(generator(seed, _COMMON), generator(seed, _COMMON), 0.0), seed, "")

    def functions(task: int) -> tuple[tuple[float, Function], ...]:
        return tuple((float(w), Function(generator(seed, _FUNCTION, task, name=name), reference)) for w, name in parts)

    law = distribution(generator(seed, _COMMON), generator(seed, _OWN, name=scenario), config.covariate_shift)
    raw = PlantedScenario(law, functions(0), functions(1))
    click, conversion = raw.scores(_sample(law, seed, scenario))

    click_logit, conversion_logit = solve_logits(click, conversion, config.ctr, config.cvr)
    return raw._replace(click_logit=click_logit, conversion_logit=conversion_logit)


def solve_logits(
    click: _Floats, conversion: _Floats, ctr: float, cvr: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return intercept and slope of click's and of conversion's logit.

    They reach the rates, and AUCs of CTR_AUC and CTCVR_AUC, over a sample of z of click and of conversion, each [B].
    """
    click_logit = _solve(click, np.ones(len(click)), ctr, lambda probability: probability, CTR_AUC)
    clicked = _probability(click, *click_logit)
    return click_logit, _solve(conversion, clicked, cvr, lambda probability: clicked * probability, CTCVR_AUC)


def expected_auc(probabilities: _Floats) -> float:
    """Return the AUC to expect of true probabilities [B].

    Labels are drawn from them.
    """
    ranked = np.sort(probabilities)
    negatives_below = np.cumsum(1 - ranked) - (1 - ranked)
    pairs = ranked.sum() * (1 - ranked).sum() - (ranked * (1 - ranked)).sum()
    return float((ranked * negatives_below).sum() / pairs)


def _sample(law: Distribution, seed: int, scenario: str) -> Features:
    rng = generator(seed, _REFERENCE, name=scenario)
    users, items = draw_users(law, rng, REFERENCE_ROWS), draw_items(law, rng, REFERENCE_ROWS)
    return join(users, items, np.arange(REFERENCE_ROWS))


def _weighted(functions: tuple[tuple[float, Function], ...], features: Features) -> _Floats:
    total = np.zeros(len(features.numbers))
    for weight, function in functions:
        if weight:
            total += weight * function(features)
    return total


def _probability(score: _Floats, intercept: float, slope: float) -> _Floats:
    return 1 / (1 + np.exp(-np.clip(intercept + slope * score, -500, 500)))


def _solve(
    score: _Floats, weights: _Floats, rate: float, outcome: Callable[[_Floats], _Floats], target_auc: float
) -> tuple[float, float]:
    """Solve for the intercept and slope that reach rate and AUC.

    The weighted mean probability is the rate, and the outcome's expected AUC is the target.
    """

    def intercept(slope: float) -> float:
        def excess(at: float) -> float:
            return float(np.average(_probability(score, at, slope), weights=weights)) - rate

        return _bisect(excess, -30.0 - 10 * slope, 30.0 + 10 * slope, 36)

    def auc_excess(slope: float) -> float:
        return expected_auc(outcome(_probability(score, intercept(slope), slope))) - target_auc

    slope = _bisect(auc_excess, 0.0, 10.0, 16)
    return intercept(slope), slope


def _bisect(increasing: Callable[[float], float], low: float, high: float, steps: int) -> float:
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if increasing(middle) > 0 else (middle, high)
    return (low + high) / 2
