"""A site: it answers one request, and saves its private state.

The state lies on its own disk, by run and round. Every message starts a new process, so nothing else survives from one
to the next.

    <site>/data/clients/    shards and schema.json, as `pfmsmt site prepare` or the stage partition write them
    <site>/state/<run>/<round>.<step>/    the client after that step of that round: its phases, then validation
    <site>/state/<run>/findings.json      with train.refit: what the first training found
    <site>/state/<run>/refit/             likewise, the state of the second training
    <site>/models/<method>-seed<seed>/    its best model, when a run is over

A step that is asked for again starts from the step before it, so a server that goes on after its last complete round
finds every site as it was then, whatever of the broken round a site had done.
"""

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from filelock import FileLock

from pfmsmt import __version__
from pfmsmt.config import PARAMS_FILE, Run, load_config
from pfmsmt.core.errors import FederationError
from pfmsmt.core.files import new_folder, recover, write_json, write_text
from pfmsmt.core.layout import CLIENTS, SCHEMA, run_name
from pfmsmt.data.schema import Schema, read_schema
from pfmsmt.flower.plan import RunPlan
from pfmsmt.methods import Method, Upload
from pfmsmt.training.client import Request
from pfmsmt.training.devices import choose_device
from pfmsmt.training.exchange import prepare_thread
from pfmsmt.training.federation import Federation, build_federation
from pfmsmt.training.refit import Refit
from pfmsmt.training.scores import Validation

STATE = Path("state")
_RELEASES_FILE = "releases.txt"
"""In the state of a run: how many noised uploads the site made in it."""
_FINDINGS_FILE = "findings.json"
"""In the state of a run with `train.refit`: what its first training found."""
_NAME_FILE = "name.txt"
"""In the state of a run: its method and seed."""
PLAN = "plan.json"
"""In the state of a run that is over."""
_STEP = re.compile(r"(\d{6})\.(\d)")


class Site:
    """One scenario's own machine: its shards and its client's states."""

    def __init__(self, client: str, folder: Path) -> None:
        """Open a site's folder.

        `folder` holds `data/clients`; `client` is the scenario that the site's key is bound to.
        """
        self.client, self.folder = client, folder

    def answer(self, asked: str, plan: RunPlan, request: Request) -> Upload | Validation:
        """Carry out a request for client `asked`.

        From the state before it; the state after it is saved.

        Raises:
            FederationError: the site does not fit the plan; message says in what, and what to do.
            TrainingError: a loss that is not finite.
        """
        schema = self.check(asked, plan)
        # A process of a request that the server no longer waits for may still be at work.
        with FileLock(self._place("lock")):
            federation = self.federation(plan, schema)
            client = federation.clients[self.client]
            now = (request.round, _step(request, federation.method))
            before = self._latest(plan.place, now)
            if before is not None:
                client.load(self._path(plan.place, before))
            # In a thread, as where all clients are in one process: its settings of torch hold there and nowhere else.
            with ThreadPoolExecutor(1, "client", prepare_thread, (_threads(plan.run),)) as pool:
                answer = pool.submit(client.answer, request).result()
            if isinstance(answer, Upload) and answer.releases:
                answer = answer._replace(releases=self._release(plan.run_id))
            write_text(self._place(f"{plan.run_id}/{_NAME_FILE}"), run_name(plan.method, plan.seed))
            with new_folder(self._path(plan.place, now)) as temporary:
                client.save(temporary, request.round)
            self._forget(plan.place, now)
        return answer

    def _release(self, run: str) -> int:
        """Count one more noised upload, before it leaves.

        Every one counts: a round that is repeated reveals something anew.
        """
        path = self.folder / STATE / run / _RELEASES_FILE
        count = 1 + (int(path.read_text(encoding="utf-8")) if path.exists() else 0)
        write_text(path, str(count))
        return count

    def check(self, asked: str, plan: RunPlan) -> Schema:
        """Return the site's own schema, if it fits the plan.

        Raises:
            FederationError: another scenario, package version or schema, or more is to leave than params.yaml allows.
            DataError: the shards are not there.
        """
        if asked != self.client:
            raise FederationError(f"this site is {self.client}, but its key is registered as {asked}")
        if plan.version != __version__:
            raise FederationError(
                f"site {self.client} has pfmsmt {__version__}, the server {plan.version}; install the same version"
            )
        self._check_terms(plan)
        schema = read_schema(self.folder / SCHEMA)
        if self.client not in schema.counts:
            raise FederationError(f"site {self.client} holds data of {', '.join(schema.counts)}; prepare its own")
        if schema.agreement != plan.agreement:
            raise FederationError(
                f"site {self.client} was prepared with schema {schema.agreement[:12]}, the server has "
                f"{plan.agreement[:12]}; agree on the schema again, and prepare the site with it"
            )
        return schema.only(self.client)

    def _check_terms(self, plan: RunPlan) -> None:
        """Refuse a plan that sends more than the site's own params.yaml allows."""
        file = self.folder / PARAMS_FILE
        if not file.exists():
            return
        own = load_config(file)
        if own.federate.methods is not None and plan.method not in own.federate.methods:
            methods = ", ".join(own.federate.methods)
            raise FederationError(
                f"site {self.client} takes part in {methods} alone (federate.methods), not {plan.method}"
            )
        clip, noise = own.privacy.clip, own.privacy.noise
        longer = clip is not None and (plan.privacy.clip is None or plan.privacy.clip > clip)
        if longer or plan.privacy.noise < noise:
            raise FederationError(
                f"site {self.client} sends nothing longer than clip {clip}, or with less noise than {noise:g} "
                f"(privacy of its params.yaml); the server's run has clip {plan.privacy.clip} and noise "
                f"{plan.privacy.noise:g}"
            )

    def last(self, plan: RunPlan, schema: Schema) -> Federation:
        """Return this site's client as the run left it.

        Raises:
            FederationError: the site took part in no round of the run.
        """
        federation = self.federation(plan, schema)
        steps = self._steps(plan.place)
        if not steps:
            raise FederationError(f"site {self.client} took part in no round of this run, so it has no model to save")
        federation.load(self._path(plan.place, steps[-1]))
        return federation

    def save_findings(self, plan: RunPlan, schema: Schema) -> Refit:
        """Write what the second training takes from the first, and return it.

        Raises:
            FederationError: see `last`.
            TrainingError: the site never validated a model in this run, or a calibration did not converge.
        """
        found = self.last(plan, schema).findings()
        write_json(self._place(f"{plan.run_id}/{_FINDINGS_FILE}"), found.save())
        return found

    def _findings(self, plan: RunPlan) -> Refit | None:
        """Return what the first training found; None within that one.

        Raises:
            FederationError: the site took no part in it, or not to its end.
        """
        if not plan.refits:
            return None
        path = self._place(f"{plan.run_id}/{_FINDINGS_FILE}")
        if not path.exists():
            raise FederationError(f"site {self.client} has no best round of this run's first training to train again")
        return Refit.load(json.loads(path.read_text(encoding="utf-8")))

    def federation(self, plan: RunPlan, schema: Schema) -> Federation:
        """Build the method and this site's one client."""
        device = choose_device(plan.run.device)
        return build_federation(
            plan.config, schema, self.folder / CLIENTS, plan.method, plan.seed, device, mean_rows=plan.mean_rows,
            # The server knows the seed, and could take seeded noise off again.
            entropy=lambda stream: os.urandom,
            refit=self._findings(plan),
        )  # fmt: skip

    def forget_others(self, run: str, name: str) -> None:
        """Remove the state of other runs that nobody will go on with.

        They are over, or were broken off and begun anew under this name.
        """
        for state in (self.folder / STATE).iterdir():
            named = state / _NAME_FILE
            same = named.exists() and named.read_text(encoding="utf-8") == name
            if state.name != run and ((state / PLAN).exists() or same):
                shutil.rmtree(state)

    def _place(self, name: str) -> Path:
        place = self.folder / STATE / name
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def _path(self, run: str, step: tuple[int, int]) -> Path:
        return self.folder / STATE / run / f"{step[0]:06d}.{step[1]}"

    def _steps(self, run: str) -> list[tuple[int, int]]:
        folder = self.folder / STATE / run
        found = (_STEP.fullmatch(path.name) for path in (folder.iterdir() if folder.exists() else ()))
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def _latest(self, run: str, now: tuple[int, int]) -> tuple[int, int] | None:
        """Return the last step before `now`."""
        for step in self._steps(run):
            recover(self._path(run, step))
        return max((step for step in self._steps(run) if step < now), default=None)

    def _forget(self, run: str, now: tuple[int, int]) -> None:
        """Remove steps that the server can no longer go on from.

        The last step before this round stays, and this round's.
        """
        earlier = [step for step in self._steps(run) if step[0] < now[0]]
        for step in earlier[:-1]:
            shutil.rmtree(self._path(run, step))


def _step(request: Request, method: Method) -> int:
    return request.phase if request.kind == "train" else len(method.phases)


def _threads(run: Run) -> int:
    return run.threads if isinstance(run.threads, int) else torch.get_num_threads()
