"""Flower's ClientApp: one message, one answer. What goes wrong is told in a line without any value of the data."""

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from pfmsmt.errors import FederationError, TrainingError
from pfmsmt.evaluation import Validation
from pfmsmt.exchange import Failure
from pfmsmt.flower.site import Site
from pfmsmt.flower.site_models import keep_model
from pfmsmt.flower.wire import NOTES, Asked, Best, pack_answer, read_request
from pfmsmt.methods import Upload

logger = logging.getLogger(__name__)
app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for one phase."""
    return _reply(message, context, _answer)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Validate the personalised model."""
    return _reply(message, context, _answer)


@app.query("keep")
def keep(message: Message, context: Context) -> Message:
    """Keep the best model, as the run is over."""
    track = bool(context.node_config.get("track", True))
    return _reply(message, context, lambda site, asked: keep_model(site, asked.client, asked.plan, track))


@app.query()
def introduce(message: Message, context: Context) -> Message:
    """Say whose site this is; asked only where nodes are not authenticated."""
    notes = ConfigRecord({"json": str(context.node_config["scenario"])})
    return Message(RecordDict({NOTES: notes}), reply_to=message)


def _answer(site: Site, asked: Asked) -> Upload | Validation:
    if asked.request is None:
        raise FederationError("the request names no round")
    return site.answer(asked.client, asked.plan, asked.request)


def _reply(message: Message, context: Context, answer: Callable[[Site, Asked], Upload | Validation | Best]) -> Message:
    found: Upload | Validation | Best | Failure
    try:
        site = Site(str(context.node_config["scenario"]), Path(str(context.node_config["data-dir"])))
        found = answer(site, read_request(message.content))
    except (FederationError, TrainingError) as error:
        logger.error("%s", error)
        found = Failure(str(error))
    except Exception as error:
        # Its text may quote rows or paths of the site.
        logger.exception("the request failed")
        found = Failure(f"{type(error).__name__}; the site's own log says more")
    return Message(pack_answer(found), reply_to=message)
