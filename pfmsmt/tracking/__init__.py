"""MLflow: runs, metrics by round, logged models, the registry. Importing this package does not import mlflow."""

from pfmsmt.tracking.connection import connect
from pfmsmt.tracking.run import TrainingRun
from pfmsmt.tracking.tracker import Tracking

__all__ = ["Tracking", "TrainingRun", "connect"]
