"""The command that trains one method with one seed.

All clients are in this process: data, method and clients become a federation, and a run drives it. Over sites,
`pfmsmt.flower.server.server_app` does the same with a federation whose clients are elsewhere.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfmsmt.config import Config
from pfmsmt.core.console import say
from pfmsmt.core.layout import CLIENTS, run_name
from pfmsmt.data.schema import Schema
from pfmsmt.data.shards.resident import ClientRows
from pfmsmt.data.shards.streamed import StreamedShard
from pfmsmt.training.devices import choose_device
from pfmsmt.training.federation import build_federation
from pfmsmt.training.run import Job, run_params, run_training

if TYPE_CHECKING:
    from pfmsmt.tracking import Store


def train(config: Config, schema: Schema, name: str, seed: int, store: "Store", root: Path) -> dict[str, Any]:
    """Train one method with one seed; write `models/<method>-seed<seed>/` and one MLflow run.

    Args:
        config: all settings.
        schema: of the shards.
        name: of the method.
        seed: of initial values, batches and dropout.
        store: gets the run and its models.
        root: the project's folder, with the shards.

    Returns:
        run id and logged model ids, as they are saved in `runs/<method>-seed<seed>.json`.

    Raises:
        ConfigError: the device is not here, or rows can neither be held nor streamed within `run.memory`.
        DataError: a shard cannot be read.
        TrainingError: see `run_rounds`; the last good rounds stay in `checkpoints/`.
    """
    device = choose_device(config.run.device)
    federation = build_federation(config, schema, root / CLIENTS, name, seed, device)
    run = run_name(name, seed)
    say(f"{run}: {len(federation.clients)} clients on {device}, {federation.workers} at a time")
    rows = federation.clients[federation.names[0]].learner.data.train
    if isinstance(rows, StreamedShard):
        say(f"{run}: more rows than fit into run.memory ({config.run.memory:g} GiB); they are streamed")
    params = run_params(config, name, seed, str(device), _shuffle(rows))
    job = Job(config, schema, name, seed, params, root)
    return run_training(job, federation, store)


def _shuffle(rows: ClientRows) -> str:
    """Return the value of `train.shuffle` that `auto` came to.

    All rows of a client are mixed where they fit into memory, windows of row groups where they are streamed.
    """
    return "rows" if rows.shuffle.window is None else "row_groups"
