"""Prediction requests over real HTTP: what is answered, and what is refused."""

import json

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.support.shelves import LINE, STREAM, as_stream, frame, saved

ROWS = frame(5)
PATH = "/v1/scenarios/NL/predict"


def expected(shelf, rows=ROWS, version="1", scenario="NL", **options):
    return saved(shelf, scenario, version).predict(rows, **options).to_numpy()


def predictions(answer):
    assert answer.status_code == 200, answer.text
    return pd.DataFrame(answer.json()["predictions"])[["ctr", "ctcvr"]].to_numpy()


def test_records_and_columns_answer_what_was_evaluated(served, shelf):
    records = served.post(PATH, json={"records": ROWS.to_dict("records")})
    assert records.headers["x-model-version"] == "1"
    body = records.json()
    assert {k: body[k] for k in ("scenario", "model_version", "alias", "calibrated")} == {
        "scenario": "NL", "model_version": "1", "alias": "champion", "calibrated": True,
    }  # fmt: skip
    np.testing.assert_allclose(predictions(records), expected(shelf), rtol=0, atol=1e-6)
    columns = served.post(PATH, json={"columns": ROWS.to_dict("list")})
    assert predictions(columns).tolist() == predictions(records).tolist()


def test_arrow_answers_the_same_bits_as_json(served):
    json_answer = predictions(served.post(PATH, json={"records": ROWS.to_dict("records")}))
    answer = served.post(PATH, content=as_stream(ROWS), headers={"Content-Type": STREAM})
    assert answer.headers["content-type"] == STREAM
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.schema.metadata[b"model_version"] == b"1"
    np.testing.assert_array_equal(table.to_pandas().to_numpy(), json_answer)
    both = served.post(PATH, content=as_stream(ROWS), headers={"Content-Type": STREAM, "Accept": "application/json"})
    assert predictions(both).tolist() == json_answer.tolist()


def test_whole_numbers_and_whole_floats_are_taken_alike(served):
    exact = {"country": 3, "user": 2**40, "price": 8, "age": 1}
    loose = {"country": 3.0, "user": float(2**40), "price": 8.0, "age": 1.0, "further": "ignored"}
    first, second = (predictions(served.post(PATH, json={"records": [record]})) for record in (exact, loose))
    assert first.tolist() == second.tolist()


def test_uncalibrated_probabilities_by_the_switch(start, shelf):
    server = start(calibrated=False)
    answer = server.client.post(PATH, json={"records": ROWS.to_dict("records")})
    assert answer.json()["calibrated"] is False
    raw = expected(shelf, calibrated=False)
    np.testing.assert_allclose(predictions(answer), raw, rtol=0, atol=1e-6)
    odds = np.log(raw / (1 - raw))
    lined = 1 / (1 + np.exp(-(odds * LINE.slopes + LINE.intercepts)))
    lined[:, 1] = lined.min(axis=1)
    np.testing.assert_allclose(lined, expected(shelf), rtol=1e-9)


def test_gates_are_explained(served, shelf):
    answer = served.post(f"{PATH}?explain=gates", json={"records": ROWS.to_dict("records")}).json()["gates"]
    assert answer["ctr"]["experts"] == ["expert/0", "expert/1", "private/0"]
    for task in ("ctr", "ctcvr"):
        weights = np.array(answer[task]["weights"])
        assert weights.shape == (5, 3)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    content = served.post(f"{PATH}?explain=gates", content=as_stream(ROWS), headers={"Content-Type": STREAM}).content
    table = pa.ipc.open_stream(content).read_all()
    assert table.schema.metadata[b"experts_ctr"] == b"expert/0,expert/1,private/0"
    assert table["gates_ctr"].to_pylist() == [pytest.approx(row) for row in answer["ctr"]["weights"]]


def test_a_linear_model_is_served_and_has_no_gates(start, shelf):
    parts = {"experts": 0, "linear_experts": 0}
    version = shelf.add("NL", seed=5, alias="champion", parts=parts)
    post = start().client.post
    answer = post(f"{PATH}?explain=gates", json={"records": ROWS.to_dict("records")})
    np.testing.assert_allclose(predictions(answer), expected(shelf, version=version), rtol=0, atol=1e-6)
    assert answer.json()["gates"] == {key: {"experts": [], "weights": [[]] * len(ROWS)} for key in ("ctr", "ctcvr")}
    content = post(f"{PATH}?explain=gates", content=as_stream(ROWS), headers={"Content-Type": STREAM}).content
    assert pa.ipc.open_stream(content).read_all().column_names == ["ctr", "ctcvr"]


def test_no_rows_are_no_fault(served):
    for body in ({"records": []}, {"columns": {name: [] for name in ROWS}}):
        assert served.post(PATH, json=body).json()["predictions"] == []
    answer = served.post(PATH, content=as_stream(ROWS.head(0)), headers={"Content-Type": STREAM})
    assert pa.ipc.open_stream(answer.content).read_all().num_rows == 0


def test_optional_columns_are_filled_with_the_mean_or_out_of_vocabulary_and_counted(start, shelf):
    client = start(optional_columns=("user", "age", "elsewhere")).client
    filled = ROWS.assign(user=1, age=1.0)
    filled.loc[0, ["user", "age"]] = ROWS.loc[0, ["user", "age"]]
    given = ROWS.to_dict("records")
    for record in given[1:3]:
        del record["user"], record["age"]
    for record in given[3:]:
        record |= {"user": None, "age": None}
    want = expected(shelf, filled)
    np.testing.assert_allclose(predictions(client.post(PATH, json={"records": given})), want, atol=1e-6)
    nulls = pa.Table.from_pylist([{**record, "user": record.get("user"), "age": record.get("age")} for record in given])
    answer = client.post(PATH, content=as_stream(nulls), headers={"Content-Type": STREAM})
    np.testing.assert_allclose(pa.ipc.open_stream(answer.content).read_all().to_pandas().to_numpy(), want, atol=1e-6)
    without = client.post(PATH, json={"columns": ROWS[["country", "price"]].to_dict("list")})
    np.testing.assert_allclose(predictions(without), expected(shelf, ROWS.assign(user=1, age=1.0)), atol=1e-6)
    metrics = client.get("/metrics").text
    for column in ("user", "age"):
        assert f'pfmsmt_filled_cells_total{{column="{column}",scenario="NL"}} 13.0' in metrics


FILL = {"user": 12, "age": 0.25}


@pytest.mark.slow(1)
def test_missing_values_are_filled_as_in_training_and_counted(start, shelf):
    version = shelf.add("NL", seed=3, alias="champion", fill=FILL)
    client = start().client
    columns = {"country": [3, 7, 3], "price": [8.0, 9.0, 10.0]}
    want = expected(shelf, pd.DataFrame({**columns, "user": [12, 12, -5], "age": [0.25, 0.25, 1.5]}), version)
    whole = pd.DataFrame({**columns, "user": [12] * 3, "age": [0.25] * 3})
    given = {**columns, "user": [None, None, -5], "age": [None, None, 1.5]}
    records = pd.DataFrame(given).astype(object).to_dict("records")
    records[0] = {"country": 3, "price": 8.0}
    records[1] |= {"user": None, "age": None}
    np.testing.assert_allclose(predictions(client.post(PATH, json={"records": records})), want, atol=1e-6)
    np.testing.assert_allclose(predictions(client.post(PATH, json={"columns": given})), want, atol=1e-6)
    for table, wanted in (
        (pa.table(given), want),
        (pa.table({**given, "age": [np.nan, None, 1.5]}), want),
        (pa.table(columns), expected(shelf, whole, version)),
        (pa.table({**columns, "user": pa.nulls(3), "age": pa.nulls(3)}), expected(shelf, whole, version)),
    ):
        answer = client.post(PATH, content=as_stream(table), headers={"Content-Type": STREAM})
        np.testing.assert_allclose(pa.ipc.open_stream(answer.content).read_all().to_pandas(), wanted, rtol=0, atol=1e-6)
    metrics = client.get("/metrics").text
    for column in FILL:
        assert f'pfmsmt_filled_cells_total{{column="{column}",scenario="NL"}} 14.0' in metrics
    assert "pfmsmt_unknown_categories_total{" not in metrics
    assert next(s for s in client.get("/v1/scenarios").json() if s["scenario"] == "NL")["optional"] == ["age", "user"]
    loaded = mlflow.pyfunc.load_model(f"models:/pfmsmt-NL/{version}")
    np.testing.assert_allclose(loaded.predict(pd.DataFrame(columns)), expected(shelf, whole, version), rtol=1e-12)
    null = pa.table({**columns, "price": pa.nulls(3)})
    refused = client.post(PATH, content=as_stream(null), headers={"Content-Type": STREAM})
    assert (refused.status_code, "column price, row 0" in refused.text) == (422, True)


def test_unknown_categories_are_counted(start):
    served = start().client
    rows = [{"country": c, "user": u, "price": 1.0, "age": 1.0} for c, u in ((3, -5), (4, -5), (2**62, 0))]
    served.post(PATH, json={"records": rows})
    metrics = served.get("/metrics").text
    assert 'pfmsmt_unknown_categories_total{column="country",scenario="NL"} 2.0' in metrics
    assert 'pfmsmt_unknown_categories_total{column="user",scenario="NL"} 1.0' in metrics


GOOD = {"country": 3, "user": 12, "price": 8.5, "age": 1.0}
FAULTS = {
    "missing column": ([GOOD, {k: GOOD[k] for k in ("country", "user", "price")}], "column age, row 1"),
    "missing everywhere": ([{"country": 3}], "missing columns: user, price, age"),
    "text": ([GOOD, {**GOOD, "price": "8.5"}], "column price, row 1: '8.5' is not a number"),
    "null": ([GOOD, GOOD, {**GOOD, "price": None}], "column price, row 2: null"),
    "true": ([{**GOOD, "age": True}], "column age, row 0: True is not a number"),
    "list": ([{**GOOD, "age": [1]}], "column age, row 0"),
    "text category": ([{**GOOD, "country": "NL"}], "column country, row 0: 'NL' is not an integer category"),
    "broken category": ([{**GOOD, "country": 0.5}], "column country, row 0: 0.5 is not an integer category"),
    "huge category": ([{**GOOD, "country": 2**63}], "column country, row 0"),
    "no object": ([GOOD, 5], "row 1: 5 is not an object"),
    "too large": ([GOOD, {**GOOD, "price": 1e300}], "column price, row 1: 1e+300 is beyond 1e+30"),
    "too large to score": ([GOOD, {**GOOD, "price": 1e38}], "column price, row 1"),
}


@pytest.mark.parametrize(("records", "text"), FAULTS.values(), ids=FAULTS.keys())
def test_bad_values_name_column_and_row(served, records, text):
    answer = served.post(PATH, json={"records": records})
    if "to score" in text or records[-1] == {**GOOD, "price": 1e38}:
        # Large but within float32: answered, or refused by name; never a broken number.
        assert answer.status_code in (200, 422)
        assert answer.status_code == 422 or np.isfinite(predictions(answer)).all()
        return
    assert (answer.status_code, text in answer.json()["detail"]) == (422, True), answer.text


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_python_writes_for_nan_is_refused_by_name(served, word):
    body = json.dumps({"records": [GOOD, {**GOOD, "price": float(word.replace("inity", ""))}]})
    assert word in body
    answer = served.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "column price, row 1" in answer.text) == (422, True)


BODIES = {
    "nothing": b"", "a word": b"x", "a list": b"[]", "null": b"null", "another key": b'{"rows": []}',
    "both": b'{"records": [], "columns": {}}', "records no list": b'{"records": {}}', "cut": b'{"records": [{"country"',
    "columns no object": b'{"columns": []}', "column no list": b'{"columns": {"country": 1}}', "deep": b"[" * 90_000,
    "deep with NaN": b"[" * 90_000 + b"NaN", "no text": b"\xff\xfe\x00",
    "lengths": b'{"columns": {"country": [1], "user": [1, 2], "price": [1], "age": [1]}}',
}  # fmt: skip


def test_cells_that_are_hard_to_show_are_refused_all_the_same(served):
    """A list nested as deep as orjson takes, and an integer beyond all floats, which a NaN lets in."""
    body = json.dumps({"records": [{**GOOD, "price": 0}]})
    deep = body.replace('"price": 0', '"price": ' + "[" * 1000 + "]" * 1000)
    large = body.replace('"price": 0', '"further": NaN, "price": 1' + "0" * 400)
    for body, text in ((deep, "column price, row 0: a list is not a number"), (large, "row 0: 1000000000")):
        answer = served.post(PATH, body.encode(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert text in answer.text


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_bodies_that_are_no_request_are_refused(served, body):
    answer = served.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_other_content_is_refused(served):
    assert served.post(PATH, content=b"a,b", headers={"Content-Type": "text/csv"}).status_code == 415
    assert served.post(PATH, content=b"{}").status_code == 415
    packed = served.post(PATH, content=b"x", headers={"Content-Type": STREAM, "Content-Encoding": "gzip"})
    assert packed.status_code == 415
    answer = served.post(f"{PATH}?explain=all", json={"records": []})
    assert (answer.status_code, "explain" in answer.json()["detail"]) == (422, True)


def test_an_unknown_scenario_and_path_are_not_found(start):
    served = start().client
    answer = served.post("/v1/scenarios/XX/predict", json={"records": []})
    assert (answer.status_code, "'XX'" in answer.json()["detail"]) == (404, True)
    assert served.get("/v2").status_code == 404
    assert served.get(PATH).status_code == 405
    metrics = served.get("/metrics").text
    assert 'pfmsmt_requests_total{scenario="unknown",status="404"} 1.0' in metrics
    assert "XX" not in metrics


def test_scenarios_say_what_requests_need(served):
    found = {entry["scenario"]: entry for entry in served.get("/v1/scenarios").json()}
    assert set(found) == {"ES", "NL"}
    assert found["NL"] == {
        "scenario": "NL", "tasks": ["ctr", "ctcvr"], "categorical": ["country", "user"],
        "numerical": ["price", "age"], "optional": [],
        "models": {"champion": {"version": "1", "wanted": "1", "fault": None}},
    }  # fmt: skip
    assert served.get("/healthz").json() == {"status": "ok"}
    assert served.get("/readyz").json() == {"ready": True, "stale": False, "faults": []}
