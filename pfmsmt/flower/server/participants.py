"""A federation over sites, as its server sees it.

Sites have their models and their private state to themselves.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pfmsmt.config import Config
from pfmsmt.core.console import say
from pfmsmt.core.errors import CheckpointError, FederationError, TrainingError
from pfmsmt.core.files import new_folder
from pfmsmt.core.layout import run_name
from pfmsmt.data.schema import Schema
from pfmsmt.flower.plan import RunPlan, make_plan, rows_of
from pfmsmt.flower.server.acceptance import Acceptance
from pfmsmt.flower.server.grid import OverGrid
from pfmsmt.flower.wire import SiteResult
from pfmsmt.methods.catalogue import build_method, method_facts, with_messages
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.template import Binding
from pfmsmt.training.client import Best
from pfmsmt.training.exchange import Exchange
from pfmsmt.training.federation import build_specs
from pfmsmt.training.history import History
from pfmsmt.training.local import local_train
from pfmsmt.training.refit import Refit
from pfmsmt.training.results import write_results
from pfmsmt.training.scores import score

_RUN_FILE = "run.txt"


class Sites:
    """A federation over sites, as `run_training` drives it; see `FederationLike`.

    The server builds one model, to know all names and initial values; it has no rows and trains nothing.
    """

    def __init__(
        self,
        config: Config,
        schema: Schema,
        name: str,
        seed: int,
        run: str,
        connect: Callable[[RunPlan, Acceptance], OverGrid],
        refit: Refit | None = None,
    ) -> None:
        """Prepare a run of method `name`.

        Args:
            config: what `across_sites` returned.
            schema: without private vocabularies, see `Schema.public`.
            name: of the method.
            seed: of the run.
            run: its own name, unless it is loaded.
            connect: makes the exchange.
            refit: what the first training found; then this is the second.

        Raises:
            FederationError: the method is a reference, which exchanges gradients at every step.
            ConfigError: see `build_specs`.
        """
        if not method_facts(name, config.methods).deployable:
            raise FederationError(f"{name} is a reference, with an exchange at every step; no sites are asked for that")
        self._config, self._schema, self._name, self._seed, self._connect = config, schema, name, seed, connect
        binding = Binding(MMoE(next(iter(build_specs(config, schema, name).values()))).initialise(seed, ""))
        self.template, self.initial_parameters = binding.template, binding.read()
        plain = build_method(name, config.methods, local_train, self.template)
        self.method = with_messages(plain, self.template, config.privacy)
        self.names = tuple(sorted(schema.scenarios))
        self._run, self._refits = run, refit is not None
        self._rows = rows_of(schema, refits=self._refits)
        self._exchange: OverGrid | None = None

    def open(self) -> AbstractContextManager[Exchange]:
        """Connect with the sites.

        They save their state under the run's own name.
        """
        tasks = [task.name for task in self._schema.tasks]
        privacy = self._config.privacy
        silent = not any(phase.uploads for phase in self.method.phases)
        noise = 0.0 if silent or privacy.clip is None else privacy.noise * privacy.clip
        acceptance = Acceptance(
            self.method, self.template, tasks, self._rows, self._config.train.rounds,
            self._config.federate.largest_update, noise, validates=not self._refits,
        )  # fmt: skip
        plan = make_plan(self._config, self._schema, self._name, self._seed, self._run, refits=self._refits)
        self._exchange = self._connect(plan, acceptance)
        return self._exchange

    def save(self, folder: Path, round: int) -> None:
        """Write the run's name; sites save their state themselves, step by step."""
        (folder / _RUN_FILE).write_text(self._run, encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on under the name of the run that was broken off.

        Raises:
            CheckpointError: the checkpoint is damaged, or of a run in one process.
        """
        try:
            self._run = (folder / _RUN_FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{folder / _RUN_FILE} cannot be read; remove {folder} to start anew") from error

    def findings(self) -> Refit:
        """Have every site save its findings; return the best rounds.

        Calibrations are the sites' own.

        Raises:
            TrainingError: no site has any.
        """
        found = self._finish("find its best round")
        if not found:
            raise TrainingError("no site found its best round, so there is nothing to train again")
        best = {}
        for client, result in found.items():
            validation = {client: result.validation}
            best[client] = Best(result.round, score(validation), validation, {})
        return Refit(best, {})

    def save_models(self, folder: Path, history: History) -> dict[str, dict[str, Any]]:
        """Have every site save its model; write the server's results.

        Returns:
            nothing: no model lies in the folder, as they are the sites' own.
        """
        best: dict[str, dict[str, Any]] = {}
        for client, found in self._finish("save a model").items():
            best[client] = {**found._asdict(), **({"refit_rows": self._rows[client]} if self._refits else {})}
        with new_folder(folder) as temporary:
            write_results(temporary, best, self.template, history)
        return {}

    def _finish(self, task: str) -> dict[str, SiteResult]:
        """End a training at all sites, and say who failed."""
        assert self._exchange is not None
        done, failures = self._exchange.finish(self.names)
        for client, reason in failures.items():
            say(f"{run_name(self._name, self._seed)}: site {client} did not {task}: {reason}")
        return dict(sorted(done.items()))
