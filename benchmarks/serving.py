"""Latency and throughput of `pfmsmt serve` beside `mlflow models serve`: same model, same rows, one run.

A model of params.yaml's size with drawn weights is registered in a store of its own (speed does not depend on what a
model has learnt). Both servers must give the same probabilities within 1e-6 before anything is timed. MLflow gets its
fastest JSON with names, dataframe_split; it takes no Arrow, so 1,000 rows are Arrow here and JSON there.
Run it on an idle machine: `python benchmarks/serving.py`; `--quick` only shows that it works.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from pfmsmt.config import Config, load_config
from pfmsmt.data.schema import CategoricalField, NumericalField, ScenarioSchema, Task
from pfmsmt.data.sources.aliexpress.columns import CATEGORICAL, NUMERICAL
from pfmsmt.methods.catalogue import method_facts
from pfmsmt.models.calibration import Calibration
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.saved import save_model
from pfmsmt.models.spec import build_spec
from pfmsmt.models.template import Binding
from pfmsmt.tracking import Store, connect
from pfmsmt.tracking.mlflow_run import training_run
from pfmsmt.tracking.promotion import set_champion
from pfmsmt.tracking.registry import register_version, set_alias

ROOT = Path(__file__).parents[1]
CATEGORIES = 20
STREAM, JSON = "application/vnd.apache.arrow.stream", "application/json"
OURS, PEER = "/v1/scenarios/NL/predict", "/invocations"


class Goal(NamedTuple):
    """A timed request, and its goal: times faster than the peer."""

    name: str
    rows: int
    arrow: bool
    clients: int
    requests: int
    factor: float


class Timed(NamedTuple):
    """One server's answers to one goal's requests."""

    p50: float
    p99: float
    per_second: float


GOALS = (
    Goal("1 row, JSON", 1, False, 1, 400, 5),
    Goal("200 rows, JSON", 200, False, 1, 200, 3),
    Goal("1,000 rows, Arrow", 1000, True, 1, 100, 5),
    Goal("32 clients, 200 rows", 200, False, 32, 960, 4),
)


def schema() -> ScenarioSchema:
    """AliExpress's columns."""
    return ScenarioSchema(
        scenario="NL",
        group="search_id",
        tasks=(Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr")),
        categorical=tuple(
            CategoricalField(name=name, federated=True, vocabulary=tuple(range(CATEGORIES))) for name in CATEGORICAL
        ),
        numerical=tuple(NumericalField(name=name, mean=0.0, std=1.0) for name in NUMERICAL),
    )


def draw_rows(count: int) -> pd.DataFrame:
    """Draw raw rows."""
    rng = np.random.default_rng(count)
    columns = {name: rng.integers(0, CATEGORIES, count) for name in CATEGORICAL}
    return pd.DataFrame(columns | {name: rng.normal(size=count).round(6) for name in NUMERICAL})


def fill_registry(config: Config, folder: Path) -> Store:
    """Register two versions of NL, the first one as champion."""
    tracking = connect(folder)
    own = schema()
    spec = build_spec(own, config.model, **method_facts("pf_msmtrec", config.methods).model_parts)
    line = Calibration(kind="platt", slopes=(0.9, 0.9), intercepts=(-0.1, -0.1))
    for seed in (0, 1):
        model = MMoE(spec).initialise(seed, "NL")
        save_model(folder / f"{seed}/NL", spec, Binding(model).read(), own, None, line)
        with training_run(
            tracking, method="pf_msmtrec", seed=seed, dataset="drawn", fingerprint="0" * 64, params={},
            config_file=ROOT / "params.yaml",
        ) as run:  # fmt: skip
            name = run.log_scenario_model("pf_msmtrec-NL", folder / f"{seed}/NL", draw_rows(2), {}, step=1)
        version = register_version(tracking, "NL", name, {})
        if seed == 0:
            set_champion(tracking, "NL", version, "register")
    return tracking


def start(words: list[str], port: int, ready: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PFMSMT_SERVE_TOKEN": ""}
    server = subprocess.Popen(
        [sys.executable, "-m", *words, "--host", "127.0.0.1", "--port", str(port)], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit(f"{words} ended with code {server.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=2):
                return server
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{words} did not answer within two minutes")


def request(path: str, kind: str, body: bytes) -> bytes:
    """Return one HTTP request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one HTTP answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


async def load(port: int, sent: bytes, clients: int, count: int) -> Timed:
    """Send `count` requests from `clients` keep-alive connections; seconds."""
    times: list[float] = []
    left = iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            begun = time.perf_counter()
            writer.write(sent)
            status, _, body = await answer(reader)
            times.append(time.perf_counter() - begun)
            if status != 200:
                raise SystemExit(f"an answer with status {status}: {body[:300]!r}")
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - begun
    return Timed(float(np.quantile(times, 0.5)), float(np.quantile(times, 0.99)), count / seconds)


def bodies(rows: pd.DataFrame, arrow: bool) -> tuple[bytes, bytes]:
    """Return the same rows as a request of ours and of the peer."""
    split = {"columns": list(rows), "data": rows.to_numpy(dtype=object).tolist()}
    peer = request(PEER, JSON, json.dumps({"dataframe_split": split}).encode())
    if not arrow:
        return request(OURS, JSON, json.dumps({"records": rows.to_dict("records")}).encode()), peer
    table = pa.Table.from_pandas(rows, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return request(OURS, STREAM, sink.getvalue().to_pybytes()), peer


async def ask_once(port: int, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    found = await answer(reader)
    writer.close()
    return found


def check_equal(ours: int, peer: int) -> None:
    """Make sure that both servers answer alike."""
    sent, sent_peer = bodies(draw_rows(50), False)
    first = pd.DataFrame(json.loads(asyncio.run(ask_once(ours, sent))[2])["predictions"])
    second = pd.DataFrame(json.loads(asyncio.run(ask_once(peer, sent_peer))[2])["predictions"])
    difference = float(np.abs(first.to_numpy() - second[list(first)].to_numpy()).max())
    print(f"largest difference of the two servers' probabilities: {difference:.1e}")
    if not difference <= 1e-6:
        raise SystemExit("the servers do not answer alike")


async def swap_under_load(tracking: Store, port: int, swaps: int) -> tuple[int, int, int]:
    """Move the champion's alias while 8 clients ask; return answers, failed ones, and swaps that were seen."""
    sent, _ = bodies(draw_rows(20), False)
    counts = {"answers": 0, "failed": 0, "seen": 0}
    version, stop = "1", False

    async def client() -> None:
        nonlocal version
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not stop:
            writer.write(sent)
            status, headers, body = await answer(reader)
            counts["answers"] += 1
            named = headers.get("x-model-version")
            whole = status == 200 and json.loads(body)["model_version"] == named
            counts["failed"] += not whole
            if whole and named is not None:
                version = named
        writer.close()

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for swap in range(swaps):
        wanted = "21"[swap % 2]
        await asyncio.to_thread(set_alias, tracking, "NL", "champion", wanted)
        end = time.monotonic() + 30
        while version != wanted and time.monotonic() < end:
            await asyncio.sleep(0.01)
        counts["seen"] += version == wanted
    stop = True
    await asyncio.gather(*clients)
    return counts["answers"], counts["failed"], counts["seen"]


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    """Print a table: each goal, both servers, and whether it is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the requests, five swaps")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        params = (ROOT / "params.yaml").read_text(encoding="utf-8")
        (folder / "params.yaml").write_text(params.replace("poll_seconds: 5.0 ", "poll_seconds: 0.05 "))
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        tracking = fill_registry(load_config(folder / "params.yaml"), folder)
        mlflow = ["mlflow", "models", "serve", "-m", "models:/pfmsmt-NL@champion", "--env-manager", "local"]
        ports = free_port(), free_port()
        servers = []
        try:
            servers.append(start(["pfmsmt.commands.main", "serve"], ports[0], "/readyz", folder))
            servers.append(start(mlflow, ports[1], "/ping", folder))
            measure(ports, quick)
            found = asyncio.run(swap_under_load(tracking, ports[0], 5 if quick else 50))
            print(f"swaps under load: {found[2]} swaps, {found[0]} answers, {found[1]} failed or without one version")
        finally:
            for server in servers:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(30)


def measure(ports: tuple[int, int], quick: bool) -> None:
    """Time all goals; the servers take turns, so that both meet the same machine."""
    check_equal(*ports)
    print(f"{'':22s}{'pfmsmt p50':>12s}{'p99':>10s}{'req/s':>8s}{'mlflow p50':>12s}{'p99':>10s}{'req/s':>8s}  factor")
    for goal in GOALS:
        count = max(goal.requests // 20, goal.clients) if quick else goal.requests
        sent = bodies(draw_rows(goal.rows), goal.arrow)
        timed = []
        for port, body in zip(ports, sent, strict=True):
            asyncio.run(load(port, body, goal.clients, max(count // 10, goal.clients)))
            timed.append(asyncio.run(load(port, body, goal.clients, count)))
        ours, peer = timed
        factor = ours.per_second / peer.per_second if goal.clients > 1 else peer.p50 / ours.p50
        cells = "".join(f"{t.p50 * 1e3:9.2f} ms{t.p99 * 1e3:7.1f} ms{t.per_second:8.0f}" for t in timed)
        reached = "reached" if factor >= goal.factor else "missed"
        print(f"{goal.name:22s}{cells}  {factor:.1f} (goal {goal.factor:g}: {reached})")
        if goal.clients > 1:
            print(f"{'':22s}p99 is {ours.p99 / ours.p50:.1f} times p50 (goal: under 10)")


if __name__ == "__main__":
    main()
