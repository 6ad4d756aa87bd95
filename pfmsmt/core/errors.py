"""The errors a user can cause or meet. Each message says what is wrong, where, and what to do."""


class PfmsmtError(Exception):
    """Base of every error that is shown as one readable message, without a traceback."""


class ConfigError(PfmsmtError):
    """params.yaml, or a value given on the command line, is not valid."""


class DataError(PfmsmtError):
    """A raw file or a shard is missing, damaged or breaks the schema."""


class SchemaError(PfmsmtError):
    """Columns or types offered to a model or shard do not fit its schema."""


class TrainingError(PfmsmtError):
    """Training cannot go on: a loss that is not finite, or too few clients answered."""


class CheckpointError(PfmsmtError):
    """A checkpoint is damaged or belongs to another configuration."""


class TuningError(PfmsmtError):
    """A search for parameters cannot start or go on."""


class TrackingError(PfmsmtError):
    """The MLflow store cannot be reached, or lacks the run that a stage needs."""


class FederationError(PfmsmtError):
    """Server and site do not fit together, or cannot reach each other."""


class ServingError(PfmsmtError):
    """The server cannot start, or a batch of rows cannot be predicted."""
