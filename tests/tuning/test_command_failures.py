"""Searches in which trials fail and processes are killed; what DVC sees of the result."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from pfmsmt.core.errors import TuningError
from pfmsmt.tuning.outcome import apply
from pfmsmt.tuning.trials import RETRY_OF, is_retried
from tests.support.searching import REPOSITORY, SMALL, load, search, tuning_runs


@pytest.mark.slow(20)
def test_trials_that_fail_are_recorded_and_five_in_a_row_end_the_search(project, configure):
    space = {
        "methods.local.learning_rate": {"type": "categorical", "choices": [0.008, 1e30]},
        "model.embedding_dim": {"type": "categorical", "choices": [2, 10**12]},
    }
    configure({**SMALL, "tune.space": space, "methods.local.weight_decay": 0.0})
    search(project, "local", trials=1)
    study = load(project, "tune-local")
    good = {"methods.local.learning_rate": 0.008, "model.embedding_dim": 2}
    for values in ({"methods.local.learning_rate": 1e30}, {"model.embedding_dim": 10**12}, {}):
        study.enqueue_trial(good | values)
    (found,) = search(project, "local", trials=4, resume=True)
    assert found.states == {"complete": 2, "failed": 2}
    causes = [trial.user_attrs.get("cause") for trial in load(project, "tune-local").trials]
    assert causes == [None, "training diverged", "out of memory", None]
    _, trials = tuning_runs(project, "tags.role = 'trial'")
    assert [run.info.status for run in trials] == ["FINISHED", "FAILED", "FAILED", "FINISHED"]
    assert [run.data.tags["state"] for run in trials] == ["complete", "failed", "failed", "complete"]
    assert "the training loss became" in trials[1].data.tags["reason"]

    for _ in range(6):
        study.enqueue_trial(good | {"methods.local.learning_rate": 1e30})
    with pytest.raises(TuningError, match=r"5 trials in a row failed; common cause: training diverged \(5 of 5\)"):
        search(project, "local", trials=20, resume=True)
    assert len(load(project, "tune-local").get_trials(states=(TrialState.FAIL,))) == 2 + 5
    _, (run,) = tuning_runs(project, "tags.role = 'study'")
    assert run.info.status == "FAILED"
    assert "common cause: training diverged" in run.data.tags["failure"]


def wait_for_trial(project, number):
    """Wait until a trial is being run; return its worker's process id."""
    for _ in range(2400):
        time.sleep(0.1)
        if (project / "tuning/optuna.journal").exists():
            try:
                trials = load(project, "tune-local").trials
            except KeyError:
                continue
            if (
                len(trials) > number
                and trials[number].state == TrialState.RUNNING
                and trials[number].intermediate_values
            ):
                return trials[number].user_attrs["worker"]["id"]
    raise AssertionError(f"trial {number} was not begun")


@pytest.mark.slow(20)
def test_what_is_killed_loses_its_running_trial_alone(project, configure):
    configure({**SMALL, "train.rounds": 80})
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pfmsmt.commands.main", "tune", "--methods", "local", "--trials", "3"]
    process = subprocess.Popen(
        command, cwd=project, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        os.kill(wait_for_trial(project, 1), signal.SIGKILL)
        # The worker was replaced, and runs the same values again; now everything dies.
        wait_for_trial(project, 2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    output = process.communicate(timeout=30)[0]
    assert "local 1/3  trial 1 failed: its worker was killed; tried again" in output
    (found,) = search(project, "local", trials=3, resume=True)
    trials = load(project, "tune-local").trials
    assert found.states == {"complete": 3, "tried again": 2}
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE
    ]  # fmt: skip
    assert [is_retried(trial) for trial in trials] == [False, True, True, False, False]
    assert trials[1].params == trials[2].params == trials[3].params != trials[4].params
    assert [trial.user_attrs.get(RETRY_OF) for trial in trials] == [None, None, 1, 2, None]
    _, runs = tuning_runs(project, "tags.role = 'trial'")
    assert [run.data.tags["trial"] for run in runs] == ["0", "1", "2", "3", "4"]
    assert [run.data.tags["state"] for run in runs] == ["complete", "failed", "failed", "complete", "complete"]
    assert "its worker was killed" in runs[2].data.tags["reason"]


def test_no_trial_begins_after_the_timeout(project, configure):
    configure(SMALL)
    with pytest.raises(TuningError, match=r"study tune-local: no trial is complete.*longer --timeout"):
        search(project, "local", trials=3, timeout=0.0)
    assert [trial.state for trial in load(project, "tune-local").trials] == [TrialState.WAITING]


@pytest.mark.slow(10)
def test_dvc_sees_the_tuned_method_as_changed_and_no_other(project, configure, dvc_repository):
    """A real repository in which everything is up to date; the outputs themselves do not matter here."""
    root = dvc_repository
    methods = ("fedavg", "local")
    configure({**SMALL, "train.methods": list(methods), "register.methods": list(methods)})
    shutil.copy(project / "params.yaml", root)
    shutil.copytree(project / "data", root / "data")
    for method in methods:
        for folder in ("models", "evaluation"):
            (root / folder / f"{method}-seed0").mkdir(parents=True)
            (root / folder / f"{method}-seed0/file").write_text(method)
        (root / "runs").mkdir(exist_ok=True)
        (root / f"runs/{method}-seed0.json").write_text("{}")
    for folder in ("pictures", "data_pictures"):
        (root / "reports" / folder).mkdir(parents=True)
    for name in ("data.md", "data.html", "data_pictures/a.png", "comparison.md", "comparison.html", "roc.csv",
                 "calibration.csv", "rounds.csv", "metrics.json", "summary.json", "pictures/a.png"):  # fmt: skip
        (root / "reports" / name).write_text("{}")
    (root / "champions.json").write_text("{}")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def call(*words):
        done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    call("git", "init", "-q")
    call("dvc", "commit", "-q", "--force")
    assert "up to date" in call("dvc", "status")
    apply({"methods.local.learning_rate": 0.0123}, root / "params.yaml")
    status = call("dvc", "status")
    assert re.findall(r"^(\S+):$", status, re.M) == ["train@local-0"]
    assert re.findall(r"modified: +(\S+)", status) == ["methods.local"]
    planned = call("dvc", "repro", "--dry")
    assert re.findall(r"^Running stage '(.*)':$", planned, re.M) == ["train@local-0"]
    # A key that the file has not had before.
    apply({"methods.fedavg.learning_rate": 0.123}, root / "params.yaml")
    status = call("dvc", "status")
    assert set(re.findall(r"^(\S+):$", status, re.M)) == {"train@local-0", "train@fedavg-0"}
    assert set(re.findall(r"modified: +(\S+)", status)) == {"methods.local", "methods.fedavg"}
