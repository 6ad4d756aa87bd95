"""Sites with data, state and MLflow stores of their own, and the server's app over them."""

import shutil
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from pfmsmt.flower.operate.demo import share_out
from pfmsmt.flower.server import server_app
from tests.support.environment import kept_environment
from tests.support.in_process_grid import InProcessGrid


@pytest.fixture
def sites(project) -> dict[str, Path]:
    """Every scenario's own folder; the server's project is left with the schema alone."""
    shards = shutil.move(project / "data/clients", project.parent / "shards")
    shutil.rmtree(project / "data")
    return share_out(Path(shards), project, project.parent / "sites")


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
        with kept_environment():
            server_app.server_app(grid, context)

    return run
