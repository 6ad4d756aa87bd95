"""All settings of a project, as `params.yaml` has them: one frozen model for each of its blocks."""

from pfmsmt.config.data import AliExpress, Data, Label, MovieLens, ScenarioSize, Synthetic, Tabular, Tenrec
from pfmsmt.config.loading import PARAMS_FILE, Config, load_config, parse_config
from pfmsmt.config.methods import Federated, Methods, PfMsmtrec, PlainLearning, Proximal, ServerOptimizer
from pfmsmt.config.operations import Evaluate, Federate, Parameter, Register, Serve, Tune
from pfmsmt.config.training import Model, Train
from pfmsmt.config.values import CalibrationChoice, Deployable, MethodName

__all__ = [
    "PARAMS_FILE",
    "AliExpress",
    "CalibrationChoice",
    "Config",
    "Data",
    "Deployable",
    "Evaluate",
    "Federate",
    "Federated",
    "Label",
    "MethodName",
    "Methods",
    "Model",
    "MovieLens",
    "Parameter",
    "PfMsmtrec",
    "PlainLearning",
    "Proximal",
    "Register",
    "ScenarioSize",
    "Serve",
    "ServerOptimizer",
    "Synthetic",
    "Tabular",
    "Tenrec",
    "Train",
    "Tune",
    "load_config",
    "parse_config",
]
