"""A registry with small models of two scenarios, and a real server in front of it."""

import shutil
from pathlib import Path

import pytest

from pfmsmt.serving.app import build_app
from pfmsmt.serving.deployments import Fleet
from pfmsmt.tracking import connect
from tests.support.environment import bare_environment
from tests.support.shelves import SETTINGS, Server, Shelf


@pytest.fixture(scope="session")
def filled_store(tmp_path_factory, empty_database: Path) -> Path:
    """NL with two versions (champion 1, challenger 2) and ES with one; tests get a copy of the database."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_database, folder)
    (folder / "params.yaml").write_text("seed: 0\n")
    with bare_environment():
        shelf = Shelf(connect(folder), folder)
        shelf.add("NL", 0, "champion")
        shelf.add("NL", 1, "challenger", val=0.72)
        shelf.add("ES", 2, "champion")
    return folder


@pytest.fixture
def shelf(filled_store: Path, tmp_path: Path, clean_environment, monkeypatch) -> Shelf:
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in ("mlflow.db", "params.yaml"):
        shutil.copy(filled_store / name, folder)
    monkeypatch.chdir(folder)
    return Shelf(connect(folder), folder)


@pytest.fixture
def make_fleet(shelf: Shelf):
    def make(**changes) -> Fleet:
        told: list[str] = []
        given = {"calibrated": True, "with_challengers": False} | changes
        fleet = Fleet(shelf.tracking, tell=told.append, **given)
        fleet.told = told
        return fleet

    return make


@pytest.fixture
def start(make_fleet):
    """Return a function that starts a server with these settings; it has `client`, `fleet`."""
    servers = []

    def begin(token: str | None = None, fleet: Fleet | None = None, **changes) -> Server:
        settings = SETTINGS.model_copy(update=changes)
        fleet = fleet or make_fleet(calibrated=settings.calibrated, with_challengers=settings.challenger != "none")
        server = Server(build_app(fleet, settings, token))
        server.fleet = fleet
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def served(filled_store: Path):
    """A client of one server for all tests that change nothing."""
    with bare_environment():
        fleet = Fleet(connect(filled_store), calibrated=True, with_challengers=False, tell=lambda _: None)
        server = Server(build_app(fleet, SETTINGS))
    yield server.client
    server.stop()
