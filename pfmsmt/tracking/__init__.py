"""MLflow: runs, metrics by round, logged models, and the registry.

Importing this package does not import mlflow. `connect` returns a `Store`; the functions of the modules take it as
their first argument.
"""

from pfmsmt.tracking.connection import connect
from pfmsmt.tracking.mlflow_run import TrainingRun
from pfmsmt.tracking.store import Store

__all__ = ["Store", "TrainingRun", "connect"]
