"""Tests must not find the user's own settings, nor leave theirs behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_environment() -> Iterator[None]:
    """Put the environment's variables back afterwards."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def bare_environment() -> Iterator[None]:
    """Leave out what names a store or sets pfmsmt up, as `make test` does; put all back afterwards."""
    with kept_environment():
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "PFMSMT_"))]:
            del os.environ[name]
        yield
