"""Obtain the configured data set into data/raw/."""

from pfmsmt.config import load_config
from pfmsmt.console import run_main, say
from pfmsmt.data.download import obtain
from pfmsmt.places import RAW


def main() -> None:
    """Download, link or generate."""
    config = load_config()
    obtain(config.data, config.seed, RAW, say)


if __name__ == "__main__":
    run_main(main)
