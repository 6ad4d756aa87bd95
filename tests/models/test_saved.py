"""A scenario's model on disk."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from pfmsmt.config import Model
from pfmsmt.core.errors import SchemaError
from pfmsmt.data.encoder import encode
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.saved import load_model, save_model
from pfmsmt.models.spec import build_spec
from pfmsmt.models.template import Binding
from tests.support.shapes import SCHEMA, scrambled, spec

FRAME = pd.DataFrame(
    {"price": [1.0, 2.5, -3.0], "stock": [0, 1, 2], "device": [1, 3, 99], "user": [10, 40, 5], "age": [7, 7, 8]},
    index=[11, 5, 7],
)


def saved(folder, **changes):
    model = scrambled(MMoE(spec(**changes)))
    save_model(folder / "NL", model.spec, Binding(model).read(), SCHEMA)
    return model


@pytest.mark.parametrize("changes", [{}, {"rank": 0}, {"product": False}])
def test_round_trip_predicts_what_the_model_predicts(tmp_path, changes):
    model = saved(tmp_path, **changes).eval()
    prediction = load_model(tmp_path / "NL").predict(FRAME)
    encoded = encode(FRAME, SCHEMA)
    with torch.no_grad():
        z = model(torch.from_numpy(encoded.codes.astype(np.int64)), torch.from_numpy(encoded.values)).double().numpy()
    p = 1 / (1 + np.exp(-z))
    if model.spec.product:
        p[:, 1] *= p[:, 0]
    assert list(prediction.columns) == ["ctr", "ctcvr"]
    assert list(prediction.index) == [11, 5, 7]
    np.testing.assert_allclose(prediction.to_numpy(), p, rtol=1e-12)


def test_weights_come_back_bit_for_bit(tmp_path):
    model = saved(tmp_path)
    before, after = Binding(model).read(), Binding(load_model(tmp_path / "NL").model).read()
    assert all(after[name].tobytes() == array.tobytes() for name, array in before.items())


def test_a_pooled_model_fills_in_the_scenario(tmp_path):
    pooled = spec(field_codes=(4, 5, 2, 3), field_federated=(True, False, True, True))
    model = scrambled(MMoE(pooled)).eval()
    save_model(tmp_path / "NL", pooled, Binding(model).read(), SCHEMA, 2)
    encoded = encode(FRAME, SCHEMA)
    codes = torch.from_numpy(np.column_stack([encoded.codes, [2, 2, 2]]).astype(np.int64))
    with torch.no_grad():
        z = model(codes, torch.from_numpy(encoded.values)).double()
    np.testing.assert_allclose(load_model(tmp_path / "NL").predict(FRAME)["ctr"], torch.sigmoid(z[:, 0]), rtol=1e-12)


def test_missing_values_are_filled_as_in_training(tmp_path):
    model = scrambled(MMoE(spec()))
    own = SCHEMA.model_copy(update={"fill": {"price": 0.5, "user": 40}})
    save_model(tmp_path / "NL", model.spec, Binding(model).read(), own)
    loaded = load_model(tmp_path / "NL")
    assert loaded.schema.fill == {"price": 0.5, "user": 40}
    holes = FRAME.assign(price=[None, 2.5, -3.0], user=pd.array([10, None, 5], "Int64"))
    want = loaded.predict(FRAME.assign(price=[0.5, 2.5, -3.0], user=[10, 40, 5]))
    pd.testing.assert_frame_equal(loaded.predict(holes), want)
    without = loaded.predict(FRAME.drop(columns=["price", "user"]))
    pd.testing.assert_frame_equal(without, loaded.predict(FRAME.assign(price=0.5, user=40)))
    with pytest.raises(SchemaError, match="column stock"):
        loaded.predict(FRAME.assign(stock=[None, 1, 2]))


def test_models_of_older_formats_are_read(tmp_path):
    model = saved(tmp_path).eval()
    want = load_model(tmp_path / "NL").predict(FRAME)

    def older(description):
        del description["schema"]["fill"]
        return {**description, "format": 2}

    change(tmp_path, older)
    pd.testing.assert_frame_equal(load_model(tmp_path / "NL").predict(FRAME), want)
    change(tmp_path, lambda d: {key: value for key, value in {**d, "format": 1}.items() if key != "calibration"})
    pd.testing.assert_frame_equal(load_model(tmp_path / "NL").predict(FRAME), want)
    assert model.spec == load_model(tmp_path / "NL").model.spec


def test_the_folder_holds_no_pickle(tmp_path):
    saved(tmp_path)
    assert sorted(path.name for path in (tmp_path / "NL").iterdir()) == ["model.json", "weights.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["NL"]
    json.loads((tmp_path / "NL" / "model.json").read_text())
    header = (tmp_path / "NL" / "weights.safetensors").read_bytes()
    json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def change(folder, edit):
    path = folder / "NL" / "model.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps(edit(description)))


DAMAGES = {
    "no weights": lambda folder: (folder / "NL" / "weights.safetensors").unlink(),
    "no description": lambda folder: (folder / "NL" / "model.json").unlink(),
    "no folder": lambda folder: (folder / "NL").rename(folder / "ES"),
    "half the weights": lambda folder: (folder / "NL" / "weights.safetensors").write_bytes(
        (folder / "NL" / "weights.safetensors").read_bytes()[:-100]
    ),
    "empty weights": lambda folder: (folder / "NL" / "weights.safetensors").write_bytes(b""),
    "half the description": lambda folder: (folder / "NL" / "model.json").write_text('{"format": 1, "spec": {'),
    "a list": lambda folder: change(folder, lambda d: [d]),
    "null": lambda folder: change(folder, lambda d: None),
    "no scenario code": lambda folder: change(folder, lambda d: {k: d[k] for k in ("format", "spec", "schema")}),
    "a fill of another kind": lambda folder: change(
        folder, lambda d: {**d, "schema": {**d["schema"], "fill": {"price": "x"}}}
    ),
    "a fill of no column": lambda folder: change(folder, lambda d: {**d, "schema": {**d["schema"], "fill": {"x": 1}}}),
    "another format": lambda folder: change(folder, lambda d: {**d, "format": 5}),
    "another shape": lambda folder: change(folder, lambda d: {**d, "spec": {**d["spec"], "tower_layers": [9]}}),
    "other layers": lambda folder: change(folder, lambda d: {**d, "spec": {**d["spec"], "expert_layers": [6]}}),
    "an unknown key": lambda folder: change(folder, lambda d: {**d, "spec": {**d["spec"], "colour": 1}}),
    "other fields than the schema": lambda folder: change(
        folder, lambda d: {**d, "schema": {**d["schema"], "categorical": d["schema"]["categorical"][:2]}}
    ),
    "other tasks than the schema": lambda folder: change(
        folder, lambda d: {**d, "schema": {**d["schema"], "tasks": d["schema"]["tasks"][::-1]}}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_model_is_refused(tmp_path, damage):
    saved(tmp_path)
    damage(tmp_path)
    with pytest.raises(SchemaError):
        load_model(tmp_path / "NL")


def test_the_spec_follows_schema_and_config():
    model = Model(embedding_dim=3, experts=3, expert_layers=(6, 5), tower_layers=(4,), dropout=0.0, ctcvr="product")
    assert build_spec(SCHEMA, model, 2) == spec(first_order=True, first_order_share=0.7)
    assert build_spec(SCHEMA, model, 2, linear_experts=3) == spec(
        first_order=True, first_order_share=0.7, linear_experts=3
    )
    assert build_spec(SCHEMA, model, 0, dropout=0.5) == spec(
        rank=0, dropout=0.5, first_order=True, first_order_share=0.7
    )
    assert spec().inputs == 3 * 3 + 2
