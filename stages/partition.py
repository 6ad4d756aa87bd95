"""Turn raw files into one shard folder per scenario, and one schema."""

from pfmsmt.config import load_config
from pfmsmt.console import run_main, say
from pfmsmt.data.partition import partition
from pfmsmt.places import CLIENTS, RAW


def main() -> None:
    """Join, validate, split and encode."""
    config = load_config()
    partition(config.data, config.seed, RAW, CLIENTS, say)


if __name__ == "__main__":
    run_main(main)
