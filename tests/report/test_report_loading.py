"""What the comparison reads, and what it refuses."""

import json

import pytest

from pfmsmt.errors import DataError


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
    assert first.listening.groups["expert/0"].tolist() == [[0.75, 0.25], [0.5, 0.5]]
    assert results.of("fedavg")[0].listening is None


def test_order_of_scenarios_and_tasks_is_the_callers(load):
    results = load(scenarios=["ES", "NL"], tasks=["ctcvr", "ctr"])
    assert (results.scenarios, results.tasks) == (("ES", "NL"), ("ctcvr", "ctr"))


def test_folders_of_other_runs_are_ignored(load):
    assert load(methods=("fedavg",)).methods == ("fedavg",)


def test_no_oracle_file_is_no_oracle(load, inputs):
    assert load(oracle=inputs / "none.json").oracle is None
    assert load(oracle=None).oracle is None


def test_a_scenario_may_be_called_na(load, inputs):
    for path in inputs.rglob("*.*"):
        path.write_text(path.read_text().replace("NL", "NA"))
    assert set(load().runs[0].history["scenario"]) == {"NA", "ES"}


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("evaluation/fedavg-seed0/metrics.json", "evaluate"),
        ("evaluation/fedavg-seed0/roc.csv", "evaluate"),
        ("evaluation/fedavg-seed0/calibration.csv", "evaluate"),
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


def test_a_listening_matrix_must_be_square(load, inputs):
    edit(
        inputs / "models/pf_msmtrec-seed0/listening.json",
        lambda tree: tree["groups"].update({"expert/0": [[1.0, 0.0]]}),
    )
    with pytest.raises(DataError, match=r"group expert/0 is not a 2 x 2 matrix"):
        load()


def test_nothing_to_compare(load):
    with pytest.raises(DataError, match="no run to compare"):
        load(methods=())
