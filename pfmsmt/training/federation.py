"""Builds a federation from shards: one client per scenario, or one with everybody's rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch

from pfmsmt.config import Methods, Model, Privacy, Run, Train
from pfmsmt.core.errors import ConfigError
from pfmsmt.core.types import NamedArrays, Template
from pfmsmt.data.schema import ScenarioSchema, Schema
from pfmsmt.data.shards.budget import choose_plan
from pfmsmt.data.shards.reader import Pooling, RowGroups, ShardFile
from pfmsmt.data.shards.resident import ClientData, ClientRows, load_rows, private_shifts
from pfmsmt.data.shards.streamed import ReadingThread, StreamedShard
from pfmsmt.methods import Method
from pfmsmt.methods.catalogue import POOLED, TWO_MODELS, build_method, expert_parts, phases, with_messages
from pfmsmt.methods.noise import Entropy, seeded
from pfmsmt.models.spec import ModelSpec, build_spec
from pfmsmt.training.client import Client
from pfmsmt.training.local import build_learner, client_batch_size, local_train

POOLED_CLIENT = "all"


class Recipe(Protocol):
    """The part of a configuration that decides what clients compute."""

    @property
    def model(self) -> Model:
        """Shape of every client's model."""
        ...

    @property
    def train(self) -> Train:
        """The budget."""
        ...

    @property
    def run(self) -> Run:
        """Where clients compute, and in how much memory."""
        ...

    @property
    def privacy(self) -> Privacy:
        """What uploads are before they leave a client."""
        ...

    @property
    def methods(self) -> Methods:
        """A block for each method."""
        ...


class Federation(NamedTuple):
    """A method and the clients that take part."""

    method: Method
    clients: Mapping[str, Client]

    @property
    def names(self) -> tuple[str, ...]:
        """Client names, sorted."""
        return tuple(sorted(self.clients))

    @property
    def template(self) -> Template:
        """Roles of all tensors of a client's model."""
        return self.clients[self.names[0]].learner.binding.template

    def save(self, folder: Path, round: int) -> None:
        """Write every client's private state after `round` and its best model; see `Client.save`."""
        for client in self.clients.values():
            client.save(folder, round)

    def load(self, folder: Path) -> None:
        """Take up again what `save` wrote.

        Raises:
            CheckpointError: missing or damaged.
        """
        for client in self.clients.values():
            client.load(folder)


def load_data(config: Recipe, schema: Schema, shards: Path, name: str) -> dict[str, ClientData]:
    """Load what each client of method `name` trains and validates on, or open it where `run.memory` is too small.

    Test shards are not read.

    Raises:
        ConfigError: rows can neither be held nor streamed within `run.memory`.
        DataError: a shard cannot be read.
    """
    schemas = _schemas(schema)
    poolings: list[Pooling | None] = [None] * len(schemas)
    if name in POOLED:
        poolings = [Pooling(i, shift) for i, shift in enumerate(private_shifts(schemas))]
    files = {
        split: [ShardFile(shards, split, s, pooling) for s, pooling in zip(schemas, poolings, strict=True)]
        for split in ("train", "val")
    }
    train = {s.scenario: RowGroups([file]) for s, file in zip(schemas, files["train"], strict=True)}
    validation = {s.scenario: RowGroups([file]) for s, file in zip(schemas, files["val"], strict=True)}
    if name in POOLED:
        train = {POOLED_CLIENT: RowGroups(files["train"])}
    plan = choose_plan(
        config.train, config.run.memory, [*train.values()], [*validation.values()], phases(name, config.methods)
    )
    reader = ReadingThread()

    def rows(source: RowGroups) -> ClientRows:
        if plan.streamed:
            assert plan.window is not None
            return StreamedShard(source, plan.window, reader)
        return load_rows(source, plan.window)

    held = {scenario: rows(source) for scenario, source in validation.items()}
    return {
        client: ClientData(rows(source), held if name in POOLED else {client: held[client]})
        for client, source in train.items()
    }


def build_federation(
    config: Recipe,
    schema: Schema,
    shards: Path,
    name: str,
    seed: int,
    device: torch.device,
    data: Mapping[str, ClientData] | None = None,
    mean_rows: float | None = None,
    entropy: Entropy = seeded,
) -> Federation:
    """Build every client of method `name`.

    Args:
        data: what `load_data` returned, to share it between federations; loaded from `shards` if left out.
        mean_rows: training rows of a client on average, where some clients are elsewhere.
        entropy: of noise on uploads, see `with_messages`.

    Raises:
        ConfigError: train.task_weights does not fit the data's tasks, or an adapter's rank its first layer; or rows
            can neither be held nor streamed within `run.memory`.
        DataError: a shard cannot be read.
    """
    specs = build_specs(config, schema, name)
    schemas = _schemas(schema)
    data = load_data(config, schema, shards, name) if data is None else data
    first = specs[schemas[0].scenario]
    if mean_rows is None:
        mean_rows = sum(part.train.rows for part in data.values()) / len(data)
    batch = config.train.batch_size
    if name in POOLED:
        specs = {POOLED_CLIENT: pooled_spec(schemas, first)}
        # One step sees as many rows as all clients together see in one of theirs.
        batch *= len(schemas)
    clients = {}
    method: Method | None = None
    for client, part in data.items():
        size = client_batch_size(batch, part.train.rows, mean_rows)
        learner = build_learner(
            client, specs[client], part, size, config.train, seed, device, in_place=name not in TWO_MODELS
        )
        if method is None:
            template = learner.binding.template
            method = with_messages(
                build_method(name, config.methods, local_train, template), template, config.privacy, entropy
            )
        clients[client] = Client(client, method, learner, seed)
    assert method is not None
    return Federation(method, clients)


def build_specs(config: Recipe, schema: Schema, name: str) -> dict[str, ModelSpec]:
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
    parts = expert_parts(name, config.methods)
    specs = {s.scenario: build_spec(s, config.model, **parts) for s in _schemas(schema)}
    first = specs[schema.scenarios[0]]
    if first.rank > first.inputs:
        raise ConfigError(
            f"methods.{name}.rank = {first.rank} is larger than the model's input, which is {first.inputs} wide with "
            "these data"
        )
    return specs


def _schemas(schema: Schema) -> list[ScenarioSchema]:
    return [schema.scenario(scenario) for scenario in schema.scenarios]


def pooled_spec(schemas: list[ScenarioSchema], spec: ModelSpec) -> ModelSpec:
    """Return the model for pooled rows: private tables side by side, and the scenario as a last field."""
    sizes = [
        field.codes if field.federated else sum(s.categorical[i].codes for s in schemas)
        for i, field in enumerate(schemas[0].categorical)
    ]
    return spec.model_copy(
        update={"field_codes": (*sizes, len(schemas)), "field_federated": (*spec.field_federated, True)}
    )


def scenario_parameters(
    parameters: NamedArrays, spec: ModelSpec, schemas: list[ScenarioSchema], scenario: str
) -> tuple[ModelSpec, NamedArrays]:
    """Cut one scenario's model out of the pooled one: its own rows of the private tables."""
    position = [s.scenario for s in schemas].index(scenario)
    schema = schemas[position]
    sizes = tuple(field.codes for field in schema.categorical)
    own = spec.model_copy(update={"field_codes": (*sizes, len(schemas))})
    table = parameters.get("private/table")
    if table is None:
        return own, parameters
    starts, at = [], 0
    for field, codes, shift in zip(
        schema.categorical, spec.field_codes, private_shifts(schemas)[position], strict=False
    ):
        if not field.federated:
            starts.append(slice(at + shift, at + shift + field.codes))
            at += codes
    return own, {**parameters, "private/table": np.concatenate([table[part] for part in starts])}
