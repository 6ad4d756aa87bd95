"""The blocks around training: `evaluate`, `register`, `serve`, `federate` and `tune`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pfmsmt.config.declared import Deployable
from pfmsmt.config.kinds import Count, Fraction, Frozen, NonNegative, OpenFraction, Parameter, Positive, unique


class Evaluate(Frozen):
    """The scoring of test shards."""

    bootstrap: int = Field(
        default=200, ge=0, description="Replicates, drawn by search, for the intervals; 0 switches them off."
    )
    confidence: OpenFraction = Field(default=0.95, description="Confidence of the intervals.")
    bins: int = Field(default=15, ge=2, description="Bins of equal size for the calibration error.")
    batch_size: Count = Field(default=8192, description="Rows that are scored at a time.")
    calibrated: bool = Field(
        default=True,
        description="true: calibrated probabilities are scored, as they are served; false: those of training.",
    )


class Register(Frozen):
    """Candidates for the registry, and what may replace a champion."""

    methods: tuple[Deployable, ...] = Field(
        default=("pf_msmtrec", "fedavg", "local"),
        min_length=1,
        description="Candidates for a scenario's champion; joint and centralized are references only.",
    )
    promote: Literal["manual", "if_better"] = Field(
        default="manual",
        description=(
            "When the pipeline's choice, a challenger, becomes the champion. manual: with `pfmsmt models promote`; "
            "if_better: at once, if it validated better than the champion on the same rows and fits its requests. A "
            "scenario's first version is its champion at once."
        ),
    )
    margin: NonNegative = Field(
        default=0.002, description="Validation AUC by which a promoted version may be worse than the champion."
    )


class Serve(Frozen):
    """The HTTP server of all scenarios, `pfmsmt serve`."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen at; any other needs the token, or --no-auth."
    )
    port: int = Field(default=5001, ge=1, le=65535, description="Port to listen at.")
    poll_seconds: Positive = Field(default=5.0, description="Seconds between two looks at the registry's aliases.")
    calibrated: bool = Field(
        default=True, description="true: answers are calibrated probabilities; false: those of training."
    )
    optional_columns: tuple[str, ...] = Field(
        default=(),
        description=(
            "Columns that a request may leave out, beside those with a data.tabular.fill; the training mean, or out of "
            "vocabulary, stands in."
        ),
    )
    challenger: Literal["none", "shadow", "split"] = Field(
        default="none", description="shadow: scored and compared, not returned; split: answers a share of requests."
    )
    challenger_share: Fraction = Field(
        default=0.1, description="Share of requests that split gives it, by a hash of their X-Request-Key."
    )
    batch_rows: Count = Field(default=4096, description="Rows of concurrent requests that are scored together.")
    threads: Count = Field(default=1, description="Threads of torch within one matrix product.")
    max_rows: Count = Field(default=10_000, description="Rows of one request; more are refused (413).")
    max_body_mib: Positive = Field(default=16.0, description="MiB of one request; larger ones are refused (413).")
    concurrency: Count = Field(default=64, description="Requests at a time; more are refused (429).")
    timeout_seconds: Positive = Field(default=5.0, description="Seconds until a request is given up (504).")

    @field_validator("optional_columns")
    @classmethod
    def _no_column_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return unique(names)


class Federate(Frozen):
    """The same rounds across machines."""

    rounds: Count = Field(
        default=20, description="In place of train.rounds, as transport adds some 10 s to each round."
    )
    local_epochs: Positive = Field(
        default=2.0, description="In place of train.local_steps: passes of every client over its rows in a round."
    )
    deadline: Positive = Field(
        default=600.0, description="Seconds for a site's answer in each exchange; what comes later does not count."
    )
    largest_update: Positive = Field(
        default=10.0,
        description="An upload is refused if it is further from what was sent than this times the length of that.",
    )
    methods: Annotated[tuple[Deployable, ...], Field(min_length=1)] | None = Field(
        default=None, description="At a site: the methods that it takes part in, as they say what leaves; null: any."
    )


class Tune(Frozen):
    """The search of `pfmsmt tune`.

    Whether the space fits the other blocks is checked there.
    """

    objective: str = Field(
        default="mean",
        min_length=1,
        description=(
            "Validation AUC of the best round: mean, over scenarios and tasks; minimum, of the worst scenario; a "
            "scenario (NL); a task (ctr); or both (NL/ctr)."
        ),
    )
    trials: Count = Field(default=30, description="Trials of each method, all workers together.")
    pruner: Literal["median", "successive_halving", "none"] = Field(
        default="median", description="What ends trials that are behind others after as many rounds."
    )
    space: dict[str, Parameter] = Field(
        default={},
        description=(
            "Any key of model, train, privacy or methods.<name> to what it may be; one of model, train or privacy is "
            "tuned for each method."
        ),
    )
