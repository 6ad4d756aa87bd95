"""Faults of a federation, each tried with real processes over TLS on this machine: what is said, and what it costs.

    python benchmarks/federation_faults.py [--folder FOLDER] [--deadline SECONDS] [--only server sites answers]

A server and three sites with tiny data. *server*: it is killed (-9) between the two phases of pf_msmtrec's second round
and goes on; its result is compared, bit for bit, with a training in one process. *sites*: while fedavg trains, one is
killed (-9) and comes back, another is frozen for a round, and others knock with a wrong key and with none. *answers*:
one site's data are damaged, its schema and its copy of the package are changed, so that it raises, refuses, or uploads
what the server must not take. Prints a Markdown table.
"""

import argparse
import json
import os
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from federation_world import ROUND, Run, World, build

import pfmsmt
from pfmsmt.config import load_config
from pfmsmt.core.display import markdown_table, text_table
from pfmsmt.data.schema import read_schema
from pfmsmt.flower.operate.control import describe, register_site, wait_for_server
from pfmsmt.flower.operate.credentials import make_site_key
from pfmsmt.flower.operate.demo import process
from pfmsmt.flower.plan import across_sites
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import build_federation
from pfmsmt.training.history import History
from pfmsmt.training.rounds import run_rounds

UPLOADS = """

_pack_answer = pack_answer


def pack_answer(answer):
    if isinstance(answer, Upload):
        name = sorted(answer.arrays)[0]
        array = answer.arrays[name]
        answer = answer._replace(arrays={{**answer.arrays, name: {change}}})
    return _pack_answer(answer)
"""
"""Added to a site's own copy of `pfmsmt/flower/wire.py`."""
WRONG_UPLOADS = {
    "an upload with NaN": "array * float('nan')",
    "an upload of absurd length": "array * 0 + 1e6",
    "parameters of another shape": "array.ravel()[:-1]",
}


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


def faults_of_answers(folder: Path, deadline: float) -> list[tuple[str, str, str]]:
    """Have site US answer wrongly, in every way for a round or two, while fedavg trains.

    Every message is answered by a new process, so what is changed counts from the next message on.
    """
    world = build(folder, deadline, 20)
    own = folder / "own/pfmsmt"
    shutil.copytree(Path(pfmsmt.__file__).parent, own, ignore=shutil.ignore_patterns("__pycache__"))
    place = world.sites["US"]
    schema, shard = place / "data/clients/schema.json", next((place / "data/clients/US").glob("train*"))
    wire, version = own / "flower/wire.py", own / "__init__.py"
    files = {path: path.read_bytes() for path in (schema, shard, wire, version)}

    def another_schema() -> None:
        tree = json.loads(files[schema])
        tree["numerical"][0]["mean"] += 1
        schema.write_text(json.dumps(tree))

    def another_version() -> None:
        version.write_bytes(files[version].replace(pfmsmt.__version__.encode(), b"0.0.9"))

    def damaged() -> None:
        shard.write_bytes(files[shard][:-100])

    faults = {"a client that raises (its shard is cut off)": damaged, "another schema": another_schema,
              "another version of the package": another_version}  # fmt: skip
    for what, change in WRONG_UPLOADS.items():
        faults[what] = lambda change=change: wire.write_bytes(files[wire] + UPLOADS.format(change=change).encode())
    table = []
    with ExitStack() as running:
        running.enter_context(process(world.server.superlink(), folder / "server.log"))
        wait_for_server(world.server)
        for scenario, site in world.sites.items():
            register_site(world.server, scenario, site / "site.key.pub")
            command = world.site(scenario)
            if scenario == "US":
                command = command._replace(environment={**command.environment, "PYTHONPATH": str(own.parent)})
            running.enter_context(process(command, folder / f"{scenario}.log"))
        run = Run(world, "fedavg")
        run.after(1)
        for what, act in faults.items():
            start = max(run.rounds())
            act()
            # The round under way may have seen half of it.
            run.after(start + 2)
            for path, content in files.items():
                path.write_bytes(content)
            table.append((what, run.said(start + 2), f"{run.seconds(start + 2):.0f} s"))
        start = max(run.rounds())
        run.after(start + 2)
        table.append(("none again", run.said(start + 2), f"{run.seconds(start + 2):.0f} s"))
        run.wait(lambda: any("left each client" in line for _, line in run.lines))
        counted = [match[1] for _, line in run.lines if (match := ROUND.match(line))]
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
    federation.save_models(world.folder / "expected", history)
    return world.folder / "expected"


KINDS = {"server": fault_of_the_server, "sites": faults_of_sites, "answers": faults_of_answers}


def main() -> None:
    """Try all faults; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("federation-faults"), help="new; logs stay there")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds (federate.deadline)")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), help="which to try")
    chosen = parser.parse_args()
    folder = chosen.folder.absolute()
    rows = [row for kind in chosen.only for row in KINDS[kind](folder / kind, chosen.deadline)]
    print(markdown_table(text_table(("fault", "what the server says", "cost"), rows)))


if __name__ == "__main__":
    main()
