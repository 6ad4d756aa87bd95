"""Score one run on the test shards: `python -m stages.evaluate METHOD SEED`."""

from pathlib import Path

from pfmsmt.config import load_config
from pfmsmt.core.console import run_main
from pfmsmt.core.layout import SCHEMA
from pfmsmt.data.schema import read_schema
from pfmsmt.tracking import connect
from stages.choice import choose_run


def main() -> None:
    """Write evaluation/<run>/ and log the test metrics to MLflow."""
    method, seed = choose_run(__doc__)
    config, schema = load_config(), read_schema(SCHEMA)
    # Not at the top: torch takes seconds to load, and wrong settings are named at once.
    from pfmsmt.commands.evaluate import evaluate

    evaluate(config, schema, method, seed, connect(Path.cwd()), Path.cwd())


if __name__ == "__main__":
    run_main(main)
