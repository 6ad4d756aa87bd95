"""One training run in memory: no files, no tracking.

For ablations, benchmarks and tuning.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from pfmsmt.config import Config
from pfmsmt.core.errors import TrainingError
from pfmsmt.core.metrics import auc
from pfmsmt.data.schema import Schema
from pfmsmt.data.shards.resident import ClientData
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
            client = self.federation.client_of(scenario)
            shard = self.federation.open_shard(shards, "test", scenario)
            client.write_best()
            probabilities = predict_rows(client.learner.model, shard, client.learner.device)
            labels = shard.labels.numpy().astype("uint8")
            found[scenario] = {task.name: auc(labels[:, i], probabilities[:, i]) for i, task in enumerate(schema.tasks)}
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
    """Run all rounds of method `name`.

    Args:
        data: what `load_data` returned, to share it between trials; loaded from `shards` if left out.
        on_round: called after every round; what it raises ends the trial.

    Raises:
        TrainingError: see `run_rounds`.
    """
    federation = build_federation(config, schema, shards, name, seed, device, data)
    server = federation.method.init(federation.initial_parameters, federation.names)
    with InProcess(federation.clients, workers, threads) as exchange:
        results = run_rounds(
            federation.method, exchange, server, federation.names,
            rounds=config.train.rounds, quorum=config.train.quorum,
        )  # fmt: skip
        validation = tuple(mean_auc(result.validation.values()) for result in _reporting(results, on_round))
    return Trial(federation, validation)


def _reporting(results: Iterator[RoundResult], on_round: Callable[[RoundResult], None]) -> Iterator[RoundResult]:
    for result in results:
        on_round(result)
        yield result
