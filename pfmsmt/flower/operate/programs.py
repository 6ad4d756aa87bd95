"""Flower's programs with safe defaults: TLS, authenticated nodes, no telemetry."""

import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pfmsmt.core.errors import FederationError
from pfmsmt.core.files import write_text
from pfmsmt.flower.operate.credentials import Certificates
from pfmsmt.flower.server.server_app import INSECURE, PROJECT
from pfmsmt.tracking.connection import sqlite_uri, store_uri

FEDERATION = Path("federation")
"""In the server's project: certificates, Flower's home and database, the app."""
CONNECTION = "pfmsmt"

_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    # Else Flower installs packages for every run; ours are installed at each site already.
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
_APP = """\
[project]
name = "pfmsmt"
version = "1.0.0"

[tool.flwr.app]
publisher = "pfmsmt"

[tool.flwr.app.components]
serverapp = "pfmsmt.flower.server.server_app:server_app"
clientapp = "pfmsmt.flower.site.client_app:client_app"

[tool.flwr.app.config]
method = "pf_msmtrec"
seed = 0
"""


class Command(NamedTuple):
    """A program of Flower's, ready to be started."""

    words: list[str]
    environment: dict[str, str]

    def run(self, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run to the end."""
        return subprocess.run(self.words, env=self.environment, text=True, check=False, **options)

    def replace_process(self) -> NoReturn:
        """Run it in the place of this process, to stop together."""
        os.execve(self.words[0], self.words, self.environment)

    def start(self, **options: Any) -> "subprocess.Popen[str]":
        """Start it as the leader of a group of its own.

        All that it starts can then be ended with it.
        """
        return subprocess.Popen(self.words, env=self.environment, text=True, start_new_session=True, **options)


class Server(NamedTuple):
    """One server: its project's folder and where it listens."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 9092
    insecure: bool = False
    own_store: bool = False
    """Runs are tracked in the project's own `mlflow.db`, whatever MLFLOW_TRACKING_URI says."""

    @property
    def certificates(self) -> Certificates:
        """The certificates by which sites know it."""
        return Certificates(self.root / FEDERATION / "certificates")

    def superlink(self) -> Command:
        """Return the program that sites connect to.

        It starts the ServerApp of every run.

        Raises:
            FederationError: no certificates, or --insecure on an address that others can reach.
        """
        check_loopback(self.host, self.insecure)
        words = [
            "flower-superlink", "--host", self.host, "--port", str(self.port),
            "--database", str(self.root / FEDERATION / "superlink.db"), "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        if self.insecure:
            words += ["--insecure"]
        else:
            own = self.certificates
            own.check()
            words += [
                "--enable-supernode-auth", "--ssl-ca-certfile", str(own.authority),
                "--ssl-certfile", str(own.certificate), "--ssl-keyfile", str(own.key),
            ]  # fmt: skip
        store = store_uri(self.root, {} if self.own_store else os.environ)
        variables = {PROJECT: str(self.root), INSECURE: str(int(self.insecure)), "MLFLOW_TRACKING_URI": store}
        return self._command(words, variables)

    def control(self, *words: str) -> Command:
        """Return a command of `flwr` about this server, over loopback."""
        # The server's own side of the connection: what runs here may start runs.
        trust = "insecure = true" if self.insecure else f'root-certificates = "{self.certificates.authority}"'
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        lines = ["[superlink]", f'default = "{CONNECTION}"', "", f"[superlink.{CONNECTION}]"]
        lines += [f'address = "{host}:{self.port}"', trust, ""]
        write_text(self.root / FEDERATION / "home/config.toml", "\n".join(lines))
        return self._command(["flwr", *words], {})

    def app(self) -> Path:
        """Write the Flower app, and return its folder.

        It names the package's own apps, and holds no code.
        """
        folder = self.root / FEDERATION / "app"
        write_text(folder / "pyproject.toml", _APP)
        return folder

    def ask(self, *words: str) -> dict[str, Any]:
        """Run a command of `flwr` that answers in JSON.

        Raises:
            FederationError: it fails, with Flower's own words.
        """
        done = self.control(*words, "--format", "json").run(capture_output=True)
        try:
            found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError:
            said = " ".join((done.stderr or done.stdout).split())[-400:]
            raise FederationError(
                f"`flwr {' '.join(words)}` failed: {said or 'no answer'}; is the server up?"
            ) from None
        if found.get("success") is False:
            raise FederationError(f"`flwr {' '.join(words)}`: {found.get('error-message', found)}")
        return found

    def _command(self, words: Sequence[str], extra: Mapping[str, str]) -> Command:
        return _command(words, {"FLWR_HOME": str(self.root / FEDERATION / "home"), **extra})


def supernode(
    scenario: str,
    folder: Path,
    server: str,
    *,
    key: Path | None,
    authority: Path | None,
    track: bool,
) -> Command:
    """Return the program that waits at a site for the server's messages.

    Args:
        scenario: whose site it is; must be the name under which its key is registered.
        folder: of the site.
        server: HOST:PORT.
        key: the site's secret key.
        authority: certificate that the server's is signed by. Without key and authority: no TLS, loopback only.
        track: log and register the model in the site's own MLflow store.

    Raises:
        FederationError: a file is missing, or there is no TLS to a server that is not on loopback.
    """
    words = [
        "flower-supernode", "--superlink", server, "--host", "127.0.0.1", "--port", str(free_port()),
        "--node-config", f'scenario="{scenario}" data-dir="{folder.absolute()}" track={str(track).lower()}',
    ]  # fmt: skip
    if key is None or authority is None:
        check_loopback(server.rpartition(":")[0], True)
        words += ["--insecure"]
    else:
        for path, what in ((key, "`pfmsmt federate key` makes it"), (authority, "copy it from the server")):
            if not path.exists():
                raise FederationError(f"{path} does not exist; {what}")
        words += ["--root-certificates", str(authority), "--auth-supernode-private-key", str(key)]
    # A site's models are its own: the store of whoever starts it is not meant.
    own = {
        "FLWR_HOME": str(folder.absolute() / "flower"),
        "MLFLOW_TRACKING_URI": sqlite_uri(folder.absolute() / "mlflow.db"),
    }
    return _command(words, own)


def check_loopback(host: str, insecure: bool) -> None:
    """Refuse to go without TLS and keys where others could listen.

    Raises:
        FederationError: `insecure`, and the host is not this machine.
    """
    try:
        local = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        local = False
    if insecure and not local:
        raise FederationError(f"--insecure is for loopback only, and {host} is not; leave it out")


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(words: Sequence[str], extra: Mapping[str, str]) -> Command:
    folder = Path(sys.executable).parent
    environment = {**os.environ, **_QUIET, **extra, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    Path(environment["FLWR_HOME"]).mkdir(parents=True, exist_ok=True)
    return Command([str(folder / words[0]), *words[1:]], environment)
