"""Flower's ClientApp: one message, one answer.

A failure is reported in a line without any value of the data.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from pfmsmt.core.errors import FederationError, TrainingError
from pfmsmt.data.schema import Schema
from pfmsmt.flower.site.prepare import read_proposal, write_shards
from pfmsmt.flower.site.site_models import save_site_model
from pfmsmt.flower.site.state import Site
from pfmsmt.flower.wire import (
    NOTES,
    PREPARE,
    PROPOSE,
    SAVE,
    SiteRequest,
    SiteResult,
    pack_answer,
    pack_text,
    read_request,
)
from pfmsmt.methods import Upload
from pfmsmt.training.exchange import Failure
from pfmsmt.training.scores import Validation

_Answer = TypeVar("_Answer")

_logger = logging.getLogger(__name__)
client_app = ClientApp()


@client_app.train()
def _train(message: Message, context: Context) -> Message:
    """Train for one phase."""
    return _reply(message, context, _answer)


@client_app.evaluate()
def _evaluate(message: Message, context: Context) -> Message:
    """Validate the personalised model."""
    return _reply(message, context, _answer)


@client_app.query(SAVE.partition(".")[2])
def _save(message: Message, context: Context) -> Message:
    """Save the best model, as the run is over."""
    track = bool(context.node_config.get("track", True))
    return _reply(message, context, lambda site, asked: save_site_model(site, asked.client, asked.plan, track))


@client_app.query()
def _introduce(message: Message, context: Context) -> Message:
    """Name the site's scenario; asked only where nodes are not authenticated."""
    notes = ConfigRecord({"json": str(context.node_config["scenario"])})
    return Message(RecordDict({NOTES: notes}), reply_to=message)


@client_app.query(PROPOSE.partition(".")[2])
def _propose(message: Message, context: Context) -> Message:
    """Answer with the site's proposal for a schema."""
    return _reply_text(message, context, lambda folder, scenario, _: read_proposal(folder, scenario))


@client_app.query(PREPARE.partition(".")[2])
def _prepare(message: Message, context: Context) -> Message:
    """Write the site's shards, and answer with their counts."""

    def answer(folder: Path, scenario: str, notes: dict[str, str]) -> str:
        return write_shards(folder, scenario, Schema.model_validate_json(notes["schema"])).model_dump_json()

    return _reply_text(message, context, answer)


def _reply_text(message: Message, context: Context, answer: Callable[[Path, str, dict[str, str]], str]) -> Message:
    scenario, folder = str(context.node_config["scenario"]), Path(str(context.node_config["data-dir"]))
    notes = json.loads(str(message.content.config_records[NOTES]["json"]))

    def act() -> dict[str, str]:
        if notes["client"] != scenario:
            raise FederationError(f"this site is {scenario}, but its key is registered as {notes['client']}")
        return {"text": answer(folder, scenario, notes)}

    found = _guarded(act)
    return Message(pack_text({"failure": found.reason} if isinstance(found, Failure) else found), reply_to=message)


def _answer(site: Site, asked: SiteRequest) -> Upload | Validation:
    if asked.request is None:
        raise FederationError("the request names no round")
    return site.answer(asked.client, asked.plan, asked.request)


def _reply(
    message: Message, context: Context, answer: Callable[[Site, SiteRequest], Upload | Validation | SiteResult]
) -> Message:
    def act() -> Upload | Validation | SiteResult:
        site = Site(str(context.node_config["scenario"]), Path(str(context.node_config["data-dir"])))
        return answer(site, read_request(message.content))

    return Message(pack_answer(_guarded(act)), reply_to=message)


def _guarded(act: Callable[[], _Answer]) -> _Answer | Failure:
    try:
        return act()
    except (FederationError, TrainingError) as error:
        _logger.error("%s", error)
        return Failure(str(error))
    except Exception as error:
        # Its text may quote rows or paths of the site.
        _logger.exception("the request failed")
        return Failure(f"{type(error).__name__}; the site's own log says more")
