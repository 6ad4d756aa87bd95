"""Settings of a project: one frozen model for each block of params.yaml."""

from pfmsmt.config.data import AliExpress, Data, MovieLens, ScenarioSize, Synthetic, Tabular, TaskLabel, Tenrec
from pfmsmt.config.kinds import METHOD_NAMES, CalibrationChoice, Deployable, MethodName
from pfmsmt.config.loading import PARAMS_FILE, TUNE_FILE, Config, load_config, parse_config
from pfmsmt.config.methods import (
    Ditto,
    Federated,
    FedProx,
    Methods,
    PfMsmtrec,
    PlainLearning,
    Proximal,
    ServerOptimizer,
)
from pfmsmt.config.operations import Evaluate, Federate, Parameter, Register, Serve, Tune
from pfmsmt.config.training import Model, Privacy, Run, Train

__all__ = [
    "METHOD_NAMES",
    "PARAMS_FILE",
    "TUNE_FILE",
    "AliExpress",
    "CalibrationChoice",
    "Config",
    "Data",
    "Deployable",
    "Ditto",
    "Evaluate",
    "FedProx",
    "Federate",
    "Federated",
    "MethodName",
    "Methods",
    "Model",
    "MovieLens",
    "Parameter",
    "PfMsmtrec",
    "PlainLearning",
    "Privacy",
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
