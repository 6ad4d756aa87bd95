"""A second training on all rows: the same as one from the start, of as many rounds as the first one chose."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pfmsmt.config import METHOD_NAMES
from pfmsmt.core.errors import ConfigError
from pfmsmt.data.schema import read_schema
from pfmsmt.data.shards.budget import GIB
from pfmsmt.data.shards.streamed import StreamedShard
from pfmsmt.models.calibration import Calibration
from pfmsmt.training.client import Best
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import build_federation, load_data, plan_rows
from pfmsmt.training.refit import Refit
from pfmsmt.training.rounds import run_rounds
from pfmsmt.training.scores import Score
from pfmsmt.training.trial import run_trial

CPU = torch.device("cpu")
PRIVATE = ("categorical_3", "categorical_9")
REFIT = {"train.refit": True, "data.private_fields": list(PRIVATE)}
LARGE = {"train.large_table_rows": 1}
TABLE = "private/table"


@pytest.fixture(scope="module")
def shards(make_data):
    return make_data(private_fields=PRIVATE) / "data/clients"


@pytest.fixture(scope="module")
def schema(shards):
    return read_schema(shards / "schema.json")


@pytest.fixture(scope="module")
def joined(shards, schema, tmp_path_factory):
    """Shards whose training part has the validation rows as well."""
    folder = tmp_path_factory.mktemp("joined") / "clients"
    shutil.copytree(shards, folder)
    for scenario in schema.scenarios:
        parts = [pq.read_table(shards / scenario / f"{split}.parquet") for split in ("train", "val")]
        pq.write_table(pa.concat_tables(parts), folder / scenario / "train.parquet")
    return folder


@pytest.fixture
def trial(make_config, shards, schema):
    def run(method, changes=None, folder=shards):
        return run_trial(
            make_config({**REFIT, **(changes or {})}), schema, folder, method, 0, CPU, workers=1, threads=1
        )

    return run


@pytest.fixture
def models_by_round(make_config, schema, joined):
    """Return a function that trains on the joined rows: (client, round) -> parameters, large tables among them."""

    def run(method, changes):
        config = make_config({**REFIT, **changes, "train.refit": False})
        rows = [counts["train"].rows for counts in schema.counts.values()]
        # Batches grow with rows: their mean stays that of the first training.
        federation = build_federation(config, schema, joined, method, 0, CPU, mean_rows=sum(rows) / len(rows))
        server = federation.method.init(federation.initial_parameters, federation.names)
        found = {}
        with InProcess(federation.clients, 1, 1) as exchange:
            for result in run_rounds(federation.method, exchange, server, federation.names, rounds=4, quorum=1.0):
                for name, client in federation.clients.items():
                    found[name, result.round] = dict(client._averages[result.round].parameters)
                    if client.learner.large is not None:
                        found[name, result.round][TABLE] = client.learner.large.table.detach().numpy().copy()
        return found

    return run


@pytest.mark.slow(4)
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        *((name, {}) for name in METHOD_NAMES),
        *((m, {"train.large_table_rows": 1}) for m in ("pf_msmtrec", "joint")),
    ],
)
def test_each_client_keeps_its_chosen_round_of_a_training_on_all_rows(
    trial, models_by_round, schema, shards, equal_arrays, method, changes
):
    once, again = trial(method, {**changes, "train.refit": False}), trial(method, changes)
    assert again.validation == once.validation
    expected = models_by_round(method, changes)
    for name, client in again.federation.clients.items():
        first = once.federation.clients[name].best
        assert client.best[:3] == first[:3]
        kept = client.best_parameters()
        assert equal_arrays(kept, expected[name, first.round])
        assert not equal_arrays(kept, once.federation.clients[name].best_parameters())
        assert client.learner.data.train.rows == sum(schema.counts[name][split].rows for split in ("train", "val"))
        assert client.learner.data.validation == {}
    tested = again.test(schema, shards)
    assert tested == again.test(schema, shards)
    assert tested != once.test(schema, shards)


@pytest.mark.slow(1)
def test_both_trainings_read_rows_in_one_way(trial, make_config, schema, shards, tmp_path, equal_arrays):
    """Memory that would hold the training rows, but not all: the first training streams as well."""
    for scenario in schema.scenarios:
        (tmp_path / scenario).mkdir()
        for split in ("train", "val", "test"):
            table = pq.read_table(shards / scenario / f"{split}.parquet")
            pq.write_table(table, tmp_path / scenario / f"{split}.parquet", row_group_size=8)
    changes = {"train.shuffle": "row_groups", "train.shuffle_rows": 16}

    def needed(refit):
        config = make_config({**REFIT, **changes, "train.refit": refit})
        return plan_rows(config, schema, tmp_path, "local").needed

    assert needed(False) < needed(True)
    little = {**changes, "run.memory": (needed(True) - 1) / GIB}
    config = make_config({**REFIT, **little})
    for refits in (False, True):
        data = load_data(config, schema, tmp_path, "local", joined=refits)
        assert all(isinstance(part.train, StreamedShard) for part in data.values())
    streamed, held = trial("local", little, tmp_path), trial("local", changes, tmp_path)
    assert streamed.validation == held.validation
    for name, client in held.federation.clients.items():
        assert equal_arrays(client.best.parameters, streamed.federation.clients[name].best.parameters)


def test_a_client_that_misses_its_round_keeps_the_one_before(make_config, shards, schema, equal_arrays):
    best = Best(3, Score(0.5, -0.5), {}, {})
    refit = Refit(dict.fromkeys(schema.scenarios, best), {})
    assert refit.rounds == 3
    kept = []
    for last in (2, 3):
        federation = build_federation(make_config(REFIT), schema, shards, "local", 0, CPU, refit=refit)
        server = federation.method.init(federation.initial_parameters, federation.names)
        with InProcess(federation.clients, 1, 1) as exchange:
            list(run_rounds(federation.method, exchange, server, federation.names, rounds=last, quorum=1.0))
        client = federation.clients["NL"]
        assert equal_arrays(client.best.parameters, client._averages[last].parameters)
        kept.append(client.best.parameters)
    assert not equal_arrays(*kept)


def test_findings_come_back_from_a_checkpoint_to_the_bit():
    validation = {"NL": {"ctr": {"auc": 0.1 + 0.2, "logloss": None}}}
    line = Calibration(kind="platt", slopes=(1 / 3, 2.0), intercepts=(-0.1, 1e-17))
    refit = Refit({"NL": Best(7, Score(1 / 7, -0.3), validation, {})}, {"NL": line})
    assert Refit.load(json.loads(json.dumps(refit.save()))) == refit


def test_noise_is_refused(make_config):
    with pytest.raises(ConfigError, match=r"train\.refit trains twice, .* set train\.refit to false, or"):
        make_config({"train.refit": True, "privacy.clip": 1.0, "privacy.noise": 0.5})
    assert make_config({"train.refit": True, "privacy.clip": 1.0}).train.refit
