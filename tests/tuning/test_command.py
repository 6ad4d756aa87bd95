"""Whole searches: real workers, a real MLflow store, real stores of studies."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from optuna.trial import TrialState
from typer.testing import CliRunner

from pfmsmt.commands.main import app
from pfmsmt.config import METHOD_NAMES, load_config
from pfmsmt.core.errors import ConfigError, TuningError
from pfmsmt.tracking import connect
from pfmsmt.training.trial import run_trial
from pfmsmt.tuning.command import SearchRequest, read_methods, tune
from pfmsmt.tuning.space import changed_config
from tests.support.searching import FLOAT, REPOSITORY, SMALL, files, load, search, tuning_runs


@pytest.mark.slow(25)
def test_a_search_with_two_workers_in_a_database(project, configure, schema, shards, capsys, monkeypatch):
    config = configure(SMALL)
    client = connect(project).client
    launcher = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    store = {"storage": "sqlite:///studies/all.db", "workers": 2}
    outcomes = search(project, "local", "fedavg", trials=3, export=Path("best"), **store)
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
            changed_config(config, other.params),
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


@pytest.mark.slow(25)
def test_same_seed_same_trials_and_test_shards_are_never_read(project, configure, capsys):
    configure({**SMALL, "tune.pruner": "median", "train.rounds": 6})
    search(project, "pf_msmtrec", trials=7)
    for path in project.glob("data/clients/*/test.parquet"):
        path.unlink()
    search(project, "pf_msmtrec", trials=3, study="other")
    # In two sessions, the second continuing the first.
    search(project, "pf_msmtrec", trials=7, study="other", resume=True)
    first, second = (
        [(t.params, t.state, t.value, t.intermediate_values) for t in load(project, f"{name}-pf_msmtrec").trials]
        for name in ("tune", "other")
    )
    assert len(first) == 7
    assert first == second

    capsys.readouterr()
    before = files(project / "tuning")
    with pytest.raises(TuningError, match=r"study tune-pf_msmtrec is already in .*optuna\.journal; continue it with"):
        search(project, "pf_msmtrec", trials=9)
    with pytest.raises(
        TuningError, match=r"no study tunee-local to continue .*it has other-pf_msmtrec, tune-pf_msmtrec"
    ):
        search(project, "local", study="tunee", resume=True)
    configure({**SMALL, "tune.pruner": "median", "train.rounds": 7, "model.dropout": 0.3})
    with pytest.raises(
        TuningError, match=r"other settings.* model\.dropout was 0\.2, is 0\.3; train\.rounds was 6, is 7"
    ):
        search(project, "pf_msmtrec", trials=9, resume=True)
    assert files(project / "tuning") == before
    # Nothing left to do: the table is shown and applied.
    configure({**SMALL, "tune.pruner": "median", "train.rounds": 6})
    (found,) = search(project, "pf_msmtrec", trials=7, resume=True, apply=True)
    assert len(load(project, "tune-pf_msmtrec").trials) == 7
    rate = load_config(project / "params.yaml").methods.pf_msmtrec.server_learning_rate
    assert rate == found.best["methods.pf_msmtrec.server_learning_rate"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"tune.space": {"model.droput": FLOAT}}, {}, r"tune\.yaml: space\.model\.droput: unknown key; did you mean"),
        ({"tune.space": {"methods.fedavg.conflict": FLOAT}}, {}, r"methods\.fedavg has no conflict"),
        ({"tune.objective": "FR"}, {}, r"tune\.yaml: objective: 'FR' is unknown"),
        ({"tune.space": {"model.dropout": FLOAT}}, {"apply": True}, r"--apply: model\.dropout is tuned for each of"),
        ({}, {"export": Path("a.yaml")}, r"--export a\.yaml: one file for 2 methods"),
        ({}, {"resume": True}, r"--resume: .*optuna\.journal does not exist"),
        ({}, {"resume": True, "storage": "sqlite:///a.db"}, r"--resume: .*a\.db does not exist"),
        ({}, {"methods": ("fedavgg",)}, r"--methods: 'fedavgg' is unknown; did you mean 'fedavg'\?"),
        (
            {"tune.space": {"methods.fedavg.learning_rate": FLOAT}},
            {},
            r"no key of model, .*, privacy or methods\.local",
        ),
        ({"run.device": "cuda:7"}, {}, r"run\.device: cuda:7 is not here"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(project, configure, changes, options, message):
    configure({**SMALL, **changes})
    before = files(project)
    with pytest.raises((ConfigError, TuningError), match=message):
        tune(SearchRequest(**{"methods": ("local", "fedavg"), **options}), project)
    assert files(project) == before


def test_names_of_methods():
    assert read_methods(["local", "fedavg"]) == ("local", "fedavg")
    assert read_methods(["local fedavg,ditto", "local"]) == ("local", "fedavg", "ditto")
    assert read_methods(["all"]) == METHOD_NAMES
    # All of this package; a method that comes later is one more.
    assert len(METHOD_NAMES) >= 16
    with pytest.raises(ConfigError, match="names none"):
        read_methods([" "])


@pytest.mark.slow(2)
def test_the_command_takes_methods_in_a_row_and_its_errors_are_readable(project, configure, run_python):
    configure(SMALL)
    done = run_python("-m", "pfmsmt.commands.main", "tune", "--methods", "local", "fedavg", "fedproxx", "--trials", "2")
    assert done.returncode == 1
    assert done.stderr.startswith("\nERROR: --methods: 'fedproxx' is unknown; did you mean 'fedprox'?")
    assert CliRunner().invoke(app, ["tune", "--methods", "local", "--trials", "0"]).exit_code == 2
