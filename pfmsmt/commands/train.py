"""The command that trains one method with one seed.

All clients are in this process.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfmsmt.config import Config
from pfmsmt.core.console import say
from pfmsmt.core.layout import CLIENTS, run_name
from pfmsmt.data.schema import Schema
from pfmsmt.data.shards.streamed import StreamedShard
from pfmsmt.training.devices import choose_device
from pfmsmt.training.federation import build_federation
from pfmsmt.training.run import Job, run_params, run_training

if TYPE_CHECKING:
    from pfmsmt.tracking import Store


def train(config: Config, schema: Schema, name: str, seed: int, store: "Store", root: Path) -> dict[str, Any]:
    """Train one method with one seed; write `models/<method>-seed<seed>/` and one MLflow run.

    Returns:
        run id and logged model ids, as they are saved in `runs/<method>-seed<seed>.json`.

    Raises:
        TrainingError: see `run_rounds`; the last good rounds stay in `checkpoints/`.
    """
    device = choose_device(config.run.device)
    federation = build_federation(config, schema, root / CLIENTS, name, seed, device)
    run = run_name(name, seed)
    say(f"{run}: {len(federation.clients)} clients on {device}, {federation.workers} at a time")
    rows = federation.clients[federation.names[0]].learner.data.train
    if isinstance(rows, StreamedShard):
        say(f"{run}: more rows than fit into run.memory ({config.run.memory:g} GiB); they are streamed")
    shuffle = "rows" if rows.shuffle.window is None else "row_groups"
    job = Job(config, schema, name, seed, run_params(config, name, seed, str(device), shuffle), root)
    return run_training(job, federation, store)
