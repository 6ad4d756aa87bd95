"""Flower's ServerApp: a run over sites, or an agreement on schemas."""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pfmsmt.config import PARAMS_FILE, Config, load_config
from pfmsmt.core.files import write_json
from pfmsmt.core.layout import RUNS, SCHEMA, run_name
from pfmsmt.data.schema import read_schema
from pfmsmt.flower.plan import RunPlan, across_sites
from pfmsmt.flower.server.acceptance import Acceptance
from pfmsmt.flower.server.agree import agree_on_schema
from pfmsmt.flower.server.grid import OverGrid
from pfmsmt.flower.server.nodes import Nodes
from pfmsmt.flower.server.participants import Sites
from pfmsmt.tracking import connect
from pfmsmt.training.refit import Refit
from pfmsmt.training.run import Job, run_params, run_training

if TYPE_CHECKING:
    from pfmsmt.tracking import Store

PROJECT = "PFMSMT_PROJECT"
"""The server's folder, with params.yaml and the agreed schema; set by `pfmsmt federate server`."""
INSECURE = "PFMSMT_INSECURE"
"""Set to 1 where nodes are not authenticated."""

AGREE = "schema"
"""In place of a method: agree on a schema."""

server_app = ServerApp()


@server_app.main()
def _main(grid: Grid, context: Context) -> None:
    """Train the run's method and seed, or agree on a schema."""
    root, trust_nodes = Path(os.environ.get(PROJECT, ".")), os.environ.get(INSECURE) == "1"
    method, seed = str(context.run_config["method"]), int(context.run_config["seed"])
    if method == AGREE:
        deadline = load_config(root / PARAMS_FILE).federate.deadline
        agree_on_schema(Nodes(grid, deadline=deadline, trust_nodes=trust_nodes), root)
    else:
        federate(grid, method, seed, connect(root), root, trust_nodes=trust_nodes)


def federate(grid: Grid, method: str, seed: int, store: "Store", root: Path, *, trust_nodes: bool) -> dict[str, Any]:
    """Run all rounds of a method over the sites that `grid` reaches.

    Writes `runs/<run>.json`, and `models/<run>/` with the history, the ledger and each site's best round; the models
    are the sites' own.

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

    def connect_sites(plan: RunPlan, acceptance: Acceptance) -> OverGrid:
        return OverGrid(nodes, schema.scenarios, plan, acceptance.refusal)

    run = secrets.token_hex(8)

    def build(refit: Refit | None) -> Sites:
        return Sites(config, schema, method, seed, run, connect_sites, refit)

    ids = run_training(job, build, store)
    write_json(root / RUNS / f"{run_name(method, seed)}.json", ids)
    return ids


def _params(config: Config, method: str, seed: int) -> dict[str, Any]:
    flat = run_params(config, method, seed, "sites", config.train.shuffle)
    block = config.federate.model_dump(exclude={"rounds", "local_epochs", "deadline"})
    return flat | {f"federate.{key}": value for key, value in block.items()}
