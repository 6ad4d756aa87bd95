"""One training run, wherever its clients are: rounds, checkpoints and tracking."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pandas as pd

from pfmsmt import __version__
from pfmsmt.config import PARAMS_FILE, Config
from pfmsmt.core.console import Progress, say
from pfmsmt.core.errors import TrackingError, TrainingError
from pfmsmt.core.layout import CHECKPOINTS, CLIENTS, MODELS, run_name
from pfmsmt.core.types import NamedArrays, Template
from pfmsmt.data.schema import Schema
from pfmsmt.methods import Method, ServerState
from pfmsmt.tracking.mlflow_run import training_run
from pfmsmt.training.checkpoint import Checkpoint
from pfmsmt.training.exchange import Exchange
from pfmsmt.training.history import History
from pfmsmt.training.privacy import check_accountant, spent
from pfmsmt.training.refit import Refit
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

    def findings(self) -> Refit:
        """Return what a second training takes from this one."""
        ...

    def save_models(self, folder: Path, history: History) -> dict[str, dict[str, Any]]:
        """Write results, and the models that are the server's to have.

        Returns:
            scenario -> its best round, of the models that lie in the folder.
        """
        ...


Build = Callable[[Refit | None], FederationLike]
"""Builds the federation of a run's first training or, from what that found, of its second."""
_Found = TypeVar("_Found")


class _Run(NamedTuple):
    """The job, and the places to which both of its trainings write."""

    job: Job
    history: History
    checkpoint: Checkpoint
    tracked: "TrainingRun"


class _Start(NamedTuple):
    """The state from which a training begins or goes on."""

    server: ServerState
    done: int = 0
    refit: Refit | None = None
    """Of a second training."""


def run_training(job: Job, build: Build, store: "Store") -> dict[str, Any]:
    """Run all rounds; write the job's folder and one MLflow run.

    Goes on after the last checkpoint if there is one. With `train.refit` a second training follows; in history, ledger
    and MLflow its rounds are numbered after those of the first.

    Returns:
        run id, logged model ids and fingerprint, as they are saved in `runs/<method>-seed<seed>.json`.

    Raises:
        TrainingError: see `run_rounds`; the last good rounds stay in `checkpoints/`.
    """
    config, schema = job.config, job.schema
    check_accountant(config.privacy)
    history = History()
    computation = fingerprint(job.params, schema)
    checkpoint = Checkpoint(job.root / CHECKPOINTS / job.name, computation)
    refit = checkpoint.refit()
    federation = build(refit)
    resumed = checkpoint.load(federation.load, history)
    if resumed is None:
        start, resume_id = _begin(federation), None
    else:
        server, done, resume_id = resumed
        start = _Start(server, done, refit)
        try:
            store.check_run(resume_id)
        except TrackingError:
            resume_id = None
        say(f"{job.name}: going on after round {done}{_which(refit)}")
    with training_run(
        store, method=job.method, seed=job.seed, dataset=schema.source, fingerprint=schema.fingerprint,
        params=job.params, computation=computation,
        config_file=job.root / PARAMS_FILE, data=schema,
        resume_id=resume_id, resume_round=_numbered(start.done + 1, config, refit),
    ) as tracked:  # fmt: skip
        run = _Run(job, history, checkpoint, tracked)
        if config.train.refit and refit is None:
            refit = _train(run, federation, start, lambda trained: trained.findings())
            # The first training's rows and models go before the second's come.
            del federation
            federation = build(refit)
            start = _begin(federation, refit)
            tracked.flush()
            checkpoint.save(RoundResult(0, start.server), federation.save, history, tracked.id, refit)
        best = _train(run, federation, start, lambda trained: trained.save_models(job.folder, history))
        last = _numbered(config.train.rounds if refit is None else refit.rounds, config, refit)
        models = _log_models(tracked, job, best, last + 1)
        tracked.log_files([job.folder / file for file in FILES if (job.folder / file).exists()], "training")
        _log_pictures(tracked, job, history)
    warn_of_overfitting(job, history)
    say(f"{job.name}: {history.ledger.summary(federation.template)}")
    checkpoint.remove()
    return {"run_id": tracked.id, "models": models, "fingerprint": computation}


def _begin(federation: FederationLike, refit: Refit | None = None) -> _Start:
    return _Start(federation.method.init(federation.initial_parameters, federation.names), refit=refit)


def _numbered(round: int, config: Config, refit: Refit | None) -> int:
    """Return a round's number in the run.

    A second training's rounds follow the first's.
    """
    return round if refit is None else config.train.rounds + round


def _which(refit: Refit | None) -> str:
    return "" if refit is None else " of the second training"


def _train(run: _Run, federation: FederationLike, start: _Start, finish: Callable[[FederationLike], _Found]) -> _Found:
    """Run one training's rounds, with checkpoints; return what `finish` makes of it."""
    job, config, refit = run.job, run.job.config, start.refit
    rounds = config.train.rounds if refit is None else refit.rounds
    with federation.open() as exchange:
        progress = Progress(job.name if refit is None else f"{job.name} refit", rounds, start.done)
        results = run_rounds(
            federation.method, exchange, start.server, federation.names,
            rounds=rounds, quorum=config.train.quorum, first=start.done + 1,
        )  # fmt: skip
        last: RoundResult | None = None
        try:
            for result in results:
                result.metrics |= spent(result.metrics, config.privacy)
                number = _numbered(result.round, config, refit)
                # Diagnostics describe the first training, whose rounds all run.
                seen = result.diagnostics if refit is None else {}
                metrics = run.history.add(replace(result, round=number, diagnostics=seen))
                run.tracked.log_round(number, metrics)
                for client, reason in result.failures.items():
                    say(f"{job.name}: round {result.round}{_which(refit)}: client {client} did not answer: {reason}")
                if found := fallbacks(result.metrics):
                    say(f"{job.name}: round {result.round}{_which(refit)}: {found}")
                progress.show(result.round, _summary(metrics, validates=refit is None))
                last = result
                if result.round % config.run.checkpoint_every == 0 and result.round < rounds:
                    run.tracked.flush()
                    run.checkpoint.save(result, federation.save, run.history, run.tracked.id, refit)
        except (TrainingError, KeyboardInterrupt) as error:
            if last is None:
                raise
            # A store that fails as well must not hide why the training stopped.
            with suppress(TrackingError):
                run.tracked.flush()
            run.checkpoint.save(last, federation.save, run.history, run.tracked.id, refit)
            saved = f"The last good round{_which(refit)}, {last.round}, is saved in {CHECKPOINTS / job.name}."
            if isinstance(error, TrainingError):
                raise TrainingError(f"{error}\n{saved}") from error
            say(saved)
            raise
        return finish(federation)


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


def _log_models(tracked: "TrainingRun", job: Job, best: Mapping[str, Mapping[str, Any]], step: int) -> dict[str, str]:
    """Log the folder's models; return scenario -> logged model's id."""
    return {
        scenario: tracked.log_scenario_model(
            f"{job.method}-{scenario}", job.folder / scenario,
            pd.read_parquet(job.root / CLIENTS / scenario / "example.parquet"),
            params={"scenario": scenario, "best_round": chosen["round"], **_refit_rows(chosen)}, step=step,
        )
        for scenario, chosen in best.items()
    }  # fmt: skip


def _refit_rows(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in chosen.items() if key == "refit_rows"}


def _log_pictures(tracked: "TrainingRun", job: Job, history: History) -> None:
    """Log the pictures of the run's diagnostics, if it has any."""
    table = history.diagnostics()
    if table is None:
        return
    # Not at the top: methods without pictures need not wait for matplotlib.
    from pfmsmt.report.comparison.diagnostic_pictures import diagnostic_pictures
    from pfmsmt.report.comparison.inputs import Diagnostics

    found = Diagnostics(table, history.ledger.traffic())
    pictures = diagnostic_pictures(job.method, found, job.schema.scenarios)
    with tempfile.TemporaryDirectory() as folder:
        tracked.log_files([picture.write(Path(folder)) for picture in pictures], "training/pictures")


def warn_of_overfitting(job: Job, history: History) -> None:
    """Say which scenarios overfit, and what to change."""
    # Not at the top: other code of the report needs matplotlib, and nothing that is trained depends on it.
    from pfmsmt.report.comparison.overfitting import overfit_text, overfits, remedies_of

    validation = {scenario: counts["val"] for scenario, counts in job.schema.counts.items() if "val" in counts}
    cases = overfits(pd.DataFrame(history.rows, columns=["round", "scenario", "task", "auc"]), validation)
    text = overfit_text(job.name, cases, remedies_of(job.method, job.config.methods))
    if text:
        say(text)


def _summary(metrics: Mapping[str, float | None], *, validates: bool) -> str:
    losses = [v for k, v in metrics.items() if k.startswith("train/") and k.endswith("/loss") and v is not None]
    if not validates:
        return f"loss {np.mean(losses):.4f}"
    auc = metrics["val/mean_auc"]
    shown = "undefined" if auc is None else f"{auc:.4f}"
    return f"loss {np.mean(losses):.4f}  validation AUC {shown}"
