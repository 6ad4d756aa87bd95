"""Chooses each scenario's champion by validation, and registers it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfmsmt.atomic import write_json
from pfmsmt.config import Config
from pfmsmt.console import say
from pfmsmt.data.schema import Schema
from pfmsmt.errors import ConfigError
from pfmsmt.places import CHAMPIONS, MODELS, run_name
from pfmsmt.scoring import read_run
from pfmsmt.tracking.origin import git_state

if TYPE_CHECKING:
    from pfmsmt.tracking import Tracking


def register(config: Config, schema: Schema, tracking: "Tracking", root: Path) -> None:
    """Give every scenario a champion and write `champions.json`.

    Raises:
        ConfigError: none of register.methods was trained.
    """
    trained = [m for m in config.register_.methods if m in config.train.methods]
    if not trained:
        raise ConfigError("register.methods: none of these is in train.methods, so there is nothing to register")
    candidates = [(method, seed) for method in trained for seed in config.train.seeds]
    best = {run: json.loads((root / MODELS / run_name(*run) / "result.json").read_text())["best"] for run in candidates}
    champions: dict[str, dict[str, Any]] = {}
    for scenario in schema.scenarios:
        # The first of equals: the order of register.methods decides ties.
        method, seed = max(candidates, key=lambda run: best[run][scenario]["mean_auc"])
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
