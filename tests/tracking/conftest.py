"""A fresh sqlite store for each test, and a tiny saved model."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pfmsmt.config import Model
from pfmsmt.data.schema import CategoricalField, NumericalField, ScenarioSchema, Task
from pfmsmt.tracking import Store, TrainingRun, connect
from pfmsmt.tracking.mlflow_run import training_run


@pytest.fixture
def root(tmp_path: Path, empty_database: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    shutil.copy(empty_database, folder)
    (folder / "params.yaml").write_text("seed: 0\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def tracking(root: Path) -> Store:
    return connect(root)


@pytest.fixture
def start(tracking: Store, root: Path):
    """Return a function that opens a training run."""

    def open_run(**changes):
        given = {"method": "fedavg", "seed": 0, "dataset": "synthetic", "fingerprint": "f" * 64}
        given |= {"params": {"train.rounds": 3, "data.private_fields": ()}, "config_file": root / "params.yaml"}
        return training_run(tracking, **(given | changes))

    return open_run


@pytest.fixture
def finished(start) -> TrainingRun:
    with start() as run:
        run.log_round(1, {"val/mean_auc": 0.5})
    return run


SCHEMA = ScenarioSchema(
    scenario="NL",
    group="search",
    tasks=(Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr")),
    categorical=(CategoricalField(name="country", federated=True, vocabulary=(3, 7)),),
    numerical=(NumericalField(name="price", mean=10.0, std=2.0),),
)


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame({"country": [3, 7, 99], "price": [8.0, 10.0, 13.5]})


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from pfmsmt.models.mmoe import MMoE
    from pfmsmt.models.saved import save_model
    from pfmsmt.models.spec import build_spec
    from pfmsmt.models.template import Binding

    sizes = Model(embedding_dim=2, experts=2, expert_layers=(4,), tower_layers=(2,), dropout=0.0, ctcvr="product")
    spec = build_spec(SCHEMA, sizes, rank=0)
    model = MMoE(spec)
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(generator.normal(size=tuple(parameter.shape))))
    folder = tmp_path_factory.mktemp("models") / "NL"
    save_model(folder, spec, Binding(model).read(), SCHEMA)
    return folder
