"""Whole searches: real workers, a real MLflow store, real stores of studies."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from optuna.trial import TrialState

from pfmsmt.config import load_config
from pfmsmt.errors import ConfigError, TuningError
from pfmsmt.tracking import connect
from pfmsmt.tracking.connection import TUNING_EXPERIMENT
from pfmsmt.trial import run_trial
from pfmsmt.tuning.command import Wish, read_methods, tune
from pfmsmt.tuning.space import with_values
from pfmsmt.tuning.states import RETRY_OF, is_retried
from pfmsmt.tuning.store import full_address, open_store

REPOSITORY = Path(__file__).parents[2]
FLOAT = {"type": "float", "low": 0.001, "high": 0.1, "log": True}
SPACE = {
    "methods.local.learning_rate": FLOAT,
    "methods.fedavg.learning_rate": {**FLOAT, "high": 0.5},
    "methods.fedavg.server_optimizer": {"type": "categorical", "choices": ["adam", "plain"]},
    "methods.pf_msmtrec.server_learning_rate": FLOAT,
}
SMALL = {"tune.space": SPACE, "tune.pruner": "none"}


def go(project, *methods, **wish):
    return tune(Wish(methods, **wish), project)


def load(project, name, storage=None):
    return optuna.load_study(storage=open_store(full_address(storage, project)), study_name=name)


def tuning_runs(project, query):
    tracking = connect(project, TUNING_EXPERIMENT)
    found = tracking.client.search_runs([tracking.experiment_id], query)
    return tracking.client, sorted(found, key=lambda run: int(run.data.tags.get("trial", -1)))


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.slow
def test_a_search_with_two_workers_in_a_database(project, configure, schema, shards, capsys, monkeypatch):
    config = configure(SMALL)
    client = connect(project).client
    launcher = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    store = {"storage": "sqlite:///studies/all.db", "workers": 2}
    outcomes = go(project, "local", "fedavg", trials=3, export=Path("best"), **store)
    output = capsys.readouterr().out

    for found in outcomes:
        study = load(project, f"tune-{found.method}", store["storage"])
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
        values = [trial.value for trial in study.trials]
        assert found.best_value == max(values) == study.trials[found.best_trial].value
        assert found.best == study.trials[found.best_trial].params
        assert found.start_value == values[0]
        assert study.trials[0].params == found.start
        block = config.methods.model_dump()[found.method]
        assert found.start == {key: block[key.rpartition(".")[2]] for key in found.best}

        # A trial is the training that it says it is.
        other = study.trials[2]
        again = run_trial(
            with_values(config, other.params),
            schema,
            shards,
            found.method,
            0,
            torch.device("cpu"),
            workers=1,
            threads=1,
        )
        assert list(other.intermediate_values.values()) == list(again.validation)
        assert other.value == again.best_validation()

        client, (run,) = tuning_runs(project, f"tags.role = 'study' and tags.method = '{found.method}'")
        assert run.info.run_name == run.data.tags["study"] == f"tune-{found.method}"
        assert run.info.status == "FINISHED"
        assert run.data.tags["launcher_run_id"] == launcher
        assert run.info.run_id != launcher
        assert run.data.metrics["trials/complete"] == 3
        assert run.data.metrics["objective"] == found.best_value
        assert run.data.params["train.rounds"] == "4"
        logged = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert logged == {"best_params.yaml", "environment.json", "params.yaml", "pictures"}
        folder = Path(client.download_artifacts(run.info.run_id, "pictures"))
        names = ("history", "importance", "slice")
        assert files(folder) == sorted([f"{n}.{kind}" for n in names for kind in ("html", "png")] + ["importance.csv"])
        for name in names:
            assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
            page = (folder / f"{name}.html").read_text()
            # The program is in the page, and nothing is fetched.
            assert len(page) > 1_000_000
            assert not re.search(r"<(script|img|iframe)[^>]+src=|<link[^>]+href=", page[:10_000] + page[-100_000:])
        shares = dict(line.split(",") for line in (folder / "importance.csv").read_text().splitlines()[1:])
        assert set(shares) == set(found.best)
        assert sum(map(float, shares.values())) == pytest.approx(1, abs=1e-5)

        client, trials = tuning_runs(project, f"tags.mlflow.parentRunId = '{run.info.run_id}'")
        assert [trial.data.tags["trial"] for trial in trials] == ["0", "1", "2"]
        for nested, trial in zip(trials, study.trials, strict=True):
            assert nested.info.status == "FINISHED"
            assert nested.data.tags["state"] == "complete"
            assert nested.data.params == {key: str(value) for key, value in trial.params.items()}
            points = client.get_metric_history(nested.info.run_id, "val/objective")
            assert {point.step: point.value for point in points} == trial.intermediate_values
            cells = {f"val/{s}/{t}_{m}" for s in schema.scenarios for t in ("ctr", "ctcvr") for m in ("auc", "logloss")}
            assert cells <= set(nested.data.metrics)
            assert len(client.get_metric_history(nested.info.run_id, "val/NL/ctr_auc")) == 4
            seconds = (trial.datetime_complete - trial.datetime_start).total_seconds()
            assert nested.data.metrics["duration_seconds"] == seconds
            assert 0 < nested.data.metrics["training_seconds"] <= seconds

        written = yaml.safe_load((project / f"best/{found.method}.yaml").read_text())
        assert written["params"] == found.best
        assert written["study"]["trials"] == 3
        assert re.search(
            rf"^{found.method}, validation AUC \(mean\) +{values[0]:.4f} +{max(values):.4f}$", output, re.M
        )

    # The benchmark takes them as its own.
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    from worlds import Bench
    from worlds import configure as configure_bench

    results = project / "results"
    shutil.copytree(project / "best", results / "tuned" / "default")
    bench = Bench(project / "work", results, None, True)
    tuned = bench.tuned("default", "fedavg")
    assert tuned == outcomes[1].best
    read = configure_bench(bench, "default", 0, tuned)
    assert read.methods.fedavg.learning_rate == tuned["methods.fedavg.learning_rate"]


@pytest.mark.slow
def test_same_seed_same_trials_and_test_shards_are_never_read(project, configure, capsys):
    configure({**SMALL, "tune.pruner": "median", "train.rounds": 6})
    go(project, "pf_msmtrec", trials=7)
    for path in project.glob("data/clients/*/test.parquet"):
        path.unlink()
    go(project, "pf_msmtrec", trials=3, study="other")
    # In two sessions, the second continuing the first.
    go(project, "pf_msmtrec", trials=7, study="other", resume=True)
    first, second = (
        [(t.params, t.state, t.value, t.intermediate_values) for t in load(project, f"{name}-pf_msmtrec").trials]
        for name in ("tune", "other")
    )
    assert len(first) == 7
    assert first == second

    capsys.readouterr()
    before = files(project / "tuning")
    with pytest.raises(TuningError, match=r"study tune-pf_msmtrec is already in .*optuna\.journal; continue it with"):
        go(project, "pf_msmtrec", trials=9)
    with pytest.raises(
        TuningError, match=r"no study tunee-local to continue .*it has other-pf_msmtrec, tune-pf_msmtrec"
    ):
        go(project, "local", study="tunee", resume=True)
    configure({**SMALL, "tune.pruner": "median", "train.rounds": 7, "model.dropout": 0.3})
    with pytest.raises(
        TuningError, match=r"other settings.* model\.dropout was 0\.2, is 0\.3; train\.rounds was 6, is 7"
    ):
        go(project, "pf_msmtrec", trials=9, resume=True)
    assert files(project / "tuning") == before
    # Nothing left to do: the table is shown and applied.
    configure({**SMALL, "tune.pruner": "median", "train.rounds": 6})
    (found,) = go(project, "pf_msmtrec", trials=7, resume=True, apply=True)
    assert len(load(project, "tune-pf_msmtrec").trials) == 7
    rate = load_config(project / "params.yaml").methods.pf_msmtrec.server_learning_rate
    assert rate == found.best["methods.pf_msmtrec.server_learning_rate"]


@pytest.mark.slow
def test_trials_that_fail_are_recorded_and_five_in_a_row_end_the_search(project, configure):
    space = {
        "methods.local.learning_rate": {"type": "categorical", "choices": [0.008, 1e30]},
        "model.embedding_dim": {"type": "categorical", "choices": [2, 10**12]},
    }
    configure({**SMALL, "tune.space": space})
    go(project, "local", trials=1)
    study = load(project, "tune-local")
    good = {"methods.local.learning_rate": 0.008, "model.embedding_dim": 2}
    for values in ({"methods.local.learning_rate": 1e30}, {"model.embedding_dim": 10**12}, {}):
        study.enqueue_trial(good | values)
    (found,) = go(project, "local", trials=4, resume=True)
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
        go(project, "local", trials=20, resume=True)
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


@pytest.mark.slow
def test_what_is_killed_loses_its_running_trial_alone(project, configure):
    configure({**SMALL, "train.rounds": 150})
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pfmsmt.cli", "tune", "--methods", "local", "--trials", "3"]
    process = subprocess.Popen(
        command, cwd=project, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    os.kill(wait_for_trial(project, 1), signal.SIGKILL)
    # The worker was replaced, and runs the same values again; now everything dies.
    wait_for_trial(project, 2)
    os.killpg(process.pid, signal.SIGKILL)
    output = process.communicate(timeout=30)[0]
    assert "local 1/3  trial 1 failed: its worker was killed; tried again" in output
    (found,) = go(project, "local", trials=3, resume=True)
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
        go(project, "local", trials=3, timeout=0.0)
    assert [trial.state for trial in load(project, "tune-local").trials] == [TrialState.WAITING]


@pytest.mark.parametrize(
    ("changes", "wish", "message"),
    [
        ({"tune.space": {"model.droput": FLOAT}}, {}, r"tune\.space\.model\.droput: unknown key; did you mean"),
        ({"tune.space": {"methods.fedavg.conflict": FLOAT}}, {}, r"methods\.fedavg has no conflict"),
        ({"tune.objective": "FR"}, {}, r"tune\.objective: 'FR' is unknown"),
        ({"tune.space": {"model.dropout": FLOAT}}, {"apply": True}, r"--apply: model\.dropout is tuned for each of"),
        ({}, {"export": Path("a.yaml")}, r"--export a\.yaml: one file for 2 methods"),
        ({}, {"resume": True}, r"--resume: .*optuna\.journal does not exist"),
        ({}, {"resume": True, "storage": "sqlite:///a.db"}, r"--resume: .*a\.db does not exist"),
        ({}, {"methods": ("fedavgg",)}, r"--methods: 'fedavgg' is unknown; did you mean 'fedavg'\?"),
        ({"tune.space": {"methods.fedavg.learning_rate": FLOAT}}, {}, r"no key of model, train or methods\.local"),
        ({"train.device": "cuda:7"}, {}, r"train\.device: cuda:7 is not here"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(project, configure, changes, wish, message):
    configure({**SMALL, **changes})
    before = files(project)
    with pytest.raises((ConfigError, TuningError), match=message):
        tune(Wish(**{"methods": ("local", "fedavg"), **wish}), project)
    assert files(project) == before


def test_names_of_methods():
    assert read_methods(["local", "fedavg"]) == ("local", "fedavg")
    assert read_methods(["local fedavg,ditto", "local"]) == ("local", "fedavg", "ditto")
    assert len(read_methods(["all"])) == 8
    with pytest.raises(ConfigError, match="names none"):
        read_methods([" "])


def test_the_command_takes_methods_in_a_row_and_its_errors_are_readable(project, configure, run_python):
    configure(SMALL)
    done = run_python("-m", "pfmsmt.cli", "tune", "--methods", "local", "fedavg", "fedproxx", "--trials", "2")
    assert done.returncode == 1
    assert done.stderr.startswith("\nERROR: --methods: 'fedproxx' is unknown; did you mean 'fedprox'?")
    done = run_python("-m", "pfmsmt.cli", "tune", "--methods", "local", "--trials", "0")
    assert done.returncode == 2


@pytest.mark.slow
def test_dvc_sees_the_tuned_method_as_changed_and_no_other(project, configure, tmp_path):
    """A real repository in which everything is up to date; the outputs themselves do not matter here."""
    from pfmsmt.tuning.applying import apply

    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "stages", "pfmsmt", ".dvc/config", ".dvc/.gitignore",
                 ".dvc/plots"):  # fmt: skip
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, root / name)
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
    (root / "reports/pictures").mkdir(parents=True)
    for name in ("comparison.md", "comparison.html", "roc.csv", "calibration.csv", "rounds.csv", "metrics.json",
                 "summary.json", "pictures/a.png"):  # fmt: skip
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
