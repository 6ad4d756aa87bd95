"""The plan of a run, which the server sends with every message.

A site has no settings of a run of its own.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from pfmsmt import __version__
from pfmsmt.config import Config, Methods, Model, Privacy, Run, Train
from pfmsmt.config.declared import PACKAGES
from pfmsmt.config.keys import block_at
from pfmsmt.core.errors import FederationError
from pfmsmt.data.schema import Schema
from pfmsmt.methods.declaration import PACKAGE_KEY

_REFIT = "refit"
"""The folder of a second training, within that of its run."""


class RunPlan(BaseModel):
    """The settings of one run, and what server and site share.

    A site that does not share it cannot take part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """Unique to the run; a site's private state is saved under it."""
    version: str
    """This package's version, at the server."""
    agreement: str
    """See `Schema.agreement`."""
    method: str
    seed: int
    mean_rows: float
    """Training rows of a client on average, in the first training: batches are in proportion to rows."""
    refits: bool
    """Whether this is the run's second training, on training and validation rows."""
    model: Model
    train: Train
    run: Run
    privacy: Privacy
    methods: Methods

    @field_serializer("methods")
    def _without_packages_of_others(self, methods: Methods) -> dict[str, Any]:
        # A site needs no package but that of the method that is trained.
        return methods.model_dump(mode="json", exclude={*PACKAGES} - {self.method})

    @property
    def place(self) -> str:
        """The folder of this training's state, among all of a site's state."""
        return f"{self.run_id}/{_REFIT}" if self.refits else self.run_id

    @property
    def config(self) -> Config:
        """The server's settings of the run; all others have their defaults."""
        return Config(model=self.model, train=self.train, run=self.run, privacy=self.privacy, methods=self.methods)


def check_package(plan: Mapping[str, Any]) -> None:
    """Make sure that the site has the package of a plan's method.

    Args:
        plan: plain values, as they came.

    Raises:
        FederationError: it has none, or another version.
    """
    method = plan["method"]
    needed, found = block_at(plan, f"methods.{method}").get(PACKAGE_KEY), PACKAGES.get(method)
    if needed != found:
        raise FederationError(
            f"the server's {method} is of {needed or 'pfmsmt'}, this site's of {found or 'pfmsmt, or missing'}; "
            "install the server's"
        )


def across_sites(config: Config, schema: Schema) -> Config:
    """Return the configuration with the federate block's budget.

    A round costs seconds of transport, so clients do more in it; all still take the same number of steps. A checkpoint
    is written every round, so that sites need the state of the last round alone.
    """
    steps = math.ceil(config.federate.local_epochs * mean_rows(schema) / config.train.batch_size)
    budget = {"rounds": config.federate.rounds, "local_steps": steps}
    run = config.run.model_copy(update={"checkpoint_every": 1})
    return config.model_copy(update={"train": config.train.model_copy(update=budget), "run": run})


def rows_of(schema: Schema, *, refits: bool = False) -> dict[str, int]:
    """Return client -> rows that it trains on.

    In the second training (`refits`) these are its validation rows as well.
    """
    splits = ("train", "val") if refits else ("train",)
    return {client: sum(counts[split].rows for split in splits) for client, counts in schema.counts.items()}


def mean_rows(schema: Schema) -> float:
    """Return the training rows of a client on average."""
    rows = rows_of(schema)
    return sum(rows.values()) / len(rows)


def make_plan(config: Config, schema: Schema, method: str, seed: int, run_id: str, *, refits: bool) -> RunPlan:
    """Return the plan of a run's first or second training.

    `config` is what `across_sites` returned.
    """
    return RunPlan(
        run_id=run_id, version=__version__, agreement=schema.agreement, method=method, seed=seed,
        mean_rows=mean_rows(schema), refits=refits, model=config.model, train=config.train,
        run=config.run, privacy=config.privacy, methods=config.methods,
    )  # fmt: skip
