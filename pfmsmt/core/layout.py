"""The places of a project's files, and the files of a run.

All paths are relative to the project's folder; dvc.yaml names the same places. A file that a single module writes and
reads is named in that module.
"""

import json
from pathlib import Path
from typing import Any

from pfmsmt.core.errors import DataError

RAW = Path("data/raw")
"""The data set as it was obtained, never changed.

source.json: which data set it is, and its scenarios
*: the files of the source
"""
ORACLE = RAW / "oracle.json"
"""The best metrics that are possible; generated data alone have it."""
CLIENTS = Path("data/clients")
"""Encoded shards, a folder for each scenario.

<scenario>/train.parquet: training rows: group id, category codes, standardised numbers, one label for each task
<scenario>/val.parquet: validation rows, likewise
<scenario>/test.parquet: test rows, likewise
<scenario>/example.parquet: five raw rows, the models' input example
quarantine.csv: rows that were left out, each with its fault; with `data.on_bad_rows: quarantine`
quarantine.json: counts of these rows by kind and file
"""
SCHEMA = CLIENTS / "schema.json"
"""Fields, vocabularies, means and deviations, tasks, counts, fingerprint."""
MODELS = Path("models")
"""The outputs of trainings, a folder for each run.

<method>-seed<seed>/<scenario>/weights.safetensors: the scenario's best model
<method>-seed<seed>/<scenario>/model.json: its shape, schema and calibration
<method>-seed<seed>/result.json: each scenario's best round, what it validated, and the rows of a refit
<method>-seed<seed>/history.csv: validation AUC and log-loss by round, scenario and task
<method>-seed<seed>/ledger.csv: name, role, shape and bytes of all that passed
<method>-seed<seed>/traffic.csv: bytes by round, phase, client and direction
<method>-seed<seed>/diagnostics.parquet: who listens to whom, cosines, drift by round; of pf_msmtrec
"""
RUNS = Path("runs")
"""Where a run is in MLflow.

<method>-seed<seed>.json: the ids of the run and of its logged models, and the fingerprint by which another store has it
"""
EVALUATION = Path("evaluation")
"""Scores on test rows, a folder for each run.

<method>-seed<seed>/metrics.json: AUC with interval, GAUC, log-loss, ECE by scenario and task; rows of a refit
<method>-seed<seed>/roc.csv: points of the ROC curves
<method>-seed<seed>/calibration.csv: predicted and actual rates by bin
<method>-seed<seed>/replicates.parquet: AUC, log-loss, ECE of bootstrap draws, which are the same for all runs
"""
REPORTS = Path("reports")
"""The comparison of all runs, and the data card.

comparison.html: who leads, where a federation is worth it, all tables and pictures; one file, which opens offline
comparison.md: the tables
metrics.json: method, scenario, task, metric (`auc`, `gauc`, `logloss`, `ece`); `oracle` on generated data
summary.json: means over scenarios and seeds
pictures/*: the pictures as PNG
rounds.csv: points of DVC's plot of validation AUC
roc.csv: points of DVC's ROC plot
calibration.csv: points of DVC's calibration plot
data_pictures/*: pictures of the data card
"""
CARD = (REPORTS / "data.md", REPORTS / "data.html")
"""The data card: rows, rates, columns, drift."""
CHECKPOINTS = Path("checkpoints")
"""The last complete state of each run that is going on; removed when it ends."""
TUNING_JOURNAL = Path("tuning/optuna.journal")
"""All studies of this machine, in one journal of Optuna."""
CHAMPIONS = Path("champions.json")
"""The choice of the stage register for each scenario; not in DVC's cache."""


def run_name(method: str, seed: int) -> str:
    """Return the name of a training run's folders, stage and MLflow run."""
    return f"{method}-seed{seed}"


def read_run(root: Path, name: str, seed: int) -> dict[str, Any]:
    """Read a training run's MLflow ids: {run_id, models: {scenario: id}, fingerprint}.

    Raises:
        DataError: the run was not trained, or its file is damaged.
    """
    path = root / RUNS / f"{run_name(name, seed)}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro train@{name}-{seed}`") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); run `dvc repro -f -s train@{name}-{seed}`") from None


def read_scores(root: Path, method: str, seed: int) -> dict[str, Any]:
    """Read a run's test scores: {scenario: {task: metrics}}.

    Raises:
        DataError: missing or damaged.
    """
    path = root / EVALUATION / run_name(method, seed) / "metrics.json"
    return _read_part(path, "scenarios", f"evaluate@{method}-{seed}")


def read_best(root: Path, method: str, seed: int) -> dict[str, Any]:
    """Read a run's best rounds: {scenario: {round, mean_auc, validation}}.

    After a refit each has its `refit_rows` as well.

    Raises:
        DataError: missing or damaged.
    """
    path = root / MODELS / run_name(method, seed) / "result.json"
    return _read_part(path, "best", f"train@{method}-{seed}")


def _read_part(path: Path, key: str, stage: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); run `dvc repro -f -s {stage}`") from None
