"""A params.yaml of version 0.1.0, rewritten: the same values, the user's comments, whole files or nothing."""

import copy
import shutil
from pathlib import Path

import pytest
import yaml

from pfmsmt.config import load_config, parse_config
from pfmsmt.config.keys import GONE, MOVED, set_values, value_at
from pfmsmt.config.upgrade import upgrade
from pfmsmt.core.errors import ConfigError

OLD = Path(__file__).parents[1] / "support/params-0.1.0.yaml"

CHANGES = {
    "seed": 3,
    "data.source": "tabular",
    "data.tabular.path": "shop.csv",
    "train.rounds": 7,
    "train.device": "cuda:1",
    "train.memory": 0.5,
    "train.workers": 2,
    "train.checkpoint_every": 1,
    "train.wire": "float16",
    "train.clip": 0.25,
    "train.noise": 1.5,
    "train.delta": 0.001,
    "methods.pf_msmtrec.rank": 4,
    "methods.pf_msmtrec.learning_rate": 0.3,
    "methods.fedprox.regularizer": 0.5,
    "methods.ditto.server_optimizer": "plain",
    "methods.ditto.server_learning_rate": 1.0,
    "methods.local.learning_rate": 0.01,
    "serve.port": 6001,
    "tune.trials": 5,
    "tune.space": {"model.dropout": {"type": "float", "low": 0.1, "high": 0.6}},
}


def effective(old):
    """The meaning of an old file: every method had its own values, under the old keys."""
    tree = copy.deepcopy(old)
    for key, new in MOVED.items():
        place, _, name = key.rpartition(".")
        set_values(tree, {new: value_at(tree, place).pop(name)})
    for key in GONE:
        place, _, name = key.rpartition(".")
        del value_at(tree, place)[name]
    return parse_config(tree).model_dump(exclude={"methods": {"shared"}})


@pytest.fixture
def path(tmp_path):
    return Path(shutil.copy(OLD, tmp_path / "params.yaml"))


def edited(path, *pairs):
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)


@pytest.mark.parametrize("flow", [None, False, True])
def test_changed_values_mean_the_same(tmp_path, flow):
    """As a user has written them, and as programs do."""
    tree = yaml.safe_load(OLD.read_text())
    set_values(tree, CHANGES)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree, default_flow_style=flow, sort_keys=False))
    upgrade(path)
    found = load_config(path)
    assert found.model_dump(exclude={"methods": {"shared"}}) == effective(tree)
    assert (found.run.device, found.privacy.noise, found.tune.trials) == ("cuda:1", 1.5, 5)
    assert (found.methods.pf_msmtrec.learning_rate, found.methods.fedavg.learning_rate) == (0.3, 0.2)
    # What differs stays with its method, and nothing else does.
    methods = yaml.safe_load(path.read_text())["methods"]
    assert methods["fedavg"] == {}
    assert methods["ditto"] == {"regularizer": 0.1, "server_optimizer": "plain", "server_learning_rate": 1.0}
    assert methods["shared"]["learning_rate"] == 0.2


def test_every_change_is_told_and_a_second_time_there_is_none(path):
    changes = upgrade(path)
    assert [f"{old}: now {new}" for old, new in MOVED.items() if f"{old}: now {new}" not in changes] == []
    assert "methods.shared.learning_rate: 0.2, from pf_msmtrec, fedavg, fedprox, fedbn, fedper, ditto" in changes
    assert changes[-1] == "tune: moved to tune.yaml"
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert upgrade(path) == []
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_lines_that_nothing_is_wrong_with_stay_to_the_byte(path):
    upgrade(path)
    old, new = OLD.read_text().splitlines(), path.read_text().splitlines()
    start, end = old.index("train:"), old.index("methods:")
    assert new[:start] == old[:start]
    rest = old[old.index("evaluate:") : old.index(next(line for line in old if line[:5] == "tune:")) - 1]
    # A key that is gone takes the comment behind it along.
    gone = next(at for at, line in enumerate(rest) if line.startswith("  alias:"))
    assert new[new.index("evaluate:") :] == rest[:gone] + rest[gone + 2 :]
    # Keys that moved have their comments.
    moved = [line for line in old[start + 1 : end] if line.strip()]
    assert sorted(moved) == sorted(
        line for line in new[start + 1 : new.index("methods:")] if line.strip() and line not in ("run:", "privacy:")
    )
    assert {line.split(":")[0]: new[at - 1] for at, line in enumerate(new) if line in ("run:", "privacy:")} == {
        "run": "", "privacy": ""
    }  # fmt: skip


def test_a_users_own_comments_stay(path):
    edited(
        path,
        ("  device: auto    ", "  device: cpu     # ours\n  #"),
        ("    regularizer: 0.01  ", "    # from our own search\n    regularizer: 0.02  "),
        ("  fedbn:\n    learning_rate: 0.2  ", "  fedbn:\n    learning_rate: 0.2 # here\n    # of last spring\n    #"),
        ("    methods.fedavg.learning_rate", "    # wide\n    methods.fedavg.learning_rate"),
    )
    upgrade(path)
    text, search = path.read_text(), (path.parent / "tune.yaml").read_text()
    assert "  device: cpu     # ours\n" in text
    assert "# from our own search\n    regularizer: 0.02 " in text
    assert "  fedbn:\n    learning_rate: 0.2 # here\n    # of last spring\n" in text
    assert "# wide\n  methods.fedavg.learning_rate: {type: float" in search
    assert "# validation AUC of the best round" in search
    assert load_config(path).run.device == "cpu"


def test_quotes_nulls_and_line_ends_stay(path):
    text = path.read_text().replace("scenarios: [NL, ES, FR, US]", "scenarios: ['NO', \"ES\"]", 1)
    path.write_bytes(text.replace("\n", "\r\n").encode())
    upgrade(path)
    written = path.read_bytes().decode()
    assert "    scenarios: ['NO', \"ES\"]\r\n" in written
    assert "  clip: null                  # the longest" in written
    assert written.count("\n") == written.count("\r\n")
    assert load_config(path).data.aliexpress.scenarios == ("NO", "ES")


def test_another_search_that_is_there_is_put_aside(path):
    search = path.parent / "tune.yaml"
    search.write_text("trials: 2  # mine\n")
    assert upgrade(path)[-1] == "tune.yaml: replaced by the block tune; what it was is in tune.yaml.old"
    assert (path.parent / "tune.yaml.old").read_text() == "trials: 2  # mine\n"
    assert load_config(path).tune.trials == 30


def test_the_same_search_is_no_matter(path):
    upgrade(path)
    shutil.copy(OLD, path)
    assert upgrade(path), "the search is now there, and the params file is old again"
    assert sorted(file.name for file in path.parent.iterdir()) == ["params.yaml", "tune.yaml"]


def test_what_trained_centralized_trains_its_private_parts(path):
    """As a reference it has two optimisers; the names of the one it had are refused."""
    edited(path, ("  centralized:\n    learning_rate: 0.008 ", "  centralized:\n    learning_rate: 0.006 "))
    changes = upgrade(path)
    assert "methods.centralized.weight_decay: now methods.centralized.private_weight_decay" in changes
    block = yaml.safe_load(path.read_text())["methods"]["centralized"]
    assert block == {"private_learning_rate": 0.006, "private_weight_decay": 2.0}
    assert "methods.centralized.private_learning_rate" in load_config(path).tune.space
    assert "\n\nevaluate:" in path.read_text()


def test_a_file_that_lacks_only_what_is_shared_gets_it(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("methods:\n  fedavg: {learning_rate: 0.5}\n  ditto:\n    learning_rate: 0.5\n")
    before = load_config(path)
    assert upgrade(path)[0] == "methods.shared: new, what federated methods have in common"
    assert load_config(path) == before
    # The other methods have the default, which therefore is what is shared.
    assert value_at(yaml.safe_load(path.read_text()), "methods.shared.learning_rate") == 0.2


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([("  rounds: 60", "  round: 60")], r"train\.round: unknown key; .*\nnothing was rewritten; mend this first"),
        ([("  rounds: 60", "  rounds: 0")], r"train\.rounds: input should be .*\nnothing was rewritten"),
        ([("methods:\n", "run:\n  device: cpu\n\nmethods:\n")], r"train\.device and run\.device are both there"),
        (
            [("  centralized:\n", "  centralized:\n    private_weight_decay: 1.0\n")],
            r"methods\.centralized\.weight_decay and methods\.centralized\.private_weight_decay are both there",
        ),
        ([("seed: 0", "seed: [0")], "is not valid YAML"),
        ([("seed: 0", "seed: 0\nseed: 1")], "cannot be rewritten: .*duplicate key"),
        ([("train:\n", "base: &base {memory: 2.0}\ntrain:\n  <<: *base\n")], "`<<` cannot be rewritten"),
    ],
)
def test_what_cannot_be_rewritten_is_left_alone(path, pairs, reason):
    edited(path, *pairs)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f"(?s){reason}"):
        upgrade(path)
    assert [file.name for file in path.parent.iterdir()] == ["params.yaml"]
    assert path.read_bytes() == before


def test_a_current_file_with_a_fault_is_no_current_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("train: {round: 3}\n")
    with pytest.raises(ConfigError, match="did you mean 'rounds'"):
        upgrade(path)
