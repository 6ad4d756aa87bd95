"""Sites with data, state and MLflow stores of their own, and the server's app over them."""

import os
import shutil
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from in_process_grid import InProcessGrid

from pfmsmt.data.schema import read_schema
from pfmsmt.flower import server_app

ROUNDS = 2
FEDERATE = {"federate.rounds": ROUNDS, "federate.local_epochs": 0.25, "federate.deadline": 20.0}


@pytest.fixture(scope="session")
def deal():
    """Return a function that gives each scenario's shards, and its part of the schema, to a site of its own."""

    def run(shards: Path, folder: Path) -> dict[str, Path]:
        schema, sites = read_schema(shards / "schema.json"), {}
        for scenario in schema.scenarios:
            sites[scenario] = folder / f"site-{scenario}"
            own = sites[scenario] / "data/clients"
            shutil.copytree(shards / scenario, own / scenario)
            (own / "schema.json").write_text(schema.only(scenario).model_dump_json())
        return sites

    return run


@pytest.fixture
def sites(project, empty_database, deal, monkeypatch) -> dict[str, Path]:
    """Every scenario's own folder; the server's project is left with the schema alone."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = deal(project / "data/clients", project.parent)
    for scenario, folder in found.items():
        shutil.copy(empty_database, folder)
        shutil.rmtree(project / "data/clients" / scenario)
    shutil.rmtree(project / "data/raw")
    return found


@pytest.fixture
def grid(sites) -> InProcessGrid:
    return InProcessGrid(sites)


@pytest.fixture
def serve(project, monkeypatch):
    """Return a function that runs the ServerApp over a grid, as Flower does."""

    def run(grid: InProcessGrid, method: str, seed: int = 0) -> None:
        monkeypatch.setenv(server_app.PROJECT, str(project))
        context = Context(1, 1, {}, RecordDict({}), {"method": method, "seed": seed})
        # Server and sites are processes of their own: no address of a store passes between them.
        before = dict(os.environ)
        server_app.app(grid, context)
        os.environ.clear()
        os.environ.update(before)

    return run
