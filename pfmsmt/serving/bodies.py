"""Bodies of prediction requests and answers, in JSON and in Arrow.

Legend: B batch, T tasks.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pfmsmt.core.errors import SchemaError
from pfmsmt.serving import arrow
from pfmsmt.serving.arrow import TooManyRows
from pfmsmt.serving.guards import Refusal
from pfmsmt.serving.rows import FeatureRows, RowReader
from pfmsmt.serving.scorer import ScoredRows, Scorer

JSON = "application/json"


def parse_rows(body: bytes, kind: str, reader: RowReader, max_rows: int) -> FeatureRows:
    """Read the rows of a request whose content type is `kind`.

    Raises:
        Refusal: 415 for another content type, 413 for too many rows, 422 for all that is wrong with the content.
    """
    media = kind.partition(";")[0].strip().lower()
    try:
        if media == arrow.STREAM:
            return arrow.read_stream(body, reader, max_rows)
        if media == JSON:
            return _read_json(body, reader, max_rows)
    except SchemaError as error:
        raise Refusal(422, str(error)) from None
    except TooManyRows as error:
        raise Refusal(413, f"{error} (serve.max_rows)") from None
    raise Refusal(415, f"send {JSON} or {arrow.STREAM} as Content-Type")


def _read_json(body: bytes, reader: RowReader, max_rows: int) -> FeatureRows:
    tree = _parse(body)
    forms = [name for name in ("records", "columns") if isinstance(tree, dict) and name in tree]
    if len(forms) != 1 or len(tree) != 1:
        raise SchemaError('the body must be an object with one key: "records" (a list) or "columns" (an object)')
    if forms == ["records"]:
        records = tree["records"]
        if not isinstance(records, list):
            raise SchemaError("records must be a list of objects, one for each row")
        _limit(len(records), max_rows)
        return reader.from_records(records)
    columns = tree["columns"]
    if not isinstance(columns, dict):
        raise SchemaError("columns must be an object: column name -> list of values")
    known = [columns[name] for name in reader.schema.columns if isinstance(columns.get(name), list)]
    rows = len(known[0]) if known else 0
    _limit(rows, max_rows)
    return reader.from_columns(columns, rows)


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        fault = f"the body is not valid JSON: {error.msg}, character {error.pos}"
    if b"NaN" in body or b"Infinity" in body:
        # Python writes these, though JSON has none: parsed all the same, so that the answer names column and row.
        with suppress(ValueError, RecursionError):
            return json.loads(body)
    raise SchemaError(fault)


def _limit(rows: int, max_rows: int) -> None:
    if rows > max_rows:
        raise TooManyRows(f"{rows} rows; a request may have {max_rows}")


def json_answer(scorer: Scorer, alias: str, scores: ScoredRows, gates: bool) -> bytes:
    """Return the answer as JSON."""
    tasks = scorer.tasks
    answer: dict[str, Any] = {
        "scenario": scorer.schema.scenario,
        "model_version": scorer.version,
        "alias": alias,
        "calibrated": scorer.calibrated,
        "predictions": [dict(zip(tasks, row, strict=True)) for row in scores.probabilities.tolist()],
    }
    if gates:
        answer["gates"] = {
            task: {
                "experts": [name for name, _ in places],
                "weights": scores.gates[:, index, [place for _, place in places]].tolist(),
            }
            for index, (task, places) in enumerate(zip(tasks, scorer.experts, strict=True))
        }
    return orjson.dumps(answer)


def arrow_answer(scorer: Scorer, alias: str, scores: ScoredRows, gates: bool) -> bytes:
    """Return the answer as an Arrow stream.

    Each task is a float64 column. With `gates` there are lists `gates_<task>` beside them, if the model has experts.
    """
    columns: dict[str, Any] = {task: scores.probabilities[:, i].copy() for i, task in enumerate(scorer.tasks)}
    notes = {
        "scenario": scorer.schema.scenario,
        "model_version": scorer.version,
        "alias": alias,
        "calibrated": str(scorer.calibrated).lower(),
    }
    if gates:
        for index, (task, places) in enumerate(zip(scorer.tasks, scorer.experts, strict=True)):
            if places:
                weights = np.ascontiguousarray(scores.gates[:, index, [place for _, place in places]])
                columns[f"gates_{task}"] = pa.FixedSizeListArray.from_arrays(weights.ravel(), len(places))
            notes[f"experts_{task}"] = ",".join(name for name, _ in places)
    return arrow.write_stream(columns, notes)


def unknown_cells(rows: FeatureRows, codes: Any, reader: RowReader) -> Mapping[str, int]:
    """Count for each column the given categories that are out of vocabulary."""
    unknown = codes == 0 if rows.absent is None else (codes == 0) & ~rows.absent
    if not unknown.any():
        return {}
    counts = unknown.sum(0).tolist()
    return {name: count for name, count in zip(reader.categorical, counts, strict=True) if count}
