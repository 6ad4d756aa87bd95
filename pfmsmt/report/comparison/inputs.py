"""Runs of several methods, read from the files of training and evaluation.

An undefined value is None. Runs that do not fit together are refused: a comparison is fair on the same test rows only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import pandas as pd
from pydantic import Field, TypeAdapter, ValidationError

from pfmsmt.core.errors import DataError
from pfmsmt.core.layout import run_name
from pfmsmt.data.schema import SplitCounts

ORACLE_METHOD = "oracle"
"""Pseudo-method of generated data: the true probabilities, scored like predictions. The ceiling."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class TaskScore:
    """One task of one scenario, on the test shard."""

    auc: Finite | None
    gauc: Finite | None
    logloss: Finite | None
    ece: Finite | None
    predicted_to_actual: Finite | None
    auc_low: Finite | None = None
    auc_high: Finite | None = None
    rows: int | None = None
    positives: int | None = None


ScoreTree = Mapping[str, Mapping[str, TaskScore]]
"""scenario -> task -> score"""
Place = tuple[str, str]
"""scenario, task"""


@dataclass(frozen=True)
class Diagnostics:
    """Tables that explain a run, by round."""

    table: pd.DataFrame
    """round, group (`expert/0`, `tower/ctr`), quantity, client, other, value.

    Quantities: `listening` (row `client` of A: what it takes from `other`) and `cosine` of the updates of `client` and
    `other`; `coefficients` and `drift` of `client`; `conflicts`, the share of pairs with a negative cosine.
    """
    traffic: pd.DataFrame
    """round, client, bytes_up, bytes_down"""


@dataclass(frozen=True)
class RunResult:
    """One method with one seed."""

    method: str
    seed: int
    scores: ScoreTree
    history: pd.DataFrame
    """round, scenario, task, auc, logloss on the validation shards; an undefined auc is NaN"""
    roc: pd.DataFrame
    """scenario, task, false_positive_rate, true_positive_rate"""
    calibration: pd.DataFrame
    """scenario, task, predicted, actual, rows"""
    replicates: Mapping[Place, pd.DataFrame]
    """Place -> auc, logloss, ece of each bootstrap replicate; replicate i has the same draws in every run."""
    diagnostics: Diagnostics | None = None
    refit_rows: Mapping[str, int] | None = None
    """scenario -> rows on which its model was trained again; None: trained once"""


@dataclass(frozen=True)
class Results:
    """Runs of several methods on the same test rows."""

    runs: tuple[RunResult, ...]
    """In the order in which methods are shown; a method's seeds rise."""
    scenarios: tuple[str, ...]
    tasks: tuple[str, ...]
    oracle: ScoreTree | None = None
    references: frozenset[str] = frozenset()
    """Methods that nobody could deploy (gradients pooled at every step): shown, never marked best."""
    confidence: float | None = None
    """Confidence of the intervals; None: there are none."""
    federated: frozenset[str] = frozenset()
    """Methods in which clients train together, and that could be deployed."""
    remedies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Method -> keys of params.yaml that act against overfitting."""
    counts: Mapping[str, Mapping[str, SplitCounts]] = field(default_factory=dict)
    """scenario -> split -> counts"""

    @property
    def methods(self) -> tuple[str, ...]:
        """Each method once."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    @property
    def shown(self) -> tuple[str, ...]:
        """The methods, and the oracle last where there is one."""
        return (*self.methods, ORACLE_METHOD) if self.oracle is not None else self.methods

    @property
    def several_seeds(self) -> bool:
        """Whether any method ran more than once."""
        return len(self.runs) > len(self.methods)

    def of(self, method: str) -> tuple[RunResult, ...]:
        """Return the runs of one method."""
        return tuple(run for run in self.runs if run.method == method)

    def scores(self, method: str) -> tuple[ScoreTree, ...]:
        """Return a method's scores, one tree per seed; the oracle has one."""
        if method == ORACLE_METHOD and self.oracle is not None:
            return (self.oracle,)
        return tuple(run.scores for run in self.of(method))

    def deployable(self, method: str) -> bool:
        """Whether a method could serve a scenario."""
        return method != ORACLE_METHOD and method not in self.references


_HISTORY = {"round": "int64", "scenario": "str", "task": "str", "auc": "float64", "logloss": "float64"}
_ROC = {"scenario": "str", "task": "str", "false_positive_rate": "float64", "true_positive_rate": "float64"}
_CALIBRATION = {"scenario": "str", "task": "str", "predicted": "float64", "actual": "float64", "rows": "int64"}
_TRAFFIC = {"round": "int64", "client": "str", "bytes_up": "int64", "bytes_down": "int64"}
_REPLICATES = {"scenario": "str", "task": "str", "auc": "float64", "logloss": "float64", "ece": "float64"}
_DIAGNOSTICS = dict.fromkeys(("group", "quantity", "client", "other"), "category") | {"round": "int", "value": "float"}

_File = TypeVar("_File")


@dataclass(frozen=True)
class _MetricsFile:
    method: str
    seed: int
    scenarios: dict[str, dict[str, TaskScore]]
    refit_rows: dict[str, int] | None = None


@dataclass(frozen=True)
class _OracleFile:
    scenarios: dict[str, dict[str, TaskScore]]


def load_results(
    runs: Iterable[tuple[str, int]],
    *,
    evaluation: Path,
    models: Path,
    oracle: Path | None = None,
    scenarios: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    references: Iterable[str] = ("joint", "centralized"),
    confidence: float | None = None,
    federated: Iterable[str] = (),
    remedies: Mapping[str, tuple[str, ...]] | None = None,
    counts: Mapping[str, Mapping[str, SplitCounts]] | None = None,
) -> Results:
    """Load the runs to compare.

    Args:
        runs: (method, seed), in the order to show; folders of other runs, left from earlier, are ignored.
        evaluation: holds `<method>-seed<seed>/{metrics.json,roc.csv,calibration.csv,replicates.parquet}`.
        models: holds `<method>-seed<seed>/history.csv` and, if the method mixes clients, `diagnostics.parquet` and
            `traffic.csv`.
        oracle: scores of the true probabilities; a file that does not exist is no oracle.
        scenarios: the order to show; None is the order of the first run's file.
        tasks: likewise.
        references: methods that are shown but never marked best.
        confidence: of the intervals in metrics.json, and of those of differences.
        federated: methods in which clients train together.
        remedies: method -> keys that act against overfitting.
        counts: scenario -> split -> counts of the shards.

    Raises:
        DataError: nothing to compare; a file is missing or damaged; runs hold different scenarios or tasks, or were
            scored on different test rows.
    """
    wanted = list(runs)
    if not wanted:
        raise DataError("there is no run to compare; name at least one in train.methods and train.seeds")
    loaded = [_load_run(method, seed, evaluation, models) for method, seed in wanted]
    first = loaded[0].scores
    names = tuple(scenarios) if scenarios is not None else tuple(first)
    task_names = tuple(tasks) if tasks is not None else tuple(next(iter(first.values()), ()))
    for run in loaded:
        place = evaluation / run_name(run.method, run.seed) / "metrics.json"
        _check_cells(run.scores, names, task_names, place)
        _check_same_rows(run, loaded[0], place)
    ceiling = None
    if oracle is not None and oracle.exists():
        ceiling = _parse(oracle, _OracleFile, "download").scenarios
        _check_cells(ceiling, names, task_names, oracle)
    order = list(dict.fromkeys(run.method for run in loaded))
    return Results(
        runs=tuple(sorted(loaded, key=lambda run: (order.index(run.method), run.seed))),
        scenarios=names,
        tasks=task_names,
        oracle=ceiling,
        references=frozenset(references),
        confidence=confidence,
        federated=frozenset(federated),
        remedies=remedies or {},
        counts=counts or {},
    )


def _load_run(method: str, seed: int, evaluation: Path, models: Path) -> RunResult:
    name = run_name(method, seed)
    path = evaluation / name / "metrics.json"
    found = _parse(path, _MetricsFile, "evaluate")
    if (found.method, found.seed) != (method, seed):
        raise DataError(
            f"{path} belongs to {found.method}-seed{found.seed}, not to {name}; run `dvc repro -f evaluate`"
        )
    return RunResult(
        method=method,
        seed=seed,
        scores=found.scenarios,
        history=_read_table(models / name / "history.csv", _HISTORY, "train"),
        roc=_read_table(evaluation / name / "roc.csv", _ROC, "evaluate"),
        calibration=_read_table(evaluation / name / "calibration.csv", _CALIBRATION, "evaluate"),
        replicates=_read_replicates(evaluation / name / "replicates.parquet"),
        diagnostics=_read_diagnostics(models / name),
        refit_rows=found.refit_rows,
    )


def _read_replicates(path: Path) -> dict[Place, pd.DataFrame]:
    table = _read_parquet(path, _REPLICATES, "evaluate")
    return {(str(scenario), str(task)): part for (scenario, task), part in table.groupby(["scenario", "task"])}


def _read_diagnostics(folder: Path) -> Diagnostics | None:
    path = folder / "diagnostics.parquet"
    if not path.exists():
        return None
    table = _read_parquet(path, _DIAGNOSTICS, "train")
    for (group, quantity), part in table[table["other"] != ""].groupby(["group", "quantity"], observed=True):
        clients = part["client"].nunique()
        if len(part) != clients**2 * part["round"].nunique():
            raise DataError(
                f"{path}: {quantity} of group {group} is not a {clients} x {clients} matrix in every round; "
                "run `dvc repro -f train`"
            )
    return Diagnostics(table, _read_table(folder / "traffic.csv", _TRAFFIC, "train"))


def _read_parquet(path: Path, columns: dict[str, str], stage: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=list(columns)).astype(columns)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro {stage}` first") from None
    except (ValueError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(f"{path} is damaged: {reason}; run `dvc repro -f {stage}`") from None


def _parse(path: Path, kind: type[_File], stage: str) -> _File:
    try:
        return TypeAdapter(kind).validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro {stage}` first") from None
    except (ValidationError, UnicodeDecodeError) as error:
        detail = str(error)
        if isinstance(error, ValidationError):
            fault = error.errors()[0]
            detail = f"{'.'.join(map(str, fault['loc'])) or 'the whole file'}: {fault['msg']}"
        raise DataError(f"{path} is damaged: {detail}; run `dvc repro -f {stage}`") from None


def _read_table(path: Path, columns: dict[str, str], stage: str) -> pd.DataFrame:
    numbers = {name: [""] for name, kind in columns.items() if kind != "str"}
    try:
        # only an empty cell is "undefined": a scenario may well be called NA
        frame = pd.read_csv(path, keep_default_na=False, na_values=numbers, dtype=columns, usecols=list(columns))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro {stage}` first") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: {error}; run `dvc repro -f {stage}`") from None
    return frame[list(columns)]


def _check_cells(scores: ScoreTree, scenarios: Sequence[str], tasks: Sequence[str], path: Path) -> None:
    missing = [f"{scenario}/{task}" for scenario in scenarios for task in tasks if task not in scores.get(scenario, {})]
    extra = [scenario for scenario in scores if scenario not in scenarios]
    if missing or extra or not scenarios or not tasks:
        raise DataError(
            f"{path} does not hold the scenarios and tasks to compare (missing: {', '.join(missing) or 'none'}; "
            f"not expected: {', '.join(extra) or 'none'}); run `dvc repro -f evaluate`"
        )


def _check_same_rows(run: RunResult, first: RunResult, path: Path) -> None:
    for scenario, tasks in run.scores.items():
        for task, score in tasks.items():
            other = first.scores[scenario].get(task, score)
            if (score.rows, score.positives) != (other.rows, other.positives):
                raise DataError(
                    f"{path}: {scenario}/{task} was scored on {score.rows} rows with {score.positives} positives, but "
                    f"{first.method}-seed{first.seed} on {other.rows} with {other.positives}; "
                    "run `dvc repro -f evaluate` so that all methods are scored on the same test rows"
                )
            drawn, others = (len(one.replicates.get((scenario, task), ())) for one in (run, first))
            if drawn != others:
                raise DataError(
                    f"{path.with_name('replicates.parquet')}: {scenario}/{task} has {drawn} replicates, but "
                    f"{first.method}-seed{first.seed} has {others}; run `dvc repro -f evaluate`"
                )
