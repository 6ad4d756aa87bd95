"""Applied values: every line of params.yaml but theirs stays as it is."""

import difflib
import re
from pathlib import Path

import pytest
import yaml

from pfmsmt.config import load_config
from pfmsmt.config.keys import value_at
from pfmsmt.core.errors import ConfigError
from pfmsmt.tuning.outcome import apply

PARAMS = Path(__file__).parents[2] / "params.yaml"

VALUES = {
    "methods.shared.private_learning_rate": 0.00002345,
    "methods.pf_msmtrec.gate": "federated",
    "methods.pf_msmtrec.federated_batch_norm": False,
    "methods.pf_msmtrec.linear_experts": 4,
    "model.expert_layers": [128, 64, 32],
    "model.dropout": 0.1,
    "train.rounds": 100,
}


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.read_bytes())
    return path


def test_lines_that_are_not_applied_stay_to_the_byte(params):
    before = params.read_text().splitlines()
    apply(VALUES, params)
    after = params.read_text().splitlines()
    assert len(after) == len(before)
    changed = {old: new for old, new in zip(before, after, strict=True) if old != new}
    shown = ["2.345e-05", "federated", "false", "4", "[128, 64, 32]", "0.1", "100"]
    expected = {}
    for key, text in zip(VALUES, shown, strict=True):
        block, _, last = key.rpartition(".")
        start = before.index(next(line for line in before if re.match(rf" *{block.split('.')[-1]}:", line)))
        old = next(line for line in before[start:] if re.match(rf" *{last}:", line))
        new = re.sub(rf"^( *{last}: )(\[.*?\]|\S+) *", lambda found, text=text: found[1] + text, old)
        value, comment = new.split("#")
        # The comment stays in its column where there is room.
        expected[old] = f"{value:{max(old.index('#'), len(value) + 1)}}#{comment}"
    assert changed == expected
    config = load_config(params)
    assert config.model.expert_layers == (128, 64, 32)
    assert config.methods.pf_msmtrec.private_learning_rate == 0.00002345
    assert config.methods.pf_msmtrec.federated_batch_norm is False


def test_applying_twice_and_back(params):
    # All of them have room before their comment.
    values = {"train.rounds": 100, "model.dropout": 0.25, "model.expert_layers": [8, 8], "model.experts": 16}
    old = {key: value_at(yaml.safe_load(PARAMS.read_text()), key) for key in values}
    apply(values, params)
    assert params.read_bytes() != PARAMS.read_bytes()
    apply(old, params)
    assert params.read_bytes() == PARAMS.read_bytes()


def test_line_ends_and_what_is_odd_stay(params):
    text = PARAMS.read_text().replace("rounds: 60  ", "'rounds' :   60  # sixty  \t#").replace("\n", "\r\n")
    params.write_bytes(text.encode())
    apply({"train.rounds": 7}, params)
    assert params.read_bytes().decode() == text.replace("'rounds' :   60  #", "'rounds' :   7   #")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("expert_layers: [64, 32]", "expert_layers:\n  - 64\n  - 32"),
        ("expert_layers: [64, 32]", "expert_layers: &layers [64, 32]\n  tower_layers: *layers"),
    ],
)
def test_forms_that_cannot_be_replaced_alone_are_refused_and_nothing_is_written(params, old, new):
    text = PARAMS.read_text().replace("  tower_layers: [32] ", "  #") if "tower" in new else PARAMS.read_text()
    params.write_text(text.replace(old, new))
    before = params.read_bytes()
    with pytest.raises(ConfigError, match="write it on one line"):
        apply({"model.expert_layers": [8, 8]}, params)
    assert params.read_bytes() == before
    assert [p.name for p in params.parent.iterdir()] == ["params.yaml"]


def test_a_key_that_is_gone(params):
    params.write_text(PARAMS.read_text().replace("  dropout:", "  dropuot:"))
    with pytest.raises(ConfigError, match=r"model\.dropout is no longer there"):
        apply({"model.dropout": 0.2}, params)


def test_a_value_that_the_models_refuse_is_not_written(params):
    with pytest.raises(ConfigError, match=r"model\.dropout: input should be less than 1"):
        apply({"model.dropout": 2.0}, params)
    assert params.read_bytes() == PARAMS.read_bytes()


def changed_lines(params):
    """Lines of the repository's params.yaml that are no longer there, and those that are new."""
    before, after = PARAMS.read_text().splitlines(), params.read_text().splitlines()
    found = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    return [line[2:] for line in found if line[0] == "-"], [line[2:] for line in found if line[0] == "+"]


def test_a_key_that_is_not_there_is_added_behind_the_others_of_its_block(params):
    apply({"methods.pf_msmtrec.learning_rate": 0.25, "methods.pf_msmtrec.smoothing": 0.5}, params)
    assert changed_lines(params) == ([], ["    learning_rate: 0.25", "    smoothing: 0.5"])
    lines = params.read_text().splitlines()
    assert lines[lines.index("    learning_rate: 0.25") - 1].startswith("    tower_steps: 4")
    methods = load_config(params).methods
    assert (methods.pf_msmtrec.learning_rate, methods.fedavg.learning_rate) == (0.25, 0.2)


def test_keys_of_an_empty_block_get_lines_below_it(params):
    params.write_text(PARAMS.read_text().replace("  fedavg: {}\n", "  fedavg: {}                # as it is\n"))
    apply({"methods.fedavg.learning_rate": 0.31, "methods.fedavg.server_optimizer": "plain"}, params)
    text = params.read_text()
    block = "  fedavg:                   # as it is\n    learning_rate: 0.31\n    server_optimizer: plain\n"
    assert text == PARAMS.read_text().replace("  fedavg: {}\n", block)
    assert load_config(params).methods.fedavg.learning_rate == 0.31


def test_keys_within_braces_stay_within_them(params):
    apply({"methods.fedprox.server_beta1": 0.5, "methods.fedprox.regularizer": 0.125}, params)
    assert changed_lines(params) == (
        ["  fedprox: {regularizer: 0.01}"], ["  fedprox: {regularizer: 0.125, server_beta1: 0.5}"]
    )  # fmt: skip


@pytest.mark.parametrize("methods", ["methods: {fedavg: {}}  # few\n", "methods: {}\n", "methods:\n  local: {}\n", ""])
@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_blocks_that_are_not_there_are_added(tmp_path, methods, end, ends):
    path = tmp_path / "params.yaml"
    text = f"seed: 3  # odd\n{methods}train:\n  rounds: 2  # two\n    # and no more\n".replace("\n", ends)
    text = text if end else text.rstrip()
    path.write_bytes(text.encode())
    values = {"methods.fedavg.learning_rate": 0.5, "train.averaging": 0.25, "model.expert_layers": [8, 8]}
    apply(values, path)
    config = load_config(path)
    assert (config.seed, config.train.rounds, config.train.averaging) == (3, 2, 0.25)
    assert (config.methods.fedavg.learning_rate, config.model.expert_layers) == (0.5, (8, 8))
    written = path.read_bytes().decode()
    assert written.count("\n") == written.count(ends)
    kept = [line for line in text.splitlines() if not line.startswith("methods")]
    assert [line for line in written.splitlines() if line in kept] == kept
    assert f"  rounds: 2  # two{ends}    # and no more{ends}  averaging: 0.25" in written
