"""One comparison of all runs: tables, pictures, data for DVC's plots."""

from pathlib import Path

from pfmsmt.commands.compare import compare
from pfmsmt.config import load_config
from pfmsmt.core.console import run_main
from pfmsmt.core.layout import SCHEMA
from pfmsmt.data.schema import read_schema
from pfmsmt.tracking import connect


def main() -> None:
    """Write reports/ and give every MLflow run the pictures."""
    compare(load_config(), read_schema(SCHEMA), connect(Path.cwd()), Path.cwd())


if __name__ == "__main__":
    run_main(main)
