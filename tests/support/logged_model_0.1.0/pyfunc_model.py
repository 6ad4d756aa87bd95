"""The code that MLflow keeps with every logged model. It runs this file to load one; pfmsmt must be installed."""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from pfmsmt.errors import SchemaError
from pfmsmt.models.saved import load_model


class ScenarioModel(PythonModel):
    """Raw named columns in, one probability column per task out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read weights and schema."""
        self._model = load_model(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the probabilities of B rows, [B, T]; `params` may switch `calibrated` off.

        Raises:
            MlflowException: a bad request: a column is missing, or a value is no category or number.
        """
        try:
            return self._model.predict(model_input, calibrated=(params or {}).get("calibrated", True))
        except SchemaError as error:
            raise MlflowException(str(error), BAD_REQUEST) from error


set_model(ScenarioModel())
