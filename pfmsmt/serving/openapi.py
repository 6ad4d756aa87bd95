"""Models of the OpenAPI document, where the code reads raw bodies."""

from typing import Any

from pydantic import BaseModel

from pfmsmt.serving.arrow import STREAM
from pfmsmt.serving.bodies import JSON


class ErrorAnswer(BaseModel):
    """An error: its cause, its place, and a remedy."""

    detail: str


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
