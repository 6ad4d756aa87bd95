import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pfmsmt.commands.register import register
from pfmsmt.config import load_config
from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.schema import read_schema
from pfmsmt.models.saved import load_model
from pfmsmt.tracking import connect
from pfmsmt.tracking.promotion import history
from pfmsmt.tracking.registry import aliases, find_version

CLIENTS = Path("data/clients")


@pytest.mark.slow(5)
def test_champions_are_chosen_by_validation_and_predict_what_was_evaluated(
    project, configure, train_all, monkeypatch, tmp_path
):
    import mlflow

    config = configure({"train.methods": ["centralized", "fedavg", "local"]})
    tracking = train_all(config, "all")
    assert len(tracking.client.search_runs([tracking.experiment_id])) == 3
    champions = json.loads((project / "champions.json").read_text())
    found = {
        model.name: {alias: str(v) for alias, v in model.aliases.items()}
        for model in tracking.client.search_registered_models()
    }
    assert found == {f"pfmsmt-{s}": {"champion": "1"} for s in ("ES", "NL", "US")}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for scenario, champion in champions.items():
        assert champion["alias"] == "champion"
        best = {
            m: json.loads((project / f"models/{m}-seed0/result.json").read_text())["best"][scenario]["mean_auc"]
            for m in ("fedavg", "local")
        }
        assert champion["method"] == max(best, key=best.__getitem__)
        assert champion["val_mean_auc"] == best[champion["method"]]
        example = pd.read_parquet(project / CLIENTS / scenario / "example.parquet")
        loaded = mlflow.pyfunc.load_model(f"models:/pfmsmt-{scenario}@champion").predict(example)
        saved = load_model(project / "models" / f"{champion['method']}-seed0" / scenario)
        assert list(loaded.columns) == ["ctr", "ctcvr"]
        np.testing.assert_array_equal(loaded.to_numpy(), saved.predict(example).to_numpy())
    for run in tracking.client.search_runs([tracking.experiment_id]):
        assert "comparison" in {file.path for file in tracking.client.list_artifacts(run.info.run_id)}
    assert not [p for p in (project / "mlruns").rglob("*") if p.suffix in (".pkl", ".pickle", ".pth")]


@pytest.mark.slow(2)
@pytest.mark.parametrize("reference", ["joint", "centralized"])
def test_a_reference_is_never_a_champion(project, configure, train_all, reference):
    config = configure({"train.methods": [reference]})
    with pytest.raises(ConfigError, match=r"register\.methods: none of these is in train\.methods"):
        train_all(config)
    assert not (project / "champions.json").exists()


@pytest.mark.slow(3)
def test_registering_again_makes_no_new_version(finished_project):
    project, config, tracking = finished_project, load_config(), connect(finished_project)
    before = (project / "champions.json").read_bytes()
    register(config, read_schema(CLIENTS / "schema.json"), connect(project), project)
    assert (project / "champions.json").read_bytes() == before
    assert len(tracking.client.search_model_versions("name = 'pfmsmt-NL'")) == 1


@pytest.mark.slow(1)
def test_every_version_says_where_it_comes_from_and_how_good_it_is(finished_project):
    project, tracking = finished_project, connect(finished_project)
    scores = json.loads((project / "evaluation/local-seed0/metrics.json").read_text())["scenarios"]["NL"]
    tags = find_version(tracking, "NL", "champion").tags
    assert {name: tags[name] for name in ("method", "seed", "dataset", "calibration", "test_calibrated")} == {
        "method": "local", "seed": "0", "dataset": "synthetic", "calibration": "platt", "test_calibrated": "true",
    }  # fmt: skip
    assert len(tags["data_fingerprint"]) == 64
    assert "git_commit" in tags
    for task in ("ctr", "ctcvr"):
        for metric in ("auc", "gauc", "logloss", "ece"):
            assert float(tags[f"test_{task}_{metric}"]) == scores[task][metric]
    assert float(tags["test_mean_auc"]) == np.mean([scores[task]["auc"] for task in ("ctr", "ctcvr")])
    result = json.loads((project / "models/local-seed0/result.json").read_text())["best"]["NL"]
    assert float(tags["val_ctr_auc"]) == result["validation"]["ctr"]["auc"]
    assert [(entry.action, entry.after) for entry in history(tracking, "NL")] == [("register", "1")]


@pytest.mark.slow(5)
def test_a_second_choice_is_a_challenger_until_it_is_promoted(project, configure, train_all, capsys):
    tracking = train_all(configure({"train.methods": ["local", "fedavg"], "register.methods": ["local"]}))
    schema = read_schema(CLIENTS / "schema.json")
    changes = {"train.methods": ["local", "fedavg"], "register.methods": ["fedavg"]}
    register(configure(changes), schema, tracking, project)
    assert "`pfmsmt models promote SCENARIO` replaces one" in capsys.readouterr().out
    champions = json.loads((project / "champions.json").read_text())
    for scenario, found in aliases(tracking).items():
        assert found == {"champion": "1", "challenger": "2"}
        assert (champions[scenario]["version"], champions[scenario]["alias"]) == ("2", "challenger")
        assert [entry.after for entry in history(tracking, scenario)] == ["1"]

    register(configure(changes | {"register.promote": "if_better"}), schema, tracking, project)
    output = capsys.readouterr().out
    better = set()
    for scenario, found in aliases(tracking).items():
        first, second = (find_version(tracking, scenario, number).metric("val_mean_auc") for number in ("1", "2"))
        if second > first:
            better.add(scenario)
            assert found == {"champion": "2"}
            last = history(tracking, scenario)[-1]
            assert (last.action, last.before, last.after, last.objections) == ("register", "1", "2", ())
        else:
            assert found == {"champion": "1", "challenger": "2"}
            said = f"it is not promoted: its val_mean_auc is {second:.4f}, the champion's {first:.4f}"
            assert said in output
    assert output.count("it is not promoted") == 3 - len(better)
    assert 0 < len(better) < 3  # else one of both branches was not seen


@pytest.mark.slow(4)
def test_a_version_of_other_rows_is_not_promoted_by_its_validation(project, configure, train_all, capsys):
    changes = {"train.methods": ["local", "fedavg"], "register.methods": ["local"]}
    tracking = train_all(configure(changes))
    other = read_schema(CLIENTS / "schema.json").model_copy(update={"fingerprint": "0" * 64})
    changes |= {"register.methods": ["fedavg"], "register.promote": "if_better"}
    register(configure(changes), other, tracking, project)
    assert capsys.readouterr().out.count("it is not promoted: the champion was validated on other rows") == 3
    assert {tuple(sorted(found)) for found in aliases(tracking).values()} == {("challenger", "champion")}


@pytest.mark.slow(4)
@pytest.mark.parametrize("promote", ["manual", "if_better"])
def test_a_champion_of_another_data_set_stays_and_is_named(project, configure, train_all, capsys, promote):
    changes = {"train.methods": ["local", "fedavg"], "register.methods": ["local"], "register.promote": promote}
    tracking = train_all(configure(changes))
    tracking.client.set_model_version_tag("pfmsmt-NL", "1", "dataset", "tabular")
    schema = read_schema(CLIENTS / "schema.json")
    register(configure(changes | {"register.methods": ["fedavg"]}), schema, tracking, project)
    said = "the champion, version 1, is a model of the data set tabular; `pfmsmt models promote NL --force` replaces it"
    assert capsys.readouterr().out.count(said) == 1
    assert aliases(tracking)["NL"] == {"champion": "1", "challenger": "2"}


@pytest.mark.slow(2)
def test_an_experiment_registers_nothing(project, configure, train_all, monkeypatch, capsys):
    monkeypatch.setenv("DVC_EXP_NAME", "lanky-fish")
    tracking = train_all(configure({"train.methods": ["local"]}))
    assert aliases(tracking) == {}
    said = "experiment lanky-fish: nothing is registered; `dvc repro -f -s register` registers its models"
    assert said in capsys.readouterr().out
    champions = json.loads((project / "champions.json").read_text())
    assert {(c["method"], c["version"], c["alias"]) for c in champions.values()} == {("local", None, None)}
    monkeypatch.delenv("DVC_EXP_NAME")
    register(load_config(), read_schema(CLIENTS / "schema.json"), tracking, project)
    assert aliases(tracking) == {scenario: {"champion": "1"} for scenario in ("ES", "NL", "US")}


@pytest.mark.slow(1)
def test_a_missing_or_damaged_result_is_named(project, configure, train_all):
    config = configure({"train.methods": ["local"]})
    train_all(config, "train")
    (project / "models/local-seed0/result.json").write_text("{}")
    schema = read_schema(CLIENTS / "schema.json")
    with pytest.raises(DataError, match=r"result\.json cannot be read"):
        register(config, schema, connect(project), project)
    shutil.rmtree(project / "models")
    with pytest.raises(DataError, match=r"result\.json cannot be read .*train@local-0"):
        register(config, schema, connect(project), project)
