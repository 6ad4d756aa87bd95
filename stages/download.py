"""Obtain the configured data set into data/raw/."""

from pfmsmt.config import load_config
from pfmsmt.core.console import run_main, say
from pfmsmt.core.layout import RAW
from pfmsmt.data.prepare.download import obtain


def main() -> None:
    """Download, link or generate."""
    config = load_config()
    obtain(config.data, config.seed, RAW, say)


if __name__ == "__main__":
    run_main(main)
