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
from pfmsmt.data.shards.budget import RowPlan
from pfmsmt.training.devices import choose_device
from pfmsmt.training.federation import Federation, build_federation, plan_rows
from pfmsmt.training.refit import Refit
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
    plan = plan_rows(config, schema, root / CLIENTS, name)
    run = run_name(name, seed)

    def build(refit: Refit | None) -> Federation:
        federation = build_federation(config, schema, root / CLIENTS, name, seed, device, refit=refit)
        if refit is None:
            say(f"{run}: {len(federation.clients)} clients on {device}, {federation.workers} at a time")
            if plan.streamed:
                say(f"{run}: more rows than fit into run.memory ({config.run.memory:g} GiB); they are streamed")
        else:
            rows = sum(client.learner.data.train.rows for client in federation.clients.values())
            say(f"{run}: training again, on all {rows:,} training and validation rows")
        return federation

    params = run_params(config, name, seed, str(device), _shuffle(plan))
    return run_training(Job(config, schema, name, seed, params, root), build, store)


def _shuffle(plan: RowPlan) -> str:
    """Return the value of `train.shuffle` that `auto` came to.

    All rows of a client are mixed where they fit into memory, windows of row groups where they are streamed.
    """
    return "rows" if plan.window is None else "row_groups"
