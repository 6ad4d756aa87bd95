"""Floors of the quality benchmark: models that need no federated code, on the same shards as the methods.

    python benchmarks/quality.py tune --methods linear_local linear_shared trees_local trees_pooled --trials 12
    python benchmarks/quality.py run  --methods linear_local linear_shared trees_local trees_pooled

- `linear_local`: a logistic regression for each scenario: a weight for every category and standardised number, L2.
- `linear_shared`: the weights are a common part plus a scenario's own part, each with an L2 of its own: a logistic
  regression of [x ; x in the scenario's block] (Daume 2007).
- `trees_local`, `trees_pooled`: LightGBM for each scenario, or for all with the scenario as a category; the number of
  trees is the best on validation rows. They need the extra `benchmarks` (`pip install '.[benchmarks]'`).

`form` is `product`, which multiplies a click model of all rows with a conversion model of clicked rows, or `direct`.
Private fields have no common weights, and pooled trees get each scenario's categories of them apart.
Legend: B rows, F categorical fields, M numerical fields, T tasks, P columns of a design.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import optimize, sparse
from scipy.special import expit

from pfmsmt.core.metrics import auc
from pfmsmt.data.schema import Schema, encoded_column
from pfmsmt.training.trial import Aucs

FLOORS = ("linear_local", "linear_shared", "trees_local", "trees_pooled")
FORMS = ("product", "direct")

_STRENGTH = (0.3, 3000.0)
_TREES: dict[str, tuple[float, float]] = {
    "learning_rate": (0.02, 0.2),
    "num_leaves": (3, 63),
    "min_child_samples": (10, 500),
    "lambda_l2": (0.1, 300.0),
    "feature_fraction": (0.2, 1.0),
    "cat_smooth": (1.0, 300.0),
}
_LINEAR_START = {"linear_local": {"l2": 30.0}, "linear_shared": {"l2_shared": 15.0, "l2_own": 80.0}}
_TREES_START = {"learning_rate": 0.08, "num_leaves": 8, "min_child_samples": 50, "lambda_l2": 10.0,
                "feature_fraction": 0.5, "cat_smooth": 30.0}  # fmt: skip
WITHIN = "_within"
"""Ends the names of strengths of tasks that are nested in another one, as conversions are: they have few positives."""
START: dict[str, dict[str, Any]] = {
    floor: {"form": "product", **own, **{f"{key}{WITHIN}": value for key, value in own.items()}}
    for floor, own in _LINEAR_START.items()
} | {floor: {"form": "product", **_TREES_START} for floor in ("trees_local", "trees_pooled")}
"""The first trial of each floor's search."""

MOST_TREES, PATIENCE = 2000, 50
INTERCEPT_L2 = 1e-3
"""So that rows without a positive have a minimum, too."""
TOLERANCE = 0.01
"""The largest slope of the summed loss (nats), in coordinates of curvature 1: within about P * 5e-5 of the minimum."""

_Floats = NDArray[np.float64]


class Rows(NamedTuple):
    """Rows of one scenario."""

    codes: NDArray[np.int32]
    """[B, F]; 0 is out of vocabulary."""
    numbers: NDArray[np.float32]
    """[B, M], standardised"""
    labels: NDArray[np.uint8]
    """[B, T]"""

    def where(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Return the chosen rows [B]."""
        return Rows(self.codes[chosen], self.numbers[chosen], self.labels[chosen])

    def and_those_of(self, other: "Rows") -> "Rows":
        """Return both's rows."""
        return Rows(
            np.concatenate([self.codes, other.codes]),
            np.concatenate([self.numbers, other.numbers]),
            np.concatenate([self.labels, other.labels]),
        )


Scorer = Callable[[str, Rows], _Floats]
"""Gives rows of a scenario their probabilities [B]."""


class Examples(NamedTuple):
    """What one task's model is fitted to: rows by scenario, and the label's place."""

    schema: Schema
    train: Mapping[str, Rows]
    validation: Mapping[str, Rows]
    task: int
    refit: bool
    """Whether the last fit takes validation rows as well."""

    def everything(self) -> dict[str, Rows]:
        """Return the rows of the last fit."""
        if not self.refit:
            return dict(self.train)
        return {scenario: rows.and_those_of(self.validation[scenario]) for scenario, rows in self.train.items()}


def space(trial: optuna.Trial, floor: str) -> dict[str, Any]:
    """Draw a trial's parameters; `form` is one of them."""
    drawn: dict[str, Any] = {"form": trial.suggest_categorical("form", FORMS)}
    for key in START[floor]:
        if key in ("num_leaves", "min_child_samples"):
            drawn[key] = trial.suggest_int(key, *(int(edge) for edge in _TREES[key]), log=True)
        elif key != "form":
            drawn[key] = trial.suggest_float(key, *_TREES.get(key, _STRENGTH), log=True)
    return drawn


def floor_auc(floor: str, schema: Schema, folder: Path, params: Mapping[str, Any], split: str) -> float:
    """Fit a floor to training rows; return its mean AUC on a split's rows, over scenarios and tasks."""
    return mean_of(Floor(floor, schema, folder, params).aucs(split))


def mean_of(aucs: Aucs) -> float:
    """Return the mean over scenarios and tasks, of those that are defined."""
    return float(np.mean([value for tasks in aucs.values() for value in tasks.values() if value is not None]))


class Floor:
    """A fitted floor."""

    def __init__(
        self, floor: str, schema: Schema, folder: Path, params: Mapping[str, Any], refit: bool = False
    ) -> None:
        """Fit it to training rows, or with `refit` to validation rows as well once its number of trees is chosen.

        Raises:
            RuntimeError: a logistic regression does not converge.
        """
        self._schema, self._folder = schema, folder
        self._product = params["form"] == "product"
        train, validation = (load(schema, folder, split) for split in ("train", "val"))
        self._scorers: list[Scorer] = []
        for task in range(len(schema.tasks)):
            fitted, held_out = train, validation
            if (outer := self._outer(task)) is not None:
                fitted, held_out = (
                    {scenario: rows.where(rows.labels[:, outer] == 1) for scenario, rows in part.items()}
                    for part in (train, validation)
                )
            self._scorers.append(_FITS[floor](Examples(schema, fitted, held_out, task, refit), params))

    def aucs(self, split: str) -> Aucs:
        """Return the AUC of every scenario and task on a split's rows."""
        found: Aucs = {}
        for scenario in self._schema.scenarios:
            rows = load(self._schema, self._folder, split, scenario)[scenario]
            probabilities = self.probabilities(scenario, rows)
            found[scenario] = {
                task.name: auc(rows.labels[:, i], probabilities[:, i]) for i, task in enumerate(self._schema.tasks)
            }
        return found

    def probabilities(self, scenario: str, rows: Rows) -> _Floats:
        """Return the probabilities of all tasks [B, T]."""
        found: list[_Floats] = []
        for task, scorer in enumerate(self._scorers):
            outer = self._outer(task)
            found.append(scorer(scenario, rows) * (1.0 if outer is None else found[outer]))
        return np.stack(found, axis=1)

    def _outer(self, task: int) -> int | None:
        """Return the place of the task whose positives alone this one is fitted to, if any."""
        within = self._schema.tasks[task].within
        return [task.name for task in self._schema.tasks].index(within) if self._product and within else None


def load(schema: Schema, folder: Path, split: str, *scenarios: str) -> dict[str, Rows]:
    """Read one split's rows of these scenarios, or of all."""
    found = {}
    for scenario in scenarios or schema.scenarios:
        table = pq.read_table(folder / scenario / f"{split}.parquet")

        def columns(names: Sequence[str], kind: Any, table: pa.Table = table) -> NDArray[Any]:
            held = np.zeros((len(table), len(names)), kind)
            for place, name in enumerate(names):
                held[:, place] = table[name].to_numpy()
            return held

        found[scenario] = Rows(
            columns([encoded_column(field.name) for field in schema.categorical], np.int32),
            columns([encoded_column(field.name) for field in schema.numerical], np.float32),
            columns([task.name for task in schema.tasks], np.uint8),
        )
    return found


class Columns(NamedTuple):
    """The columns of one scenario's design: numbers, federated categories, private categories, 1."""

    starts: NDArray[np.int64]
    """[F], the first column of each field's categories"""
    common: int
    """Columns that all scenarios have: those before the private categories."""
    width: int

    @classmethod
    def of(cls, schema: Schema, scenario: str) -> "Columns":
        """Lay the columns out."""
        fields = schema.scenario(scenario).categorical
        starts = np.zeros(len(fields), np.int64)
        at = common = len(schema.numerical)
        for federated in (True, False):
            for place, field in enumerate(fields):
                if field.federated == federated:
                    starts[place] = at
                    at += field.codes
            common = at if federated else common
        return cls(starts, common, at + 1)


class Design:
    """The design of one scenario's rows [B, P]: numbers are dense, and each category is one column of two values."""

    def __init__(self, columns: Columns, rows: Rows) -> None:
        """Hold both kinds."""
        self._numbers = rows.numbers.astype(np.float64)
        places = np.concatenate([columns.starts + rows.codes, np.full((len(rows.codes), 1), columns.width - 1)], axis=1)
        ends = np.arange(len(places) + 1) * places.shape[1]
        shape = (len(places), columns.width)
        self._categories = sparse.csr_array((np.ones(places.size), places.ravel(), ends), shape=shape)

    def __matmul__(self, weights: _Floats) -> _Floats:
        """Return the log-odds [B] of weights [P]."""
        found: _Floats = self._categories @ weights + self._numbers @ weights[: self._numbers.shape[1]]
        return found

    def gradient(self, residuals: _Floats) -> _Floats:
        """Return the sum of rows, each times its residual [B]."""
        found: _Floats = self._categories.T @ residuals
        found[: self._numbers.shape[1]] += self._numbers.T @ residuals
        return found

    def curvature(self, weights: _Floats) -> _Floats:
        """Return the sum of squared entries [P], each row weighed."""
        found: _Floats = self._categories.T @ weights
        found[: self._numbers.shape[1]] += np.square(self._numbers).T @ weights
        return found


def logistic_regression(
    designs: Sequence[Design], labels: Sequence[_Floats], columns: Sequence[Columns], own: float, shared: float | None
) -> list[_Floats]:
    """Minimise the summed log loss + own/2 |v|^2 + shared/2 |u|^2; return each scenario's weights u + v [P].

    u is common to all scenarios, and covers their common columns; `shared` None leaves it out. Private columns have
    both parts at one scenario alone: their best split leaves one weight of strength own * shared / (own + shared).
    L-BFGS runs in coordinates that are scaled to curvature 1 at the start.

    Raises:
        RuntimeError: no convergence.
    """
    common = columns[0].common if shared is not None else 0
    ends = common + np.cumsum([c.width for c in columns])
    blocks = [slice(end - c.width, end) for end, c in zip(ends, columns, strict=True)]
    penalty = np.full(ends[-1], float(own))
    if shared is not None:
        penalty[:common] = shared
        for block, c in zip(blocks, columns, strict=True):
            penalty[block][c.common :] = own * shared / (own + shared)
    penalty[ends - 1] = INTERCEPT_L2
    curvature = penalty.copy()
    for design, label, block in zip(designs, labels, blocks, strict=True):
        rate = (label.sum() + 1) / (len(label) + 2)
        seen = design.curvature(np.full(len(label), rate * (1 - rate)))
        curvature[block] += seen
        curvature[:common] += seen[:common]
    scale = 1 / np.sqrt(curvature)

    def loss(scaled: _Floats) -> tuple[float, _Floats]:
        flat = scaled * scale
        total = 0.5 * float(penalty @ flat**2)
        slope = penalty * flat
        for design, label, block in zip(designs, labels, blocks, strict=True):
            odds = design @ _weights(flat, block, common)
            total += float(np.logaddexp(0, odds).sum() - label @ odds)
            part = design.gradient(expit(odds) - label)
            slope[block] += part
            slope[:common] += part[:common]
        return total, slope * scale

    options = {"gtol": TOLERANCE, "ftol": 0.0, "maxiter": 5000, "maxfun": 10_000, "maxcor": 50}
    found = optimize.minimize(loss, np.zeros(len(scale)), jac=True, method="L-BFGS-B", options=options)
    if not found.success:
        raise RuntimeError(f"logistic regression after {found.nit} steps: {found.message}")
    return [_weights(found.x * scale, block, common) for block in blocks]


def _weights(flat: _Floats, block: slice, common: int) -> _Floats:
    weights = flat[block].copy()
    weights[:common] += flat[:common]
    return weights


def _fit_linear(examples: Examples, params: Mapping[str, Any], *, alone: bool) -> Scorer:
    nested = WITHIN if examples.schema.tasks[examples.task].within else ""
    rows = examples.everything()
    columns = {scenario: Columns.of(examples.schema, scenario) for scenario in rows}
    weights: dict[str, _Floats] = {}
    for group in [[scenario] for scenario in rows] if alone else [list(rows)]:
        found = logistic_regression(
            [Design(columns[scenario], rows[scenario]) for scenario in group],
            [rows[scenario].labels[:, examples.task].astype(np.float64) for scenario in group],
            [columns[scenario] for scenario in group],
            own=params[f"l2{nested}" if alone else f"l2_own{nested}"],
            shared=None if alone else params[f"l2_shared{nested}"],
        )
        weights |= dict(zip(group, found, strict=True))
    return lambda scenario, some: expit(Design(columns[scenario], some) @ weights[scenario])


def _fit_trees(examples: Examples, params: Mapping[str, Any], *, alone: bool) -> Scorer:
    import lightgbm  # the extra `benchmarks`

    schema = examples.schema
    names = list(examples.train)

    def table(scenario: str, rows: Rows) -> NDArray[np.float32]:
        """Return [B, F + M], and the scenario's place before them where it is pooled; unknown categories are -1."""
        codes = rows.codes - 1
        if alone:
            return np.concatenate([codes, rows.numbers], axis=1, dtype=np.float32)
        before = names[: names.index(scenario)]
        for at, field in enumerate(schema.categorical):
            if not field.federated:
                shift = sum(schema.scenario(other).categorical[at].codes for other in before)
                codes[:, at] += np.where(codes[:, at] >= 0, shift, 0)
        place = np.full((len(codes), 1), len(before))
        return np.concatenate([place, codes, rows.numbers], axis=1, dtype=np.float32)

    def dataset(rows: Mapping[str, Rows], group: list[str], like: Any = None) -> Any:
        features = np.concatenate([table(scenario, rows[scenario]) for scenario in group])
        labels = np.concatenate([rows[scenario].labels[:, examples.task] for scenario in group])
        categories = list(range(len(schema.categorical) + (not alone)))
        return lightgbm.Dataset(features, labels, reference=like, categorical_feature=categories)

    fixed = {"objective": "binary", "seed": 0, "deterministic": True, "force_col_wise": True, "num_threads": 1,
             "verbosity": -1, "bagging_fraction": 0.8, "bagging_freq": 1}  # fmt: skip
    options = {**fixed, **{key: value for key, value in params.items() if key != "form"}}
    boosters: dict[str, Any] = {}
    for group in [[name] for name in names] if alone else [names]:
        train = dataset(examples.train, group)
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        held_out = dataset(examples.validation, group, train)
        booster = lightgbm.train(options, train, MOST_TREES, valid_sets=[held_out], callbacks=[stop])
        if examples.refit:
            booster = lightgbm.train(options, dataset(examples.everything(), group), booster.best_iteration)
        boosters |= dict.fromkeys(group, booster)
    return lambda scenario, some: np.asarray(boosters[scenario].predict(table(scenario, some)), np.float64)


_FITS: dict[str, Callable[[Examples, Mapping[str, Any]], Scorer]] = {
    "linear_local": lambda examples, params: _fit_linear(examples, params, alone=True),
    "linear_shared": lambda examples, params: _fit_linear(examples, params, alone=False),
    "trees_local": lambda examples, params: _fit_trees(examples, params, alone=True),
    "trees_pooled": lambda examples, params: _fit_trees(examples, params, alone=False),
}
