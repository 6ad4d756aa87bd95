"""The workers of one study on this machine: started, told to go on, replaced when they are killed."""

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
from pfmsmt.tuning.trials import CAUSE, KILLED, WORKER, Streak, is_retried, is_run_by, reason_of, release
from pfmsmt.tuning.worker import Begun, Broken, Finished, Task, work

OnTrial = Callable[[FrozenTrial, Finished | None], None]
"""Called with a trial that has ended; the worker's message is missing where the worker was killed."""


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    busy: bool = False
    stopped: bool = False


class Pool:
    """Runs trials until the study has as many as it should."""

    def __init__(self, study: Study, task: Task, trials: int, timeout: float | None, on_trial: OnTrial) -> None:
        """See `run`.

        Args:
            trials: of the study in all, other machines' and earlier ones included.
            timeout: seconds after which no trial is begun; None for no limit.
            on_trial: called after every trial, in this process.
        """
        self._study, self._task, self._trials, self._on_trial = study, task, trials, on_trial
        self._end = None if timeout is None else time.monotonic() + timeout
        self._shared = is_database(task.store)
        self._streak = Streak()
        self._workers: list[_Worker] = []
        self._ready: list[_Worker] = []
        # One worker at a time takes up a trial: sqlite has no row locks, and two could take the same queued one.
        self._beginning: _Worker | None = None

    def run(self) -> None:
        """Run trials with `task.workers` processes.

        Raises:
            TuningError: too many failures in a row.
            PfmsmtError: a worker could not begin, a shard cannot be read.
        """
        try:
            for _ in range(min(self._task.workers, self._left())):
                self._start()
            while self._workers:
                for pipe in wait([worker.pipe for worker in self._workers]):
                    self._hear(next(worker for worker in self._workers if worker.pipe is pipe))
        finally:
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                worker.process.join()
            # What they were doing is queued again; that it was not finished is not its fault.
            release(self._study, shared=self._shared, blame=False)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(self._task, theirs), daemon=True)
        process.start()
        # The worker's own end must be the only one, so that its death is heard here.
        theirs.close()
        self._workers.append(_Worker(process, ours))

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            self._gone(worker)
            return
        if isinstance(message, Broken):
            raise message.error
        if isinstance(message, Begun):
            self._settled(worker)
        elif isinstance(message, Finished):
            worker.busy = False
            self._settled(worker)
            self._ended(self._study.get_trials(deepcopy=False)[message.number], message)
        else:
            self._ready.append(worker)
        self._tell()

    def _tell(self) -> None:
        """Tell ready workers to run a trial, or to stop where none is left."""
        while self._ready and self._beginning is None:
            worker = self._ready.pop(0)
            worker.busy = self._left() > 0
            worker.stopped = not worker.busy
            if worker.busy:
                self._beginning = worker
            # A worker that has died since is heard of next.
            with suppress(OSError):
                worker.pipe.send(worker.busy)

    def _settled(self, worker: _Worker) -> None:
        if self._beginning is worker:
            self._beginning = None

    def _gone(self, worker: _Worker) -> None:
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        self._ready = [other for other in self._ready if other is not worker]
        self._settled(worker)
        if worker.stopped:
            self._tell()
            return
        lost = release(self._study, shared=self._shared)
        for trial in lost:
            self._ended(self._study.get_trials(deepcopy=False)[trial.number], None)
        if not lost:
            self._failed(KILLED, f"a worker ended with code {worker.process.exitcode} while it ran no trial")
        if self._left() > 0:
            self._start()
        self._tell()

    def _ended(self, trial: FrozenTrial, message: Finished | None) -> None:
        self._on_trial(trial, message)
        if trial.state == TrialState.FAIL:
            self._failed(trial.user_attrs.get(CAUSE, KILLED), reason_of(trial) or KILLED)
        else:
            self._streak.good()

    def _failed(self, cause: str, reason: str) -> None:
        stop = self._streak.bad(cause, reason)
        if stop:
            raise TuningError(f"study {self._study.study_name}: {stop}")

    def _left(self) -> int:
        """Return how many trials may still be begun."""
        if self._end is not None and time.monotonic() >= self._end:
            return 0
        trials = self._study.get_trials(deepcopy=False)
        done = sum(trial.state.is_finished() and not is_retried(trial) for trial in trials)
        # Of this pool's workers it is known what they were told; what they run may not show in the store yet.
        busy = [worker for worker in self._workers if worker.busy]
        ours = {worker.process.pid for worker in self._workers}
        elsewhere = sum(
            trial.state == TrialState.RUNNING and not is_run_by(trial, ours) and WORKER in trial.user_attrs
            for trial in trials
        )
        return self._trials - done - len(busy) - elsewhere
