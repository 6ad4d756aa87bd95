"""The workers of one study on this machine: started, given trials, replaced."""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from pfmsmt.core.errors import TuningError
from pfmsmt.tuning.storage import is_database
from pfmsmt.tuning.trials import CAUSE, KILLED, WORKER, FailureStreak, is_retried, is_run_by, reason_of, recover_trials
from pfmsmt.tuning.worker import Broken, Finished, Started, StudySetup, WorkerMessage, work

OnTrial = Callable[[FrozenTrial, Finished | None], None]
"""Called with a trial that has ended; the worker's message is missing where the worker was killed."""


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    busy: bool = False
    stopped: bool = False


class Pool:
    """Runs trials until the study has as many as it should.

    A worker that was killed is replaced, and its trial is queued again. One that cannot begin ends the search.
    """

    def __init__(self, study: Study, setup: StudySetup, trials: int, timeout: float | None, on_trial: OnTrial) -> None:
        """Start nothing yet; see `run`.

        Args:
            study: opened, with its sampler.
            setup: what every worker is started with.
            trials: of the study in all, other machines' and earlier ones included.
            timeout: seconds after which no trial is begun; None for no limit.
            on_trial: called after every trial, in this process.
        """
        self._study, self._setup, self._trials, self._on_trial = study, setup, trials, on_trial
        self._end = None if timeout is None else time.monotonic() + timeout
        self._shared = is_database(setup.store)
        self._streak = FailureStreak()
        self._workers: list[_Worker] = []
        self._ready: list[_Worker] = []
        # One worker at a time takes a trial: sqlite has no row locks, and two could take the same queued one.
        self._starting: _Worker | None = None

    def run(self) -> None:
        """Run trials with `setup.workers` processes.

        Raises:
            TuningError: too many failures in a row.
            PfmsmtError: a worker could not begin, a shard cannot be read.
        """
        try:
            for _ in range(min(self._setup.workers, self._trials_left())):
                self._add_worker()
            while self._workers:
                for pipe in wait([worker.pipe for worker in self._workers]):
                    self._receive(next(worker for worker in self._workers if worker.pipe is pipe))
        finally:
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                worker.process.join()
            # Their trials are queued again, without blame: it was not these that ended the pool.
            recover_trials(self._study, shared=self._shared, blame=False)

    def _add_worker(self) -> None:
        # A forked child would inherit torch's and MLflow's locks in whatever state their threads hold them.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(self._setup, theirs), daemon=True)
        process.start()
        # The worker then holds the only other end, and its death closes the pipe.
        theirs.close()
        self._workers.append(_Worker(process, ours))

    def _receive(self, worker: _Worker) -> None:
        """Take one message from a worker, or its death."""
        try:
            message: WorkerMessage = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        if isinstance(message, Broken):
            raise message.error
        if isinstance(message, Started):
            self._let_others_start(worker)
        elif isinstance(message, Finished):
            worker.busy = False
            self._let_others_start(worker)
            self._end_trial(self._study.get_trials(deepcopy=False)[message.number], message)
        else:
            self._ready.append(worker)
        self._request_trials()

    def _request_trials(self) -> None:
        """Ask ready workers for trials; stop those that have none left."""
        while self._ready and self._starting is None:
            worker = self._ready.pop(0)
            worker.busy = self._trials_left() > 0
            worker.stopped = not worker.busy
            if worker.busy:
                self._starting = worker
            # If the worker has died since, its closed pipe is the next thing that `wait` returns.
            with suppress(OSError):
                worker.pipe.send(worker.busy)

    def _let_others_start(self, worker: _Worker) -> None:
        if self._starting is worker:
            self._starting = None

    def _replace(self, worker: _Worker) -> None:
        """Remove a dead worker; start another if trials are left."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        self._ready = [other for other in self._ready if other is not worker]
        self._let_others_start(worker)
        if worker.stopped:
            self._request_trials()
            return
        lost = recover_trials(self._study, shared=self._shared)
        for trial in lost:
            self._end_trial(self._study.get_trials(deepcopy=False)[trial.number], None)
        if not lost:
            self._count_failure(KILLED, f"a worker ended with code {worker.process.exitcode} while it ran no trial")
        if self._trials_left() > 0:
            self._add_worker()
        self._request_trials()

    def _end_trial(self, trial: FrozenTrial, message: Finished | None) -> None:
        self._on_trial(trial, message)
        if trial.state == TrialState.FAIL:
            self._count_failure(trial.user_attrs.get(CAUSE, KILLED), reason_of(trial) or KILLED)
        else:
            self._streak.add_success()

    def _count_failure(self, cause: str, reason: str) -> None:
        stop = self._streak.add_failure(cause, reason)
        if stop:
            raise TuningError(f"study {self._study.study_name}: {stop}")

    def _trials_left(self) -> int:
        """Return how many trials may still be begun."""
        if self._end is not None and time.monotonic() >= self._end:
            return 0
        trials = self._study.get_trials(deepcopy=False)
        done = sum(trial.state.is_finished() and not is_retried(trial) for trial in trials)
        # This pool's own workers are counted by their requests: the store may not show their trials yet.
        busy = [worker for worker in self._workers if worker.busy]
        ours = {worker.process.pid for worker in self._workers}
        elsewhere = sum(
            trial.state == TrialState.RUNNING and not is_run_by(trial, ours) and WORKER in trial.user_attrs
            for trial in trials
        )
        return self._trials - done - len(busy) - elsewhere
