"""Make each scenario's best model by validation its champion; show the table."""

from pathlib import Path

from pfmsmt.config import load_config
from pfmsmt.core.console import run_main, say
from pfmsmt.core.layout import SCHEMA
from pfmsmt.data.schema import read_schema
from pfmsmt.tracking import connect


def main() -> None:
    """Write champions.json, then print the comparison and the next commands."""
    config, schema = load_config(), read_schema(SCHEMA)
    # Not at the top: libraries take seconds to load, and wrong settings are named at once.
    from pfmsmt.commands.compare import comparison_text
    from pfmsmt.commands.register import register

    register(config, schema, connect(Path.cwd()), Path.cwd())
    say(comparison_text(config, schema, Path.cwd()))


if __name__ == "__main__":
    run_main(main)
