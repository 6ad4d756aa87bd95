"""One training run: data, method and tracker wired together."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pfmsmt import __version__
from pfmsmt.config import PARAMS_FILE, Config
from pfmsmt.console import Progress, say
from pfmsmt.data.schema import Schema
from pfmsmt.data.streaming import StreamedShard
from pfmsmt.devices import choose_device, choose_workers
from pfmsmt.errors import TrackingError, TrainingError
from pfmsmt.exchange import InProcess
from pfmsmt.federation import build_federation
from pfmsmt.history import History
from pfmsmt.keeping import FILES, write_models
from pfmsmt.places import CHECKPOINTS, CLIENTS, MODELS, run_name
from pfmsmt.resume import Checkpoint
from pfmsmt.rounds import RoundResult, run_rounds

if TYPE_CHECKING:
    from pfmsmt.tracking import Tracking, TrainingRun


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
    rows = federation.clients[federation.names[0]].learner.data.train
    shuffle = "rows" if rows.shuffle.window is None else "row_groups"
    params = run_params(config, name, seed, str(device), shuffle)
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
    if isinstance(rows, StreamedShard):
        say(f"{run}: more rows than fit into train.memory ({config.train.memory:g} GiB); they are streamed")
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
                if found := fallbacks(result.metrics):
                    say(f"{run}: round {result.round}: {found}")
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
        best = write_models(folder, federation, schema, history)
        model_ids = {
            scenario: tracked.log_scenario_model(
                f"{name}-{scenario}", folder / scenario, pd.read_parquet(root / CLIENTS / scenario / "example.parquet"),
                params={"scenario": scenario, "best_round": chosen["round"]}, step=config.train.rounds + 1,
            )
            for scenario, chosen in best.items()
        }  # fmt: skip
        tracked.log_files([folder / file for file in FILES if (folder / file).exists()], "training")
        _log_pictures(tracked, name, history)
    say(f"{run}: {history.ledger.summary(federation.clients[federation.names[0]].learner.binding.template)}")
    checkpoint.remove()
    return {"run_id": tracked.id, "models": model_ids}


def run_params(config: Config, name: str, seed: int, device: str, shuffle: str) -> dict[str, Any]:
    """Return the flat parameters that decide what a run computes, under the names of params.yaml.

    `device` and `shuffle` are what `auto` came to.
    """
    tree = config.model_dump(mode="json", by_alias=True)
    train_ = {key: value for key, value in tree["train"].items() if key not in ("methods", "seeds")}
    blocks = {
        "model": tree["model"],
        "train": {**train_, "device": device, "shuffle": shuffle},
        f"methods.{name}": tree["methods"][name],
    }
    flat = {f"{block}.{key}": value for block, values in blocks.items() for key, value in values.items()}
    return {"method": name, "seed": seed, "data.source": config.data.source, **flat}


def fallbacks(metrics: Mapping[str, float]) -> str | None:
    """Return what to say of a round in which coordination was not solved somewhere and the mean took its place."""
    failed = {
        key.removeprefix("server/").removesuffix("_solver_fallbacks"): round(value)
        for key, value in metrics.items()
        if key.endswith("_solver_fallbacks") and value > 0
    }
    if not failed:
        return None
    groups = ", ".join(f"{kind} ({count})" for kind, count in failed.items())
    return f"conflict coordination did not converge for {groups}; the mean of the updates is used there"


def _log_pictures(tracked: "TrainingRun", name: str, history: History) -> None:
    """Draw what explains the run; a method without diagnostics has nothing to draw."""
    table = history.diagnostics()
    if table is None:
        return
    # Not at the top: methods without pictures need not wait for matplotlib.
    from pfmsmt.report.diagnostics import diagnostic_pictures
    from pfmsmt.report.results import Diagnostics

    pictures = diagnostic_pictures(name, Diagnostics(table, history.ledger.traffic()))
    with tempfile.TemporaryDirectory() as folder:
        tracked.log_files([picture.write(Path(folder)) for picture in pictures], "training/pictures")


def _fingerprint(params: Mapping[str, Any], schema: Schema) -> str:
    free = ("train.checkpoint_every", "train.memory", "train.workers", "train.threads")
    kept = {key: value for key, value in params.items() if key not in free}
    # The whole schema: shards with the same rows may differ in which fields are private.
    text = json.dumps([__version__, schema.model_dump(mode="json"), kept], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _summary(metrics: Mapping[str, float | None]) -> str:
    losses = [v for k, v in metrics.items() if k.startswith("train/") and k.endswith("/loss") and v is not None]
    auc = metrics["val/mean_auc"]
    shown = "undefined" if auc is None else f"{auc:.4f}"
    return f"loss {np.mean(losses):.4f}  validation AUC {shown}"
