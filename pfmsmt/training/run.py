"""One training run, wherever its clients are: rounds, checkpoints and tracking."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from pfmsmt import __version__
from pfmsmt.config import PARAMS_FILE, Config
from pfmsmt.core.console import Progress, say
from pfmsmt.core.errors import TrackingError, TrainingError
from pfmsmt.core.layout import CHECKPOINTS, CLIENTS, MODELS, run_name
from pfmsmt.core.types import NamedArrays, Template
from pfmsmt.data.schema import Schema
from pfmsmt.methods import Method
from pfmsmt.tracking.mlflow_run import training_run
from pfmsmt.training.checkpoint import Checkpoint
from pfmsmt.training.exchange import Exchange
from pfmsmt.training.history import History
from pfmsmt.training.privacy import check_accountant, spent
from pfmsmt.training.results import FILES
from pfmsmt.training.rounds import RoundResult, run_rounds

if TYPE_CHECKING:
    from pfmsmt.tracking import Store, TrainingRun


class Job(NamedTuple):
    """One run: its settings, its data, and its folder."""

    config: Config
    schema: Schema
    method: str
    seed: int
    params: Mapping[str, Any]
    """Flat parameters that decide what is computed, as MLflow gets them."""
    root: Path

    @property
    def name(self) -> str:
        """The run's one name."""
        return run_name(self.method, self.seed)

    @property
    def folder(self) -> Path:
        """The folder of models and results."""
        return self.root / MODELS / self.name


class FederationLike(Protocol):
    """A federation as a run drives it.

    `Federation` has all clients in this process; flower's `Sites` reaches them over the network.
    """

    @property
    def method(self) -> Method:
        """The method that server and clients compute."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Client names, sorted."""
        ...

    @property
    def template(self) -> Template:
        """Roles of all tensors of a client's model."""
        ...

    @property
    def initial_parameters(self) -> NamedArrays:
        """Parameters of the untrained model; of private tables any client's."""
        ...

    def open(self) -> AbstractContextManager[Exchange]:
        """Make ready to answer."""
        ...

    def save(self, folder: Path, round: int) -> None:
        """Write the clients' state after `round`, to resume from."""
        ...

    def load(self, folder: Path) -> None:
        """Load the state that `save` wrote."""
        ...

    def save_models(self, folder: Path, history: History) -> dict[str, dict[str, Any]]:
        """Write results, and the models that are the server's to have.

        Returns:
            scenario -> its best round, of the models that lie in the folder.
        """
        ...


def run_training(job: Job, federation: FederationLike, store: "Store") -> dict[str, Any]:
    """Run all rounds; write the job's folder and one MLflow run.

    Goes on after the last checkpoint if there is one.

    Returns:
        run id and logged model ids, as they are saved in `runs/<method>-seed<seed>.json`.

    Raises:
        TrainingError: see `run_rounds`; the last good rounds stay in `checkpoints/`.
    """
    config, schema, method = job.config, job.schema, federation.method
    check_accountant(config.privacy)
    history = History()
    checkpoint = Checkpoint(job.root / CHECKPOINTS / job.name, fingerprint(job.params, schema))
    resumed = checkpoint.load(federation.load, history)
    first, resume_id = 1, None
    if resumed is None:
        server = method.init(federation.initial_parameters, federation.names)
    else:
        server, done, resume_id = resumed
        first = done + 1
        try:
            store.check_run(resume_id)
        except TrackingError:
            resume_id = None
        say(f"{job.name}: going on after round {done}")
    with (
        training_run(
            store, method=job.method, seed=job.seed, dataset=schema.source, fingerprint=schema.fingerprint,
            params=job.params, config_file=job.root / PARAMS_FILE, data=schema,
            resume_id=resume_id, resume_round=first,
        ) as tracked,
        federation.open() as exchange,
    ):  # fmt: skip
        progress = Progress(job.name, config.train.rounds, first - 1)
        rounds = run_rounds(
            method, exchange, server, federation.names,
            rounds=config.train.rounds, quorum=config.train.quorum, first=first,
        )  # fmt: skip
        last: RoundResult | None = None
        try:
            for result in rounds:
                result.metrics |= spent(result.metrics, config.privacy)
                metrics = history.add(result)
                tracked.log_round(result.round, metrics)
                for client, reason in result.failures.items():
                    say(f"{job.name}: round {result.round}: client {client} did not answer: {reason}")
                if found := fallbacks(result.metrics):
                    say(f"{job.name}: round {result.round}: {found}")
                progress.show(result.round, _summary(metrics))
                last = result
                if result.round % config.run.checkpoint_every == 0 and result.round < config.train.rounds:
                    tracked.flush()
                    checkpoint.save(result, federation.save, history, tracked.id)
        except (TrainingError, KeyboardInterrupt) as error:
            if last is None:
                raise
            # A store that fails as well must not hide why the training stopped.
            with suppress(TrackingError):
                tracked.flush()
            checkpoint.save(last, federation.save, history, tracked.id)
            saved = f"The last good round, {last.round}, is saved in {CHECKPOINTS / job.name}."
            if isinstance(error, TrainingError):
                raise TrainingError(f"{error}\n{saved}") from error
            say(saved)
            raise
        models = _log_models(tracked, job, federation.save_models(job.folder, history))
        tracked.log_files([job.folder / file for file in FILES if (job.folder / file).exists()], "training")
        _log_pictures(tracked, job.method, history)
    say(f"{job.name}: {history.ledger.summary(federation.template)}")
    checkpoint.remove()
    return {"run_id": tracked.id, "models": models}


def run_params(config: Config, name: str, seed: int, device: str, shuffle: str) -> dict[str, Any]:
    """Return the parameters that decide a run, under params.yaml's names.

    Flat, as MLflow gets them. `device` and `shuffle` are what `auto` came to.
    """
    tree = config.model_dump(mode="json", by_alias=True)
    train_ = {key: value for key, value in tree["train"].items() if key not in ("methods", "seeds")}
    blocks = {
        "model": tree["model"],
        "train": {**train_, "shuffle": shuffle},
        "run": {**tree["run"], "device": device},
        "privacy": tree["privacy"],
        f"methods.{name}": tree["methods"][name],
    }
    flat = {f"{block}.{key}": value for block, values in blocks.items() for key, value in values.items()}
    return {"method": name, "seed": seed, "data.source": config.data.source, **flat}


def fingerprint(params: Mapping[str, Any], schema: Schema) -> str:
    """Return a hash of all that decides what a run computes."""
    # The last two say what answers the server takes, and may have to be changed for a run to go on.
    free = (
        "run.checkpoint_every", "run.memory", "run.workers", "run.threads",
        "train.quorum", "federate.largest_update",
    )  # fmt: skip
    decisive = {key: value for key, value in params.items() if key not in free}
    # The whole schema: shards with the same rows may differ in which fields are private.
    text = json.dumps([__version__, schema.model_dump(mode="json"), decisive], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fallbacks(metrics: Mapping[str, float]) -> str | None:
    """Return a line on groups whose coordination was not solved.

    The mean of the updates took its place there; None where all were solved.
    """
    failed = {
        key.removeprefix("server/").removesuffix("_solver_fallbacks"): round(value)
        for key, value in metrics.items()
        if key.endswith("_solver_fallbacks") and value > 0
    }
    if not failed:
        return None
    groups = ", ".join(f"{kind} ({count})" for kind, count in failed.items())
    return f"conflict coordination did not converge for {groups}; the mean of the updates is used there"


def _log_models(tracked: "TrainingRun", job: Job, best: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Log the folder's models; return scenario -> logged model's id."""
    return {
        scenario: tracked.log_scenario_model(
            f"{job.method}-{scenario}", job.folder / scenario,
            pd.read_parquet(job.root / CLIENTS / scenario / "example.parquet"),
            params={"scenario": scenario, "best_round": chosen["round"]}, step=job.config.train.rounds + 1,
        )
        for scenario, chosen in best.items()
    }  # fmt: skip


def _log_pictures(tracked: "TrainingRun", name: str, history: History) -> None:
    """Log the pictures of the run's diagnostics, if it has any."""
    table = history.diagnostics()
    if table is None:
        return
    # Not at the top: methods without pictures need not wait for matplotlib.
    from pfmsmt.report.comparison.diagnostic_pictures import diagnostic_pictures
    from pfmsmt.report.comparison.inputs import Diagnostics

    pictures = diagnostic_pictures(name, Diagnostics(table, history.ledger.traffic()))
    with tempfile.TemporaryDirectory() as folder:
        tracked.log_files([picture.write(Path(folder)) for picture in pictures], "training/pictures")


def _summary(metrics: Mapping[str, float | None]) -> str:
    losses = [v for k, v in metrics.items() if k.startswith("train/") and k.endswith("/loss") and v is not None]
    auc = metrics["val/mean_auc"]
    shown = "undefined" if auc is None else f"{auc:.4f}"
    return f"loss {np.mean(losses):.4f}  validation AUC {shown}"
