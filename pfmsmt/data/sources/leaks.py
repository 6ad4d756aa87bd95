"""Outcomes among the features, which would give the answer away.

They are known only after what is to be predicted.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from pfmsmt.config import Data
from pfmsmt.core.errors import ConfigError

PATTERNS = (
    "click", "clicks", "clicked", "like", "liked", "follow", "followed", "share", "shared", "favorite", "favourite",
    "read", "read_*", "watching_times", "watch_time", "dwell_time", "rating", "conversion", "converted", "purchase",
    "purchased", "label",
)  # fmt: skip
"""Names that logs give to outcomes, Tenrec's among them, in lower case."""


def refuse_outcomes(config: Data, features: Iterable[str], outcomes: Iterable[str]) -> None:
    """Refuse features that are outcomes, by declaration or by name.

    `data.outcomes_as_features` may allow some.

    Raises:
        ConfigError: there is one.
    """
    declared = set(outcomes)
    for name in features:
        if name in config.outcomes_as_features:
            continue
        if name in declared or any(fnmatchcase(name.lower(), pattern) for pattern in PATTERNS):
            why = "is an outcome" if name in declared else "is the name of an outcome"
            raise ConfigError(
                f"data.{config.source}: the feature {name!r} {why}: it is not known when a prediction is wanted, and "
                "gives the answer away; take it out, or add it to data.outcomes_as_features if it is known before"
            )
