import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pfmsmt.commands.train import train
from pfmsmt.core.errors import CheckpointError, ConfigError, TrainingError
from pfmsmt.data.schema import encoded_column, read_schema
from pfmsmt.tracking import connect
from pfmsmt.training.run import fallbacks, fingerprint, run_params
from tests.support.environment import bare_environment
from tests.support.shards import read_shard

REPOSITORY = Path(__file__).parents[2]
CLIENTS = Path("data/clients")
NUMBER = encoded_column("numerical_1")
METHODS = ["pf_msmtrec", "fedavg", "local"]


def go(project, config, method, seed=0):
    return train(config, read_schema(CLIENTS / "schema.json"), method, seed, connect(project), project)


def test_a_run_depends_on_its_own_block_alone(schema, make_config):
    """Or a run would go on, from its checkpoint, with another model; DVC follows the same blocks."""

    def decided(name, changes):
        return fingerprint(run_params(make_config(changes), name, 0, "cpu", "rows"), schema)

    for key, value in (("private_experts", 7), ("rank", 3)):
        for name in ("pf_msmtrec", "joint"):
            change = {f"methods.{name}.{key}": value}
            assert [one for one in [*METHODS, "joint"] if decided(one, change) != decided(one, {})] == [name]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def runs(project):
    tracking = connect(project)
    return tracking.client.search_runs([tracking.experiment_id])


def points(project, run_id):
    client = connect(project).client
    keys = [key for key in client.get_run(run_id).data.metrics if "seconds" not in key]
    return {key: [(p.step, p.value) for p in client.get_metric_history(run_id, key)] for key in keys}


def models(project, run_id):
    tracking = connect(project)
    found = tracking.client.search_logged_models([tracking.experiment_id], f"source_run_id = '{run_id}'")
    return sorted(model.name for model in found)


@pytest.mark.slow(4)
@pytest.mark.parametrize("method", [*METHODS, "joint"])
def test_the_same_seed_writes_the_same_files(project, configure, method):
    config = configure()
    ids = go(project, config, method)
    first = contents(project / "models")
    again = go(project, configure({"run.workers": 3, "run.checkpoint_every": 1}), method)
    assert contents(project / "models") == first
    assert ids["run_id"] != again["run_id"]
    assert points(project, ids["run_id"]) == points(project, again["run_id"])
    assert not (project / "checkpoints" / f"{method}-seed0").exists()
    names = {Path(name).name for name in first}
    expected = {"history.csv", "result.json", "model.json", "weights.safetensors", "ledger.csv", "traffic.csv"}
    assert names == expected | ({"diagnostics.parquet"} if method == "pf_msmtrec" else set())
    go(project, config, method, seed=1)
    assert (project / f"models/{method}-seed1/history.csv").read_bytes() != first[f"{method}-seed0/history.csv"]


@pytest.mark.slow(3)
def test_history_and_result(project, configure):
    go(project, configure(), "fedavg")
    history = pd.read_csv(project / "models/fedavg-seed0/history.csv")
    assert len(history) == 4 * 3 * 2
    best = json.loads((project / "models/fedavg-seed0/result.json").read_text())["best"]
    for scenario, found in best.items():
        own = history[history.scenario == scenario]
        labels = read_shard(CLIENTS / scenario / "val.parquet", columns=["ctr", "ctcvr"]).sum()
        weighted = own.assign(auc=own.auc * own.task.map(labels) / labels.sum()).groupby("round").auc.sum()
        assert found["round"] == weighted.idxmax()
        means = own.groupby("round").auc.mean()
        assert found["mean_auc"] == pytest.approx(means[found["round"]], abs=1e-12)
        for task, cell in found["validation"].items():
            row = own[(own["round"] == found["round"]) & (own.task == task)].iloc[0]
            assert (cell["auc"], cell["logloss"]) == (row.auc, row.logloss)


@pytest.fixture(scope="module")
def explained(tmp_path_factory, data, fill_project, make_config):
    """A project in which pf_msmtrec was trained, (ids, output) of the training: for tests that only read."""
    folder = fill_project(data, tmp_path_factory.mktemp("explained") / "project")
    with bare_environment(), contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as output:
        ids = go(folder, make_config(), "pf_msmtrec")
    return folder, ids, output.getvalue()


@pytest.fixture
def trained(explained, clean_environment, monkeypatch):
    monkeypatch.chdir(explained[0])
    return explained


@pytest.mark.slow(3)
def test_one_run_with_every_round_and_a_model_for_each_scenario(trained):
    project, ids, _ = trained
    (run,) = runs(project)
    assert run.info.run_id == ids["run_id"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "pf_msmtrec-seed0"
    found = points(project, ids["run_id"])
    history = pd.read_csv(project / "models/pf_msmtrec-seed0/history.csv")
    for scenario in ("NL", "ES", "US"):
        for task in ("ctr", "ctcvr"):
            own = history[(history.scenario == scenario) & (history.task == task)]
            assert found[f"val/{scenario}/{task}_auc"] == list(zip(own["round"], own.auc, strict=True))
        assert [step for step, _ in found[f"train/{scenario}/loss"]] == [1, 2, 3, 4]
    assert models(project, ids["run_id"]) == ["pf_msmtrec-ES", "pf_msmtrec-NL", "pf_msmtrec-US"]
    assert set(ids["models"]) == {"NL", "ES", "US"}
    assert run.data.params["methods.pf_msmtrec.rank"] == "2"
    assert run.data.params["data.source"] == "synthetic"


@pytest.mark.slow(1)
def test_what_explains_a_run_is_logged_with_it(trained):
    project, ids, output = trained
    client = connect(project).client
    logged = {file.path for file in client.list_artifacts(ids["run_id"], "training")}
    files = ["result.json", "history.csv", "ledger.csv", "traffic.csv", "diagnostics.parquet"]
    assert logged == {f"training/{name}" for name in [*files, "pictures"]}
    pictures = {file.path: file.file_size for file in client.list_artifacts(ids["run_id"], "training/pictures")}
    assert set(pictures) == {f"training/pictures/{name}-pf_msmtrec.png" for name in ("listening", "cosine", "course")}
    assert min(pictures.values()) > 10_000
    folder, found = project / "models/pf_msmtrec-seed0", points(project, ids["run_id"])

    ledger, traffic = pd.read_csv(folder / "ledger.csv"), pd.read_csv(folder / "traffic.csv")
    up = ledger[ledger.direction == "up"]
    assert set(up.role) == {"embedding", "expert", "first_order", "gate", "tower", "number"}
    for name in ("NL", "ES", "US"):
        own = traffic[traffic.client == name]
        for direction in ("up", "down"):
            assert found[f"server/{name}/bytes_{direction}"] == list(
                zip(own["round"], own[f"bytes_{direction}"], strict=True)
            )
    assert (
        "KiB, left each client in a round (embedding, expert, first_order, gate, tower); never: norm, task\n" in output
    )

    table = pd.read_parquet(folder / "diagnostics.parquet")
    gates = table[(table.quantity == "drift") & table.group.isin(["gate/ctr", "gate/ctcvr"]) & (table.client == "ES")]
    means = gates.groupby("round").value.mean()
    assert [step for step, _ in found["server/ES/gate_drift"]] == means.index.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose([value for _, value in found["server/ES/gate_drift"]], means, rtol=1e-6)
    weights = [found[f"server/ES/{name}"][-1][1] for name in (
        "expert_own_weight", "listens_to/NL_expert", "listens_to/US_expert",
    )]  # fmt: skip
    assert sum(weights) == pytest.approx(1)
    assert "server/ES/listens_to/ES_expert" not in found


def interrupted(project, method, after):
    """Start a training as a user does, and kill it without mercy once it has logged `after` rounds."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train", method, "0"], cwd=project, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    folder = project / "checkpoints" / f"{method}-seed0"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if folder.exists() and round_of(folder) >= after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)  # a checkpoint comes every tenth of a second
    output = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGKILL, output


def round_of(folder):
    from pfmsmt.training.tree import read_tree

    try:
        return read_tree(folder / "server.safetensors")[1]["round"]
    except CheckpointError:  # between two checkpoints
        return 0


@pytest.mark.slow(15)
def test_a_killed_training_goes_on_bit_for_bit(project, configure, capsys):
    """With the method that keeps most between rounds; what others keep comes back below."""
    method = "pf_msmtrec"
    config = configure({"train.rounds": 24, "run.checkpoint_every": 3})
    whole = go(project, config, method)
    expected = contents(project / "models")
    interrupted(project, method, after=6)
    assert contents(project / "models") == expected
    assert not (project / "runs").exists()
    killed = next(run for run in runs(project) if run.info.run_id != whole["run_id"])
    assert killed.info.status == "RUNNING"
    capsys.readouterr()

    ids = go(project, config, method)
    done = int(capsys.readouterr().out.split("going on after round ")[1].split()[0])
    assert 6 <= done < 24
    assert done % 3 == 0
    assert contents(project / "models") == expected
    assert ids["run_id"] == killed.info.run_id
    assert len(runs(project)) == 2
    assert points(project, ids["run_id"]) == points(project, whole["run_id"])
    assert models(project, ids["run_id"]) == models(project, whole["run_id"])
    run = connect(project).client.get_run(ids["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["resumed_at_round"] == str(done + 1)
    assert not list((project / "checkpoints").iterdir())


PLAIN = {
    "pf_msmtrec": {"methods.pf_msmtrec.server_optimizer": "plain", "methods.pf_msmtrec.tower_steps": 0},
    "fedavg": {"methods.fedavg.server_optimizer": "plain"},
}


@pytest.mark.slow(0.8)
@pytest.mark.parametrize(("method", "changes"), [*PLAIN.items(), ("fedavg", {}), ("local", {}), ("joint", {})])
def test_a_stopped_training_goes_on_bit_for_bit(project, configure, make_federation, method, changes):
    """Server optimisers with and without state, methods that share nothing: all come back from disk."""
    from pfmsmt.training.checkpoint import Checkpoint
    from pfmsmt.training.exchange import InProcess
    from pfmsmt.training.history import History
    from pfmsmt.training.rounds import run_rounds

    given = {"rounds": 5, "quorum": 0.5}

    def rounds(federation, exchange, server, **more):
        return run_rounds(federation.method, exchange, server, federation.names, **given, **more)

    whole = make_federation(method, changes)
    server = whole.method.init(whole.clients[whole.names[0]].initial_parameters, whole.names)
    history = History()
    with InProcess(whole.clients, 1, 1) as exchange:
        for result in rounds(whole, exchange, server):
            history.add(result)
    whole.save_models(project / "whole", history)

    first, history, checkpoint = make_federation(method, changes), History(), project / "checkpoints/x"
    with InProcess(first.clients, 1, 1) as exchange:
        for result in rounds(first, exchange, server):
            history.add(result)
            if result.round == 2:
                Checkpoint(checkpoint, "a" * 64).save(result, first.save, history, "run")
            if result.round == 3:
                break

    second, history = make_federation(method, changes), History()
    server, done, run_id = Checkpoint(checkpoint, "a" * 64).load(second.load, history)
    assert (done, run_id) == (2, "run")
    with InProcess(second.clients, 2, 1) as exchange:
        for result in rounds(second, exchange, server, first=3):
            history.add(result)
    second.save_models(project / "resumed", history)
    assert contents(project / "whole") == contents(project / "resumed")


@pytest.fixture
def poisoned(project):
    """One client's shard holds a value that makes the loss nan once a batch meets it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = project / CLIENTS / "ES/train.parquet"
    table = pq.read_table(path)
    kept = path.read_bytes()

    def poison(position):
        numbers = table[NUMBER].to_numpy().copy()
        numbers[position] = np.nan
        place = table.column_names.index(NUMBER)
        pq.write_table(table.set_column(place, NUMBER, pa.array(numbers)), path)

    def heal():
        path.write_bytes(kept)

    return poison, heal


def position_of(project, config, round_, steps):
    """The row that client ES meets in a given round and never before."""
    from pfmsmt.core.types import Stream
    from pfmsmt.data.shards.order import batch_rows
    from pfmsmt.data.shards.resident import load_shard
    from pfmsmt.training.local import client_batch_size

    schema = read_schema(CLIENTS / "schema.json")
    rows = {name: load_shard(CLIENTS, "train", schema.scenario(name)).rows for name in schema.scenarios}
    size = client_batch_size(config.train.batch_size, rows["ES"], sum(rows.values()) / 3)
    batches = list(batch_rows(Stream(0, "ES", 1), rows["ES"], size, 0, steps * round_))
    before = set(np.concatenate(batches[: steps * (round_ - 1)]).tolist())
    return next(row for row in batches[-steps].tolist() if row not in before)


@pytest.mark.slow(2)
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_round(project, configure, poisoned):
    """The bad row is met in round 3 of 5, and checkpoints come every 2."""
    poison, heal = poisoned
    config = configure({"train.rounds": 5, "train.local_steps": 1})
    expected = go(project, config, "fedavg")
    whole = contents(project / "models/fedavg-seed0")
    poison(position_of(project, config, 3, 1))
    with pytest.raises(TrainingError) as error:
        go(project, config, "fedavg", seed=0)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("round 3, client ES: the training loss became ")
    assert lines[-1] == "The last good round, 2, is saved in checkpoints/fedavg-seed0."
    assert contents(project / "models/fedavg-seed0") == whole  # of the run before
    failed = next(run for run in runs(project) if run.info.run_id != expected["run_id"])
    assert failed.info.status == "FAILED"
    assert failed.data.tags["failure"].startswith("round 3, client ES: the training loss became ")
    assert round_of(project / "checkpoints/fedavg-seed0") == 2
    assert points(project, failed.info.run_id).keys() >= {"val/mean_auc"}

    heal()
    ids = go(project, config, "fedavg")
    assert ids["run_id"] == failed.info.run_id
    assert contents(project / "models/fedavg-seed0") == whole
    assert points(project, ids["run_id"]) == points(project, expected["run_id"])
    run = connect(project).client.get_run(ids["run_id"])
    assert run.info.status == "FINISHED"
    assert "failure" not in run.data.tags


def test_nothing_is_written_when_the_first_round_fails(project, configure):
    config = configure({"methods.local.learning_rate": 1e30, "methods.local.weight_decay": 0.0})
    with pytest.raises(TrainingError, match=r"^round 1, client ES"):
        go(project, config, "local")
    assert not (project / "models").exists()
    (run,) = runs(project)
    assert (run.info.status, models(project, run.info.run_id)) == ("FAILED", [])


@pytest.fixture
def checkpointed(project, configure, poisoned):
    """A failed training that left a checkpoint of round 2."""
    poison, heal = poisoned
    config = configure({"train.rounds": 5, "train.local_steps": 1})
    poison(position_of(project, config, 3, 1))
    with pytest.raises(TrainingError):
        go(project, config, "fedavg")
    heal()
    return project / "checkpoints/fedavg-seed0"


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    "changes",
    [
        {"methods.fedavg.learning_rate": 0.1},
        {"train.rounds": 6},
        {"model.tower_layers": []},
        {"train.task_weights": [1.0, 2.0]},
    ],
)
def test_a_checkpoint_of_another_configuration_is_not_taken_up(checkpointed, project, configure, capsys, changes):
    base = {"train.rounds": 5, "train.local_steps": 1}
    go(project, configure(base | changes), "fedavg")
    output = capsys.readouterr().out
    assert f"{checkpointed} is of another configuration or data: starting anew" in output
    assert "going on" not in output
    assert len(runs(project)) == 2


def test_what_was_not_solved_is_said():
    found = {"server/expert_solver_fallbacks": 2.0, "server/tower_solver_fallbacks": 0.0, "server/expert_cosine": 0.5}
    assert fallbacks(found) == (
        "conflict coordination did not converge for expert (2); the mean of the updates is used there"
    )
    assert fallbacks({"server/tower_solver_fallbacks": 0.0, "server/expert_cosine": 0.5}) is None


def test_a_rank_larger_than_the_input_is_refused_before_training(project, configure):
    """The tiny data's input is narrower than its first expert layer is wide."""
    width = {"model.embedding_dim": 1, "model.expert_layers": [200], "methods.pf_msmtrec.rank": 200}
    message = r"methods\.pf_msmtrec\.rank = 200 is larger than the model's input, which is \d+ wide"
    with pytest.raises(ConfigError, match=message):
        go(project, configure(width), "pf_msmtrec")
    assert not (project / "models").exists()


def test_a_rank_of_the_papers_preset_counts_only_where_it_is_trained(project, configure):
    config = configure({"model.expert_layers": [6, 3], "train.rounds": 1})
    message = r"methods\.pf_msmtrec_paper\.rank = 4 is larger than the smallest of model\.expert_layers \(3\)"
    with pytest.raises(ConfigError, match=message):
        go(project, config, "pf_msmtrec_paper")
    go(project, config, "fedavg")


@pytest.mark.slow(1)
def test_a_checkpoint_is_taken_up_with_another_number_of_workers(checkpointed, project, configure, capsys):
    base = {"train.rounds": 5, "train.local_steps": 1, "run.workers": 2, "run.checkpoint_every": 1}
    go(project, configure(base | {"methods.local.learning_rate": 0.1}), "fedavg")
    assert "going on after round 2" in capsys.readouterr().out
    assert len(runs(project)) == 1


@pytest.mark.slow(1)
def test_a_checkpoint_whose_run_is_gone_goes_on_in_a_new_run(checkpointed, project, configure):
    (run,) = runs(project)
    connect(project).client.delete_run(run.info.run_id)
    ids = go(project, configure({"train.rounds": 5, "train.local_steps": 1}), "fedavg")
    assert ids["run_id"] != run.info.run_id
    assert points(project, ids["run_id"])["val/mean_auc"][-1][0] == 5
    assert len(pd.read_csv(project / "models/fedavg-seed0/history.csv")) == 5 * 6


@pytest.mark.parametrize("name", ["server", "NL"])
@pytest.mark.parametrize("kept", [0, 60, None])
def test_a_damaged_checkpoint_says_what_to_do(checkpointed, project, configure, name, kept):
    path = checkpointed / f"{name}.safetensors"
    path.unlink() if kept is None else path.write_bytes(path.read_bytes()[:kept])
    config = configure({"train.rounds": 5, "train.local_steps": 1})
    with pytest.raises(CheckpointError) as error:
        go(project, config, "fedavg")
    assert str(path) in str(error.value)
    assert str(error.value).lower().count("to start anew") == 1
    assert str(checkpointed) in str(error.value)
    assert not (project / "models").exists()
    assert len(runs(project)) == 1


@pytest.mark.slow(1)
def test_params_yaml_of_the_run_is_kept(trained):
    project, ids, _ = trained
    tracking = connect(project)
    text = tracking.client.download_artifacts(ids["run_id"], "params.yaml")
    assert yaml.safe_load(Path(text).read_text()) == yaml.safe_load((project / "params.yaml").read_text())
