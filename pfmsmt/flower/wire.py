"""Requests and answers as Flower's records.

Arrays as they are, without pickle; all else as JSON.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from pydantic import ValidationError

from pfmsmt.core.errors import FederationError
from pfmsmt.core.types import NamedArrays
from pfmsmt.flower.plan import RunPlan, check_package
from pfmsmt.methods import Upload
from pfmsmt.training.client import Request
from pfmsmt.training.exchange import Failure
from pfmsmt.training.scores import Validation

NOTES = "notes"
"""Name of the record that holds all but arrays, as JSON."""
_ARRAYS = "arrays"
_BY_TASK = "by_task/"
"""Begins the names of the records that hold a task's share."""

PROPOSE, PREPARE, SAVE = "query.propose", "query.prepare", "query.save"
"""Flower's types of the messages beside a round's: ask for a proposal, have shards written, have the model saved."""


class SiteRequest(NamedTuple):
    """A request as it reaches a site."""

    client: str
    plan: RunPlan
    request: Request | None
    """None: the run is over, the site saves its best model."""


def pack_request(client: str, plan: RunPlan, request: Request | None) -> RecordDict:
    """Return a request as records."""
    notes: dict[str, Any] = {"client": client, "plan": plan.model_dump(mode="json")}
    if request is None:
        return _pack({}, notes)
    return _pack({_ARRAYS: request.arrays}, {**notes, "request": [request.kind, request.round, request.phase]})


def read_request(content: RecordDict) -> SiteRequest:
    """Return the request that records hold.

    Raises:
        FederationError: it is none of this version, or this site lacks the method's package.
    """
    try:
        notes = _notes(content)
        check_package(notes["plan"])
        plan = RunPlan.model_validate(notes["plan"])
        if "request" not in notes:
            return SiteRequest(notes["client"], plan, None)
        kind, round_, phase = notes["request"]
        return SiteRequest(notes["client"], plan, Request(kind, round_, phase, _arrays(content[_ARRAYS])))
    except (KeyError, TypeError, ValueError, ValidationError):
        raise FederationError("the request is none that this version of pfmsmt knows; install the server's") from None


class SiteResult(NamedTuple):
    """A site's report on the model that it saved."""

    round: int
    mean_auc: float | None
    validation: Mapping[str, Mapping[str, float | None]]


def pack_answer(answer: Upload | Validation | SiteResult | Failure) -> RecordDict:
    """Return an answer as records."""
    if isinstance(answer, Upload):
        records = {_ARRAYS: answer.arrays, **{f"{_BY_TASK}{task}": part for task, part in answer.by_task.items()}}
        releases = {"releases": answer.releases} if answer.releases else {}
        return _pack(records, {"examples": answer.examples, "loss": answer.loss, **releases})
    if isinstance(answer, Failure):
        return _pack({}, {"failure": answer.reason})
    if isinstance(answer, SiteResult):
        return _pack({}, {"best": answer._asdict()})
    return _pack({}, {"validation": answer})


def read_answer(content: RecordDict) -> Upload | Validation | SiteResult | Failure:
    """Return the answer in records, or a failure.

    Records that hold none are a failure.
    """
    try:
        notes = _notes(content)
        if "failure" in notes:
            return Failure(one_line(str(notes["failure"])))
        if "best" in notes:
            return SiteResult(**notes["best"])
        if "validation" in notes:
            validation: Validation = notes["validation"]
            return validation
        parts = {name.removeprefix(_BY_TASK): _arrays(r) for name, r in content.items() if name.startswith(_BY_TASK)}
        return Upload(_arrays(content[_ARRAYS]), notes["examples"], notes["loss"], parts, notes.get("releases", 0))
    # Another machine's bytes: whatever comes of reading them is that site's failure.
    except Exception as error:
        return Failure(f"its answer cannot be read ({type(error).__name__})")


def pack_text(notes: Mapping[str, str]) -> RecordDict:
    """Return texts of the schema exchange as records."""
    return RecordDict({NOTES: ConfigRecord({"json": json.dumps(dict(notes))})})


def read_text(content: RecordDict) -> str | Failure:
    """Return the text in records, or a failure.

    Records that hold none are a failure.
    """
    try:
        notes = json.loads(str(content.config_records[NOTES]["json"]))
        return Failure(one_line(str(notes["failure"]))) if "failure" in notes else str(notes["text"])
    # Another machine's bytes: whatever comes of reading them is that site's failure.
    except Exception as error:
        return Failure(f"its answer cannot be read ({type(error).__name__})")


def one_line(text: str) -> str:
    """Return another machine's text as one short line, safe to print."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:1000]).split())[:300]


def _pack(parts: dict[str, NamedArrays], notes: dict[str, Any]) -> RecordDict:
    records = {name: ArrayRecord({n: Array(a) for n, a in part.items()}) for name, part in parts.items()}
    return RecordDict({**records, NOTES: ConfigRecord({"json": json.dumps(notes)})})


def _notes(content: RecordDict) -> dict[str, Any]:
    found = json.loads(str(content.config_records[NOTES]["json"]))
    if not isinstance(found, dict):
        raise TypeError("notes are a mapping")
    return found


def _arrays(record: Any) -> NamedArrays:
    if not isinstance(record, ArrayRecord):
        raise TypeError("expected arrays")
    # A copy, as arrays that stand on received bytes cannot be written to.
    return {name: array.numpy().copy() for name, array in record.items()}
