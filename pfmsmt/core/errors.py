"""The errors that a user can cause or meet.

Each message says what is wrong, where, and what to do.
"""


class PfmsmtError(Exception):
    """Base of the errors that are shown without a traceback."""


class ConfigError(PfmsmtError):
    """params.yaml, or a value given on the command line, is not valid."""


class DataError(PfmsmtError):
    """A raw file or shard is missing, damaged or breaks its schema."""


class SchemaError(PfmsmtError):
    """Columns or types do not fit a model's or shard's schema."""


class TrainingError(PfmsmtError):
    """Training cannot go on: a loss is not finite, clients are missing."""


class CheckpointError(PfmsmtError):
    """A checkpoint is damaged or belongs to another configuration."""


class TuningError(PfmsmtError):
    """A search for parameters cannot start or go on."""


class TrackingError(PfmsmtError):
    """The MLflow store cannot be reached, or lacks a run or model."""


class FederationError(PfmsmtError):
    """Server and site do not fit together, or cannot reach each other."""


class ServingError(PfmsmtError):
    """The server cannot start, or a batch of rows cannot be predicted."""
