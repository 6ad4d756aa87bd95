"""The commands `pfmsmt federate` and `pfmsmt site`.

Flower is loaded when one of them is run, and only then.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from pfmsmt.config import Deployable
from pfmsmt.core.console import say
from pfmsmt.core.errors import FederationError

if TYPE_CHECKING:
    from pfmsmt.flower.operate.programs import Server


_PORT = 9092

_Port = Annotated[int, typer.Option(help="Port of the server.", min=1, max=65535)]
_Insecure = Annotated[bool, typer.Option("--insecure", help="No TLS and no keys; on loopback only.")]
_Folder = Annotated[Path, typer.Option(help="The site's folder.")]
# The name alone: the usage line would list all methods otherwise.
_Method = Annotated[
    Deployable, typer.Argument(metavar="METHOD", help=f"Method to train: {', '.join(get_args(Deployable))}.")
]

federate_app = typer.Typer(
    help="The same federation across machines: a server, and a site for each scenario.", no_args_is_help=True
)
site_app = typer.Typer(help="A scenario's own site.", no_args_is_help=True)


@federate_app.command("certificates")
def _certificates(
    host: Annotated[list[str], typer.Option(help="Name or address by which sites reach the server; may be repeated.")],
) -> None:
    """Make the server's certificate, and the authority's for sites (ca.pem)."""
    _need_flower()
    from pfmsmt.flower.operate.credentials import make_certificates

    found = make_certificates(_server().certificates.folder, host)
    say(f"{found.certificate} and its key are the server's; give {found.authority} to every site")


@federate_app.command("key")
def _key(folder: _Folder = Path(".")) -> None:
    """Make a site's secret key, and the public one to register."""
    _need_flower()
    from pfmsmt.flower.operate.credentials import make_site_key

    say(f"give {make_site_key(folder / 'site.key')} to whoever runs the server; {folder / 'site.key'} stays here")


@federate_app.command("server")
def _start_server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: _Port = _PORT,
    insecure: _Insecure = False,
) -> None:
    """Start the server here; it waits for sites and runs."""
    _server(port, insecure, host).superlink().replace_process()


@federate_app.command("register")
def _register(
    scenario: Annotated[str, typer.Argument(help="Scenario that the key stands for.")],
    public_key: Annotated[Path, typer.Argument(help="The site's site.key.pub.")],
    port: _Port = _PORT,
) -> None:
    """Let a site take part: binds its key to its scenario."""
    found = _server(port)
    from pfmsmt.flower.operate.control import register_site

    say(f"site {scenario} is registered as node {register_site(found, scenario, public_key)}")


@federate_app.command("site")
def _start_site(
    scenario: Annotated[str, typer.Argument(help="Scenario whose site this is.")],
    server: Annotated[str, typer.Option(help="HOST:PORT of the server.")],
    folder: _Folder = Path("."),
    authority: Annotated[Path, typer.Option(help="The server's ca.pem.")] = Path("ca.pem"),
    insecure: _Insecure = False,
    track: Annotated[bool, typer.Option(help="Log and register the model in this site's own MLflow store.")] = True,
) -> None:
    """Start a site; it answers the server until it is stopped."""
    _need_flower()
    from pfmsmt.flower.operate.programs import supernode

    files = (None, None) if insecure else (folder / "site.key", authority)
    supernode(scenario, folder, server, key=files[0], authority=files[1], track=track).replace_process()


@federate_app.command("agree")
def _agree(port: _Port = _PORT, insecure: _Insecure = False) -> None:
    """Agree with all sites on the schema, and write their shards."""
    found = _server(port, insecure)
    from pfmsmt.flower.operate.control import run_federation
    from pfmsmt.flower.server.server_app import AGREE

    run_federation(found, AGREE, 0)


@federate_app.command("run")
def _run(
    method: _Method = "pf_msmtrec",
    seed: Annotated[int, typer.Option(help="Seed of initial values, batches and dropout.", min=0)] = 0,
    port: _Port = _PORT,
    insecure: _Insecure = False,
) -> None:
    """Train over the connected sites, or go on with a training."""
    found = _server(port, insecure)
    from pfmsmt.flower.operate.control import run_federation

    run_federation(found, method, seed)


@federate_app.command("status")
def _status(port: _Port = _PORT, insecure: _Insecure = False) -> None:
    """Show sites and runs."""
    found = _server(port, insecure)
    from pfmsmt.flower.operate.control import describe

    say(describe(found))


@federate_app.command("demo")
def _demo(
    method: _Method = "pf_msmtrec",
    rounds: Annotated[int, typer.Option(help="Communication rounds.", min=1)] = 3,
    local_epochs: Annotated[float, typer.Option(help="Passes over its rows by each site in a round.", min=0.01)] = 1.0,
    folder: Annotated[Path, typer.Option(help="Folder of the demo; replaced as a whole.")] = Path("federation-demo"),
) -> None:
    """Show a whole federation on this machine, over TLS.

    A server and a site for each scenario, as processes of their own.
    """
    _need_flower()
    from pfmsmt.flower.operate.demo import demonstrate

    demonstrate(Path.cwd(), folder.absolute(), method, rounds, local_epochs)


def _server(port: int = _PORT, insecure: bool = False, host: str = "127.0.0.1") -> "Server":
    _need_flower()
    from pfmsmt.flower.operate.programs import Server

    return Server(Path.cwd(), host, port, insecure)


def _need_flower() -> None:
    """Make sure that Flower is installed.

    Raises:
        FederationError: it is not.
    """
    if find_spec("flwr") is None:
        raise FederationError("Flower is not installed; `pip install 'pfmsmt[flower]'`")


@site_app.callback()
def _site() -> None:
    """Prepare a scenario's own site."""


@site_app.command("prepare")
def _prepare(
    scenario: Annotated[str, typer.Argument(help="Scenario whose site this is.")],
    folder: Annotated[Path, typer.Option(help="The site's folder, with its params.yaml.")] = Path("."),
) -> None:
    """Obtain this scenario's raw data, and write the site's proposal."""
    _need_flower()
    from pfmsmt.flower.site.prepare import prepare_site

    say(f"{prepare_site(folder, scenario)} is what will leave this site when the server asks for it; look at it, then")
    say(f"start it with `pfmsmt federate site {scenario} --server HOST:PORT`; `pfmsmt federate agree` does the rest")
