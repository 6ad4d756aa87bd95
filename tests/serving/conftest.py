"""Real servers in front of the registry that tests/conftest.py fills."""

from pathlib import Path

import pytest

from pfmsmt.serving.app import build_app
from pfmsmt.serving.deployments import Fleet
from pfmsmt.tracking import connect
from tests.support.environment import bare_environment
from tests.support.shelves import SETTINGS, Server, Shelf


@pytest.fixture
def make_fleet(shelf: Shelf):
    def make(**changes) -> Fleet:
        told: list[str] = []
        given = {"calibrated": True, "with_challengers": False} | changes
        fleet = Fleet(shelf.tracking, report=told.append, **given)
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
        fleet = Fleet(connect(filled_store), calibrated=True, with_challengers=False, report=lambda _: None)
        server = Server(build_app(fleet, SETTINGS))
    yield server.client
    server.stop()
