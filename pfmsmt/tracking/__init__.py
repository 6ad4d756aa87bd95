"""MLflow: runs, metrics by round, logged models, the registry. Importing this package does not import mlflow."""

from pfmsmt.tracking.connection import connect
from pfmsmt.tracking.run import TrainingRun
from pfmsmt.tracking.study import StudyRun, TrialRecord
from pfmsmt.tracking.tracker import Tracking

__all__ = ["StudyRun", "Tracking", "TrainingRun", "TrialRecord", "connect"]
