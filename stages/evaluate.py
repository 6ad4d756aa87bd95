"""Score one run's personalised models on the test shards: `python stages/evaluate.py METHOD SEED`."""

import argparse
from pathlib import Path

from pfmsmt.config import MethodName, load_config
from pfmsmt.console import run_main
from pfmsmt.data.schema import read_schema
from pfmsmt.places import SCHEMA
from pfmsmt.scoring import evaluate
from pfmsmt.tracking import connect


def main() -> None:
    """Write evaluation/<run>/ and attach the test metrics to the MLflow run and its models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=MethodName.__args__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    chosen = parser.parse_args()
    config = load_config()
    evaluate(config, read_schema(SCHEMA), chosen.method, chosen.seed, connect(Path.cwd()), Path.cwd())


if __name__ == "__main__":
    run_main(main)
