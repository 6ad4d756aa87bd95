"""MLflow's exceptions as one readable message."""

from collections.abc import Iterator
from contextlib import contextmanager

from pfmsmt.errors import TrackingError


@contextmanager
def readable(uri: str, doing: str) -> Iterator[None]:
    """Turn what MLflow or the disk raises while `doing` something into a TrackingError that names the store."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackingError(f"MLflow store {uri}: {doing} failed: {error}") from error
