"""Chooses each scenario's best model by validation, and registers it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfmsmt.config import Config
from pfmsmt.core.console import say
from pfmsmt.core.errors import ConfigError
from pfmsmt.core.files import write_json
from pfmsmt.core.layout import CHAMPIONS, read_best, read_run, read_scores, run_name
from pfmsmt.core.metrics import LOGGED
from pfmsmt.data.schema import Schema
from pfmsmt.tracking.promotion import place
from pfmsmt.tracking.registry import CHALLENGER, register_version
from pfmsmt.training.scores import score

if TYPE_CHECKING:
    from pfmsmt.tracking import Store

_EXPERIMENT = "DVC_EXP_NAME"
"""Environment variable that `dvc exp run` sets for its stages."""


def register(config: Config, schema: Schema, store: "Store", root: Path) -> None:
    """Register every scenario's best model, and write `champions.json`.

    A scenario's first version is its champion, a later one its challenger until it is promoted (`register.promote`).
    Experiments of DVC write their choice down and register nothing: they must not touch what is served.

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
    experiment = os.environ.get(_EXPERIMENT)
    for scenario in schema.scenarios:
        # By AUC, then by log-loss, which also decides where no AUC is defined; then by the order of register.methods.
        method, seed = max(candidates, key=lambda run: score({scenario: best[run][scenario]["validation"]}))
        ids = store.locate_run(read_run(root, method, seed), f"train@{method}-{seed}")
        chosen = {
            "method": method, "seed": seed, "dataset": schema.source, "data_fingerprint": schema.fingerprint,
            "val_mean_auc": best[method, seed][scenario]["mean_auc"], **store.commit_of(ids["run_id"]),
        }  # fmt: skip
        if "refit_rows" in best[method, seed][scenario]:
            chosen["refit_rows"] = best[method, seed][scenario]["refit_rows"]
        metrics = {
            **_named("val", best[method, seed][scenario]["validation"]),
            **_named("test", read_scores(root, method, seed)[scenario]),
            "test_calibrated": str(config.evaluate.calibrated).lower(), "calibration": config.train.calibration,
        }  # fmt: skip
        champions[scenario] = {**chosen, "version": None, "alias": None, "model_id": ids["models"][scenario]}
        if experiment:
            continue
        version = register_version(store, scenario, ids["models"][scenario], {**chosen, **metrics})
        placed = place(store, scenario, version, config.register_.promote)
        champions[scenario] |= {"version": version, "alias": placed.alias}
        say(f"pfmsmt-{scenario} version {version}, {placed.alias}: {run_name(method, seed)}, chosen on validation")
        for reason in placed.against:
            say(f"  it is not promoted: {reason}")
    write_json(root / CHAMPIONS, champions)
    if experiment:
        say(f"experiment {experiment}: nothing is registered; `dvc repro -f -s register` registers its models")
    elif any(champion["alias"] == CHALLENGER for champion in champions.values()):
        say("champions stay; `pfmsmt models diff SCENARIO` compares, `pfmsmt models promote SCENARIO` replaces one")


def _named(split: str, tasks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a scenario's metrics under the names of the registry's tags."""
    named = {f"{split}_{task}_{metric}": cell.get(metric) for task, cell in tasks.items() for metric in LOGGED}
    known = {name: value for name, value in named.items() if value is not None}
    aucs = [cell["auc"] for cell in tasks.values() if cell["auc"] is not None]
    return known | ({"test_mean_auc": sum(aucs) / len(aucs)} if split == "test" and aucs else {})
