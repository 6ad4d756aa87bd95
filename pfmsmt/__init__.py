"""Personalised federated multi-scenario multi-task recommendation (PF-MSMTrec)."""

import os
import sys

from pfmsmt.core import errors

__version__ = "0.1.0"

# Off unless the user turns it on, and before anything imports mlflow: it reads this at import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# Models that version 0.1.0 logged carry code of their own (serving/pyfunc_model.py as it was). It imports this module
# by its old name, and `pfmsmt.models.saved`, which has to keep its name and its `load_model`.
sys.modules["pfmsmt.errors"] = errors
