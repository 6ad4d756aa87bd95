"""The sampler and the pruner, and a trial's draw from the space."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study, Trial
from optuna.distributions import BaseDistribution, CategoricalChoiceType, FloatDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from pfmsmt.config import Config, Parameter
from pfmsmt.tuning.space import Space, plain_value

RANDOM_TRIALS = 5
"""So many trials, params.yaml's values among them, come before the sampler models anything or the pruner ends one."""
DIGITS = 4
"""Significant digits of a drawn float, so that what is applied is short, and exactly what was tried."""


class SeededTPE(BaseSampler):
    """Optuna's tree-structured Parzen estimator, seeded by (seed, trial) alone.

    Source: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization". No two trials share a stream, in
    whatever worker, machine or session they run; a study that is continued draws what it would have drawn without
    the break.
    """

    def __init__(self, seed: int) -> None:
        """Seed all trials' streams with `seed`."""
        self._seed = seed
        self._sampler = TPESampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin the trial's own stream."""
        seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
        self._sampler = TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See `BaseSampler`."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `BaseSampler`."""
        drawn = self._sampler.sample_relative(study, trial, search_space)
        return {name: _rounded(value, search_space[name]) for name, value in drawn.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See `BaseSampler`."""
        drawn = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return _rounded(drawn, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """See `BaseSampler`."""
        self._sampler.after_trial(study, trial, state, values)


def build_pruner(name: str, rounds: int) -> BasePruner:
    """Return the pruner that tune.yaml names, for trainings of so many rounds."""
    if name == "median":
        # Early rounds of slow learning rates look worse than they are.
        return MedianPruner(n_startup_trials=RANDOM_TRIALS, n_warmup_steps=rounds // 5 + 1)
    if name == "successive_halving":
        return SuccessiveHalvingPruner(min_resource=max(1, rounds // 9), reduction_factor=3)
    return NopPruner()


def draw(trial: Trial, space: Space) -> dict[str, Any]:
    """Draw a trial's values by dotted keys."""
    for key, parameter in space.items():
        if parameter.choices is not None:
            trial.suggest_categorical(key, [_label(choice) for choice in parameter.choices])
        elif parameter.type == "int":
            low, high = _ends(parameter)
            trial.suggest_int(key, int(low), int(high), log=parameter.log)
        else:
            trial.suggest_float(key, *_ends(parameter), log=parameter.log)
    return values_of(trial.params, space)


def values_of(drawn: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Return a trial's values by dotted key, as params.yaml would hold them.

    Lists come back from their text in the store; a trial that was killed may lack keys of the space.
    """
    values = {key: drawn[key] for key in space if key in drawn}
    for key, value in values.items():
        choices = space[key].choices
        if choices is not None:
            values[key] = next(choice for choice in choices if _label(choice) == value)
    return values


def initial_draw(config: Config, space: Space) -> tuple[dict[str, CategoricalChoiceType], list[str]]:
    """Return params.yaml's own values as the first trial's draw.

    A number outside of the space is drawn at the nearest end, a choice that is not offered at random.

    Returns:
        The draw, and the keys whose value lies outside.
    """
    drawn: dict[str, CategoricalChoiceType] = {}
    outside = []
    for key, parameter in space.items():
        value = plain_value(config, key)
        if parameter.choices is not None:
            if _label(value) in map(_label, parameter.choices):
                drawn[key] = _label(value)
            else:
                outside.append(key)
            continue
        low, high = _ends(parameter)
        drawn[key] = min(max(value, low), high)
        if drawn[key] != value:
            outside.append(key)
    return drawn, outside


def _rounded(drawn: Any, distribution: BaseDistribution) -> Any:
    if not isinstance(distribution, FloatDistribution):
        return drawn
    return min(max(float(f"{drawn:.{DIGITS}g}"), distribution.low), distribution.high)


def _ends(parameter: Parameter) -> tuple[float, float]:
    assert parameter.low is not None
    assert parameter.high is not None
    return parameter.low, parameter.high


def _label(choice: Any) -> CategoricalChoiceType:
    """Return a choice as optuna stores it: lists as text."""
    return json.dumps(choice) if isinstance(choice, (list, tuple)) else choice
