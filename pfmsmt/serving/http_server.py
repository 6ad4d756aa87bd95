"""Starts the HTTP server."""

import ipaddress
import logging
import os
from typing import TYPE_CHECKING

import torch
import uvicorn

from pfmsmt.config import Serve
from pfmsmt.core.console import say
from pfmsmt.core.errors import ServingError
from pfmsmt.serving.app import build_app
from pfmsmt.serving.deployments import EVERYTHING, Fleet, Offer

if TYPE_CHECKING:
    from pfmsmt.tracking.store import Store

TOKEN = "PFMSMT_SERVE_TOKEN"
SHORTEST_TOKEN = 16
"""Characters."""
_DRAIN = 10
"""Seconds that requests have to end when the server is stopped."""


def serve(tracking: "Store", settings: Serve, offer: Offer = EVERYTHING, *, authenticate: bool = True) -> None:
    """Serve what of the registry is offered, until interrupted.

    Raises:
        ServingError: the address is open to others and there is no token, the token is too short to be secret, or
            the address cannot be taken.
        TrackingError: no scenario is registered.
    """
    token = find_token(settings.host, authenticate)
    torch.set_num_threads(settings.threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("alembic", "mlflow", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    fleet = Fleet(
        tracking,
        calibrated=settings.calibrated,
        with_challengers=settings.challenger != "none",
        report=logging.getLogger("pfmsmt.serving").info,
        offer=offer,
    )
    fleet.refresh()
    if not fleet.scenarios:
        wanted = "" if offer.scenarios is None else f" among {', '.join(offer.scenarios)}"
        raise ServingError(
            f"the registry {tracking.uri} has no scenario with a champion{wanted}"
            + (f" ({fleet.registry_fault})" if fleet.registry_fault else "; run `dvc repro register`")
        )
    served = [scenario for scenario in fleet.scenarios if fleet.scorer(scenario)]
    lost = "".join(f"; {name} is not served" for name in fleet.scenarios if name not in served)
    place = f"http://{settings.host}:{settings.port}/docs"
    say(f"{place} describes the requests; scenarios: {', '.join(served) or 'none'}{lost}")
    config = uvicorn.Config(
        build_app(fleet, settings, token), host=settings.host, port=settings.port, log_config=None,
        access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=_DRAIN,
    )  # fmt: skip
    server = uvicorn.Server(config)
    try:
        server.run()
    except SystemExit as error:
        if error.code:
            raise ServingError(
                f"the server could not take {settings.host}:{settings.port}; see the line above"
            ) from None


def find_token(host: str, authenticate: bool) -> str | None:
    """Return the token of the environment, if requests need one.

    Raises:
        ServingError: see `serve`.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not authenticate:
        return None
    if token and len(token) < SHORTEST_TOKEN:
        raise ServingError(f"{TOKEN} has {len(token)} characters; take {SHORTEST_TOKEN} or more at random")
    if not token and not is_loopback(host):
        raise ServingError(
            f"{host} is open to other machines: set {TOKEN}, which requests must then carry, or give --no-auth"
        )
    return token or None


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
