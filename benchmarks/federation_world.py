"""A federation on this machine, with real processes over TLS: what benchmarks of faults start, follow and stop."""

import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from pfmsmt.config import load_config
from pfmsmt.config.keys import set_values
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.prepare.partition import partition
from pfmsmt.flower.operate.credentials import make_certificates, make_site_key
from pfmsmt.flower.operate.demo import share_out
from pfmsmt.flower.operate.programs import CONNECTION, Command, Server, free_port, supernode

PARAMS = Path(__file__).parents[1] / "params.yaml"
SIZES = {"train_rows": 2000, "test_rows": 500}
CHANGES = {
    "data.source": "synthetic",
    "data.synthetic.scenarios": {"NL": SIZES, "ES": SIZES, "US": SIZES},
    "data.synthetic.ctr": 0.3,
    "data.synthetic.cvr": 0.4,
    "train.quorum": 0.5,
    "run.device": "cpu",
    "run.threads": 1,
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
    sites = share_out(folder / "shards", server.root, folder / "sites")
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
        """The seconds of a round, by part."""
        return self.rounds()[number] - self.rounds()[number - 1]
