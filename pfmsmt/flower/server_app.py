"""Flower's ServerApp: one run of the driver, over sites."""

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pfmsmt.flower.server import federate
from pfmsmt.tracking import connect

PROJECT = "PFMSMT_PROJECT"
"""The server's folder, with params.yaml and the agreed schema; set by `pfmsmt federate server`."""
INSECURE = "PFMSMT_INSECURE"
"""Set to 1 where nodes are not authenticated."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the method and seed of the run's configuration."""
    root = Path(os.environ.get(PROJECT, "."))
    method, seed = str(context.run_config["method"]), int(context.run_config["seed"])
    federate(grid, method, seed, connect(root), root, trust_nodes=os.environ.get(INSECURE) == "1")
