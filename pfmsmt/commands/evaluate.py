"""Scores a run's saved models on the test shards, once."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pfmsmt.config import Config, Evaluate
from pfmsmt.core.console import say
from pfmsmt.core.files import new_folder, write_json
from pfmsmt.core.layout import CLIENTS, EVALUATION, MODELS, read_best, read_run, run_name
from pfmsmt.core.metrics import (
    LOGGED,
    Replicates,
    bootstrap,
    calibration_bins,
    percentile_interval,
    roc_points,
    task_metrics,
)
from pfmsmt.core.types import Stream
from pfmsmt.data.encoder import Encoded
from pfmsmt.data.schema import UNLABELLED, Schema
from pfmsmt.data.shards.resident import ClientRows
from pfmsmt.data.shards.streamed import open_shard
from pfmsmt.models.saved import SavedModel, load_model
from pfmsmt.tracking.mlflow_run import attach_test_metrics
from pfmsmt.tracking.model_card import CardFacts, describe_run

if TYPE_CHECKING:
    from pfmsmt.tracking import Store


def evaluate(config: Config, schema: Schema, name: str, seed: int, store: "Store", root: Path) -> None:
    """Score `models/<run>/` and write `evaluation/<run>/`.

    The files are metrics.json, roc.csv, calibration.csv and replicates.parquet.

    Raises:
        DataError: a shard, the run's result or its id file is missing.
        TrackingError: the MLflow store lacks the run.
    """
    run = run_name(name, seed)
    ids = store.locate_run(read_run(root, name, seed), f"train@{name}-{seed}")
    best = read_best(root, name, seed)
    refit_rows = {scenario: found["refit_rows"] for scenario, found in best.items() if "refit_rows" in found}
    scores: dict[str, dict[str, Any]] = {}
    roc, calibration, drawn = [], [], []
    for scenario in schema.scenarios:
        model = load_model(root / MODELS / run / scenario)
        shard = open_shard(root / CLIENTS, "test", schema.scenario(scenario))
        probabilities = predict_shard(model, shard, config.evaluate.batch_size, config.evaluate.calibrated)
        given, groups = shard.labels.numpy().astype(np.uint8), shard.groups
        for i, task in enumerate(task.name for task in schema.tasks):
            known = given[:, i] != UNLABELLED
            labels, predicted, searches = given[known, i], probabilities[known, i], groups[known]
            where = {"scenario": scenario, "task": task}
            # The same draws for all methods, seeds and tasks, so that differences and means are paired.
            generator = Stream(config.seed, f"bootstrap/{scenario}", 0).generator()
            cell, replicates = score_task(labels, predicted, searches, config.evaluate, generator)
            scores.setdefault(scenario, {})[task] = cell
            if replicates is not None:
                numbers = {"replicate": range(config.evaluate.bootstrap)}
                drawn.append(pd.DataFrame({**where, **numbers, **replicates._asdict()}))
            curve, bins = roc_points(labels, predicted), calibration_bins(labels, predicted, config.evaluate.bins)
            if curve is not None:
                roc.append(pd.DataFrame({**where, **curve._asdict()}))
            calibration.append(pd.DataFrame({**where, **bins._asdict()}))
        aucs = "  ".join(f"{task} {_shown(cell['auc'])}" for task, cell in scores[scenario].items())
        refit = f"  (trained again on {refit_rows[scenario]:,} rows)" if scenario in refit_rows else ""
        say(f"{run}: {scenario}: test AUC {aucs}{refit}")
    with new_folder(root / EVALUATION / run) as folder:
        refits = {"refit_rows": refit_rows} if refit_rows else {}
        write_json(folder / "metrics.json", {"method": name, "seed": seed, "scenarios": scores, **refits})
        _concat(roc, ROC_COLUMNS).to_csv(folder / "roc.csv", index=False)
        _concat(calibration, CALIBRATION_COLUMNS).to_csv(folder / "calibration.csv", index=False)
        _concat(drawn, REPLICATES_COLUMNS).to_parquet(folder / "replicates.parquet", index=False, compression="zstd")
    attach_test_metrics(store, ids["run_id"], ids["models"], test_metrics(scores), schema.source, schema.fingerprint)
    facts = CardFacts(
        name, seed, schema, best, scores, config.train.calibration, config.evaluate.calibrated,
        config.evaluate.confidence if config.evaluate.bootstrap else None,
        pd.read_csv(root / MODELS / run / "ledger.csv"), (root / MODELS / run / "diagnostics.parquet").exists(),
    )  # fmt: skip
    describe_run(store, ids["run_id"], ids["models"], facts)


ROC_COLUMNS = ("scenario", "task", "false_positive_rate", "true_positive_rate")
CALIBRATION_COLUMNS = ("scenario", "task", "predicted", "actual", "rows")
REPLICATES_COLUMNS = ("scenario", "task", "replicate", *Replicates._fields)


def predict_shard(model: SavedModel, shard: ClientRows, rows_at_once: int, calibrated: bool) -> np.ndarray:
    """Return a saved model's probabilities [N, T] of a shard's rows.

    Calibrated, or as trained.
    """
    parts = []
    for block in shard.blocks(rows_at_once):
        parts.append(model.probabilities(Encoded(block.codes.numpy(), block.values.numpy()), calibrated))
    return np.concatenate(parts) if parts else np.zeros((0, len(model.model.spec.tasks)))


def score_task(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, settings: Evaluate, generator: np.random.Generator
) -> tuple[dict[str, Any], Replicates | None]:
    """Return one task's metrics, with its AUC's interval, and the replicates.

    A metric that is undefined is None.
    """
    replicates = bootstrap(
        labels, predicted, groups, bins=settings.bins, replicates=settings.bootstrap, generator=generator
    )
    interval = percentile_interval(replicates.auc, settings.confidence) if replicates is not None else None
    low, high = interval or (None, None)
    counts = {"rows": len(labels), "positives": int(labels.sum())}
    metrics = task_metrics(labels, predicted, groups, bins=settings.bins)
    return {**metrics, "auc_low": low, "auc_high": high, **counts}, replicates


def test_metrics(scores: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """Return the scores under MLflow's names, and their means over scenarios."""
    flat = {
        f"test/{scenario}/{task}_{metric}": cell[metric]
        for scenario, tasks in scores.items()
        for task, cell in tasks.items()
        for metric in LOGGED
    }
    means: dict[str, float | None] = {}
    for task in next(iter(scores.values())):
        means[f"test/mean_{task}_auc"] = _mean([tasks[task]["auc"] for tasks in scores.values()])
    means["test/mean_auc"] = _mean([cell["auc"] for tasks in scores.values() for cell in tasks.values()])
    return {**flat, **means}


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _shown(value: float | None) -> str:
    return "undefined (one class)" if value is None else f"{value:.4f}"


def _concat(frames: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.concat(frames)[list(columns)] if frames else pd.DataFrame(columns=list(columns))
