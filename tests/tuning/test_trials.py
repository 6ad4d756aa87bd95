"""Trials whose worker died, in a journal and in a database."""

import datetime
import os
import subprocess
import sys

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from pfmsmt.tuning import trials
from pfmsmt.tuning.storage import GRACE, open_store
from pfmsmt.tuning.trials import MAX_RETRIES, REASON, RETRIES, RETRY_OF, START, is_retried, reason_of, was_killed
from pfmsmt.tuning.worker import silence_optuna

BEGIN = """
import os, signal, sys
import optuna
from pfmsmt.tuning.trials import record_worker
from pfmsmt.tuning.storage import open_store
study = optuna.load_study(storage=open_store(sys.argv[1]), study_name="s")
def objective(trial):
    record_worker(trial)
    trial.suggest_float("x", 0, 1)
    os.kill(os.getpid(), signal.SIGKILL)
study.optimize(objective, n_trials=1)
"""


@pytest.fixture(params=["a.journal", "sqlite:///{}/a.db"])
def store(tmp_path, request):
    silence_optuna()
    return request.param.format(tmp_path) if "://" in request.param else str(tmp_path / request.param)


@pytest.fixture
def study(store):
    return optuna.create_study(storage=open_store(store), study_name="s", direction="maximize")


def killed_worker(store):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", BEGIN, store], timeout=60)
    assert done.returncode == -9


@pytest.mark.slow(1)
def test_a_killed_trial_is_failed_and_tried_again_with_its_values(store, study):
    study.enqueue_trial({"y": 7}, {START: True})
    killed_worker(store)
    (running,) = study.trials
    assert running.state == TrialState.RUNNING
    assert [trial.number for trial in trials.recover_trials(study, shared=True)] == [0]
    assert trials.recover_trials(study, shared=True) == []
    failed, waiting = study.trials
    assert was_killed(failed)
    assert is_retried(failed)
    assert reason_of(failed) == "its worker was killed; tried again"
    assert waiting.state == TrialState.WAITING
    again = study.ask()
    assert again.user_attrs == {START: True, RETRIES: 1, RETRY_OF: 0}
    assert again.suggest_float("x", 0, 1) == failed.params["x"]
    assert again.suggest_int("y", 0, 9) == 7


@pytest.mark.slow(3)
def test_values_that_kill_every_worker_are_given_up(store, study):
    for _ in range(MAX_RETRIES + 1):
        killed_worker(store)
        trials.recover_trials(study, shared=True)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * (MAX_RETRIES + 1)
    assert len({trial.params["x"] for trial in study.trials}) == 1
    assert [is_retried(trial) for trial in study.trials] == [True] * MAX_RETRIES + [False]
    assert reason_of(study.trials[-1]) == f"its worker was killed; given up after {MAX_RETRIES} retries"


def test_what_lives_or_belongs_to_others_is_left_alone(study):
    mine, elsewhere, unsigned, old = (study.ask() for _ in range(4))
    trials.record_worker(mine)
    elsewhere.set_user_attr("worker", {"host": "another-machine", "id": os.getpid(), "start": 0.0})
    # Another process has been given the same id since.
    old.set_user_attr("worker", {**mine.user_attrs["worker"], "start": mine.user_attrs["worker"]["start"] - 100})
    assert [trial.number for trial in trials.recover_trials(study, shared=True, blame=False)] == [old.number]
    assert study.trials[-1].user_attrs == {RETRIES: 0, RETRY_OF: old.number}
    released = trials.recover_trials(study, shared=True, unsigned_seconds=-1.0)
    assert [trial.number for trial in released] == [unsigned.number]
    # In a store that only one machine uses, another host is this machine under an earlier name.
    assert [trial.number for trial in trials.recover_trials(study, shared=False)] == [elsewhere.number]
    assert trials.is_run_by(study.trials[mine.number], {os.getpid()})
    assert not trials.is_run_by(study.trials[elsewhere.number], {os.getpid()})


def test_a_trial_that_failed_by_itself_is_not_tried_again(study):
    trial = study.ask()
    trials.record_worker(trial)
    trial.set_user_attr(REASON, "TrainingError: diverged")
    study.tell(trial, state=TrialState.FAIL)
    assert trials.recover_trials(study, shared=True) == []
    (failed,) = study.trials
    assert not was_killed(failed)
    assert reason_of(failed) == "TrainingError: diverged"


@pytest.mark.slow(1)
def test_a_database_retries_what_another_machine_left_without_heartbeat(tmp_path):
    silence_optuna()
    url = f"sqlite:///{tmp_path / 'a.db'}"
    study = optuna.create_study(storage=open_store(url), study_name="s", direction="maximize")
    killed_worker(url)
    engine = sqlalchemy.create_engine(url)
    long_ago = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(seconds=GRACE + 60)
    with engine.begin() as connection:
        # As it looks from a machine that cannot see the process: it is another's, and has been silent.
        connection.execute(sqlalchemy.text("update trial_user_attributes set value_json = replace(value_json, "
                                           "'\"host\": \"', '\"host\": \"not-')"))  # fmt: skip
        changed = connection.execute(sqlalchemy.text("update trial_heartbeats set heartbeat = :t"), {"t": long_ago})
        assert changed.rowcount == 1
    study = optuna.load_study(storage=open_store(url), study_name="s")
    assert trials.recover_trials(study, shared=True) == []
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    failed, again = study.trials
    assert was_killed(failed)
    assert again.state == TrialState.COMPLETE
    assert again.user_attrs == {RETRIES: 1, RETRY_OF: 0}
    assert again.params == failed.params
