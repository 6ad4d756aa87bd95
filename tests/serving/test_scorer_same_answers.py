"""The same rows, whichever way they come, get what the evaluation stage gave them."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from mlflow.pyfunc.scoring_server import invocations

from pfmsmt.commands.evaluate import predict_shard
from pfmsmt.data.schema import read_schema
from pfmsmt.data.shards.resident import load_shard
from pfmsmt.data.sources import SOURCES
from pfmsmt.data.sources.base import Opening, read_rows
from pfmsmt.data.tables.faults import Faults
from pfmsmt.models.saved import load_model
from pfmsmt.serving.app import build_app
from pfmsmt.serving.deployments import Fleet
from pfmsmt.serving.file import predict_file
from tests.support.shelves import SETTINGS, STREAM, Server, as_stream

pytestmark = pytest.mark.slow(16)
CLIENTS = Path("data/clients")


def raw_test_rows(config, names, scratch: Path) -> dict[str, pd.DataFrame]:
    """The rows of each scenario's test shard, in its order, before they were encoded."""
    scratch.mkdir()
    faults = Faults()
    opening = Opening(config.data, config.seed, Path("data/raw"), names, scratch, faults, lambda _: None)
    dataset = SOURCES["synthetic"].open(opening)
    features = [*dataset.columns.categorical, *dataset.columns.numerical]
    return {
        name: pd.concat(
            [pd.DataFrame(rows)[features] for rows in read_rows(dataset, name, "test", faults)], ignore_index=True
        )
        for name in names
    }


def start_mlflow(project) -> tuple[subprocess.Popen, str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = ["-m", "mlflow", "models", "serve", "-m", "models:/pfmsmt-NL@champion", "--env-manager", "local"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    server = subprocess.Popen(
        [sys.executable, *words, "--host", "127.0.0.1", "--port", str(port)], cwd=project, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    return server, f"http://127.0.0.1:{port}"


def wait_for(url: str, server: subprocess.Popen) -> None:
    for _ in range(400):
        assert server.poll() is None, "mlflow models serve ended"
        try:
            if requests.get(f"{url}/ping", timeout=1).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise AssertionError("mlflow models serve did not answer")


def test_every_way_gives_the_evaluated_probabilities(project, configure, train_all):
    config = configure({"train.methods": ["pf_msmtrec"]})
    tracking = train_all(config)
    peer, url = start_mlflow(project)
    try:
        check_all(config, tracking, project, peer, url)
    finally:
        os.killpg(peer.pid, signal.SIGTERM)
        peer.wait(20)


def check_all(config, tracking, project, peer, url):
    schema = read_schema(CLIENTS / "schema.json")
    metrics = json.loads((project / "evaluation/pf_msmtrec-seed0/metrics.json").read_text())["scenarios"]
    fleet = Fleet(tracking, calibrated=config.serve.calibrated, with_challengers=False, report=lambda _: None)
    server = Server(build_app(fleet, SETTINGS.model_copy(update={"max_rows": 10_000, "max_body_mib": 8.0})))
    raw = raw_test_rows(config, schema.scenarios, project / "scratch")
    for scenario in schema.scenarios:
        saved = load_model(project / "models/pf_msmtrec-seed0" / scenario)
        own = schema.scenario(scenario)
        shard = load_shard(CLIENTS, "test", own)
        evaluated = predict_shard(saved, shard, config.evaluate.batch_size, config.evaluate.calibrated)
        for place, task in enumerate(("ctr", "ctcvr")):
            ratio = evaluated[:, place].sum() / shard.labels[:, place].sum().item()
            assert metrics[scenario][task]["predicted_to_actual"] == pytest.approx(ratio, rel=1e-6)
        assert saved.calibration is not None
        assert np.abs(evaluated - predict_shard(saved, shard, 8192, False)).max() > 1e-3
        rows = raw[scenario]
        path = f"/v1/scenarios/{scenario}/predict"
        records = server.client.post(path, json={"records": rows.to_dict("records")}).json()["predictions"]
        stream = server.client.post(path, content=as_stream(rows), headers={"Content-Type": STREAM})
        loaded = mlflow.pyfunc.load_model(f"models:/pfmsmt-{scenario}@champion")
        body = json.dumps({"dataframe_split": {"columns": list(rows), "data": rows.to_numpy().tolist()}})
        scored = invocations(body, "application/json", loaded, loaded.metadata.get_input_schema())
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(rows), sink)
        Path("rows.parquet").write_bytes(sink.getvalue())
        predict_file(tracking, scenario, Path("rows.parquet"), Path("predicted.parquet"))
        found = {
            "Python": loaded.predict(rows),
            "MLflow's scoring": pd.DataFrame(json.loads(scored.response)["predictions"]),
            "JSON": pd.DataFrame(records),
            "Arrow": pa.ipc.open_stream(stream.content).read_all().to_pandas(),
            "batch": pq.read_table("predicted.parquet").to_pandas(),
        }
        if scenario == "NL":
            wait_for(url, peer)
            asked = {"dataframe_split": json.loads(rows.to_json(orient="split", double_precision=15, index=False))}
            answer = requests.post(f"{url}/invocations", json=asked, timeout=60).json()
            found["mlflow models serve"] = pd.DataFrame(answer["predictions"])
            asked["params"] = {"calibrated": False}
            trained = pd.DataFrame(requests.post(f"{url}/invocations", json=asked, timeout=60).json()["predictions"])
            np.testing.assert_allclose(trained, predict_shard(saved, shard, 8192, False), rtol=0, atol=1e-6)
        for way, answers in found.items():
            np.testing.assert_allclose(answers[["ctr", "ctcvr"]], evaluated, rtol=0, atol=1e-6, err_msg=way)
    server.stop()
