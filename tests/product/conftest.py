"""Fixtures of the whole product's tests."""

import importlib
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark():
    """Import one of the scripts."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(REPOSITORY / "benchmarks"))
