"""params.yaml: what is refused, and how the message helps."""

import copy
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
import yaml

from pfmsmt.config import METHOD_NAMES, Config, Federated, PrivateTraining, load_config, parse_config
from pfmsmt.config.declared import METHODS
from pfmsmt.config.keys import GONE, MOVED, set_values, value_at
from pfmsmt.config.methods import WITH_PRIVATE_SHARED, WITH_SHARED
from pfmsmt.config.reference import reference
from pfmsmt.config.upgrade import upgrade
from pfmsmt.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text())
SEARCH = yaml.safe_load((ROOT / "tune.yaml").read_text())


def changed(key, value):
    """The repository's params.yaml with one dotted key set."""
    tree = copy.deepcopy(TREE)
    set_values(tree, {key: value})
    return tree


def search(key, value):
    """The configuration with one key of tune.yaml set."""
    return {**TREE, "tune": {key: value}}


def without(key):
    tree = copy.deepcopy(TREE)
    block, _, last = key.rpartition(".")
    del (value_at(tree, block) if block else tree)[last]
    return tree


def leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def message(tree):
    with pytest.raises(ConfigError) as caught:
        parse_config(tree)
    return str(caught.value)


def test_the_repositorys_params_parse():
    found = load_config(ROOT / "params.yaml").model_dump(mode="json", by_alias=True)
    assert {leaf: value_at(found, leaf) for leaf in map(".".join, leaves(TREE))} == {
        leaf: value_at(TREE, leaf) for leaf in map(".".join, leaves(TREE))
    }
    space = SEARCH["space"]
    assert {key: found["tune"][key] for key in SEARCH if key != "space"} | {"space": space} == SEARCH
    # What a parameter does without is at its default: low and high, or choices.
    assert {key: {name: found["tune"]["space"][key][name] for name in space[key]} for key in space} == space


def test_params_has_no_value_but_the_defaults():
    """So a key may be left out, and nobody wonders which of two defaults counts."""
    apart = {"tune": {"space"}}
    assert load_config(ROOT / "params.yaml").model_dump(exclude=apart) == Config().model_dump(exclude=apart)
    assert parse_config({}) == Config()
    # Defaults are not checked by themselves.
    assert parse_config(Config().model_dump(by_alias=True)) == Config()


def test_params_trains_as_that_of_version_0_1_0_did(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "tests/support/params-0.1.0.yaml").read_bytes())
    upgrade(path)
    old, new = load_config(path), load_config(ROOT / "params.yaml")
    expected = new.model_dump(exclude={"tune": {"space"}})
    # That file names these, which have other defaults now.
    expected["train"]["methods"] = ("pf_msmtrec", "fedavg", "local", "centralized")
    expected["train"]["batch_size"], expected["methods"]["pf_msmtrec"]["private_experts"] = 256, 4
    assert old.model_dump(exclude={"tune": {"space"}}) == expected
    # The search of methods that came later is the one thing that the old file cannot know.
    later = {
        f"methods.{name}"
        for name in ("fedrep", "fedavg_finetune", "apfl", "fedamp", "fedhca2", "pf_msmtrec_paper", "joint", "linear")
    }
    # As a reference, centralized has a server's step, and its number of steps is tuned.
    gained = {f"methods.centralized.{key}" for key in ("steps", "server_learning_rate", "server_weight_decay")}
    known = {key: p for key, p in new.tune.space.items() if key.rpartition(".")[0] not in later and key not in gained}
    assert old.tune.space == known
    assert {key.rpartition(".")[0] for key in new.tune.space.keys() - known.keys() - gained} == later


def test_params_is_short_and_every_key_is_described():
    # A line for each method, and 109 for all else.
    assert len((ROOT / "params.yaml").read_text().splitlines()) <= 109 + len(METHOD_NAMES)
    assert [setting.key for setting in reference() if len(setting.meaning.split()) < 3] == []


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("sed", "seed"),
        ("regsiter", "register"),
        ("train.round", "rounds"),
        ("train.batchsize", "batch_size"),
        ("model.ebedding_dim", "embedding_dim"),
        ("data.synthetic.scenarios.NL.train_row", "train_rows"),
        ("data.synthetic.covariate_shfit", "covariate_shift"),
        ("methods.fedagv", "fedavg"),
        ("methods.fedproxy", "fedprox"),
        ("methods.ditto.lambda_regularizer", "regularizer"),
        ("methods.fedavg.private_decay", "private_weight_decay"),
        ("methods.fedbn.server_weigth_decay", "server_weight_decay"),
        ("methods.local.weight_deacy", "weight_decay"),
        ("methods.pf_msmtrec.learnt_rate", "learned_rate"),
        ("train.average", "averaging"),
        ("methods.pf_msmtrec.conflct", "conflict"),
        ("methods.pf_msmtrec.server_learningrate", "server_learning_rate"),
        ("evaluate.bootstraps", "bootstrap"),
        ("methods.shared.server_learning_rat", "server_learning_rate"),
        ("privacy.nois", "noise"),
        ("run.devcie", "device"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest_valid_one(key, near):
    assert message(changed(key, 1)) == f"params.yaml: {key}: unknown key; did you mean {near!r}?"


def test_a_misspelt_key_of_the_search_is_named_with_its_file(tmp_path):
    assert message(search("trails", 1)) == "tune.yaml: trails: unknown key; did you mean 'trials'?"
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for content, expected in (
        ("trails: 1\n", "trails: unknown key; did you mean 'trials'?"),
        ("- 1\n", "expected a mapping of keys at the top"),
        ("space: 3\n", "space: input should be a valid dictionary (it is 3)"),
    ):  # fmt: skip
        (tmp_path / "tune.yaml").write_text(content)
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "params.yaml")
        assert str(caught.value) == f"{tmp_path}/tune.yaml: {expected}"


def test_without_a_file_the_search_has_its_defaults(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert load_config(tmp_path / "params.yaml").tune == Config().tune
    (tmp_path / "tune.yaml").write_text("\n")
    assert load_config(tmp_path / "params.yaml").tune == Config().tune


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_key_that_moved_says_where_it_is_and_what_rewrites_the_file(old, new):
    assert (
        message(changed(old, 1))
        == f"params.yaml: {old}: this key is now {new}; `pfmsmt params upgrade` rewrites the file"
    )


def test_the_file_of_version_0_1_0_says_all_that_moved(tmp_path):
    path = shutil.copy(ROOT / "tests/support/params-0.1.0.yaml", tmp_path / "params.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: tune: this block is now tune.yaml; `pfmsmt params upgrade` rewrites the file"
    assert {line.removeprefix(f"{path}: ").partition(":")[0] for line in lines[1:]} == {*MOVED, *GONE}


def test_a_key_like_no_other_lists_the_valid_ones():
    text = message(changed("model.zzz", 1))
    assert text.startswith("params.yaml: model.zzz: unknown key; valid keys here: embedding_dim, experts, ")


RANGES = [
    ("seed", [-1, 2**31, 0.5, "a"]),
    ("data.validation_fraction", [0, 1, -0.1, float("nan")]),
    ("data.min_count", [0]),
    ("data.synthetic.scenarios.NL.train_rows", [99]),
    ("data.synthetic.rows_per_search", [0.5, float("inf"), float("nan")]),
    ("data.synthetic.ctr", [0, 1, 8]),
    ("data.synthetic.covariate_shift", [-1, float("inf")]),
    ("model.experts", [0]),
    ("model.expert_layers", [[], [64, 0], 64]),
    ("model.tower_layers", [[-1]]),
    ("model.dropout", [1, -0.1]),
    ("train.methods", [[]]),
    ("train.seeds", [[], [-1]]),
    ("train.rounds", [0]),
    ("train.batch_size", [1]),
    ("train.averaging", [1.0, 1.5, -0.1, float("nan")]),
    ("train.task_weights", [[], [-1.0]]),
    ("train.quorum", [0, 1.1]),
    ("run.device", ["gpu", "cuda:x", "cpu:1", "cuda:", ""]),
    ("run.workers", [0, -1, "many"]),
    ("methods.pf_msmtrec.rank", [-1]),
    ("methods.pf_msmtrec.scenario_rank", [-1, 1.5]),
    ("methods.pf_msmtrec.alpha", [-0.1, 1.1]),
    ("methods.pf_msmtrec_paper.rank", [-1]),
    ("methods.pf_msmtrec_paper.coupling", [1.1]),
    ("methods.pf_msmtrec.private_experts", [-1, 1.5]),
    ("methods.pf_msmtrec.conflict", [1, -0.1, float("nan")]),
    ("methods.pf_msmtrec.temperature", [0, -1]),
    ("methods.pf_msmtrec.smoothing", [1]),
    ("methods.pf_msmtrec.coupling", [1.1]),
    ("methods.pf_msmtrec.learned_rate", [0, -0.1, float("inf"), float("nan")]),
    ("methods.pf_msmtrec.server_beta2", [1]),
    ("methods.pf_msmtrec.private_weight_decay", [-0.1, float("inf"), float("nan")]),
    ("methods.pf_msmtrec.server_weight_decay", [-1e-9, float("inf")]),
    ("methods.fedavg.private_weight_decay", [-0.1]),
    ("methods.fedavg.server_weight_decay", [-0.1, float("nan")]),
    ("methods.ditto.private_weight_decay", [-0.1]),
    ("methods.fedprox.regularizer", [-0.1, float("inf"), float("nan")]),
    ("methods.fedbn.private_learning_rate", [0]),
    ("methods.fedper.server_beta1", [1]),
    ("methods.ditto.regularizer", [-0.1]),
    ("methods.local.learning_rate", [0, float("inf")]),
    ("methods.local.weight_decay", [-0.1, float("inf")]),
    ("methods.centralized.private_weight_decay", [-0.1]),
    ("methods.centralized.server_weight_decay", [-0.1]),
    ("methods.joint.steps", [0]),
    ("evaluate.bins", [1]),
    ("evaluate.confidence", [1]),
    ("register.methods", [[]]),
    ("methods.shared.learning_rate", [0, float("inf")]),
    ("methods.shared.server_beta2", [1]),
    ("privacy.wire", ["float8"]),
    ("privacy.delta", [0, 1]),
    ("run.memory", [0, float("inf")]),
    ("run.checkpoint_every", [0]),
]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in RANGES for value in values])
def test_a_value_out_of_range_is_named_once_with_its_key(key, value):
    lines = message(changed(key, value)).splitlines()
    assert all(line.startswith(f"params.yaml: {key}") for line in lines)
    assert len(lines) == (2 if value == "many" else 1)  # neither the word nor a number
    shown = value[-1] if isinstance(value, list) and value else value
    assert repr(shown) in lines[0]


@pytest.mark.parametrize(("key", "value"), [("trials", 0), ("trials", 1.5), ("objective", "")])
def test_a_value_of_the_search_out_of_range_is_named_once_with_its_file(key, value):
    (line,) = message(search(key, value)).splitlines()
    assert line.startswith(f"tune.yaml: {key}: ")
    assert repr(value) in line


@pytest.mark.parametrize("rule", ["similarity", "learned", "uniform", "identity"])
def test_rules_of_aggregation(rule):
    assert parse_config(changed("methods.pf_msmtrec.aggregation", rule)).methods.pf_msmtrec.aggregation == rule


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("train.averaging", [0, 0.999]),
        ("methods.pf_msmtrec.learned_rate", [1e-9, 10.0]),
        ("methods.fedper.private_weight_decay", [0, 5.0]),
        ("methods.centralized.private_weight_decay", [0, 5.0]),
        ("methods.joint.steps", [1, None]),
    ],
)
def test_the_ends_of_a_range_are_in_it(key, values):
    for value in values:
        assert value_at(parse_config(changed(key, value)).model_dump(by_alias=True), key) == value


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:1"])
def test_devices(device):
    assert parse_config(changed("run.device", device)).run.device == device


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "train.methods",
            ["fedagv"],
            "train.methods.0: 'fedagv' is unknown; did you mean 'fedavg'? valid: pf_msmtrec, ",
        ),
        (
            "train.methods",
            ["local", "x"],
            f"train.methods.1: 'x' is unknown; valid: {', '.join(METHOD_NAMES)}",
        ),
        (
            "data.source",
            "aliexpres",
            "data.source: 'aliexpres' is unknown; did you mean 'aliexpress'? valid: synthetic, ",
        ),
        (
            "register.methods",
            ["centralized"],
            "register.methods.0: 'centralized' is unknown; valid: pf_msmtrec, fedavg, ",
        ),
        (
            "methods.pf_msmtrec.aggregation",
            "learnt",
            "methods.pf_msmtrec.aggregation: 'learnt' is unknown; did you mean 'learned'? "
            "valid: similarity, learned, uniform, identity",
        ),
        ("train.methods", ["fedavg", "fedavg"], "train.methods: 'fedavg' stands here twice"),
        ("train.seeds", [3, 4, 3], "train.seeds: 3 stands here twice"),
        ("data.aliexpress.scenarios", ["NL", "NL"], "data.aliexpress.scenarios: 'NL' stands here twice"),
        (
            "methods.pf_msmtrec.rank",
            33,
            "methods.pf_msmtrec.rank = 33 is larger than the smallest of model.expert_layers",
        ),
        (
            "methods.pf_msmtrec.scenario_rank",
            33,
            "methods.pf_msmtrec.scenario_rank = 33 is larger than the smallest of model.expert_layers",
        ),
        ("train.task_weights", [0.0, 0.0], "train.task_weights: at least one task needs a weight above 0"),
        (
            "methods.fedbn.server_weight_decay",
            50.0,
            "methods.fedbn: server_learning_rate x server_weight_decay is 1: a step would take all of a parameter away",
        ),
        (
            "methods.shared.server_weight_decay",
            50.0,
            "methods.shared: server_learning_rate x server_weight_decay is 1: a step would take all of a parameter",
        ),
        ("methods.fedavg", None, "methods.fedavg: input should be a valid dictionary"),
        (
            "methods.pf_msmtrec.private_learning_rate",
            0.6,
            "methods.pf_msmtrec: private_learning_rate x private_weight_decay is 1.2: ",
        ),
        ("methods.local.weight_decay", 125.0, "methods.local: learning_rate x weight_decay is 1: "),
        ("data.synthetic.own", 0.4, "data.synthetic: shared + cluster + own must be 1, not 1.25"),
        ("train", None, "train: input should be a valid dictionary"),
    ],
)
def test_faults_of_meaning(key, value, expected):
    text = message(changed(key, value))
    assert text.startswith(f"params.yaml: {expected}")
    assert "\n" not in text


def test_rivals_have_fedavgs_keys_and_a_regularizer_only_where_it_is_used():
    models = Config.model_fields["methods"].annotation.model_fields
    keys = {name: set(field.annotation.model_fields) for name, field in models.items()}
    assert keys["shared"] == keys["fedavg"]
    assert keys["fedbn"] == keys["fedper"] == keys["fedavg"]
    assert keys["fedprox"] == keys["ditto"] == keys["fedavg"] | {"regularizer"}
    assert keys["fedrep"] == keys["fedavg"] | {"head_share"}
    assert keys["fedavg_finetune"] == keys["fedavg"] | {"finetune_steps", "finetune_rate"}
    assert keys["apfl"] == keys["fedavg"] | {"alpha", "alpha_rate"}
    linear = {"first_order_rate", "ridge", "private_ridge"}
    private = {"private_learning_rate", "private_weight_decay"} | linear
    assert keys["fedamp"] == private | {"attraction", "sigma", "regularizer"}, "nothing is averaged, so there is no SGD"
    assert keys["fedhca2"] == private | {"learning_rate", "conflict", "alpha", "beta", "hyper_rate"}
    optimizer = {"server_optimizer", "server_learning_rate", "server_beta1", "server_beta2", "server_weight_decay"}
    assert keys["pf_msmtrec_paper"] == keys["pf_msmtrec"] - optimizer
    for name in ("fedavg", "fedbn", "fedper", "local"):
        place = f"methods.{name}.regularizer"
        assert message(changed(place, 0.1)).startswith(f"params.yaml: {place}: unknown key; ")


def test_any_method_but_the_references_can_be_registered():
    deployable = [name for name, found in METHODS.items() if found.deployable]
    assert not {"joint", "centralized"} & {*deployable}
    assert parse_config(changed("register.methods", deployable)).register_.methods == tuple(deployable)


def test_the_largest_rank_that_fits():
    assert parse_config(changed("methods.pf_msmtrec.rank", 32)).methods.pf_msmtrec.rank == 32


def test_a_bad_scenario_name_is_shown():
    text = message(changed("data.synthetic.scenarios.N L", {"train_rows": 100, "test_rows": 100}))
    assert text.startswith("params.yaml: data.synthetic.scenarios.N L: string should match pattern")


def test_a_scenario_may_be_called_auto():
    text = message(changed("data.synthetic.scenarios.auto", {"train_rows": 1, "test_rows": 100}))
    assert text.startswith("params.yaml: data.synthetic.scenarios.auto.train_rows: input should be greater than")


@pytest.mark.parametrize(
    "key",
    ["seed", "train.rounds", "methods.local", "methods.shared", "methods.shared.server_weight_decay", "register",
     "evaluate.bootstrap", "data.synthetic"],
)  # fmt: skip
def test_a_missing_key_has_its_default(key):
    assert parse_config(without(key)) == parse_config(TREE)


def test_a_missing_key_without_a_default_is_named():
    key = "data.synthetic.scenarios.NL.test_rows"
    assert message(without(key)) == f"params.yaml: {key}: this key is missing"


def test_what_federated_methods_share_is_theirs_unless_they_say_otherwise():
    tree = changed("methods.shared", {"learning_rate": 0.125, "server_beta1": 0.5})
    tree["methods"]["ditto"] = {"learning_rate": 0.25}
    methods = parse_config(tree).methods
    expected = {
        **dict.fromkeys(WITH_SHARED, 0.125),
        "fedhca2": 1.5, "pf_msmtrec_paper": 3.0, "ditto": 0.25, "local": 0.008, "linear": 0.02,
    }  # fmt: skip
    assert {name: getattr(methods, name).learning_rate for name in expected} == expected
    assert {getattr(methods, name).server_beta1 for name in WITH_SHARED} == {0.5}
    tree = changed("methods.shared", {"private_learning_rate": 0.125, "server_beta1": 0.5})
    rates = parse_config(tree).methods
    assert {getattr(rates, name).private_learning_rate for name in WITH_PRIVATE_SHARED} == {0.125}
    own = changed("methods.fedhca2.server_beta1", 0.5)
    assert message(own).startswith("params.yaml: methods.fedhca2.server_beta1: unknown key"), "it has no such optimiser"
    # What is resolved parses to itself.
    assert parse_config(parse_config(tree).model_dump(mode="json", by_alias=True)) == parse_config(tree)


ALL = [
    "pf_msmtrec", "fedavg", "fedprox", "fedbn", "fedper", "ditto", "fedrep", "fedavg_finetune", "apfl", "fedamp",
    "fedhca2", "pf_msmtrec_paper", "local", "linear", "joint", "centralized",
]  # fmt: skip


def test_methods_have_the_order_of_tables_and_pages():
    assert [name for name in METHOD_NAMES if name in ALL] == ALL


FEDERATED = ["pf_msmtrec", "fedavg", "fedprox", "fedbn", "fedper", "ditto", "fedrep", "fedavg_finetune", "apfl"]


def test_methods_with_shared_values_are_those_that_have_its_keys():
    models = Config.model_fields["methods"].annotation.model_fields
    federated = [name for name, field in models.items() if name != "shared" and issubclass(field.annotation, Federated)]
    assert tuple(federated) == WITH_SHARED
    assert [name for name in WITH_SHARED if name in FEDERATED] == FEDERATED
    private = {*PrivateTraining.model_fields}
    others = [name for name in models if name not in federated and private <= {*models[name].annotation.model_fields}]
    # References have their own rates: they are no part of a federation that could share values.
    assert tuple(name for name in others if name != "shared" and METHODS[name].deployable) == WITH_PRIVATE_SHARED
    assert {"fedamp", "fedhca2", "pf_msmtrec_paper"} <= {*WITH_PRIVATE_SHARED}
    assert {*models} == {*METHOD_NAMES, "shared"}


def test_all_faults_are_told_at_once():
    tree = changed("train.rounds", 0)
    tree["model"]["expert"] = tree["model"].pop("experts")
    assert sorted(message(tree).splitlines()) == [
        "params.yaml: model.expert: unknown key; did you mean 'experts'?",
        "params.yaml: train.rounds: input should be greater than or equal to 1 (it is 0)",
    ]


def test_files_that_are_no_params(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(ConfigError, match=r"params\.yaml does not exist; run from"):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    for content, expected in (
        (b"seed: [1", "is not valid YAML"), (b"", "expected a mapping"), (b"- 1\n", "expected a mapping"),
        (b"seed: \xff\n", "is not valid YAML"), (b"a: 1\n\tb: 2\n", "is not valid YAML"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=expected):
            load_config(path)


def test_config_cannot_be_changed():
    config = parse_config(TREE)
    for part, key in ((config, "seed"), (config.train, "rounds"), (config.methods.pf_msmtrec, "rank")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(part, key, 1)
    assert hash(config.train) == hash(parse_config(TREE).train)


STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_dvc_knows_every_parameter_that_decides_a_training():
    """Keys that are left out only say what else runs, or how fast."""
    fields = Config.model_fields["train"].annotation.model_fields
    keys = {f"train.{key}" for key in fields if key not in ("methods", "seeds")}
    blocks = {"model", "privacy", "methods.shared", "methods.${item.method}", "run.device", "run.memory"}
    assert blocks | keys == set(STAGES["train"]["params"])
    assert STAGES["train"]["matrix"] == {"method": "${train.methods}", "seed": "${train.seeds}"}


@pytest.mark.parametrize("stage", STAGES)
def test_params_has_every_key_that_dvc_follows(stage):
    """DVC refuses a key that is not in the file, whatever its default."""
    sources = Config.model_fields["data"].annotation.model_fields["source"].annotation
    fillings = [
        {"data.source": source, "item.method": method} for source in get_args(sources) for method in METHOD_NAMES
    ]
    missing = {name for name in METHOD_NAMES if name not in TREE["methods"]}
    assert not missing, f"params.yaml has no methods.{', methods.'.join(sorted(missing))}; {{}} is enough"
    for key in STAGES[stage].get("params", []):
        for filling in fillings:
            value_at(TREE, re.sub(r"\$\{(.*?)\}", lambda found, filling=filling: filling[found[1]], key))


def test_dvc_knows_the_parameters_of_the_other_stages():
    assert set(STAGES["evaluate"]["params"]) == {"seed", "evaluate"}
    assert STAGES["evaluate"]["matrix"] == STAGES["train"]["matrix"]
    assert {"seed", "data.source", "data.${data.source}"} <= set(STAGES["download"]["params"])
    blocks = set(Config.model_fields["data"].annotation.model_fields) - {
        "synthetic", "aliexpress", "movielens", "tenrec", "tabular", "local_files", "sha256"
    }  # fmt: skip
    assert {"seed", "data.${data.source}", *(f"data.{key}" for key in blocks)} <= set(STAGES["partition"]["params"])
    assert {"register", "train.methods", "train.seeds"} <= set(STAGES["register"]["params"])
    assert {"train.methods", "train.seeds"} <= set(STAGES["compare"]["params"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels": [{"taks": "ctr", "column": "click"}]},
            "data.tabular.labels.0.taks: unknown key; did you mean 'task'?",
        ),
        (
            {"labels": [{"task": "cv", "column": "b", "within": "ctr"}]},
            "cv is within 'ctr', which is no task before it",
        ),
        ({"scenarios": ["NL", "home page"]}, r"'home page' cannot name a scenario .*write \{name: 'home page'\}"),
        ({"scenarios": yaml.safe_load("[NL, NO]")}, "false is no name; YAML reads NO, .* so: quote them, as 'NO'"),
        ({"scenarios": yaml.safe_load("{north: NO}")}, "false is no name"),
        ({"scenarios": yaml.safe_load("{NO: north}")}, "false is no name"),
        ({"labels": [{"task": "ctr", "column": True}]}, "true is no name"),
        ({"time": True}, "data.tabular.time: true is no name"),
        ({"categorical": ["a"], "fill": {"a": False}}, "false is no name"),
        ({"scenarios": [1, 1]}, "'1' stands here twice"),
        ({"categorical": ["a"], "numerical": ["a"]}, "'a' stands here twice"),
        (
            {"labels": [{"task": "ctr", "column": "a"}], "numerical": ["a"]},
            "'a' is a label, and cannot be anything else",
        ),
        (
            {"labels": [{"task": "ctr", "column": "a"}], "categorical": ["ctr"]},
            "the feature 'ctr' has the name of a task",
        ),
        (
            {"labels": [{"task": "ctr", "column": "a"}], "numerical": ["ctr"]},
            "the feature 'ctr' has the name of a task",
        ),
        ({"numerical": ["__apart__"]}, "'__apart__': names that begin with __ are kept for what is computed"),
        ({"time": "t", "split": "s"}, "time and split both say which rows are the test part"),
        ({"time": "t", "categorical": ["t"]}, "time: 't' is categorical, too, and is read as times alone"),
        ({"time": "t", "scenario": "t"}, "time: 't' is the scenario, too"),
        ({"time": "t", "group": "t"}, "time: 't' is the group, too"),
        ({"categorical": ["a"], "fill": {"a": 2**70}}, "fill: a: 1180591620717411303424 is beyond 9,223,372,036,854"),
        (
            {"numerical": ["a"], "fill": {"a": -(2**53) - 1}},
            "fill: a: -9007199254740993 is beyond 9,007,199,254,740,992",
        ),
        ({"fill": {"a": 0}}, "fill: 'a' is none of the categorical and numerical columns"),
        (
            {"numerical": ["a"], "fill": {"a": "none"}},
            "fill: a is numerical, so 'none' cannot stand for a missing value",
        ),
    ],
)
def test_a_table_described_in_contradictions(changes, message):
    tree = copy.deepcopy(TREE)
    tree["data"]["tabular"] |= changes
    with pytest.raises(ConfigError, match=message):
        parse_config(tree)


def test_a_country_that_yaml_takes_for_a_boolean():
    tree = copy.deepcopy(TREE)
    tree["data"]["aliexpress"]["scenarios"] = yaml.safe_load("[NL, NO]")
    with pytest.raises(ConfigError, match=r"data.aliexpress.scenarios.1: false is no name; .* quote them, as 'NO'"):
        parse_config(tree)


def test_scenarios_that_are_numbers_are_names():
    tree = copy.deepcopy(TREE)
    tree["data"]["tabular"]["scenarios"] = [1, 20]
    assert parse_config(tree).data.tabular.scenarios == ("1", "20")
