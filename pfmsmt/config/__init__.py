"""Settings of a project: one frozen model for each block of params.yaml.

Names that depend on which methods there are come when they are first asked for. So the file of a method, which
`pfmsmt.config.declared` imports, may itself import from here.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pfmsmt.config.blocks import Federated, FirstOrderTraining, PrivateTraining, Proximal, ServerOptimizer
from pfmsmt.config.data import AliExpress, Data, MovieLens, ScenarioSize, Synthetic, Tabular, TaskLabel, Tenrec
from pfmsmt.config.kinds import CalibrationChoice, Parameter

if TYPE_CHECKING:
    from pfmsmt.config.declared import METHOD_NAMES, Deployable, MethodName
    from pfmsmt.config.loading import PARAMS_FILE, TUNE_FILE, Config, load_config, parse_config
    from pfmsmt.config.methods import Methods
    from pfmsmt.config.operations import Evaluate, Federate, Register, Serve, Tune
    from pfmsmt.config.training import Model, Privacy, Run, Train

_LATER = {
    "declared": ("METHOD_NAMES", "Deployable", "MethodName"),
    "loading": ("PARAMS_FILE", "TUNE_FILE", "Config", "load_config", "parse_config"),
    "methods": ("Methods",),
    "operations": ("Evaluate", "Federate", "Register", "Serve", "Tune"),
    "training": ("Model", "Privacy", "Run", "Train"),
}

__all__ = [
    "METHOD_NAMES",
    "PARAMS_FILE",
    "TUNE_FILE",
    "AliExpress",
    "CalibrationChoice",
    "Config",
    "Data",
    "Deployable",
    "Evaluate",
    "Federate",
    "Federated",
    "FirstOrderTraining",
    "MethodName",
    "Methods",
    "Model",
    "MovieLens",
    "Parameter",
    "Privacy",
    "PrivateTraining",
    "Proximal",
    "Register",
    "Run",
    "ScenarioSize",
    "Serve",
    "ServerOptimizer",
    "Synthetic",
    "Tabular",
    "TaskLabel",
    "Tenrec",
    "Train",
    "Tune",
    "load_config",
    "parse_config",
]


def __getattr__(name: str) -> Any:
    """Return a name that depends on the methods."""
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
