"""Which store is used, from the environment and the project's root alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from pfmsmt.core.errors import TrackingError
from pfmsmt.tracking.connection import is_server, sqlite_file, store_uri

ROOT = Path("/project")


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("", "sqlite:////project/mlflow.db"),
        ("sqlite:///other.db", "sqlite:////project/other.db"),
        ("sqlite:///../x/other.db", "sqlite:////x/other.db"),
        ("sqlite:////data/a b.db?timeout=30", "sqlite:////data/a b.db?timeout=30"),
        ("http://host:5000/", "http://host:5000"),
        ("postgresql+psycopg2://u:p@host/db", "postgresql+psycopg2://u:p@host/db"),
        ("databricks", "databricks"),
    ],
)
def test_the_store_is_absolute(given: str, uri: str) -> None:
    assert store_uri(ROOT, {"MLFLOW_TRACKING_URI": given}) == uri


def test_without_the_variable_it_is_beside_the_project() -> None:
    assert store_uri(ROOT, {}) == "sqlite:////project/mlflow.db"


@pytest.mark.parametrize("given", ["./mlruns", "/data/mlruns", "file:///data/mlruns", "file:mlruns"])
def test_a_folder_is_refused_with_the_way_out(given: str) -> None:
    with pytest.raises(TrackingError, match=r"is a folder.*sqlite:////project/mlflow\.db"):
        store_uri(ROOT, {"MLFLOW_TRACKING_URI": given})


@pytest.mark.parametrize(
    ("given", "message"), [("ftp://host/x", "unknown kind of store 'ftp'"), ("sqlite://", "no file")]
)
def test_an_unusable_address_is_refused(given: str, message: str) -> None:
    with pytest.raises(TrackingError, match=message):
        store_uri(ROOT, {"MLFLOW_TRACKING_URI": given})


def test_parts_of_an_address() -> None:
    assert sqlite_file("sqlite:////data/a b.db?timeout=30") == Path("/data/a b.db")
    assert sqlite_file("http://host") is None
    assert is_server("https://host")
    assert not is_server("postgresql://host/db")


def test_importing_the_package_does_not_import_mlflow() -> None:
    code = "import sys, pfmsmt.tracking; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
