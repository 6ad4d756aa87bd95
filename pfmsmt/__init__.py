"""Personalised federated multi-scenario multi-task recommendation (PF-MSMTrec)."""

import os

__version__ = "0.1.0"

# Off unless the user turns it on, and before anything imports mlflow: it reads this at import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
