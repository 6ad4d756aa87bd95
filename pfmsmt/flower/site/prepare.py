"""A site's side of the schema exchange.

Raw data become a proposal and, once the schema is agreed on, shards.

    pfmsmt site prepare NL      raw data -> proposal.json, which is all that leaves the site before training
    pfmsmt federate agree       at the server; the site answers with its proposal, and then writes its shards

Rows and private values stay at the site.
"""

from pathlib import Path

from pydantic import ValidationError

from pfmsmt.config import PARAMS_FILE, Data, load_config
from pfmsmt.core.console import say
from pfmsmt.core.errors import FederationError
from pfmsmt.core.files import write_text
from pfmsmt.core.layout import CLIENTS, RAW
from pfmsmt.data.prepare.agreement import Agreed, Proposal
from pfmsmt.data.prepare.download import SOURCE_FILE, obtain, read_contents
from pfmsmt.data.prepare.partition import partition, propose_fields
from pfmsmt.data.schema import Schema
from pfmsmt.data.sources import SOURCES
from pfmsmt.data.sources.base import of_site

_PROPOSAL = Path("proposal.json")


def prepare_site(folder: Path, scenario: str) -> Path:
    """Write the site's `proposal.json`, and return its path.

    Raw data are obtained by `<folder>/params.yaml` if they are not there.

    Raises:
        ConfigError, DataError: see `of_site`, `obtain` and `propose_fields`; nothing is written.
    """
    data, seed = _own_data(folder, scenario)
    if not _holds(folder / RAW, data):
        obtain(data, seed, folder / RAW, say)
    proposal = propose_fields(data, seed, folder / RAW, scenario, say)
    write_text(folder / _PROPOSAL, proposal.model_dump_json(indent=1) + "\n")
    return folder / _PROPOSAL


def _own_data(folder: Path, scenario: str) -> tuple[Data, int]:
    """Return the `data` block of one scenario's site, and the seed."""
    config = load_config(folder / PARAMS_FILE)
    return of_site(SOURCES[config.data.source], config.data, scenario), config.seed


def _holds(raw: Path, config: Data) -> bool:
    return (raw / SOURCE_FILE).exists() and read_contents(raw).source == config.source


def read_proposal(folder: Path, scenario: str) -> str:
    """Return the site's proposal as it is sent.

    Raises:
        FederationError: the site was not prepared, or for another scenario.
    """
    try:
        text = (folder / _PROPOSAL).read_text(encoding="utf-8")
        found = Proposal.model_validate_json(text).scenario
    except (OSError, ValidationError):
        raise FederationError(f"site {scenario} has no proposal; run `pfmsmt site prepare {scenario}` there") from None
    if found != scenario:
        raise FederationError(f"site {scenario} was prepared as {found}; run `pfmsmt site prepare {scenario}` there")
    return text


def write_shards(folder: Path, scenario: str, agreed: Schema) -> Schema:
    """Write a site's shards with the agreed schema.

    Returns:
        the schema with the site's counts, without its private vocabularies.

    Raises:
        ConfigError, DataError, SchemaError: see `partition`; shards that were there are left.
    """
    data, seed = _own_data(folder, scenario)
    common = Agreed(scenario, agreed.categorical, agreed.numerical)
    return partition(data, seed, folder / RAW, folder / CLIENTS, say, common).public()
