"""The clients of a run as the server sees them: sites of their own, which keep what is theirs."""

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from pfmsmt.config import Config
from pfmsmt.core.console import say
from pfmsmt.core.errors import CheckpointError, FederationError
from pfmsmt.core.files import new_folder
from pfmsmt.data.schema import Schema
from pfmsmt.flower.plan import Plan, make_plan
from pfmsmt.flower.server.acceptance import Acceptance
from pfmsmt.flower.server.grid import OverGrid
from pfmsmt.methods.catalogue import POOLED, build_method, with_messages
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.template import Binding
from pfmsmt.training.exchange import Exchange
from pfmsmt.training.federation import build_specs
from pfmsmt.training.history import History
from pfmsmt.training.local import local_train
from pfmsmt.training.results import write_results
from pfmsmt.training.run import Job

if TYPE_CHECKING:
    from pfmsmt.tracking import TrainingRun

RUN_FILE = "run.txt"

Connect = Callable[[Plan, Acceptance], OverGrid]


class Sites:
    """See `pfmsmt.running.Participants`. The server builds one model to know all names and initial values."""

    def __init__(self, config: Config, schema: Schema, name: str, seed: int, connect: Connect) -> None:
        """Prepare a run of method `name`.

        Args:
            config: what `across_sites` returned.
            schema: without private vocabularies, see `Schema.public`.
            name: of the method.
            seed: of the run.
            connect: makes the exchange.

        Raises:
            FederationError: the method pools all rows in one place.
            ConfigError: see `build_specs`.
        """
        if name in POOLED:
            raise FederationError(f"{name} needs everybody's rows in one place; sites keep theirs")
        self._config, self._schema, self._name, self._seed, self._connect = config, schema, name, seed, connect
        binding = Binding(MMoE(next(iter(build_specs(config, schema, name).values()))).initialise(seed, ""))
        self.template, self.initial_parameters = binding.template, binding.read()
        plain = build_method(name, config.methods, local_train, self.template)
        self.method = with_messages(plain, self.template, config.privacy)
        self.names = tuple(sorted(schema.scenarios))
        self._run = secrets.token_hex(8)
        self._exchange: OverGrid | None = None

    def open(self) -> AbstractContextManager[Exchange]:
        """Connect with the sites; they keep their state under the run's own name."""
        rows = {name: counts["train"].rows for name, counts in self._schema.counts.items()}
        tasks = [task.name for task in self._schema.tasks]
        privacy = self._config.privacy
        silent = not any(phase.uploads for phase in self.method.phases)
        noise = 0.0 if silent or privacy.clip is None else privacy.noise * privacy.clip
        acceptance = Acceptance(self.method, self.template, tasks, rows, self._config.federate.largest_update, noise)
        self._exchange = self._connect(
            make_plan(self._config, self._schema, self._name, self._seed, self._run), acceptance
        )
        return self._exchange

    def save(self, folder: Path, round: int) -> None:
        """Write the run's name; sites keep their state themselves, step by step."""
        (folder / RUN_FILE).write_text(self._run, encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on under the name of the run that was broken off.

        Raises:
            CheckpointError: the checkpoint is damaged, or of a run in one process.
        """
        try:
            self._run = (folder / RUN_FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{folder / RUN_FILE} cannot be read; remove {folder} to start anew") from error

    def keep(self, job: Job, history: History, tracked: "TrainingRun") -> dict[str, str]:
        """Have every site keep its model; write what the server knows of the run."""
        assert self._exchange is not None
        kept, failures = self._exchange.finish(self.names)
        for client, reason in failures.items():
            say(f"{job.name}: site {client} did not keep a model: {reason}")
        best = {
            client: {"round": found.round, "mean_auc": found.mean_auc, "validation": found.validation}
            for client, found in sorted(kept.items())
        }
        with new_folder(job.folder) as temporary:
            write_results(temporary, best, self.template, history)
        return {}
