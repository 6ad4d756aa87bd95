"""One training run: data, method and tracker wired together."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pfmsmt import __version__
from pfmsmt.atomic import new_folder, recover, write_json
from pfmsmt.checkpoint import read_tree, write_tree
from pfmsmt.client import Client
from pfmsmt.config import PARAMS_FILE, Config
from pfmsmt.console import Progress, say
from pfmsmt.data.schema import Schema
from pfmsmt.devices import choose_device, choose_workers
from pfmsmt.errors import TrackingError, TrainingError
from pfmsmt.evaluation import score
from pfmsmt.exchange import InProcess
from pfmsmt.federation import POOLED_CLIENT, Federation, build_federation, scenario_parameters
from pfmsmt.methods import ServerState
from pfmsmt.models.saved import save_model
from pfmsmt.places import CHECKPOINTS, CLIENTS, MODELS, run_name
from pfmsmt.rounds import RoundResult, run_rounds

if TYPE_CHECKING:
    from pfmsmt.tracking import Tracking


class History:
    """What has been seen over the rounds of a run."""

    def __init__(self) -> None:
        """Start empty."""
        self.rows: list[dict[str, Any]] = []
        self._listening: dict[str, np.ndarray] = {}
        self._rounds = 0

    def add(self, result: RoundResult) -> dict[str, float | None]:
        """Take in one round; return its metrics under the names that MLflow gets."""
        self._rounds += 1
        for group, matrix in result.listening.items():
            self._listening[group] = self._listening.get(group, 0.0) + matrix
        metrics: dict[str, float | None] = dict(result.metrics)
        aucs = []
        for validation in result.validation.values():
            for scenario, tasks in validation.items():
                for task, cell in tasks.items():
                    self.rows.append({"round": result.round, "scenario": scenario, "task": task, **cell})
                    metrics |= {f"val/{scenario}/{task}_{name}": value for name, value in cell.items()}
                    aucs.append(cell["auc"])
        defined = [value for value in aucs if value is not None]
        metrics["val/mean_auc"] = float(np.mean(defined)) if defined else None
        return metrics

    def save(self) -> dict[str, Any]:
        """Return plain values."""
        listening = {group: matrix.tolist() for group, matrix in self._listening.items()}
        return {"rows": self.rows, "listening": listening, "rounds": self._rounds}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take up what `save` returned."""
        self.rows, self._rounds = list(saved["rows"]), saved["rounds"]
        self._listening = {group: np.array(matrix) for group, matrix in saved["listening"].items()}

    def listening(self, clients: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the mean of A over rounds, or None where the method has no A."""
        if not self._listening:
            return None
        groups = {group: (matrix / self._rounds).tolist() for group, matrix in sorted(self._listening.items())}
        return {"clients": list(clients), "groups": groups}


class Checkpoint:
    """The last complete state of a run, outside of DVC's outputs so that a kill does not lose it."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """`fingerprint` names what the run computes: a checkpoint of another one is not taken up."""
        self._folder, self._fingerprint = folder, fingerprint

    def save(self, result: RoundResult, federation: Federation, history: History, run_id: str) -> None:
        """Write server, clients and history as one folder, whole or not at all."""
        notes = {
            "fingerprint": self._fingerprint, "round": result.round, "history": history.save(), "run_id": run_id,
        }  # fmt: skip
        with new_folder(self._folder) as temporary:
            for client in federation.clients.values():
                client.save(temporary, result.round)
            write_tree(temporary / "server.safetensors", result.server, notes)

    def load(self, federation: Federation, history: History) -> tuple[ServerState, int, str] | None:
        """Restore clients and history; return server state, round and run id, or None to start anew.

        Raises:
            CheckpointError: a file is missing or damaged; the message names the folder to remove.
        """
        recover(self._folder)
        if not self._folder.exists():
            return None
        server, notes = read_tree(self._folder / "server.safetensors")
        if notes["fingerprint"] != self._fingerprint:
            say(f"{self._folder} is of another configuration or data: starting anew")
            return None
        for client in federation.clients.values():
            client.load(self._folder)
        history.load(notes["history"])
        return server, notes["round"], notes["run_id"]

    def remove(self) -> None:
        """Forget it: the run is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)


def train(config: Config, schema: Schema, name: str, seed: int, tracking: "Tracking", root: Path) -> dict[str, Any]:
    """Train one method with one seed; write `models/<method>-seed<seed>/` and one MLflow run.

    Returns:
        run id and logged model ids, as they are kept in `runs/<method>-seed<seed>.json`.

    Raises:
        TrainingError: see `run_rounds`; the last good rounds stay in `checkpoints/`.
    """
    run = run_name(name, seed)
    device = choose_device(config.train.device)
    federation = build_federation(config, schema, root / CLIENTS, name, seed, device)
    history = History()
    params = run_params(config, name, seed, str(device))
    checkpoint = Checkpoint(root / CHECKPOINTS / run, _fingerprint(params, schema))
    resumed = checkpoint.load(federation, history)
    first, resume_id = 1, None
    if resumed is None:
        parameters = federation.clients[federation.names[0]].initial_parameters
        server = federation.method.init(parameters, federation.names)
    else:
        server, done, resume_id = resumed
        first = done + 1
        try:
            tracking.check_run(resume_id)
        except TrackingError:
            resume_id = None
        say(f"{run}: going on after round {done}")
    workers, threads = choose_workers(config.train, len(federation.clients), device)
    say(f"{run}: {len(federation.clients)} clients on {device}, {workers} at a time")
    with (
        tracking.training_run(
            method=name, seed=seed, dataset=schema.source, fingerprint=schema.fingerprint, params=params,
            config_file=root / PARAMS_FILE, resume_id=resume_id, resume_round=first,
        ) as tracked,
        InProcess(federation.clients, workers, threads) as exchange,
    ):  # fmt: skip
        progress = Progress(run, config.train.rounds, first - 1)
        rounds = run_rounds(
            federation.method, exchange, server, federation.names,
            rounds=config.train.rounds, quorum=config.train.quorum, first=first,
        )  # fmt: skip
        last: RoundResult | None = None
        try:
            for result in rounds:
                metrics = history.add(result)
                tracked.log_round(result.round, metrics)
                for client, reason in result.failures.items():
                    say(f"{run}: round {result.round}: client {client} did not answer: {reason}")
                progress.show(result.round, _summary(metrics))
                last = result
                if result.round % config.train.checkpoint_every == 0 and result.round < config.train.rounds:
                    tracked.flush()
                    checkpoint.save(result, federation, history, tracked.id)
        except (TrainingError, KeyboardInterrupt) as error:
            if last is None:
                raise
            # A store that fails as well must not hide why the training stopped.
            with suppress(TrackingError):
                tracked.flush()
            checkpoint.save(last, federation, history, tracked.id)
            kept = f"The last good round, {last.round}, is kept in {CHECKPOINTS / run}."
            if isinstance(error, TrainingError):
                raise TrainingError(f"{error}\n{kept}") from error
            say(kept)
            raise
        folder = root / MODELS / run
        write_models(folder, federation, schema, history)
        model_ids = {
            scenario: tracked.log_scenario_model(
                f"{name}-{scenario}", folder / scenario, pd.read_parquet(root / CLIENTS / scenario / "example.parquet"),
                params={"scenario": scenario, "best_round": best["round"]}, step=config.train.rounds + 1,
            )
            for scenario, best in best_rounds(federation, schema).items()
        }  # fmt: skip
        tracked.log_files([folder / "result.json", folder / "history.csv"], "training")
    checkpoint.remove()
    return {"run_id": tracked.id, "models": model_ids}


def run_params(config: Config, name: str, seed: int, device: str) -> dict[str, Any]:
    """Return the flat parameters that decide what a run computes, under the names of params.yaml."""
    tree = config.model_dump(mode="json", by_alias=True)
    train_ = {key: value for key, value in tree["train"].items() if key not in ("methods", "seeds")}
    blocks = {"model": tree["model"], "train": {**train_, "device": device}, f"methods.{name}": tree["methods"][name]}
    flat = {f"{block}.{key}": value for block, values in blocks.items() for key, value in values.items()}
    return {"method": name, "seed": seed, "data.source": config.data.source, **flat}


def _fingerprint(params: Mapping[str, Any], schema: Schema) -> str:
    free = ("train.checkpoint_every", "train.workers", "train.threads")
    kept = {key: value for key, value in params.items() if key not in free}
    # The whole schema: shards with the same rows may differ in which fields are private.
    text = json.dumps([__version__, schema.model_dump(mode="json"), kept], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _summary(metrics: Mapping[str, float | None]) -> str:
    losses = [v for k, v in metrics.items() if k.startswith("train/") and k.endswith("/loss") and v is not None]
    auc = metrics["val/mean_auc"]
    shown = "undefined" if auc is None else f"{auc:.4f}"
    return f"loss {np.mean(losses):.4f}  validation AUC {shown}"


def best_rounds(federation: Federation, schema: Schema) -> dict[str, dict[str, Any]]:
    """Return scenario -> {round, mean_auc, validation} of the model that was kept, chosen on validation rows.

    `mean_auc` is None where no task's AUC is defined.

    Raises:
        TrainingError: a client never validated a model.
    """
    found = {}
    for scenario in schema.scenarios:
        best = _client_of(federation, scenario).best
        if best is None:
            raise TrainingError(f"scenario {scenario}: its client never validated a model, so there is none to keep")
        own = best.validation[scenario]
        defined = any(cell["auc"] is not None for cell in own.values())
        mean = score({scenario: own}).mean_auc if defined else None
        found[scenario] = {"round": best.round, "mean_auc": mean, "validation": own}
    return found


def _client_of(federation: Federation, scenario: str) -> Client:
    return federation.clients.get(scenario) or federation.clients[POOLED_CLIENT]


def write_models(folder: Path, federation: Federation, schema: Schema, history: History) -> None:
    """Write every scenario's best model, `history.csv`, `result.json` and, where there is an A, `listening.json`."""
    schemas = [schema.scenario(scenario) for scenario in schema.scenarios]
    with new_folder(folder) as temporary:
        for position, scenario_schema in enumerate(schemas):
            scenario = scenario_schema.scenario
            client = _client_of(federation, scenario)
            assert client.best is not None
            spec, parameters = client.learner.model.spec, client.best.parameters
            code = None
            if scenario not in federation.clients:
                spec, parameters = scenario_parameters(parameters, spec, schemas, scenario)
                code = position
            save_model(temporary / scenario, spec, parameters, scenario_schema, code)
        columns = ["round", "scenario", "task", "auc", "logloss"]
        pd.DataFrame(history.rows, columns=columns).to_csv(temporary / "history.csv", index=False)
        write_json(temporary / "result.json", {"best": best_rounds(federation, schema)})
        listening = history.listening(federation.names)
        if listening is not None:
            write_json(temporary / "listening.json", listening)
