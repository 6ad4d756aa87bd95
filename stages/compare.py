"""One comparison of all runs: tables, pictures, data for DVC's plots."""

from pathlib import Path

from pfmsmt.config import load_config
from pfmsmt.core.console import run_main
from pfmsmt.core.layout import SCHEMA
from pfmsmt.data.schema import read_schema
from pfmsmt.tracking import connect


def main() -> None:
    """Write reports/ and give every MLflow run the pictures."""
    config, schema = load_config(), read_schema(SCHEMA)
    # Not at the top: libraries take seconds to load, and wrong settings are named at once.
    from pfmsmt.commands.compare import compare

    compare(config, schema, connect(Path.cwd()), Path.cwd())


if __name__ == "__main__":
    run_main(main)
