"""Train one method with one seed: `python -m stages.train METHOD SEED`."""

from pathlib import Path

from pfmsmt.config import load_config
from pfmsmt.core.console import run_main
from pfmsmt.core.files import write_json
from pfmsmt.core.layout import RUNS, SCHEMA, run_name
from pfmsmt.data.schema import read_schema
from pfmsmt.tracking import connect
from stages.choice import choose_run


def main() -> None:
    """Run all rounds; write models/<run>/ and runs/<run>.json."""
    method, seed = choose_run(__doc__)
    config, schema = load_config(), read_schema(SCHEMA)
    # Before any work: a store that cannot be reached must not cost a training.
    tracking = connect(Path.cwd())
    # Not at the top: torch takes seconds to load, and wrong settings are named at once.
    from pfmsmt.commands.train import train

    ids = train(config, schema, method, seed, tracking, Path.cwd())
    write_json(RUNS / f"{run_name(method, seed)}.json", ids)


if __name__ == "__main__":
    run_main(main)
