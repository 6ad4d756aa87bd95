"""Turn raw files into one shard folder per scenario, and one schema."""

from pfmsmt.config import load_config
from pfmsmt.core.console import run_main, say
from pfmsmt.core.layout import CLIENTS, RAW
from pfmsmt.data.prepare.partition import partition


def main() -> None:
    """Join, validate, split and encode."""
    config = load_config()
    partition(config.data, config.seed, RAW, CLIENTS, say)


if __name__ == "__main__":
    run_main(main)
