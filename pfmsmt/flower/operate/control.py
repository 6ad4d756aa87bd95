"""The server's operation: register sites, start runs and watch them."""

import json
import time
from pathlib import Path
from typing import Any

from pfmsmt.config import PARAMS_FILE, load_config
from pfmsmt.core.errors import FederationError
from pfmsmt.core.files import write_json
from pfmsmt.core.layout import SCHEMA
from pfmsmt.data.sources import SOURCES
from pfmsmt.flower.operate.programs import CONNECTION, FEDERATION, Server
from pfmsmt.flower.server.server_app import AGREE

SITES = FEDERATION / "sites.json"
"""node -> scenario, of the sites that were registered here."""
START_SECONDS = 120.0
FINISHED = "finished:completed"


def wait_for_server(server: Server, seconds: float = START_SECONDS) -> None:
    """Return when the server answers.

    Raises:
        FederationError: it does not within `seconds`.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            server.ask("ls", CONNECTION)
            return
        except FederationError:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)


def register_site(server: Server, scenario: str, public_key: Path) -> str:
    """Register a key as `scenario`, and as no other.

    Return the node's number.

    Raises:
        FederationError: no such scenario in params.yaml, a key that is registered already, or no server.
    """
    data = load_config(server.root / PARAMS_FILE).data
    declared = SOURCES[data.source].scenarios(data)
    if declared and scenario not in declared:
        raise FederationError(f"params.yaml has no scenario {scenario}; it has {', '.join(declared)}")
    if not public_key.exists():
        raise FederationError(f"{public_key} does not exist; the site makes it with `pfmsmt federate key`")
    found = server.ask("supernode", "register", str(public_key), CONNECTION, "--name", scenario)
    node = str(found["node-id"])
    write_json(server.root / SITES, {**_registered(server), node: scenario})
    return node


def _registered(server: Server) -> dict[str, str]:
    """Return node -> scenario.

    From our own file: Flower knows the names, but gives them to a run alone.
    """
    path = server.root / SITES
    return {str(k): str(v) for k, v in json.loads(path.read_text("utf-8")).items()} if path.exists() else {}


def run_federation(server: Server, method: str, seed: int) -> str:
    """Start a run, and show its log until it is over.

    Of a method, or of `server_app.AGREE`. Return the run's number.

    Interrupted, it stops the run; the next run of this method and seed goes on after its last complete round.

    Raises:
        ConfigError: the server's params.yaml is not valid.
        FederationError: the run cannot be started, or did not finish.
    """
    load_config(server.root / PARAMS_FILE)
    schema = server.root / SCHEMA
    if method != AGREE and not schema.exists():
        raise FederationError(f"{schema} does not exist; agree on it with all sites first: `pfmsmt federate agree`")
    settings = f'method="{method}" seed={seed}'
    run = str(server.ask("run", str(server.app()), CONNECTION, "--run-config", settings)["run-id"])
    try:
        server.control("log", run, CONNECTION, "--stream").run()
        found = _state(server, run)
    except KeyboardInterrupt:
        server.control("stop", run, CONNECTION).run(capture_output=True)
        raise
    # The stream ends a moment before the run does.
    while not found["status"].startswith("finished"):
        time.sleep(1.0)
        found = _state(server, run)
    if found["status"] != FINISHED:
        again = "nothing was agreed on" if method == AGREE else "run it again to go on after the last complete round"
        raise FederationError(
            f"the run ended as {found['status']} ({found['status-details']}); its log above says why; {again}"
        )
    return run


def _state(server: Server, run: str) -> dict[str, Any]:
    return next(found for found in server.ask("ls", CONNECTION)["runs"] if found["run-id"] == run)


def describe(server: Server) -> str:
    """Return sites and runs as lines of text.

    Raises:
        FederationError: the server does not answer.
    """
    nodes = server.ask("supernode", "ls", CONNECTION)["nodes"]
    names = _registered(server)
    width = max(len(name) for name in ("site", *names.values()))
    lines = [f"{'site':{width}s} {'node':22s} {'status':12s} since"]
    for node in nodes:
        name = names.get(node["node-id"], "-")
        lines.append(f"{name:{width}s} {node['node-id']:22s} {node['status']:12s} {node['online-at']}")
    lines += ["", f"{'run':22s} {'status':20s} {'seconds':>8s}  started"]
    for run in server.ask("ls", CONNECTION)["runs"]:
        lines.append(f"{run['run-id']:22s} {run['status']:20s} {run['elapsed']:8.0f}  {run['pending-at']}")
    return "\n".join(lines)
