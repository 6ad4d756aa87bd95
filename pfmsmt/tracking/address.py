"""Which MLflow store to use, decided before mlflow is imported (it reads the environment at import)."""

import os
from collections.abc import Mapping
from pathlib import Path

from pfmsmt.errors import TrackingError

DATABASE = "mlflow.db"
LAUNCHER = "PFMSMT_LAUNCHER_RUN_ID"
"""Keeps the run of `mlflow run`, whose own variable has to go (see `take_launcher`)."""

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_SERVERS = ("http", "https", "databricks", "databricks-uc")
_DATABASES = ("postgresql", "mysql", "mssql")


def store_uri(root: Path, environment: Mapping[str, str]) -> str:
    """Return the store's URI: MLFLOW_TRACKING_URI if set, else an sqlite file in `root`; never relative.

    A relative sqlite path counts from `root`, so that it means the same in every working directory.

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
    """Tell whether a tracking server, not a database, is behind `uri` (it then decides where artifacts lie)."""
    return uri.split(":")[0] in _SERVERS


def prepare_environment(uri: str) -> None:
    """Write `uri` and quiet defaults into the environment, for this process and those it starts.

    The registry uses the same store: a MLFLOW_REGISTRY_URI from outside is overwritten.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.environ["MLFLOW_REGISTRY_URI"] = uri


def take_launcher() -> str | None:
    """Return the run of `mlflow run` that started this process, if any, and hide it from mlflow.

    Left in the environment, MLFLOW_RUN_ID would make every training stage continue that one run.
    """
    launcher = os.environ.pop("MLFLOW_RUN_ID", None)
    if launcher:
        os.environ[LAUNCHER] = launcher
    return os.environ.get(LAUNCHER)
