"""The two words that the stages of one run take: METHOD SEED."""

import argparse

from pfmsmt.config import METHOD_NAMES


def choose_run(description: str | None) -> tuple[str, int]:
    """Return method and seed from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("method", choices=METHOD_NAMES)
    parser.add_argument("seed", type=int)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    chosen = parser.parse_args()
    return chosen.method, chosen.seed
