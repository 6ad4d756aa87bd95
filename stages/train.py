"""Train one method with one seed: `python stages/train.py METHOD SEED`."""

import argparse
from pathlib import Path

from pfmsmt.atomic import write_json
from pfmsmt.config import MethodName, load_config
from pfmsmt.console import run_main
from pfmsmt.data.schema import read_schema
from pfmsmt.experiment import train
from pfmsmt.places import RUNS, SCHEMA, run_name
from pfmsmt.tracking import connect


def main() -> None:
    """Run all rounds; write models/<run>/ and runs/<run>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=MethodName.__args__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    chosen = parser.parse_args()
    config = load_config()
    schema = read_schema(SCHEMA)
    # Before any work: a store that cannot be reached must not cost a training.
    tracking = connect(Path.cwd())
    ids = train(config, schema, chosen.method, chosen.seed, tracking, Path.cwd())
    write_json(RUNS / f"{run_name(chosen.method, chosen.seed)}.json", ids)


if __name__ == "__main__":
    run_main(main)
