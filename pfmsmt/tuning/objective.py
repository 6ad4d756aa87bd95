"""What a trial is judged by: a mean of validation AUCs, told anew every round."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pfmsmt.data.schema import Schema
from pfmsmt.errors import ConfigError
from pfmsmt.validation import Validation

MEAN = "mean"
MINIMUM = "minimum"


class Objective(NamedTuple):
    """Which scenarios and tasks count, and how."""

    name: str
    """As in params.yaml."""
    scenarios: frozenset[str]
    tasks: frozenset[str]

    def value(self, validations: Iterable[Validation]) -> float | None:
        """Return one round's value from all clients' validation; None where no AUC that counts is defined.

        AUCs have equal weights. An undefined one (a single class in the validation rows, so in all rounds) is left out.
        """
        means = []
        cells = []
        for validation in validations:
            for scenario, tasks in validation.items():
                found = [cell["auc"] for task, cell in tasks.items() if task in self.tasks]
                defined = [auc for auc in found if auc is not None]
                if scenario in self.scenarios and defined:
                    cells += defined
                    means.append(float(np.mean(defined)))
        if not cells:
            return None
        return min(means) if self.name == MINIMUM else float(np.mean(cells))


def read_objective(name: str, schema: Schema) -> Objective:
    """Read `tune.objective`: mean, minimum, a scenario, a task, or `<scenario>/<task>`.

    Raises:
        ConfigError: the data hold no such scenario or task.
    """
    scenarios, tasks = frozenset(schema.scenarios), frozenset(task.name for task in schema.tasks)
    if name in (MEAN, MINIMUM):
        return Objective(name, scenarios, tasks)
    if name in scenarios:
        return Objective(name, frozenset({name}), tasks)
    if name in tasks:
        return Objective(name, scenarios, frozenset({name}))
    scenario, _, task = name.partition("/")
    if scenario in scenarios and task in tasks:
        return Objective(name, frozenset({scenario}), frozenset({task}))
    words = [MEAN, MINIMUM, *schema.scenarios, *(task.name for task in schema.tasks)]
    pairs = [f"{scenario}/{task.name}" for scenario in schema.scenarios for task in schema.tasks]
    near = difflib.get_close_matches(name, [*words, *pairs], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"params.yaml: tune.objective: {name!r} is unknown; {hint}valid for these data: {', '.join(words)}, "
        "or <scenario>/<task>"
    )
