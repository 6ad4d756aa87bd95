"""A whole federation on loopback, as processes with TLS and keys.

All of it is taken down at the end.

Gives every scenario's shards to a folder of its own, as they would lie at its site. For trials on one machine.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import yaml

from pfmsmt.config import PARAMS_FILE, Config, load_config
from pfmsmt.config.keys import set_values
from pfmsmt.core.console import say
from pfmsmt.core.files import new_folder, write_text
from pfmsmt.core.layout import CLIENTS, RAW, RUNS, SCHEMA, run_name
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.schema import read_schema
from pfmsmt.flower.operate.control import register_site, run_federation, wait_for_server
from pfmsmt.flower.operate.credentials import make_certificates, make_site_key
from pfmsmt.flower.operate.programs import Command, Server, free_port, supernode
from pfmsmt.training.devices import choose_workers

PATIENCE = 20.0
"""Seconds for a process to end by itself."""


def demonstrate(root: Path, folder: Path, method: str, rounds: int, local_epochs: float) -> None:
    """Train `method` for some rounds over one site per scenario.

    The scenarios are those of `root`'s data; all that is written lies in `folder`.

    Data are taken from `root` if the stage partition has written them, else made in `folder`.

    Raises:
        FederationError: a process does not start, or the run does not finish; its log is named.
    """
    shutil.rmtree(folder, ignore_errors=True)
    server = Server(folder / "server", port=free_port(), own_store=True)
    server.root.mkdir(parents=True)
    config = load_config(root / PARAMS_FILE)
    sites = share_out(_shards(root, config, folder), server.root, folder)
    # Each site would take all cores for itself; sites that do so on one machine take several times as long.
    _, threads = choose_workers(config.run, 1, torch.device("cpu"), trainings=len(sites))
    tree = yaml.safe_load((root / PARAMS_FILE).read_text(encoding="utf-8"))
    set_values(tree, {"federate.rounds": rounds, "federate.local_epochs": local_epochs, "run.threads": threads})
    (server.root / PARAMS_FILE).write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    certificates = make_certificates(server.certificates.folder, [])
    with ExitStack() as running:
        running.enter_context(process(server.superlink(), folder / "server.log"))
        wait_for_server(server)
        say(f"server: port {server.port} of loopback, TLS, log in {folder / 'server.log'}")
        for scenario, place in sites.items():
            key = place / "site.key"
            register_site(server, scenario, make_site_key(key))
            command = supernode(
                scenario, place, f"127.0.0.1:{server.port}", key=key, authority=certificates.authority, track=True
            )
            running.enter_context(process(command, folder / f"{scenario}.log"))
            say(f"site {scenario}: {place}, its own key, log in {folder / f'{scenario}.log'}")
        run_federation(server, method, 0)
    say("all processes have ended; what is left:")
    for scenario, place in sites.items():
        saved = json.loads((place / RUNS / f"{run_name(method, 0)}.json").read_text(encoding="utf-8"))
        say(
            f"  site {scenario}: pfmsmt-{scenario} version {saved['version']} in {place / 'mlflow.db'}, "
            f"best round {saved['best']['round']}"
        )
    say(f"  server: the run's metrics in {server.root / 'mlflow.db'}, what travelled in {server.root / 'models'}")


def _shards(root: Path, config: Config, folder: Path) -> Path:
    if (root / CLIENTS / "schema.json").exists():
        return root / CLIENTS
    obtain(config.data, config.seed, folder / RAW, say)
    partition(config.data, config.seed, folder / RAW, folder / CLIENTS, say)
    return folder / CLIENTS


@contextmanager
def process(command: Command, log: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a program and all that it starts; end them together."""
    with log.open("a") as sink:
        started = command.start(stdout=sink, stderr=subprocess.STDOUT)
        try:
            yield started
        finally:
            end_group(started)


def end_group(started: "subprocess.Popen[str]") -> None:
    """End a program and its children; kill them if they stay."""
    for word in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(started.pid, word)
        except ProcessLookupError:
            break
        try:
            started.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue
    started.wait()


def share_out(shards: Path, server: Path, sites: Path) -> dict[str, Path]:
    """Write every site's shards and the server's schema.

    They lie in `<sites>/<scenario>/data/clients`. Return the sites' folders.

    A site gets its own shards, private vocabularies and counts; the server gets no rows and no private vocabulary.

    Raises:
        DataError: there is no schema in `shards`.
    """
    schema = read_schema(shards / SCHEMA.name)
    found = {}
    for scenario in schema.scenarios:
        found[scenario] = sites / scenario
        with new_folder(found[scenario] / CLIENTS) as temporary:
            shutil.copytree(shards / scenario, temporary / scenario)
            write_text(temporary / SCHEMA.name, schema.only(scenario).model_dump_json(indent=2) + "\n")
    write_text(server / SCHEMA, schema.public().model_dump_json(indent=2) + "\n")
    return found
