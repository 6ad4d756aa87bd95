"""The settings of the quality benchmark: their parameters, shards made once for each seed, and a training on them."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import id_world
import torch
import yaml

from pfmsmt.config import PARAMS_FILE, Config, parse_config
from pfmsmt.config.keys import set_values
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.schema import Schema, read_schema
from pfmsmt.training.rounds import RoundResult
from pfmsmt.training.trial import Trial, run_trial

HERE = Path(__file__).parent
DEFAULT = "default"
MANY_IDS = "many_ids"
"""The setting whose log is made here, and read as one's own tables are."""
REAL = ("movielens",)
"""Settings whose data are not drawn anew with every seed."""
QUICK_ROWS = {"train_rows": 1000, "test_rows": 1000}
START_VALUES, DEFAULTS_BEST, SEARCHED = "start values", "best of the default setting", "searched values"
"""Whose values a search ended with: `ended_at` of a study."""


class Bench(NamedTuple):
    """Where a benchmark keeps its data and results, and how large it is."""

    work: Path
    results: Path
    movielens: Path | None
    quick: bool
    """Tiny data and two rounds, to see that it works."""

    @property
    def runs(self) -> Path:
        """One row for each run, scenario and task."""
        return self.results / "quality.csv"

    def tuned_file(self, setting: str, method: str) -> Path:
        """Return where a study's figures and best parameters are."""
        return self.results / "tuned" / setting / f"{method}.yaml"

    def study(self, setting: str, method: str) -> dict[str, Any]:
        """Return a method's study (`study`: its figures, `params`) of a setting; of the default one where it has none.

        Raises:
            FileNotFoundError: the setting has studies, but none of this method, or nobody has.
        """
        place = setting if self.tuned_file(setting, method).parent.exists() else DEFAULT
        path = self.tuned_file(place, method)
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist; run: quality.py tune --settings {place} --methods {method}, with as many "
                "trials as the others had"
            )
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")))

    def tuned(self, setting: str, method: str) -> dict[str, Any]:
        """Return the tuned parameters of a method; FileNotFoundError as `study`."""
        return dict(self.study(setting, method)["params"])


def check_studies(bench: Bench, setting: str, methods: Sequence[str]) -> None:
    """Refuse to compare methods that were not tuned with the same number of trials.

    Raises:
        ValueError: trials differ; they are named.
        FileNotFoundError: as `Bench.study`.
    """
    trials = {method: bench.study(setting, method)["study"]["trials"] for method in methods}
    if len(set(trials.values())) > 1:
        found = ", ".join(f"{method} {count}" for method, count in trials.items())
        raise ValueError(f"{setting}: methods were tuned with different numbers of trials: {found}")


def settings() -> dict[str, dict[str, Any]]:
    """Return {setting: {dotted key of params.yaml: value}}."""
    return dict(yaml.safe_load((HERE / "settings.yaml").read_text(encoding="utf-8")))


def configure(bench: Bench, setting: str, seed: int, changes: dict[str, Any]) -> Config:
    """Return params.yaml with a setting's values, then `changes`, both by dotted keys."""
    tree = copy.deepcopy(yaml.safe_load((HERE.parent / PARAMS_FILE).read_text(encoding="utf-8")))
    tree["seed"] = seed
    if bench.movielens is not None:
        tree["data"]["movielens"]["path"] = str(bench.movielens.resolve())
    changes = {**settings()[setting], **changes}
    if bench.quick:
        changes["train.rounds"] = 2
        if scenarios := changes.get("data.synthetic.scenarios"):
            changes["data.synthetic.scenarios"] = dict.fromkeys(scenarios, QUICK_ROWS)
    set_values(tree, changes)
    return parse_config(tree)


def shards(bench: Bench, setting: str, seed: int) -> tuple[Schema, Path, dict[str, Any] | None]:
    """Make the setting's shards unless they are there; return schema, folder and the oracle's metrics, if any."""
    seed = 0 if setting in REAL else seed
    folder = bench.work / f"{setting}-{seed}{'-quick' if bench.quick else ''}"
    if not folder.exists():
        making = bench.work / f".{folder.name}-{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        changes: dict[str, Any] = {}
        if setting == MANY_IDS:
            sizes = dict.fromkeys(id_world.SCENARIOS, tuple(QUICK_ROWS.values())) if bench.quick else id_world.SCENARIOS
            id_world.generate(seed, making, sizes)
            changes = {"data.tabular.path": str((making / "tables").resolve())}
        config = configure(bench, setting, seed, changes)
        obtain(config.data, seed, making / "raw", lambda _: None)
        partition(config.data, seed, making / "raw", making / "clients", lambda _: None)
        if (making / "raw" / "oracle.json").exists():
            shutil.copy(making / "raw" / "oracle.json", making)
        shutil.rmtree(making / "raw")
        shutil.rmtree(making / "tables", ignore_errors=True)
        making.rename(folder)
    oracle = folder / "oracle.json"
    truth = json.loads(oracle.read_text(encoding="utf-8"))["scenarios"] if oracle.exists() else None
    return read_schema(folder / "clients" / "schema.json"), folder / "clients", truth


def train(
    bench: Bench,
    setting: str,
    seed: int,
    method: str,
    changes: dict[str, Any],
    on_round: Callable[[RoundResult], None] = lambda _: None,
) -> Trial:
    """Train a method in one thread, with all tasks of equal weight.

    Args:
        bench: where the shards are.
        setting: one of `settings`.
        seed: of data and training.
        method: its name.
        changes: values by dotted keys of params.yaml.
        on_round: as in `run_trial`.
    """
    schema, folder, _ = shards(bench, setting, seed)
    weights = {"train.task_weights": [1.0] * len(schema.tasks)}
    config = configure(bench, setting, seed, weights | changes)
    return run_trial(config, schema, folder, method, seed, torch.device("cpu"), workers=1, threads=1, on_round=on_round)
