"""The inputs of the comparison: read, or refused."""

import json

import pandas as pd
import pytest

from pfmsmt.core.errors import DataError


def edit(path, change):
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def test_everything_is_read(load):
    results = load(seeds=(1, 0))
    assert results.methods == ("pf_msmtrec", "fedavg", "centralized")
    assert [run.seed for run in results.of("fedavg")] == [0, 1]
    assert (results.scenarios, results.tasks) == (("NL", "ES"), ("ctr", "ctcvr"))
    first = results.runs[0]
    assert first.scores["NL"]["ctr"].auc == 0.75
    assert first.scores["ES"]["ctcvr"].auc is None
    assert first.history["auc"].isna().sum() == 2
    table = first.diagnostics.table
    own = table[(table["quantity"] == "listening") & (table["group"] == "expert/0") & (table["round"] == 2)]
    assert own[["client", "other", "value"]].to_numpy().tolist() == [
        ["ES", "ES", 0.75], ["ES", "NL", 0.25], ["NL", "ES", 0.5], ["NL", "NL", 0.5],
    ]  # fmt: skip
    assert first.diagnostics.traffic["bytes_up"].tolist() == [512, 1024] * 2
    assert results.of("fedavg")[0].diagnostics is None


def test_order_of_scenarios_and_tasks_is_the_callers(load):
    results = load(scenarios=["ES", "NL"], tasks=["ctcvr", "ctr"])
    assert (results.scenarios, results.tasks) == (("ES", "NL"), ("ctcvr", "ctr"))


def test_folders_of_other_runs_are_ignored(load):
    assert load(methods=("fedavg",)).methods == ("fedavg",)


def test_no_oracle_file_is_no_oracle(load, inputs):
    assert load(oracle=inputs / "none.json").oracle is None
    assert load(oracle=None).oracle is None


def test_a_scenario_may_be_called_na(load, inputs):
    for path in [*inputs.rglob("*.csv"), *inputs.rglob("*.json")]:
        path.write_text(path.read_text().replace("NL", "NA"))
    assert set(load().runs[0].history["scenario"]) == {"NA", "ES"}


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("evaluation/fedavg-seed0/metrics.json", "evaluate"),
        ("evaluation/fedavg-seed0/roc.csv", "evaluate"),
        ("evaluation/fedavg-seed0/calibration.csv", "evaluate"),
        ("evaluation/fedavg-seed0/replicates.parquet", "evaluate"),
        ("models/fedavg-seed0/history.csv", "train"),
    ],
)
def test_missing_and_damaged_files_are_named(load, inputs, file, stage):
    (inputs / file).write_text('{"method": "fedavg"')
    with pytest.raises(DataError, match=rf"{file} is damaged: .*run `dvc repro -f {stage}`"):
        load()
    (inputs / file).unlink()
    with pytest.raises(DataError, match=rf"{file} does not exist; run `dvc repro {stage}` first"):
        load()


def test_a_cell_that_is_no_number(load, inputs):
    path = inputs / "evaluation/fedavg-seed0/roc.csv"
    path.write_text(path.read_text().replace("0.25", "abc", 1))
    with pytest.raises(DataError, match=r"roc\.csv is damaged: .*abc"):
        load()


def test_nan_in_metrics_is_refused(load, inputs):
    edit(
        inputs / "evaluation/fedavg-seed0/metrics.json",
        lambda tree: tree["scenarios"]["NL"]["ctr"].update(auc=float("nan")),
    )
    with pytest.raises(DataError, match=r"scenarios\.NL\.ctr\.auc: .*finite"):
        load()


def test_a_missing_scenario_is_named(load, inputs):
    edit(inputs / "evaluation/fedavg-seed0/metrics.json", lambda tree: tree["scenarios"].pop("ES"))
    with pytest.raises(DataError, match=r"fedavg-seed0.*missing: ES/ctr, ES/ctcvr"):
        load()


def test_other_test_rows_are_refused(load, inputs):
    edit(
        inputs / "evaluation/fedavg-seed0/metrics.json", lambda tree: tree["scenarios"]["NL"]["ctr"].update(positives=9)
    )
    with pytest.raises(DataError, match=r"NL/ctr was scored on 80 rows with 9 positives, but pf_msmtrec-seed0 on 80"):
        load()


def test_a_file_of_another_run_is_refused(load, inputs):
    edit(inputs / "evaluation/fedavg-seed0/metrics.json", lambda tree: tree.update(seed=7))
    with pytest.raises(DataError, match=r"belongs to fedavg-seed7, not to fedavg-seed0"):
        load()


def test_a_matrix_must_be_whole(load, inputs):
    path = inputs / "models/pf_msmtrec-seed0/diagnostics.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    with pytest.raises(DataError, match=r"listening of group expert/0 is not a 2 x 2 matrix in every round"):
        load()


def test_damaged_diagnostics_are_named(load, inputs):
    folder = inputs / "models/pf_msmtrec-seed0"
    kept = pd.read_parquet(folder / "diagnostics.parquet")
    kept.drop(columns="other").to_parquet(folder / "diagnostics.parquet")
    with pytest.raises(DataError, match=r"diagnostics\.parquet is damaged: .*run `dvc repro -f train`"):
        load()
    (folder / "diagnostics.parquet").write_text("x")
    with pytest.raises(DataError, match=r"diagnostics\.parquet is damaged: .*run `dvc repro -f train`"):
        load()
    kept.to_parquet(folder / "diagnostics.parquet")
    (folder / "traffic.csv").unlink()
    with pytest.raises(DataError, match=r"traffic\.csv does not exist; run `dvc repro train` first"):
        load()


def test_nothing_to_compare(load):
    with pytest.raises(DataError, match="no run to compare"):
        load(methods=())
