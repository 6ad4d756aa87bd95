"""One training run in memory: no files, no tracking.

For ablations, benchmarks and tuning.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from pfmsmt.config import Config
from pfmsmt.core.errors import TrainingError
from pfmsmt.core.metrics import auc
from pfmsmt.data.schema import UNLABELLED, Schema
from pfmsmt.data.shards.resident import ClientData
from pfmsmt.data.shards.streamed import open_shard
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import Federation, build_federation
from pfmsmt.training.rounds import RoundResult, run_rounds
from pfmsmt.training.scores import mean_auc
from pfmsmt.training.validate import predict_rows

Aucs = dict[str, dict[str, float | None]]
"""scenario -> task -> AUC; None: undefined, as the rows hold a single class."""


class Trial(NamedTuple):
    """A federation whose rounds have been run."""

    federation: Federation
    """With `train.refit` that of the second training."""
    validation: tuple[float | None, ...]
    """Mean AUC over scenarios and tasks on validation rows after each round; None where no AUC is defined."""

    def best_validation(self) -> float:
        """Return the mean validation AUC of the best round.

        One round for all clients: the best of each client's own rounds, on few validation rows, is mostly luck, and
        the more restless a training is, the more of it there is.

        Raises:
            TrainingError: no AUC is defined in any round.
        """
        defined = [value for value in self.validation if value is not None]
        if not defined:
            raise TrainingError("no validation AUC is defined: every task has a single class in the validation rows")
        return max(defined)

    def test(self, schema: Schema, shards: Path) -> Aucs:
        """Score every client's best model on the test shards.

        Raises:
            DataError: a shard cannot be read.
        """
        found: Aucs = {}
        for scenario in schema.scenarios:
            client = self.federation.clients[scenario]
            shard = open_shard(shards, "test", schema.scenario(scenario))
            client.write_best()
            probabilities = predict_rows(client.learner.model, shard, client.learner.device)
            labels = shard.labels.numpy().astype("uint8")
            found[scenario] = {}
            for i, task in enumerate(schema.tasks):
                known = labels[:, i] != UNLABELLED
                found[scenario][task.name] = auc(labels[known, i], probabilities[known, i])
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
    data: Mapping[str, ClientData] | None = None,
    on_round: Callable[[RoundResult], None] = lambda _: None,
) -> Trial:
    """Run all rounds of method `name`, and with `train.refit` a second training.

    Args:
        data: what `load_data` returned, to share it between trials; loaded from `shards` if left out.
        on_round: called after every round of the first training; what it raises ends the trial.

    Raises:
        TrainingError: see `run_rounds`.
    """

    federation = build_federation(config, schema, shards, name, seed, device, data)
    validation = _train(federation, config.train.rounds, config.train.quorum, workers, threads, on_round)
    if config.train.refit:
        # No probability is looked at, so none needs calibration.
        refit = federation.findings(calibrate=False)
        del federation  # its rows and models make room
        federation = build_federation(config, schema, shards, name, seed, device, refit=refit)
        _train(federation, refit.rounds, config.train.quorum, workers, threads, lambda _: None)
    return Trial(federation, validation)


def _train(
    federation: Federation,
    rounds: int,
    quorum: float,
    workers: int,
    threads: int,
    on_round: Callable[[RoundResult], None],
) -> tuple[float | None, ...]:
    """Run all rounds; return the mean validation AUC after each."""
    server = federation.method.init(federation.initial_parameters, federation.names)
    validation = []
    with InProcess(federation.clients, workers, threads) as exchange:
        for result in run_rounds(federation.method, exchange, server, federation.names, rounds=rounds, quorum=quorum):
            on_round(result)
            validation.append(mean_auc(result.validation.values()))
    return tuple(validation)
