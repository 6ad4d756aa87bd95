"""MLflow: runs, metrics by round, logged models, the registry. Importing this package does not import mlflow."""

from pfmsmt.tracking.connection import connect
from pfmsmt.tracking.mlflow_run import TrainingRun
from pfmsmt.tracking.tracker import Tracking
from pfmsmt.tracking.tuning_run import StudyRun, TrialRecord

__all__ = ["StudyRun", "Tracking", "TrainingRun", "TrialRecord", "connect"]
