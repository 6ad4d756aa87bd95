"""The search for parameters; the only place that knows optuna."""
