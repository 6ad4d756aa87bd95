"""A federation in one process: a method and its clients."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pfmsmt.config import CalibrationChoice, Config
from pfmsmt.core.errors import ConfigError
from pfmsmt.core.types import NamedArrays, Template
from pfmsmt.data.schema import ScenarioSchema, Schema
from pfmsmt.data.shards.budget import RowPlan, choose_plan
from pfmsmt.data.shards.reader import RowGroups, ShardFile
from pfmsmt.data.shards.resident import ClientData, ClientRows, load_rows
from pfmsmt.data.shards.streamed import ReadingThread, StreamedShard
from pfmsmt.methods import Method
from pfmsmt.methods.catalogue import build_method, method_facts, with_messages
from pfmsmt.methods.noise import Entropy, seeded
from pfmsmt.models.mmoe import template_of
from pfmsmt.models.spec import ModelSpec, build_spec
from pfmsmt.training.client import Best, Client
from pfmsmt.training.devices import choose_workers
from pfmsmt.training.exchange import Exchange, InProcess
from pfmsmt.training.history import History
from pfmsmt.training.local import build_learner, client_batch_size, local_train
from pfmsmt.training.refit import Refit
from pfmsmt.training.results import best_rounds, fit_calibrations, write_models


class Federation(NamedTuple):
    """A method and the clients that take part, all in this process."""

    method: Method
    clients: Mapping[str, Client]
    schema: Schema
    template: Template
    """Roles of all tensors of a client's model."""
    calibration: CalibrationChoice = "none"
    workers: int = 1
    """Clients that compute at a time, ..."""
    threads: int = 1
    """... and torch's threads of each."""
    refit: Refit | None = None
    """Of a second training: what the first one found."""

    @property
    def names(self) -> tuple[str, ...]:
        """Client names, sorted."""
        return tuple(sorted(self.clients))

    @property
    def initial_parameters(self) -> NamedArrays:
        """Parameters of the untrained model; of private tables any client's."""
        return self.clients[self.names[0]].initial_parameters

    def open(self) -> AbstractContextManager[Exchange]:
        """Start the threads in which clients answer."""
        return InProcess(self.clients, self.workers, self.threads)

    def save(self, folder: Path, round: int) -> None:
        """Write every client's private state after `round`, and its best model.

        See `Client.save`.
        """
        for client in self.clients.values():
            client.save(folder, round)

    def load(self, folder: Path) -> None:
        """Load the state that `save` wrote.

        Raises:
            CheckpointError: missing or damaged.
        """
        for client in self.clients.values():
            client.load(folder)

    def findings(self, calibrate: bool = True) -> Refit:
        """Return what a second training takes from this one.

        Raises:
            TrainingError: a client never validated a model, or a calibration did not converge.
        """
        best_rounds(self.clients)
        best: dict[str, Best] = {
            name: client.best._replace(parameters={}) for name, client in self.clients.items() if client.best
        }
        return Refit(best, fit_calibrations(self.calibration if calibrate else "none", self.clients, self.schema))

    def save_models(self, folder: Path, history: History) -> dict[str, dict[str, Any]]:
        """Write every scenario's best model and the run's results; see `write_models`.

        Raises:
            TrainingError: a client never validated a model, or a calibration did not converge; nothing is written.
        """
        refit = self.findings() if self.refit is None else self.refit
        return write_models(folder, self.clients, self.schema, self.template, history, calibrations=refit.calibrations)


class _Sources(NamedTuple):
    """Row groups of each client, and the plan for reading them."""

    train: dict[str, RowGroups]
    """client -> training rows"""
    joined: dict[str, RowGroups]
    """client -> training and validation rows"""
    validation: dict[str, RowGroups]
    """client -> validation rows"""
    plan: RowPlan


def _open_sources(config: Config, schema: Schema, shards: Path, name: str) -> _Sources:
    facts = method_facts(name, config.methods)
    files = {s.scenario: [ShardFile(shards, split, s) for split in ("train", "val")] for s in _schemas(schema)}
    train = {client: RowGroups([first]) for client, (first, _) in files.items()}
    joined = {client: RowGroups(both) for client, both in files.items()}
    validation = {client: RowGroups([second]) for client, (_, second) in files.items()}
    # Both trainings of a refit read in one way, so the one with more rows decides.
    most = joined if config.train.refit else train
    plan = choose_plan(config.train, config.run.memory, [*most.values()], [*validation.values()], facts.phases)
    return _Sources(train, joined, validation, plan)


def plan_rows(config: Config, schema: Schema, shards: Path, name: str) -> RowPlan:
    """Return the plan by which `load_data` reads the rows of method `name`.

    Raises:
        ConfigError, DataError: see `load_data`.
    """
    return _open_sources(config, schema, shards, name).plan


def load_data(
    config: Config, schema: Schema, shards: Path, name: str, *, joined: bool = False
) -> dict[str, ClientData]:
    """Load the training and validation rows of each client of method `name`.

    Rows that do not fit into `run.memory` are opened, to be streamed. Test shards are not read.

    Args:
        config: all settings.
        schema: of the shards.
        shards: their folder.
        name: of the method.
        joined: validation rows are training rows too, and none are left to validate on.

    Raises:
        ConfigError: rows can neither be held nor streamed within `run.memory`.
        DataError: a shard cannot be read.
    """
    sources = _open_sources(config, schema, shards, name)
    plan, reader = sources.plan, ReadingThread()

    def rows(source: RowGroups) -> ClientRows:
        if plan.streamed:
            assert plan.window is not None
            return StreamedShard(source, plan.window, reader)
        return load_rows(source, plan.window)

    if joined:
        return {client: ClientData(rows(source), {}) for client, source in sources.joined.items()}
    held = {client: rows(source) for client, source in sources.validation.items()}
    return {client: ClientData(rows(source), {client: held[client]}) for client, source in sources.train.items()}


def build_federation(
    config: Config,
    schema: Schema,
    shards: Path,
    name: str,
    seed: int,
    device: torch.device,
    data: Mapping[str, ClientData] | None = None,
    mean_rows: float | None = None,
    entropy: Entropy = seeded,
    refit: Refit | None = None,
) -> Federation:
    """Build method `name` and all of its clients.

    Args:
        data: what `load_data` returned, to share it between federations; loaded from `shards` if left out.
        mean_rows: training rows of a client on average, where some clients are elsewhere.
        entropy: of noise on uploads, see `with_messages`.
        refit: what the first training found; then this is the second, on training and validation rows.

    Raises:
        ConfigError: train.task_weights does not fit the data's tasks, or an adapter's rank its first layer; or rows
            can neither be held nor streamed within `run.memory`.
        DataError: a shard cannot be read.
    """
    facts = method_facts(name, config.methods)
    specs = build_specs(config, schema, name)
    data = load_data(config, schema, shards, name, joined=refit is not None) if data is None else data
    if mean_rows is None:
        # Of the first training in the second as well: a batch grows with its client's rows, so a round takes as many
        # steps, and each row is met as often, as when rounds were counted.
        first = [counts["train"].rows for counts in schema.counts.values()]
        mean_rows = sum(first if refit else (part.train.rows for part in data.values())) / len(data)
    # Shapes may differ between clients, in their private tables; names and roles are the same.
    template = template_of(next(iter(specs.values())))
    plain = build_method(name, config.methods, local_train, template, config.train)
    # A reference is what could be reached without any limit on messages.
    method = with_messages(plain, template, config.privacy, entropy) if facts.deployable else plain
    clients = {}
    splits = ("train",) if refit is None else ("train", "val")
    for client, part in data.items():
        size = client_batch_size(config.train.batch_size, part.train.rows, mean_rows)
        # Two models cannot share a table that is trained in place.
        learner = build_learner(
            client,
            specs[client],
            part,
            size,
            config.train,
            seed,
            device,
            in_place=not facts.two_models,
            labelled=_labelled(schema, client, splits),
        )
        clients[client] = Client(client, method, learner, seed, None if refit is None else refit.best[client])
    workers, threads = choose_workers(config.run, len(clients), device)
    return Federation(method, clients, schema, template, config.train.calibration, workers, threads, refit)


def _labelled(schema: Schema, client: str, splits: Sequence[str]) -> tuple[int, ...] | None:
    """Count a client's labels of each task; None: no row lacks one."""
    if not any(task.partial for task in schema.tasks):
        return None
    return tuple(sum(schema.counts[client][split].labels(task.name) for split in splits) for task in schema.tasks)


def build_specs(config: Config, schema: Schema, name: str) -> dict[str, ModelSpec]:
    """Return the shapes of each scenario's model.

    Raises:
        ConfigError: see `build_federation`.
    """
    tasks = [task.name for task in schema.tasks]
    if len(config.train.task_weights) != len(tasks):
        raise ConfigError(
            f"train.task_weights has {len(config.train.task_weights)} values; "
            f"the data have the tasks {', '.join(tasks)}"
        )
    parts = method_facts(name, config.methods).model_parts
    specs = _without_large_ids(
        {s.scenario: build_spec(s, config.model, **parts) for s in _schemas(schema)}, config.train.large_table_rows
    )
    first = specs[schema.scenarios[0]]
    for key, rank in (("rank", first.rank), ("scenario_rank", first.scenario_rank)):
        if rank > first.inputs:
            raise ConfigError(
                f"methods.{name}.{key} = {rank} is larger than the model's input, which is {first.inputs} wide with "
                "these data"
            )
        # Of a preset that a project does not train, its parameters say nothing.
        if rank > min(first.expert_layers):
            raise ConfigError(
                f"methods.{name}.{key} = {rank} is larger than the smallest of model.expert_layers "
                f"({min(first.expert_layers)})"
            )
    return specs


def _without_large_ids(specs: dict[str, ModelSpec], large: int) -> dict[str, ModelSpec]:
    """Take first-order weights from private fields with large tables.

    Beside a table that is trained in place, these weights would be copied in every round, which it is spared. It is the
    same for all clients, as their tensors must have the same names.
    """
    if max(spec.private_codes for spec in specs.values()) < large:
        return specs
    return {name: spec.model_copy(update={"first_order_ids": False}) for name, spec in specs.items()}


def _schemas(schema: Schema) -> list[ScenarioSchema]:
    return [schema.scenario(scenario) for scenario in schema.scenarios]
