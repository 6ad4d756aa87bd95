"""Connects to the MLflow store; creates what is missing of it.

That is the store itself, and the experiment. The address is decided, and written into the environment, before mlflow is
imported: it reads the environment then.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from filelock import FileLock

from pfmsmt.core.errors import TrackingError
from pfmsmt.tracking.model_card import NOTE
from pfmsmt.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient


EXPERIMENT = "pfmsmt"
TUNING_EXPERIMENT = "pfmsmt-tuning"
_KIND = {"mlflow.experimentKind": "custom_model_development"}
# For the first answer alone: a wrong address is to be named within seconds.
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
DATABASE = "mlflow.db"
LAUNCHER = "PFMSMT_LAUNCHER_RUN_ID"
"""Names the run of `mlflow run`, whose own variable has to go (see `take_launcher`)."""

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_SERVERS = ("http", "https", "databricks", "databricks-uc")
_DATABASES = ("postgresql", "mysql", "mssql")


def connect(root: Path, experiment: str = EXPERIMENT) -> Store:
    """Connect to the store of MLFLOW_TRACKING_URI, else to `<root>/mlflow.db`.

    Safe in many processes at once.

    Raises:
        TrackingError: the address is no valid store, or nobody answers there (said within about ten seconds).
    """
    uri = store_uri(root, os.environ)
    prepare_environment(uri)
    launcher = take_launcher()
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    database = sqlite_file(uri)
    try:
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        # MLflow's migration of a fresh sqlite file crashes when two processes run it at the same time.
        with FileLock(f"{database}.lock") if database else nullcontext(), _impatient():
            client = mlflow.MlflowClient(uri, uri)
            place = None if is_server(uri) else (database or root.absolute() / DATABASE).parent / "mlruns" / experiment
            experiment_id = _experiment(client, experiment, place)
            launcher = _mark_launcher(client, launcher, experiment_id) if launcher else None
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        raise TrackingError(_advice(uri, root, error)) from error
    return Store(client, uri, experiment_id, root.absolute(), launcher)


def _experiment(client: "MlflowClient", name: str, place: Path | None) -> str:
    from mlflow.entities import LifecycleStage, ViewType
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, place.as_uri() if place else None, tags=_KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.search_experiments(ViewType.ALL, filter_string=f"name = '{name}'")[0]
    if found.lifecycle_stage == LifecycleStage.DELETED:
        client.restore_experiment(found.experiment_id)
    if not _KIND.items() <= found.tags.items():
        client.set_experiment_tag(found.experiment_id, *next(iter(_KIND.items())))
    return str(found.experiment_id)


def _mark_launcher(client: "MlflowClient", run_id: str, experiment_id: str) -> str | None:
    """Name, tag and describe the run that `mlflow run` made.

    Return its id, or None if this store lacks it.
    """
    from mlflow.entities import RunTag
    from mlflow.exceptions import MlflowException

    try:
        if client.get_run(run_id).data.tags.get("role") != "launcher":
            found = quote(f"tags.launcher_run_id = '{run_id}'", safe="")
            link = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&searchFilter={found}"
            note = (
                "The pipeline as `mlflow run` started it; its parameters are those of the entry point. It holds no "
                f"results: [the runs that it made]({link}) do, with the tag `launcher_run_id`. There are none where "
                "all results were up to date."
            )
            client.update_run(run_id, name="pipeline")
            client.log_batch(run_id, tags=[RunTag("role", "launcher"), RunTag(NOTE, note)])
        return run_id
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        os.environ.pop(LAUNCHER, None)
        return None


@contextmanager
def _impatient() -> Iterator[None]:
    """Wait seconds, not minutes, for the first answer; then as MLflow does."""
    before = {name: os.environ.get(name) for name in _IMPATIENT}
    os.environ.update(_IMPATIENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _advice(uri: str, root: Path, error: Exception) -> str:
    reason = str(error).split("\n")[0][:300]
    if is_server(uri):
        local = sqlite_uri(root.absolute() / DATABASE)
        return (
            f"the MLflow server {uri} cannot be used: {reason}\n"
            f"Start it or correct MLFLOW_TRACKING_URI; unset it to log runs in {local}."
        )
    if "out-of-date" in reason:
        return f"the MLflow store {uri} is from another MLflow version; back it up, then run `mlflow db upgrade {uri}`"
    return f"the MLflow store {uri} cannot be opened: {reason}\nCorrect MLFLOW_TRACKING_URI, or move the file away."


def store_uri(root: Path, environment: Mapping[str, str]) -> str:
    """Return the store's URI, never a relative one.

    MLFLOW_TRACKING_URI if set, else an sqlite file in `root`. A relative sqlite path counts from `root`, so that it
    means the same in every working directory.

    Raises:
        TrackingError: a folder (which MLflow no longer accepts as a store), or an unknown kind of store.
    """
    uri = environment.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return sqlite_uri(root.absolute() / DATABASE)
    scheme, separator, rest = uri.partition(":")
    kind = scheme.split("+")[0]
    if uri in ("databricks", "databricks-uc") or (separator and kind in _SERVERS):
        return uri.rstrip("/")
    if separator and kind == "sqlite":
        path, _, options = rest.removeprefix("///").partition("?")
        if not rest.startswith("///") or path in ("", ":memory:"):
            raise TrackingError(f"MLFLOW_TRACKING_URI={uri} names no file; use sqlite:////absolute/path/{DATABASE}")
        return sqlite_uri(root.absolute() / path, scheme) + (f"?{options}" if options else "")
    if separator and kind in _DATABASES:
        return uri
    if separator and "://" in uri and kind != "file":
        raise TrackingError(
            f"MLFLOW_TRACKING_URI={uri}: unknown kind of store {scheme!r}; use http(s), sqlite, "
            f"{', '.join(_DATABASES)} or databricks"
        )
    raise TrackingError(
        f"MLFLOW_TRACKING_URI={uri} is a folder, and MLflow no longer keeps runs in folders; unset it to use "
        f"{sqlite_uri(root.absolute() / DATABASE)}, or set a sqlite:/// or http:// address"
    )


def sqlite_uri(path: Path, scheme: str = "sqlite") -> str:
    """Return the URI of one sqlite file."""
    return f"{scheme}:///{os.path.normpath(path)}"


def sqlite_file(uri: str) -> Path | None:
    """Return the file behind an sqlite URI, None for any other store."""
    return Path(uri.partition(":///")[2].partition("?")[0]) if uri.startswith("sqlite") else None


def is_server(uri: str) -> bool:
    """Return whether `uri` is a tracking server's, which decides where artifacts lie."""
    return uri.split(":")[0] in _SERVERS


def prepare_environment(uri: str) -> None:
    """Write `uri` and quiet defaults into the environment.

    For this process and those it starts. The registry uses the same store: a MLFLOW_REGISTRY_URI from outside is
    overwritten.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.environ["MLFLOW_REGISTRY_URI"] = uri


def take_launcher() -> str | None:
    """Return the run of `mlflow run` that started this process; hide it.

    Left in the environment, MLFLOW_RUN_ID would make every training stage continue that one run.
    """
    launcher = os.environ.pop("MLFLOW_RUN_ID", None)
    if launcher:
        os.environ[LAUNCHER] = launcher
    return os.environ.get(LAUNCHER)
