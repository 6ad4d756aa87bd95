"""Flower's ServerApp: one run of the driver, over sites."""

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pfmsmt.config import PARAMS_FILE, load_config
from pfmsmt.flower.preparing import agree_on_schema
from pfmsmt.flower.server.federated_run import federate
from pfmsmt.flower.server.nodes import Nodes
from pfmsmt.tracking import connect

PROJECT = "PFMSMT_PROJECT"
"""The server's folder, with params.yaml and the agreed schema; set by `pfmsmt federate server`."""
INSECURE = "PFMSMT_INSECURE"
"""Set to 1 where nodes are not authenticated."""

AGREE = "schema"
"""In place of a method: agree on a schema."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the method and seed of the run's configuration, or agree on a schema."""
    root, trust_nodes = Path(os.environ.get(PROJECT, ".")), os.environ.get(INSECURE) == "1"
    method, seed = str(context.run_config["method"]), int(context.run_config["seed"])
    if method == AGREE:
        deadline = load_config(root / PARAMS_FILE).federate.deadline
        agree_on_schema(Nodes(grid, deadline=deadline, trust_nodes=trust_nodes), root)
    else:
        federate(grid, method, seed, connect(root), root, trust_nodes=trust_nodes)
