"""The places of a project's files, and the files of a run.

All paths are relative to the project's folder; dvc.yaml names the same places. A file that a single module writes and
reads is named in that module.
"""

import json
from pathlib import Path
from typing import Any

from pfmsmt.core.errors import DataError

RAW = Path("data/raw")
CLIENTS = Path("data/clients")
SCHEMA = CLIENTS / "schema.json"
ORACLE = RAW / "oracle.json"
MODELS = Path("models")
RUNS = Path("runs")
EVALUATION = Path("evaluation")
REPORTS = Path("reports")
CARD = (REPORTS / "data.md", REPORTS / "data.html")
CHECKPOINTS = Path("checkpoints")
TUNING_JOURNAL = Path("tuning/optuna.journal")
CHAMPIONS = Path("champions.json")


def run_name(method: str, seed: int) -> str:
    """Return the name of a training run's folders, stage and MLflow run."""
    return f"{method}-seed{seed}"


def read_run(root: Path, name: str, seed: int) -> dict[str, Any]:
    """Read a training run's MLflow ids: {run_id, models: {scenario: id}}.

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
