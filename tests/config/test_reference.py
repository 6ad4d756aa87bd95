"""The list of all keys: complete, in words, and the same for the terminal and the page."""

import re
from typing import Any

import pytest
import yaml

from pfmsmt.config import METHOD_NAMES, Config
from pfmsmt.config.keys import value_at
from pfmsmt.config.methods import WITH_PRIVATE_SHARED, WITH_SHARED
from pfmsmt.config.reference import below, reference, reference_page
from pfmsmt.core.errors import ConfigError

FOUND = {setting.key: setting for setting in reference()}


def fields(model: Any, place=""):
    """Every dotted key of the models that is no block, without those inside of names and lists."""
    for name, field in model.model_fields.items():
        key = f"{place}{field.alias or name}"
        if hasattr(field.annotation, "model_fields"):
            yield from fields(field.annotation, f"{key}.")
        else:
            yield key


def test_every_key_is_there_once_with_its_default():
    assert len(FOUND) == len(reference())
    assert [key for key in FOUND if "<" not in key] == list(fields(Config))
    defaults = Config().model_dump(mode="json", by_alias=True)
    for key, setting in FOUND.items():
        if "<" not in key and not setting.is_shared:
            assert yaml.safe_load(setting.default) == value_at(defaults, key)


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("seed", "whole number, 0 <= x < 2,147,483,648", "0"),
        ("data.sha256", "mapping from names to texts", "{}"),
        ("data.synthetic.ctr", "number, 0 < x < 1", "0.08"),
        ("data.synthetic.scenarios.<name>.train_rows", "whole number, >= 100", ""),
        ("data.tabular.labels", "list of blocks", "[]"),
        ("data.tabular.labels.<n>.within", "text or null", "null"),
        ("model.expert_layers", "list of whole numbers, >= 1, one or more", "[64, 32]"),
        ("run.workers", "auto or whole number, >= 1", "auto"),
        ("privacy.clip", "number, > 0 or null", "null"),
        ("privacy.wire", "float32 | float16", "float32"),
        ("methods.shared.learning_rate", "number, > 0", "0.2"),
        ("methods.fedbn.learning_rate", "number, > 0", "methods.shared.learning_rate"),
        ("methods.fedamp.private_learning_rate", "number, > 0", "methods.shared.private_learning_rate"),
        ("methods.ditto.regularizer", "number, >= 0", "0.1"),
        ("serve.port", "whole number, 1 <= x <= 65,535", "5001"),
        ("evaluate.calibrated", "true | false", "true"),
        ("tune.space.<name>.choices", "list of any values or null", "null"),
    ],
)
def test_kinds_and_defaults_in_words(key, kind, default):
    assert (FOUND[key].kind, FOUND[key].default) == (kind, default)


def test_the_file_of_a_key():
    assert {setting.file for key, setting in FOUND.items() if key.startswith("tune.")} == {"tune.yaml"}
    assert {setting.file for key, setting in FOUND.items() if not key.startswith("tune.")} == {"params.yaml"}


def test_keys_below_a_block():
    assert [s.key for s in below("privacy")] == [f"privacy.{key}" for key in ("wire", "clip", "noise", "delta")]
    assert [s.key for s in below("train.rounds")] == ["train.rounds"]
    for key, message in (
        ("trian", "trian: unknown key; did you mean 'train'?"),
        ("methods.fedprox.regulariser", "methods.fedprox.regulariser: unknown key; did you mean 'methods.fedprox.regu"),
        ("train.device", "train.device: this key is now run.device"),
        ("zzz", "zzz: unknown key; blocks: seed, data, model, train, run, "),
    ):
        with pytest.raises(ConfigError) as caught:
            below(key)
        assert str(caught.value).startswith(message)


def test_the_page_has_a_row_for_every_key_and_names_those_that_are_shared():
    page = reference_page()
    rows = re.findall(r"^\| `(.*?)` \|", page, re.M)
    assert rows == [key.removeprefix("tune.") for key, setting in FOUND.items() if not setting.is_shared]
    assert "| `privacy.wire` | float32 \\| float16 | `float32` | float16: half" in page
    assert re.findall(r"^## `(.*)`$", page, re.M) == [
        *(field.alias or name for name, field in Config.model_fields.items() if name != "tune"), "tune.yaml"
    ]  # fmt: skip
    assert f"\n{', '.join(WITH_SHARED)} also take every key of `shared`" in page
    keys = "first_order_rate, private_learning_rate, private_ridge, private_weight_decay and ridge"
    assert f"\n{', '.join(WITH_PRIVATE_SHARED)} take {keys} of it.\n" in page
    assert WITH_PRIVATE_SHARED[:3] == ("fedamp", "fedhca2", "pf_msmtrec_paper")
    assert all(f"`methods.{name}." in page for name in METHOD_NAMES if name not in ("fedavg", "fedbn", "fedper"))
    # Every row has four cells.
    assert {len(re.split(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")} == {6}
