"""The space of tune.yaml: what is refused before the first trial, and how the message helps."""

from pathlib import Path

import pytest
import yaml

from pfmsmt.config import METHOD_NAMES, load_config, parse_config
from pfmsmt.core.errors import ConfigError
from pfmsmt.methods.catalogue import declaration_of
from pfmsmt.tuning.space import changed_config, check_space, keys_of, space_of

RATE = "methods.local.learning_rate"
FLOAT = {"type": "float", "low": 0.01, "high": 0.1}


def owners(key):
    return ", ".join(name for name in METHOD_NAMES if f"methods.{name}.{key}" in keys_of(name))


def test_owners_of_keys():
    assert owners("server_learning_rate").startswith("pf_msmtrec, fedavg, fedprox, fedbn, fedper, dit")
    assert owners("conflict").startswith("pf_msmtrec, fedhca2, pf_msmtrec_paper")


def refused(make_config, space):
    with pytest.raises(ConfigError) as caught:
        check_space(make_config({"tune.space": space}))
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "parameter", "expected"),
    [
        ("methods.local.learning_rat", FLOAT, "unknown key; did you mean 'methods.local.learning_rate'?"),
        ("model.droput", FLOAT, "unknown key; did you mean 'model.dropout'?"),
        ("methods.fedagv.learning_rate", FLOAT, "unknown key; did you mean 'methods.fedavg.learning_rate'?"),
        ("data.min_count", {"type": "int", "low": 1, "high": 3}, "unknown key; "),
        (
            "methods.local.server_learning_rate",
            FLOAT,
            f"methods.local has no server_learning_rate; it is a key of {owners('server_learning_rate')}; ",
        ),
        (
            "methods.fedavg.conflict",
            FLOAT,
            f"methods.fedavg has no conflict; it is a key of {owners('conflict')}; "
            "did you mean 'methods.fedhca2.conflict'?",
        ),
        (
            "train.shuffle",
            {"type": "categorical", "choices": ["rows", "auto"]},
            "cannot be tuned: trials share the shards",
        ),
        ("train.methods", {"type": "categorical", "choices": ["a", "b"]}, "cannot be tuned: it decides where"),
        (RATE, {"type": "float", "low": -0.1, "high": 0.1}, "low -0.1 is not possible: input should be greater than 0"),
        ("model.dropout", {"type": "float", "low": 0.1, "high": 1.5}, "high 1.5 is not possible: input should be less"),
        ("model.experts", {"type": "float", "low": 1.0, "high": 4.0}, "value 2.146 is not possible: input should be"),
        ("model.experts", {"type": "int", "low": 0, "high": 4}, "low 0 is not possible: input should be greater"),
        (
            "methods.pf_msmtrec.aggregation",
            {"type": "categorical", "choices": ["uniform", "similar"]},
            "choice 'similar' is not possible: 'similar' is unknown; did you mean 'similarity'?",
        ),
        (
            "methods.pf_msmtrec.rank",
            {"type": "int", "low": 1, "high": 5},
            "high 5 is not possible: methods.pf_msmtrec.rank = 5 is larger than the smallest of model.expert",
        ),
        (
            "model.expert_layers",
            {"type": "categorical", "choices": [[8, 4], [8, 0]]},
            "choice [8, 0] is not possible: model.expert_layers.1: input should be greater",
        ),
    ],
)
def test_what_the_models_do_not_take_is_refused_by_name(make_config, key, parameter, expected):
    text = refused(make_config, {key: parameter})
    assert text.startswith(f"tune.yaml: space.{key}: {expected}")
    assert "\n" not in text


def test_every_fault_is_listed(make_config):
    text = refused(make_config, {"model.droput": FLOAT, RATE: FLOAT, "train.quorm": FLOAT})
    assert [line.split(":")[1].strip() for line in text.splitlines()] == [
        "space.model.droput",
        "space.train.quorm",
    ]


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ({"type": "float", "low": 0.1}, "type float needs low and high"),
        ({"type": "float", "low": 0.1, "high": 0.1}, "low must be less than high"),
        ({"type": "float", "low": 0.0, "high": 0.1, "log": True}, "with log, low must be greater than 0"),
        ({"type": "float", "low": 0.1, "high": float("inf")}, "low must be less than high, and both finite"),
        ({"type": "int", "low": 1, "high": 2.5}, "type int needs whole numbers"),
        ({"type": "int", "low": 1, "high": 2, "choices": [1, 2]}, "type int needs low and high, and has no choices"),
        ({"type": "categorical"}, "type categorical needs choices"),
        ({"type": "categorical", "choices": [1, 2], "log": True}, "type categorical needs choices, and has no low"),
        ({"type": "categorical", "choices": [1]}, "there must be two or more choices"),
        ({"type": "categorical", "choices": ["a", "a"]}, "\"'a'\" stands here twice"),
        ({"type": "flaot"}, "'flaot' is unknown; did you mean 'float'?"),
        ({"type": "float", "lwo": 0.1, "high": 1}, "unknown key; did you mean 'low'?"),
    ],
)
def test_a_parameter_without_what_its_type_needs(make_tree, parameter, expected):
    with pytest.raises(ConfigError) as caught:
        parse_config(make_tree({"tune.space": {RATE: parameter}}))
    assert str(caught.value).startswith(f"tune.yaml: space.{RATE}")
    assert expected in str(caught.value)


def test_the_shipped_space_fits_every_method():
    config = load_config(Path(__file__).parents[2] / "params.yaml")
    check_space(config)
    own = [name for name in METHOD_NAMES if any(key.startswith(f"methods.{name}.") for key in config.tune.space)]
    assert len(own) >= 16, "all that this package began with; of a later one its declaration says what to write"
    for method in own:
        space = space_of(config, method)
        assert space
        assert set(space) <= set(keys_of(method))


def test_the_shipped_space_is_that_of_the_declarations():
    """Where both have a range. The ridges are searched by the benchmark alone."""
    space = load_config(Path(__file__).parents[2] / "params.yaml").tune.space
    declared = {
        f"methods.{name}.{key}": parameter
        for name in METHOD_NAMES
        for key, parameter in declaration_of(name).search.items()
    }
    assert {key for key in space if key.startswith("methods.")} <= declared.keys()
    both = [key for key in space if space[key].type == "float" and key in declared]
    assert len(both) > 50
    assert {k: (space[k].low, space[k].high) for k in both} == {k: (declared[k].low, declared[k].high) for k in both}


def test_shared_keys_are_tuned_for_every_method_and_others_for_their_own(make_config):
    space = {"model.dropout": FLOAT, RATE: FLOAT, "methods.fedavg.learning_rate": FLOAT}
    config = make_config({"tune.space": space})
    assert list(space_of(config, "local")) == ["model.dropout", RATE]
    assert list(space_of(config, "ditto")) == ["model.dropout"]
    with pytest.raises(ConfigError, match=r"tune\.yaml: space has no key of model, train, privacy or methods\.ditto"):
        space_of(make_config({"tune.space": {RATE: FLOAT}}), "ditto")


def test_a_method_without_a_space_is_told_the_one_of_its_declaration(make_config):
    with pytest.raises(ConfigError, match="add some, such as") as caught:
        space_of(make_config({"tune.space": {RATE: FLOAT}}), "apfl")
    lines = str(caught.value).splitlines()[1:]
    assert lines[0] == "  methods.apfl.alpha_rate: {type: float, low: 0.01, high: 10.0, log: true}"
    # As it stands there it is a space.
    space = yaml.safe_load("\n".join(lines))
    config = make_config({"tune.space": space})
    check_space(config)
    assert space_of(config, "apfl") == {
        f"methods.apfl.{key}": parameter for key, parameter in declaration_of("apfl").search.items()
    }


def test_values_by_dotted_keys(make_config):
    config = make_config()
    other = changed_config(config, {RATE: 0.25, "model.expert_layers": [9, 7]})
    assert other.methods.local.learning_rate == 0.25
    assert other.model.expert_layers == (9, 7)
    assert changed_config(other, {RATE: config.methods.local.learning_rate, "model.expert_layers": [6, 4]}) == config
