"""Shared by all tests: a tiny generated data set, a tiny configuration, a fresh MLflow store, a project folder."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from pfmsmt.config import Config, parse_config
from pfmsmt.config.keys import set_values
from pfmsmt.data.schema import Schema, read_schema
from tests.support.environment import bare_environment
from tests.support.settings import write_settings

# Before torch and numpy are loaded: many small products are faster on one thread, above all when tests run in parallel.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).parents[1]

SMALL = {
    "data.validation_fraction": 0.3,
    "data.synthetic.scenarios": {
        "NL": {"train_rows": 500, "test_rows": 200},
        "ES": {"train_rows": 300, "test_rows": 200},
        "US": {"train_rows": 200, "test_rows": 200},
    },
    "data.synthetic.rows_per_search": 4,
    "data.synthetic.ctr": 0.3,
    "data.synthetic.cvr": 0.4,
    "model.embedding_dim": 2,
    "model.experts": 2,
    "model.expert_layers": [6, 4],
    "model.tower_layers": [3],
    "model.dropout": 0.2,
    "train.rounds": 4,
    "train.local_steps": 3,
    "train.batch_size": 24,
    "run.checkpoint_every": 2,
    "run.device": "cpu",
    "run.workers": 1,
    "run.threads": 1,
    "methods.pf_msmtrec.rank": 2,
    "methods.pf_msmtrec.private_experts": 1,
    "methods.pf_msmtrec.federated_batch_norm": True,
    "methods.pf_msmtrec.gate": "federated",
    "methods.pf_msmtrec.tower_steps": 4,
    "evaluate.bootstrap": 20,
    "evaluate.bins": 5,
}


def small_tree(changes: dict | None = None) -> dict:
    """The repository's params.yaml as plain values, with small sizes and then `changes` ("train.rounds": 2).

    tune.yaml is among them, as the block `tune`, where one of its keys is changed.
    """
    tree = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    if any(key.startswith("tune.") for key in changes or {}):
        tree["tune"] = yaml.safe_load((REPOSITORY / "tune.yaml").read_text(encoding="utf-8"))
    set_values(tree, {**SMALL, **(changes or {})})
    return tree


@pytest.fixture
def dvc_repository(tmp_path) -> Path:
    """A folder with the pipeline's code and DVC's settings, without params.yaml and data."""
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "stages", "pfmsmt", ".dvc/config", ".dvc/.gitignore",
                 ".dvc/plots"):  # fmt: skip
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, root / name)
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first, so that none is left running alone at the end.

    How long a file takes is what its tests' `slow` markers say in all. Files stay whole (`--dist loadfile`).
    """
    seconds: dict[Path, float] = defaultdict(float)
    for item in items:
        marker = item.get_closest_marker("slow")
        if marker is not None:
            seconds[item.path] += sum(marker.args)
    items.sort(key=lambda item: -seconds[item.path])


@pytest.fixture(scope="session")
def make_tree():
    return small_tree


@pytest.fixture(scope="session")
def make_config():
    def make(changes: dict | None = None) -> Config:
        return parse_config(small_tree(changes))

    return make


@pytest.fixture(scope="session")
def make_data(tmp_path_factory: pytest.TempPathFactory, make_config):
    """Return a function that generates and partitions; the folder it returns holds data/raw and data/clients."""
    from pfmsmt.data.prepare.download import obtain
    from pfmsmt.data.prepare.partition import partition

    made: dict[str, Path] = {}

    def make(**changes) -> Path:
        name = str(sorted(changes.items()))
        if name not in made:
            config = make_config({f"data.{key}": value for key, value in changes.items()})
            folder = tmp_path_factory.mktemp("data")
            obtain(config.data, config.seed, folder / "data/raw", lambda _: None)
            partition(config.data, config.seed, folder / "data/raw", folder / "data/clients", lambda _: None)
            made[name] = folder
        return made[name]

    return make


@pytest.fixture(scope="session")
def data(make_data) -> Path:
    return make_data()


@pytest.fixture(scope="session")
def shards(data: Path) -> Path:
    return data / "data/clients"


@pytest.fixture(scope="session")
def schema(shards: Path) -> Schema:
    return read_schema(shards / "schema.json")


@pytest.fixture
def clean_environment() -> Iterator[None]:
    with bare_environment():
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's slow migration runs once, whatever the number of workers; tests copy its file."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "store"
    path = folder / "mlflow.db"
    with FileLock(folder.with_suffix(".lock")):
        if not path.exists():
            import mlflow

            unfinished = tmp_path_factory.mktemp("unfinished")
            with contextlib.chdir(unfinished):  # MLflow makes a folder mlruns where it is
                mlflow.MlflowClient(f"sqlite:///{unfinished / 'mlflow.db'}").search_experiments()
            unfinished.rename(folder)
    return path


@pytest.fixture(scope="session")
def fill_project(empty_database: Path):
    """Return a function that makes a project of some data: with a small params.yaml and an empty MLflow store."""

    def fill(data: Path, folder: Path, changes: dict | None = None) -> Path:
        shutil.copytree(data, folder)
        shutil.copy(empty_database, folder)
        write_settings(folder, small_tree(changes))
        return folder

    return fill


@pytest.fixture
def project(tmp_path: Path, data: Path, fill_project, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the test's own, with the data of its file; the working directory."""
    folder = fill_project(data, tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory, data: Path, fill_project) -> Path:
    changes = {"train.methods": ["local"], "evaluate.batch_size": 64}
    folder = fill_project(data, tmp_path_factory.mktemp("finished") / "project", changes)
    with bare_environment(), contextlib.chdir(folder):
        run_stages(parse_config(small_tree(changes)), folder, "all")
    return folder


@pytest.fixture
def finished_project(finished_once: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose stages have run with the method local, for tests that leave it as it is; the working directory.

    It is made once, as training and drawing take seconds.
    """
    monkeypatch.chdir(finished_once)
    return finished_once


@pytest.fixture(scope="session")
def filled_store(tmp_path_factory, empty_database: Path) -> Path:
    """NL with two versions (champion 1, challenger 2) and ES with one; tests get a copy of the database."""
    from pfmsmt.tracking import connect
    from tests.support.shelves import Shelf

    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_database, folder)
    (folder / "params.yaml").write_text("seed: 0\n")
    with bare_environment():
        shelf = Shelf(connect(folder), folder)
        shelf.add("NL", 0, "champion")
        shelf.add("NL", 1, "challenger", val=0.72)
        shelf.add("ES", 2, "champion")
    return folder


@pytest.fixture
def shelf(filled_store: Path, tmp_path: Path, clean_environment, monkeypatch):
    """A registry with small models of two scenarios, of which a test may change what it likes."""
    from pfmsmt.tracking import connect
    from tests.support.shelves import Shelf

    folder = tmp_path / "registry"
    folder.mkdir()
    for name in ("mlflow.db", "params.yaml"):
        shutil.copy(filled_store / name, folder)
    monkeypatch.chdir(folder)
    return Shelf(connect(folder), folder)


@pytest.fixture
def configure(project: Path, make_config):
    """Return a function that changes the project's params.yaml and returns it parsed."""

    def change(changes: dict | None = None) -> Config:
        write_settings(project, small_tree(changes))
        return make_config(changes)

    return change


@pytest.fixture
def run_python():
    """Return a function that runs this Python in the working directory, as a user would."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
        return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture(scope="session")
def make_federation(make_config, shards: Path, schema: Schema):
    """Return a function that builds a method and its clients on the tiny data."""
    import torch

    from pfmsmt.training.federation import Federation, build_federation

    def make(name: str, changes: dict | None = None, seed: int = 0) -> Federation:
        return build_federation(make_config(changes), schema, shards, name, seed, torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def equal_arrays():
    """Return a function that tells whether two sets of named arrays are the same, bit for bit."""

    def equal(first, second) -> bool:
        return first.keys() == second.keys() and all(
            first[n].dtype == second[n].dtype
            and first[n].shape == second[n].shape
            and first[n].tobytes() == second[n].tobytes()
            for n in first
        )

    return equal


@pytest.fixture
def train_all(project: Path):
    """Return a function that runs the stages in the test's own project, up to one of them."""

    def run(config: Config, last: str = "register"):
        return run_stages(config, project, last)

    return run


def run_stages(config: Config, project: Path, last: str = "register"):
    """Do what the stages do in a project that is the working directory, for every method; return its tracking."""
    from pfmsmt.commands.compare import compare
    from pfmsmt.commands.evaluate import evaluate
    from pfmsmt.commands.register import register
    from pfmsmt.commands.train import train
    from pfmsmt.core.files import write_json
    from pfmsmt.tracking import connect

    schema, tracking = read_schema(Path("data/clients/schema.json")), connect(project)
    for method in config.train.methods:
        ids = train(config, schema, method, 0, tracking, project)
        write_json(project / f"runs/{method}-seed0.json", ids)
        if last != "train":
            evaluate(config, schema, method, 0, tracking, project)
    # The choice of models does not depend on the comparison, which takes seconds to draw.
    if last in ("compare", "all"):
        compare(config, schema, tracking, project)
    if last in ("register", "all"):
        register(config, schema, tracking, project)
    return tracking
