"""Personalised federated multi-scenario multi-task recommendation (PF-MSMTrec)."""

import os
import sys

from pfmsmt.core import errors

__version__ = "0.1.0"

# Off unless the user turns it on, and before anything imports mlflow: it reads this at import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# Models that version 0.1.0 logged carry code of their own, which imports this by its old name.
sys.modules["pfmsmt.errors"] = errors
