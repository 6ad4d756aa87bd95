"""One training run in this process: data, method and tracker wired together."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from pfmsmt.config import Config
from pfmsmt.core.console import say
from pfmsmt.core.layout import CLIENTS, run_name
from pfmsmt.core.types import NamedArrays, Template
from pfmsmt.data.schema import Schema
from pfmsmt.data.shards.streamed import StreamedShard
from pfmsmt.methods import Method
from pfmsmt.training.devices import choose_device, choose_workers
from pfmsmt.training.exchange import Exchange, InProcess
from pfmsmt.training.federation import Federation, build_federation
from pfmsmt.training.history import History
from pfmsmt.training.results import write_models
from pfmsmt.training.run import Job, run_params, run_training

if TYPE_CHECKING:
    from pfmsmt.tracking import Tracking, TrainingRun


def train(config: Config, schema: Schema, name: str, seed: int, tracking: "Tracking", root: Path) -> dict[str, Any]:
    """Train one method with one seed; write `models/<method>-seed<seed>/` and one MLflow run.

    Returns:
        run id and logged model ids, as they are kept in `runs/<method>-seed<seed>.json`.

    Raises:
        TrainingError: see `run_rounds`; the last good rounds stay in `checkpoints/`.
    """
    device = choose_device(config.run.device)
    federation = build_federation(config, schema, root / CLIENTS, name, seed, device)
    workers, threads = choose_workers(config.run, len(federation.clients), device)
    run = run_name(name, seed)
    say(f"{run}: {len(federation.clients)} clients on {device}, {workers} at a time")
    rows = federation.clients[federation.names[0]].learner.data.train
    if isinstance(rows, StreamedShard):
        say(f"{run}: more rows than fit into run.memory ({config.run.memory:g} GiB); they are streamed")
    shuffle = "rows" if rows.shuffle.window is None else "row_groups"
    job = Job(config, schema, name, seed, run_params(config, name, seed, str(device), shuffle), root)
    return run_training(job, _Here(federation, workers, threads), tracking)


class _Here(NamedTuple):
    """All clients in threads of this process; see `Participants`."""

    federation: Federation
    workers: int
    threads: int

    @property
    def method(self) -> Method:
        return self.federation.method

    @property
    def names(self) -> tuple[str, ...]:
        return self.federation.names

    @property
    def template(self) -> Template:
        return self.federation.template

    @property
    def initial_parameters(self) -> NamedArrays:
        return self.federation.clients[self.names[0]].initial_parameters

    def open(self) -> AbstractContextManager[Exchange]:
        return InProcess(self.federation.clients, self.workers, self.threads)

    def save(self, folder: Path, round: int) -> None:
        self.federation.save(folder, round)

    def load(self, folder: Path) -> None:
        self.federation.load(folder)

    def keep(self, job: Job, history: History, tracked: "TrainingRun") -> dict[str, str]:
        best = write_models(job.folder, self.federation, job.schema, history, job.config.train.calibration)
        return {
            scenario: tracked.log_scenario_model(
                f"{job.method}-{scenario}", job.folder / scenario,
                pd.read_parquet(job.root / CLIENTS / scenario / "example.parquet"),
                params={"scenario": scenario, "best_round": chosen["round"]}, step=job.config.train.rounds + 1,
            )
            for scenario, chosen in best.items()
        }  # fmt: skip
