"""Models and examples of the OpenAPI document; the code reads raw bodies."""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pfmsmt.data.schema import CategoricalField, ScenarioSchema
from pfmsmt.serving.arrow import STREAM
from pfmsmt.serving.bodies import JSON


class ErrorAnswer(BaseModel):
    """An error: its cause, its place, and a remedy."""

    detail: str


class ExampleBody(BaseModel):
    """A request that is answered as it stands."""

    records: list[dict[str, int | float | str]]


class GateWeights(BaseModel):
    """One task's gate."""

    experts: list[str]
    weights: list[list[float]]


class Prediction(BaseModel):
    """The answer to a prediction request: task -> probability for each row."""

    scenario: str
    model_version: str
    alias: str
    calibrated: bool
    predictions: list[dict[str, float]]
    gates: dict[str, GateWeights] | None = None


class ServedModel(BaseModel):
    """One alias, and the version that serves it."""

    version: str | None
    wanted: str
    fault: str | None


class Scenario(BaseModel):
    """One scenario, and the columns that its requests need."""

    scenario: str
    tasks: list[str]
    categorical: list[str]
    numerical: list[str]
    optional: list[str]
    models: dict[str, ServedModel]


class Readiness(BaseModel):
    """The scenarios' state: served at all, and by the wanted versions."""

    ready: bool
    stale: bool
    faults: list[str]


_CELL = {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]}
_ROWS_BODY: dict[str, Any] = {
    "oneOf": [
        {
            "type": "object",
            "required": ["records"],
            "additionalProperties": False,
            "properties": {
                "records": {"type": "array", "items": {"type": "object", "additionalProperties": _CELL}},
            },
        },
        {
            "type": "object",
            "required": ["columns"],
            "additionalProperties": False,
            "properties": {
                "columns": {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": _CELL},
                },
            },
        },
    ]
}
REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Raw feature columns by name (GET /v1/scenarios lists them); further columns are ignored.",
        "content": {JSON: {"schema": _ROWS_BODY}, STREAM: {"schema": {"type": "string", "format": "binary"}}},
    }
}

_TEXTS = {
    400: "The client went away, or the request is no HTTP",
    401: "No bearer token, or another one",
    404: "No such scenario",
    408: "The body did not arrive in time",
    413: "Too many bytes or rows",
    415: "Another content type, or a compressed body",
    422: "A column is missing, or a value does not fit; names column and row",
    429: "Too many requests at a time",
    503: "No version of this scenario's model could be loaded yet",
    504: "No answer in time",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's `responses` for these statuses."""
    return {status: {"model": ErrorAnswer, "description": _TEXTS[status]} for status in statuses}


def example_body(schema: ScenarioSchema) -> dict[str, Any]:
    """Return a request with one made-up row, which the scenario's model answers.

    Categories are the first ones that all clients know, numbers are training means. Of private columns no category is
    given away: theirs is one that stands for an unknown value.
    """
    categories = {field.name: _example_category(field) for field in schema.categorical}
    return {"records": [categories | {field.name: float(f"{field.mean:.6g}") for field in schema.numerical}]}


def _example_category(field: CategoricalField) -> int | str:
    if field.federated and field.vocabulary:
        return field.vocabulary[0]
    return "example" if field.text else 0


def with_examples(document: Mapping[str, Any], schemas: Mapping[str, ScenarioSchema]) -> dict[str, Any]:
    """Return the OpenAPI document with an example of each scenario.

    The first one is what a page fills in by itself, for the body and for the path alike.
    """
    found: dict[str, Any] = copy.deepcopy(dict(document))
    for operations in found["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "scenario":
                    parameter["examples"] = {name: {"value": name} for name in schemas}
            body = operation.get("requestBody", {}).get("content", {}).get(JSON)
            if body:
                body["examples"] = {
                    name: {"summary": f"a made-up row of {name}", "value": example_body(schema)}
                    for name, schema in schemas.items()
                }
    return found
