"""The pipeline with `train.refit`: what is logged of both trainings, and that a broken one goes on in either."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfmsmt.commands.train import train
from pfmsmt.core.errors import TrainingError
from pfmsmt.core.types import Stream
from pfmsmt.data.schema import encoded_column, read_schema
from pfmsmt.data.shards.order import batch_rows
from pfmsmt.tracking import connect
from pfmsmt.training.local import client_batch_size

CLIENTS = Path("data/clients")
NUMBER = encoded_column("numerical_1")
RUN = "pf_msmtrec-seed0"


def go(project, config, method="pf_msmtrec"):
    return train(config, read_schema(CLIENTS / "schema.json"), method, 0, connect(project), project)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def points(project, run_id):
    client = connect(project).client
    keys = [key for key in client.get_run(run_id).data.metrics if "seconds" not in key]
    return {key: [(p.step, p.value) for p in client.get_metric_history(run_id, key)] for key in keys}


def best(project, run=RUN):
    return json.loads((project / f"models/{run}/result.json").read_text())["best"]


@pytest.mark.slow(6)
def test_what_describes_the_model_is_of_the_first_training(project, configure):
    once = go(project, configure())
    plain, files = best(project), contents(project / f"models/{RUN}")
    twice = go(project, configure({"train.refit": True}))
    found, again = best(project), contents(project / f"models/{RUN}")
    counts = read_schema(CLIENTS / "schema.json").counts
    rows = {name: counts[name]["train"].rows + counts[name]["val"].rows for name in counts}
    assert found == {name: {**plain[name], "refit_rows": rows[name]} for name in plain}
    assert again["history.csv"] == files["history.csv"]
    assert again["diagnostics.parquet"] == files["diagnostics.parquet"]
    for name in plain:
        assert again[f"{name}/model.json"] == files[f"{name}/model.json"]  # the calibration, among others
        assert again[f"{name}/weights.safetensors"] != files[f"{name}/weights.safetensors"]

    last = 4 + max(cell["round"] for cell in plain.values())
    first, both = points(project, once["run_id"]), points(project, twice["run_id"])
    for key in ("val/mean_auc", "val/US/ctr_auc", "server/expert_conflicts"):
        assert both[key] == first[key]
    for key in ("train/US/loss", "server/bytes_up"):
        assert both[key][:4] == first[key]
        assert [step for step, _ in both[key]] == list(range(1, last + 1))
    # All that passed is in the ledger's traffic, of both trainings.
    traffic = pd.read_csv(project / f"models/{RUN}/traffic.csv")
    assert sorted(traffic["round"].unique()) == list(range(1, last + 1))
    assert (traffic.groupby("client")["tensors_up"].nunique() == 1).all()
    client = connect(project).client
    assert client.get_run(twice["run_id"]).data.params["train.refit"] == "True"
    for name, model in twice["models"].items():
        assert client.get_logged_model(model).params["refit_rows"] == str(rows[name])
    assert "refit_rows" not in client.get_logged_model(once["models"]["NL"]).params


@pytest.mark.slow(5)
def test_reports_and_versions_say_on_how_many_rows(project, configure, train_all, capsys):
    config = configure({"train.methods": ["local", "centralized"], "train.refit": True, "register.methods": ["local"]})
    tracking = train_all(config, "all")
    counts = read_schema(CLIENTS / "schema.json").counts
    rows = {name: counts[name]["train"].rows + counts[name]["val"].rows for name in counts}
    output = capsys.readouterr().out
    assert f"local-seed0: training again, on all {sum(rows.values()):,} training and validation rows" in output
    (line,) = [line for line in output.splitlines() if line.startswith("local-seed0: NL: test AUC")]
    assert line.endswith(f"(trained again on {rows['NL']:,} rows)")
    text = (project / "reports/comparison.md").read_text()
    listed = ", ".join(f"{name} {rows[name]:,}" for name in rows)
    assert f"All models were trained again, on training and validation rows ({listed})." in text
    reference = json.loads((project / "evaluation/centralized-seed0/metrics.json").read_text())
    assert reference["refit_rows"] == rows
    for name, champion in json.loads((project / "champions.json").read_text()).items():
        version = tracking.client.get_model_version(f"pfmsmt-{name}", champion["version"])
        assert version.tags["refit_rows"] == str(rows[name])
        result = json.loads((project / "models/local-seed0/result.json").read_text())["best"][name]
        assert float(version.tags["val_mean_auc"]) == result["mean_auc"]


SHORT = {"train.rounds": 5, "train.local_steps": 1, "train.refit": True}


@pytest.fixture
def poison(project):
    """Return a function that puts a value into a row of ES that makes the loss nan, and one that takes it out."""
    path = project / CLIENTS / "ES/train.parquet"
    kept = path.read_bytes()

    def spoil(row):
        table = pq.read_table(path)
        numbers = table[NUMBER].to_numpy().copy()
        numbers[row] = np.nan
        place = table.column_names.index(NUMBER)
        pq.write_table(table.set_column(place, NUMBER, pa.array(numbers)), path)

    return spoil, lambda: path.write_bytes(kept)


def row_of(config, round_):
    """Return a training row of ES that the second training first meets in a round, and the first one never."""
    counts = read_schema(CLIENTS / "schema.json").counts

    def met(*splits):
        rows = {name: sum(cell[split].rows for split in splits) for name, cell in counts.items()}
        mean = sum(cell["train"].rows for cell in counts.values()) / len(rows)
        size = client_batch_size(config.train.batch_size, rows["ES"], mean)
        return [set(b.tolist()) for b in batch_rows(Stream(0, "ES", 1), rows["ES"], size, 0, config.train.rounds)]

    earlier = set().union(*met("train"), *met("train", "val")[: round_ - 1])
    return next(row for row in met("train", "val")[round_ - 1] - earlier if row < counts["ES"]["train"].rows)


@pytest.mark.slow(5)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_broken_second_training_goes_on_bit_for_bit(project, configure, poison, capsys, at_the_end):
    spoil, heal = poison
    config = configure(SHORT)
    whole = go(project, config, "fedavg")
    expected = contents(project / "models")
    broken = max(cell["round"] for cell in best(project, "fedavg-seed0").values()) if at_the_end else 1
    spoil(row_of(config, broken))
    with pytest.raises(TrainingError) as error:
        go(project, config, "fedavg")
    assert str(error.value).startswith(f"round {broken}, client ES: the training loss became ")
    if broken > 1:
        assert f"The last good round of the second training, {broken - 1}, is saved in" in str(error.value)
    heal()
    capsys.readouterr()
    ids = go(project, config, "fedavg")
    output = capsys.readouterr().out
    assert f"fedavg-seed0: going on after round {broken - 1} of the second training" in output
    assert contents(project / "models") == expected
    assert points(project, ids["run_id"]) == points(project, whole["run_id"])
    run = connect(project).client.get_run(ids["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["resumed_at_round"] == str(5 + broken)
    assert not list((project / "checkpoints").iterdir())


@pytest.mark.slow(3)
def test_a_broken_first_training_goes_on_to_the_second(project, configure, poison, capsys):
    spoil, heal = poison
    config = configure(SHORT)
    go(project, config, "fedavg")
    expected = contents(project / "models")
    counts = read_schema(CLIENTS / "schema.json").counts
    rows = {name: cell["train"].rows for name, cell in counts.items()}
    size = client_batch_size(config.train.batch_size, rows["ES"], sum(rows.values()) / len(rows))
    first, *_, last = batch_rows(Stream(0, "ES", 1), rows["ES"], size, 0, 4)
    spoil(next(row for row in last.tolist() if row not in first))
    with pytest.raises(TrainingError, match="The last good round, 3, is saved"):
        go(project, config, "fedavg")
    heal()
    go(project, config, "fedavg")
    assert "fedavg-seed0: going on after round 3\n" in capsys.readouterr().out
    assert contents(project / "models") == expected
