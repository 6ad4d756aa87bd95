"""The settings of the benchmark: their parameters, and shards made once for each seed."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from pfmsmt.config import PARAMS_FILE, Config, parse_config
from pfmsmt.data.download import obtain
from pfmsmt.data.partition import partition
from pfmsmt.data.schema import Schema, read_schema

HERE = Path(__file__).parent
TUNED = HERE / "results" / "tuned"


def settings() -> dict[str, dict[str, Any]]:
    """Return {setting: {dotted key of params.yaml: value}}."""
    return dict(yaml.safe_load((HERE / "settings.yaml").read_text(encoding="utf-8")))


def tuned(setting: str, method: str) -> dict[str, Any]:
    """Return the tuned parameters of a method: the setting's own, else those of the default setting, else none."""
    for place in (setting, "default"):
        path = TUNED / place / f"{method}.yaml"
        if path.exists():
            return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["params"])
    return {}


def configure(setting: str, seed: int, changes: dict[str, Any], movielens: Path | None) -> Config:
    """Return params.yaml with a setting's values, then `changes`, both by dotted keys."""
    tree = copy.deepcopy(yaml.safe_load((HERE.parent / PARAMS_FILE).read_text(encoding="utf-8")))
    tree["seed"] = seed
    if movielens is not None:
        tree["data"]["movielens"]["path"] = str(movielens.resolve())
    for key, value in {**settings()[setting], **changes}.items():
        *path, last = key.split(".")
        block = tree
        for part in path:
            block = block[part]
        block[last] = value
    return parse_config(tree)


def shards(setting: str, seed: int, work: Path, movielens: Path | None) -> tuple[Schema, Path, dict[str, Any] | None]:
    """Make the setting's shards unless they are there; return schema, folder and the oracle's metrics, if any."""
    seed = 0 if setting == "movielens" else seed
    folder = work / f"{setting}-{seed}"
    if not folder.exists():
        config = configure(setting, seed, {}, movielens)
        making = work / f".{folder.name}-{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        obtain(config.data, seed, making / "raw", lambda _: None)
        partition(config.data, seed, making / "raw", making / "clients", lambda _: None)
        if (making / "raw" / "oracle.json").exists():
            shutil.copy(making / "raw" / "oracle.json", making)
        shutil.rmtree(making / "raw")
        making.rename(folder)
    oracle = folder / "oracle.json"
    truth = json.loads(oracle.read_text(encoding="utf-8"))["scenarios"] if oracle.exists() else None
    return read_schema(folder / "clients" / "schema.json"), folder / "clients", truth
