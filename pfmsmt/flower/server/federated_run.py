"""One run over sites: what the ServerApp does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.serverapp import Grid

from pfmsmt.config import PARAMS_FILE, Config, load_config
from pfmsmt.core.files import write_json
from pfmsmt.core.layout import RUNS, SCHEMA, run_name
from pfmsmt.data.schema import read_schema
from pfmsmt.flower.plan import Plan, across_sites
from pfmsmt.flower.server.acceptance import Acceptance
from pfmsmt.flower.server.grid import OverGrid
from pfmsmt.flower.server.nodes import Nodes
from pfmsmt.flower.server.participants import Sites
from pfmsmt.training.run import Job, run_params, run_training

if TYPE_CHECKING:
    from pfmsmt.tracking import Tracking


def federate(
    grid: Grid, method: str, seed: int, tracking: "Tracking", root: Path, *, trust_nodes: bool
) -> dict[str, Any]:
    """Run all rounds of a method over the sites that `grid` reaches; write `models/<run>/` and `runs/<run>.json`.

    `models/<run>/` holds the history, the ledger and each site's best round; the models are the sites' own.

    Raises:
        ConfigError: see `load_config` and `build_specs`.
        DataError: there is no agreed schema.
        FederationError: the method cannot be federated.
        TrainingError: see `run_rounds`; the last complete round stays in `checkpoints/`, and the next run goes on.
    """
    config = load_config(root / PARAMS_FILE)
    schema = read_schema(root / SCHEMA).public()
    config = across_sites(config, schema)
    job = Job(config, schema, method, seed, _params(config, method, seed), root)

    nodes = Nodes(grid, deadline=config.federate.deadline, trust_nodes=trust_nodes)

    def connect(plan: Plan, acceptance: Acceptance) -> OverGrid:
        return OverGrid(nodes, schema.scenarios, plan, acceptance.refusal)

    ids = run_training(job, Sites(config, schema, method, seed, connect), tracking)
    write_json(root / RUNS / f"{run_name(method, seed)}.json", ids)
    return ids


def _params(config: Config, method: str, seed: int) -> dict[str, Any]:
    flat = run_params(config, method, seed, "sites", config.train.shuffle)
    block = config.federate.model_dump(exclude={"rounds", "local_epochs", "deadline"})
    return flat | {f"federate.{key}": value for key, value in block.items()}
