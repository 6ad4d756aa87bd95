"""One training run in memory: no files, no tracking. For ablations, benchmarks and tuning."""

from pathlib import Path
from typing import NamedTuple

import torch

from pfmsmt.config import Config
from pfmsmt.data.batches import load_shard, private_shifts
from pfmsmt.data.schema import Schema
from pfmsmt.errors import TrainingError
from pfmsmt.evaluation import predict
from pfmsmt.exchange import InProcess
from pfmsmt.federation import POOLED_CLIENT, Federation, build_federation
from pfmsmt.metrics import auc
from pfmsmt.rounds import run_rounds

Aucs = dict[str, dict[str, float | None]]
"""scenario -> task -> AUC; None: undefined, as the rows hold a single class."""


class Trial(NamedTuple):
    """A federation whose rounds have been run."""

    federation: Federation
    metrics: tuple[dict[str, float], ...]
    """Of each round, as they would be logged."""

    def validation(self) -> Aucs:
        """Return the validation AUCs of every client's best round.

        Raises:
            TrainingError: a client never answered.
        """
        found: Aucs = {}
        for name, client in self.federation.clients.items():
            if client.best is None:
                raise TrainingError(f"client {name} was never validated")
            found |= {
                s: {task: cell["auc"] for task, cell in tasks.items()} for s, tasks in client.best.validation.items()
            }
        return found

    def test(self, schema: Schema, shards: Path) -> Aucs:
        """Score every client's best model on the test shards.

        Raises:
            DataError: a shard cannot be read.
        """
        found: Aucs = {}
        schemas = [schema.scenario(scenario) for scenario in schema.scenarios]
        shifts = private_shifts(schemas)
        for position, own in enumerate(schemas):
            client = self.federation.clients.get(own.scenario) or self.federation.clients[POOLED_CLIENT]
            learner, shard = client.learner, load_shard(shards, "test", own)
            if own.scenario not in self.federation.clients:
                scenario = torch.full((shard.rows, 1), position)
                shard = shard._replace(codes=torch.cat((shard.codes + torch.from_numpy(shifts[position]), scenario), 1))
            if client.best is None:
                raise TrainingError(f"client {client.name} was never validated")
            learner.binding.write(client.best.parameters)
            probabilities = predict(learner.model, shard, learner.device)
            labels = shard.labels.numpy().astype("uint8")
            found[own.scenario] = {
                task.name: auc(labels[:, i], probabilities[:, i]) for i, task in enumerate(schema.tasks)
            }
        return found


def run_trial(
    config: Config,
    schema: Schema,
    shards: Path,
    name: str,
    seed: int,
    device: torch.device,
    *,
    workers: int,
    threads: int,
) -> Trial:
    """Run all rounds of method `name`.

    Raises:
        TrainingError: see `run_rounds`.
    """
    federation = build_federation(config, schema, shards, name, seed, device)
    parameters = federation.clients[federation.names[0]].initial_parameters
    server = federation.method.init(parameters, federation.names)
    with InProcess(federation.clients, workers, threads) as exchange:
        results = run_rounds(
            federation.method, exchange, server, federation.names,
            rounds=config.train.rounds, quorum=config.train.quorum,
        )  # fmt: skip
        metrics = tuple(result.metrics for result in results)
    return Trial(federation, metrics)
