"""Small models on a registry's shelf, rows for them, and a real server."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import requests
import torch
import uvicorn

from pfmsmt.config import Model, Serve
from pfmsmt.data.schema import CategoricalField, NumericalField, ScenarioSchema, Task
from pfmsmt.models.calibration import Calibration
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.saved import SavedModel, load_model, save_model
from pfmsmt.models.spec import build_spec
from pfmsmt.models.template import Binding
from pfmsmt.tracking import Store
from pfmsmt.tracking.mlflow_run import training_run
from pfmsmt.tracking.promotion import set_champion
from pfmsmt.tracking.registry import download_version, register_version, set_alias

STREAM = "application/vnd.apache.arrow.stream"
SIZES = Model(embedding_dim=2, experts=2, expert_layers=(4, 3), tower_layers=(2,), dropout=0.0, ctcvr="product")
LINE = Calibration(kind="platt", slopes=(0.9, 1.2), intercepts=(-0.3, -0.1))
SETTINGS = Serve(
    host="127.0.0.1", port=5001, poll_seconds=0.05, calibrated=True, optional_columns=(), challenger="none",
    challenger_share=0.3, batch_rows=64, threads=1, max_rows=100, max_body_mib=0.1, concurrency=16, timeout_seconds=5.0,
)  # fmt: skip


def schema(scenario: str, **changes) -> ScenarioSchema:
    values = {
        "scenario": scenario,
        "group": "search",
        "tasks": (Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr")),
        "categorical": (
            CategoricalField(name="country", federated=True, vocabulary=(3, 7)),
            CategoricalField(name="user", federated=False, vocabulary=(-5, 12, 2**40)),
        ),
        "numerical": (NumericalField(name="price", mean=10.0, std=2.0), NumericalField(name="age", mean=1.0, std=0.5)),
    }
    return ScenarioSchema(**(values | changes))


EXPERTS = {"rank": 0, "private_experts": 1}


def save(folder: Path, own: ScenarioSchema, seed: int, parts: Mapping[str, Any] = EXPERTS) -> Path:
    spec = build_spec(own, SIZES, **parts)
    model = MMoE(spec)
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(generator.normal(size=tuple(parameter.shape))))
    save_model(folder, spec, Binding(model).read(), own, None, LINE)
    return folder


def frame(rows: int = 5, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "country": rng.choice([3, 7, 99], rows),
            "user": rng.choice([-5, 12, 2**40, 1], rows),
            "price": rng.normal(10, 2, rows),
            "age": rng.normal(1, 0.5, rows),
        }
    )


class Shelf:
    """A store, and a function to put models on it."""

    def __init__(self, tracking: Store, root: Path) -> None:
        self.tracking, self.root, self._count = tracking, root, 0

    def add(
        self, scenario: str, seed: int = 0, alias: str | None = None, *,
        val: float = 0.7, parts: Mapping[str, Any] = EXPERTS, tags: Mapping[str, Any] = {}, **changes,
    ) -> str:  # fmt: skip
        """Log and register a model; return its version."""
        self._count += 1
        own = schema(scenario, **changes)
        folder = save(self.root / "saved" / str(self._count) / scenario, own, seed, parts)
        example = pd.DataFrame({name: [3.0] * 2 for name in own.columns})
        tags = {"method": "local", "val_mean_auc": val, "seed": seed, **tags}
        with training_run(
            self.tracking, method="local", seed=seed, dataset="made", fingerprint="f" * 64,
            params={"train.rounds": self._count}, config_file=self.root / "params.yaml",
        ) as run:  # fmt: skip
            model_id = run.log_scenario_model(f"local-{scenario}", folder, example, {}, step=1)
        version = register_version(self.tracking, scenario, model_id, tags)
        if alias == "champion":
            set_champion(self.tracking, scenario, version, "register")
        elif alias:
            set_alias(self.tracking, scenario, alias, version)
        return version


class Client:
    """One keep-alive connection."""

    def __init__(self, url: str) -> None:
        self.url, self._session = url, requests.Session()

    def post(self, path: str, content: bytes | None = None, **options) -> requests.Response:
        return self._session.post(self.url + path, data=content, timeout=20, **options)

    def get(self, path: str, **options) -> requests.Response:
        return self._session.get(self.url + path, timeout=20, **options)

    def close(self) -> None:
        self._session.close()


class Server:
    """A uvicorn server in a thread, and a client of it."""

    def __init__(self, app, root_path: str = "") -> None:
        config = uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none", root_path=root_path)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        end = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = Client(self.url)

    def post(self, path: str, **options) -> requests.Response:
        """Post on a connection of its own, from any thread."""
        return requests.post(self.url + path, timeout=20, **options)

    def stop(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(20)


def saved(shelf: Shelf, scenario: str, version: str) -> SavedModel:
    """The registered model as the evaluation stage would load it."""
    return load_model(download_version(shelf.tracking, scenario, version, shelf.root / "fetched"))


def as_stream(rows: pd.DataFrame | pa.Table, compression: str | None = None) -> bytes:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
