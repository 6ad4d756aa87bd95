"""Faults of a federation, each tried with real processes over TLS on this machine: what is said, and what it costs.

    python benchmarks/federation_faults.py [--folder FOLDER] [--deadline SECONDS]

A server and three sites with tiny data train pf_msmtrec; the server is killed (-9) between the two phases of the second
round and goes on; its result is compared, bit for bit, with a training in one process. Then fedavg trains; one site
is killed (-9) and comes back, another is frozen for a round, and others knock with a wrong key and with none. Prints a
Markdown table.
"""

import argparse
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from pfmsmt.config import load_config
from pfmsmt.data.download import obtain
from pfmsmt.data.partition import partition
from pfmsmt.data.schema import read_schema
from pfmsmt.dotted_keys import set_values
from pfmsmt.exchange import InProcess
from pfmsmt.federation import build_federation
from pfmsmt.flower.credentials import make_certificates, make_site_key
from pfmsmt.flower.dealing import deal
from pfmsmt.flower.demo import process
from pfmsmt.flower.operating import describe, register_site, wait_for_server
from pfmsmt.flower.plan import across_sites
from pfmsmt.flower.programs import CONNECTION, Command, Server, free_port, supernode
from pfmsmt.history import History
from pfmsmt.keeping import write_models
from pfmsmt.rounds import run_rounds

PARAMS = Path(__file__).parents[1] / "params.yaml"
SIZES = {"train_rows": 2000, "test_rows": 500}
CHANGES = {
    "data.source": "synthetic",
    "data.synthetic.scenarios": {"NL": SIZES, "ES": SIZES, "US": SIZES},
    "data.synthetic.ctr": 0.3,
    "data.synthetic.cvr": 0.4,
    "train.quorum": 0.5,
    "train.device": "cpu",
    "train.threads": 1,
    "federate.local_epochs": 0.5,
}
ROUND = re.compile(r"^(?:fedavg|pf_msmtrec)-seed0 (\d+)/")


class World(NamedTuple):
    """One federation on this machine."""

    folder: Path
    server: Server
    sites: dict[str, Path]

    def site(self, scenario: str, key: Path | None = None) -> Command:
        """The program of one site."""
        authority = self.server.certificates.authority
        place = self.sites[scenario]
        key = key or place / "site.key"
        return supernode(scenario, place, f"127.0.0.1:{self.server.port}", key=key, authority=authority, track=False)


def build(folder: Path, deadline: float, rounds: int) -> World:
    """Make data, certificates and keys; start nothing."""
    server = Server(folder / "server", port=free_port(), own_store=True)
    tree = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    set_values(tree, {**CHANGES, "federate.deadline": deadline, "federate.rounds": rounds})
    server.root.mkdir(parents=True)
    (server.root / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    config = load_config(server.root / "params.yaml")
    obtain(config.data, config.seed, folder / "raw", lambda _: None)
    partition(config.data, config.seed, folder / "raw", folder / "shards", lambda _: None)
    sites = deal(folder / "shards", server.root, folder / "sites")
    make_certificates(server.certificates.folder, [])
    for place in sites.values():
        make_site_key(place / "site.key")
    return World(folder, server, sites)


class Run:
    """A run of the server, whose lines are followed."""

    def __init__(self, world: World, method: str) -> None:
        """Start it."""
        words = ["run", str(world.server.app()), CONNECTION, "--run-config", f'method="{method}" seed=0']
        self.number = str(world.server.ask(*words)["run-id"])
        log = world.server.control("log", self.number, CONNECTION, "--stream")
        self._follower = log.start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for line in self._follower.stdout or ():
            self.lines.append((time.monotonic(), line.strip()))
            print(f"    {line.rstrip()}", flush=True)

    def rounds(self) -> dict[int, float]:
        """When each round was over."""
        found = ((ROUND.match(line), when) for when, line in self.lines)
        return {int(match[1]): when for match, when in found if match}

    def wait(self, met: Callable[[], object], seconds: float = 900) -> None:
        """Return when `met` is true."""
        end = time.monotonic() + seconds
        while not met():
            if time.monotonic() > end:
                raise SystemExit(f"nothing happened for {seconds} s; last lines: {self.lines[-5:]}")
            time.sleep(0.2)

    def after(self, number: int) -> None:
        """Wait until a round is over."""
        self.wait(lambda: number in self.rounds())

    def said(self, number: int) -> str:
        """Lines about failures of one round."""
        found = [line.split(": ", 2)[2] for _, line in self.lines if f"round {number}: client" in line]
        return "; ".join(found) or "nothing"

    def seconds(self, number: int) -> float:
        """What a round took."""
        return self.rounds()[number] - self.rounds()[number - 1]


def faults_of_sites(folder: Path, deadline: float) -> list[tuple[str, str, str]]:
    """Kill, stop and replace sites while fedavg trains."""
    world = build(folder, deadline, 6)
    table = []
    with ExitStack() as running:
        running.enter_context(process(world.server.superlink(), folder / "server.log"))
        wait_for_server(world.server)
        nodes = {}
        for scenario, place in world.sites.items():
            register_site(world.server, scenario, place / "site.key.pub")
            nodes[scenario] = running.enter_context(process(world.site(scenario), folder / f"{scenario}.log"))
        make_site_key(folder / "stranger.key")
        stranger = running.enter_context(process(world.site("NL", folder / "stranger.key"), folder / "stranger.log"))
        keyless = world.site("NL")
        at = keyless.words.index("--auth-supernode-private-key")
        keyless = keyless._replace(words=keyless.words[:at] + keyless.words[at + 2 :])
        unknown = running.enter_context(process(keyless, folder / "keyless.log"))
        run = Run(world, "fedavg")
        run.after(2)
        table.append(("none", "nothing", f"{run.seconds(2):.0f} s a round"))
        for what, started, log in (("a wrong key", stranger, "stranger"), ("no key", unknown, "keyless")):
            words = (folder / f"{log}.log").read_text(encoding="utf-8").split("\n")
            last = next((line for line in words if line.startswith("[code")), "no refusal in its log")
            state = "still trying" if started.poll() is None else f"ended with {started.returncode}"
            table.append((what, f"{state}: {last}", "never connected"))
        online = describe(world.server).count(" online ")
        table.append(("sites that are online beside them", str(online), ""))
        os.killpg(nodes["ES"].pid, signal.SIGKILL)
        run.after(3)
        table.append(("a site killed with -9 in round 3", run.said(3), f"{run.seconds(3):.0f} s"))
        running.enter_context(process(world.site("ES"), folder / "ES.log"))
        run.wait(lambda: describe(world.server).count(" online ") >= len(world.sites))
        start = max(run.rounds())
        run.after(start + 2)
        table.append((f"it came back after round {start}", f"in round {start + 2}: {run.said(start + 2)}", ""))
        last = max(run.rounds())
        if last < 6:
            os.killpg(nodes["US"].pid, signal.SIGSTOP)
            run.after(last + 1)
            os.killpg(nodes["US"].pid, signal.SIGCONT)
            told = run.said(last + 1)
            table.append((f"a site slower than the deadline of {deadline:g} s", told, f"{run.seconds(last + 1):.0f} s"))
        run.after(6)
        run.wait(lambda: any("left each client" in line for _, line in run.lines))
        counted = [number for _, line in run.lines if (match := ROUND.match(line)) for number in [match[1]]]
        table.append(("rounds that were counted", ", ".join(counted), ""))
    return table


def fault_of_the_server(folder: Path, deadline: float) -> list[tuple[str, str, str]]:
    """Kill the server between two phases, and compare what comes of it."""
    world = build(folder, deadline, 2)
    expected = in_one_process(world)
    with ExitStack() as running:
        with process(world.server.superlink(), folder / "server.log") as link:
            wait_for_server(world.server)
            for scenario, place in world.sites.items():
                register_site(world.server, scenario, place / "site.key.pub")
                running.enter_context(process(world.site(scenario), folder / f"{scenario}.log"))
            run = Run(world, "pf_msmtrec")
            trained = [place / "state" for place in world.sites.values()]
            run.wait(lambda: all(list(state.glob("*/000002.0")) for state in trained))
            os.killpg(link.pid, signal.SIGKILL)
        start = time.monotonic()
        running.enter_context(process(world.server.superlink(), folder / "server.log"))
        wait_for_server(world.server)
        again = Run(world, "pf_msmtrec")
        again.wait(lambda: any("left each client" in line for _, line in again.lines))
        seconds = time.monotonic() - start
        again.wait(lambda: all((p / "runs/pf_msmtrec-seed0.json").exists() for p in world.sites.values()), 120)
    found = (world.server.root / "models/pf_msmtrec-seed0/history.csv").read_bytes()
    same = found == (expected / "history.csv").read_bytes() and all(
        (place / f"models/pf_msmtrec-seed0/{scenario}/weights.safetensors").read_bytes()
        == (expected / scenario / "weights.safetensors").read_bytes()
        for scenario, place in world.sites.items()
    )
    went_on = next(line for _, line in again.lines if "going on" in line)
    told = f"{went_on}; models {'are' if same else 'ARE NOT'} those of one process, bit for bit"
    return [("the server killed with -9 between phases 1 and 2 of round 2", told, f"{seconds:.0f} s from start to end")]


def in_one_process(world: World) -> Path:
    """Train in this process; return the folder of its models."""
    shards = world.folder / "shards"
    schema = read_schema(shards / "schema.json")
    config = across_sites(load_config(world.server.root / "params.yaml"), schema)
    federation = build_federation(config, schema, shards, "pf_msmtrec", 0, torch.device("cpu"))
    server = federation.method.init(next(iter(federation.clients.values())).initial_parameters, federation.names)
    history = History()
    with InProcess(federation.clients, 1, 1) as exchange:
        for result in run_rounds(federation.method, exchange, server, federation.names, rounds=2, quorum=0.5):
            history.add(result)
    write_models(world.folder / "expected", federation, schema, history, config.train.calibration)
    return world.folder / "expected"


def main() -> None:
    """Try all faults; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("federation-faults"), help="new; logs stay there")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds (federate.deadline)")
    chosen = parser.parse_args()
    folder = chosen.folder.absolute()
    table = fault_of_the_server(folder / "server-killed", chosen.deadline)
    table += faults_of_sites(folder / "sites", chosen.deadline)
    print("| fault | what the server says | cost |\n|---|---|---|")
    for row in table:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
