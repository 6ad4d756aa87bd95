"""Chooses each scenario's champion by validation, and registers it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfmsmt.atomic import write_json
from pfmsmt.config import Config
from pfmsmt.console import say
from pfmsmt.data.schema import Schema
from pfmsmt.errors import ConfigError, DataError
from pfmsmt.evaluation import score
from pfmsmt.places import CHAMPIONS, MODELS, run_name
from pfmsmt.scoring import read_run
from pfmsmt.tracking.origin import git_state

if TYPE_CHECKING:
    from pfmsmt.tracking import Tracking


def register(config: Config, schema: Schema, tracking: "Tracking", root: Path) -> None:
    """Give every scenario a champion and write `champions.json`.

    Raises:
        ConfigError: none of register.methods was trained.
        DataError: a run's result is missing or damaged.
        TrackingError: the MLflow store lacks a run or its model.
    """
    trained = [m for m in config.register_.methods if m in config.train.methods]
    if not trained:
        raise ConfigError("register.methods: none of these is in train.methods, so there is nothing to register")
    candidates = [(method, seed) for method in trained for seed in config.train.seeds]
    best = {run: read_best(root, *run) for run in candidates}
    champions: dict[str, dict[str, Any]] = {}
    for scenario in schema.scenarios:
        # By AUC, then by log-loss, which also decides where no AUC is defined; then by the order of register.methods.
        method, seed = max(candidates, key=lambda run: score({scenario: best[run][scenario]["validation"]}))
        ids = read_run(root, method, seed)
        tracking.check_run(ids["run_id"], f"train@{method}-{seed}")
        chosen = {
            "method": method, "seed": seed, "dataset": schema.source, "data_fingerprint": schema.fingerprint,
            "val_mean_auc": best[method, seed][scenario]["mean_auc"], **git_state(root),
        }  # fmt: skip
        version = tracking.register_champion(scenario, ids["models"][scenario], chosen)
        champions[scenario] = {**chosen, "version": version, "model_id": ids["models"][scenario]}
        say(f"pfmsmt-{scenario} version {version}, champion: {run_name(method, seed)}, chosen on validation")
    write_json(root / CHAMPIONS, champions)


def read_best(root: Path, method: str, seed: int) -> dict[str, Any]:
    """Read what a training run kept: {scenario: {round, mean_auc, validation}}.

    Raises:
        DataError: missing or damaged.
    """
    path = root / MODELS / run_name(method, seed) / "result.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["best"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        advice = f"run `dvc repro -f -s train@{method}-{seed}`"
        raise DataError(f"{path} cannot be read ({error}); {advice}") from None
