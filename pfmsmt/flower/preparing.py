"""The schema exchange: sites propose, the server agrees, sites write their shards. Rows and private values stay.

pfmsmt site prepare NL      at each site: raw data -> proposal.json
pfmsmt federate agree       at the server: asks for the proposals, answers with the schema, and keeps it
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from flwr.app import ConfigRecord, RecordDict
from pydantic import BaseModel, ValidationError

from pfmsmt.config import PARAMS_FILE, Data, load_config
from pfmsmt.core.console import say
from pfmsmt.core.errors import FederationError
from pfmsmt.core.files import write_text
from pfmsmt.core.layout import CLIENTS, RAW, SCHEMA
from pfmsmt.data.prepare.agreement import Agreed, Proposal, agree_on_fields
from pfmsmt.data.prepare.download import SOURCE_FILE, obtain, read_contents
from pfmsmt.data.prepare.partition import partition, propose_fields
from pfmsmt.data.schema import SPLITS, Schema, SplitCounts
from pfmsmt.data.sources import SOURCES
from pfmsmt.data.sources.base import of_site
from pfmsmt.flower.server.nodes import Nodes
from pfmsmt.flower.wire import NOTES, one_line
from pfmsmt.training.exchange import Failure

Told = TypeVar("Told", bound=BaseModel)

PROPOSAL = Path("proposal.json")
PROPOSE, PREPARE = "query.propose", "query.prepare"
"""Flower's message types."""


def prepare_site(folder: Path, scenario: str) -> Path:
    """Obtain the scenario's raw data by `<folder>/params.yaml` if they are not there, and write `proposal.json`.

    Raises:
        ConfigError, DataError: see `of_site`, `obtain` and `propose_fields`; nothing is written.
    """
    data, seed = _own_data(folder, scenario)
    if not _holds(folder / RAW, data):
        obtain(data, seed, folder / RAW, say)
    proposal = propose_fields(data, seed, folder / RAW, scenario, say)
    write_text(folder / PROPOSAL, proposal.model_dump_json(indent=1) + "\n")
    return folder / PROPOSAL


def _own_data(folder: Path, scenario: str) -> tuple[Data, int]:
    """Return the `data` block of the site of one scenario, and the seed."""
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
        text = (folder / PROPOSAL).read_text(encoding="utf-8")
        found = Proposal.model_validate_json(text).scenario
    except (OSError, ValidationError):
        raise FederationError(f"site {scenario} has no proposal; run `pfmsmt site prepare {scenario}` there") from None
    if found != scenario:
        raise FederationError(f"site {scenario} was prepared as {found}; run `pfmsmt site prepare {scenario}` there")
    return text


def write_shards(folder: Path, scenario: str, agreed: Schema) -> Schema:
    """Write a site's shards with the agreed schema; return it with the site's counts and without its vocabularies.

    Raises:
        ConfigError, DataError, SchemaError: see `partition`; shards that were there are left.
    """
    data, seed = _own_data(folder, scenario)
    common = Agreed(scenario, agreed.categorical, agreed.numerical)
    return partition(data, seed, folder / RAW, folder / CLIENTS, say, common).public()


def agree_on_schema(nodes: Nodes, root: Path) -> Schema:
    """Ask all sites for their proposals, tell them what was agreed, and write the server's `schema.json`.

    Raises:
        FederationError: a site did not answer, or could not write its shards; the server's schema is as it was.
        SchemaError: proposals do not fit together.
    """
    config = load_config(root / PARAMS_FILE).data
    declared = SOURCES[config.source].scenarios(config)
    nodes.wait(declared)
    scenarios = declared or tuple(sorted(nodes.sites()))
    if not scenarios:
        raise FederationError("no site is connected, so there is nobody to agree with")
    told = _ask(nodes, scenarios, PROPOSE, {})
    agreed = agree_on_fields([_parsed(Proposal, told[scenario], scenario) for scenario in scenarios])
    fields = f"{len(agreed.categorical)} categorical and {len(agreed.numerical)} numerical fields"
    say(f"{', '.join(scenarios)} agree on {fields}")
    own = _ask(nodes, scenarios, PREPARE, {"schema": agreed.model_dump_json()})
    parts = {scenario: _parsed(Schema, own[scenario], scenario) for scenario in scenarios}
    for scenario, part in parts.items():
        if part.agreement != agreed.agreement or part.scenarios != (scenario,):
            raise FederationError(f"site {scenario} wrote shards with another schema than was agreed on")
        _check_counts(scenario, part.counts[scenario], {task.name for task in agreed.tasks})
    fingerprint = hashlib.sha256("".join(part.fingerprint for part in parts.values()).encode()).hexdigest()
    counts = {scenario: part.counts[scenario] for scenario, part in parts.items()}
    schema = agreed.model_copy(update={"counts": counts, "fingerprint": fingerprint}).public()
    write_text(root / SCHEMA, schema.model_dump_json(indent=2) + "\n")
    for scenario, splits in counts.items():
        say(f"{scenario}: " + ", ".join(f"{split} {count.rows:,} rows" for split, count in splits.items()))
    return schema


def _parsed(kind: type[Told], text: str, scenario: str) -> Told:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise FederationError(
            f"site {scenario}: its answer is no {kind.__name__.lower()} ({error.error_count()} faults); "
            "install the same version of pfmsmt there"
        ) from None


def _check_counts(scenario: str, counts: Mapping[str, SplitCounts], tasks: set[str]) -> None:
    for split in SPLITS:
        found = counts.get(split)
        if found is None or found.rows < 1 or found.groups < 1 or found.positives.keys() != tasks:
            raise FederationError(f"site {scenario} tells no rows, groups or positives of {split}; prepare it again")
        if not all(0 <= positives <= found.rows for positives in found.positives.values()):
            raise FederationError(f"site {scenario} tells more positives of {split} than rows; prepare it again")


def _ask(nodes: Nodes, scenarios: Sequence[str], kind: str, more: Mapping[str, str]) -> dict[str, str]:
    """Return scenario -> the text that its site answers.

    Raises:
        FederationError: not all did.
    """
    found = nodes.ask({s: pack_text({"client": s, **more}) for s in scenarios}, kind)
    answers = {s: answer if isinstance(answer, Failure) else read_text(answer) for s, answer in found.items()}
    failed = [f"site {s}: {answer.reason}" for s, answer in answers.items() if isinstance(answer, Failure)]
    if failed:
        raise FederationError("\n".join(failed))
    return {s: answer for s, answer in answers.items() if isinstance(answer, str)}


def pack_text(notes: Mapping[str, str]) -> RecordDict:
    """Return notes as records."""
    return RecordDict({NOTES: ConfigRecord({"json": json.dumps(dict(notes))})})


def read_text(content: RecordDict) -> str | Failure:
    """Return the text of an answer; records that hold none are a failure."""
    try:
        notes = json.loads(str(content.config_records[NOTES]["json"]))
        return Failure(one_line(str(notes["failure"]))) if "failure" in notes else str(notes["text"])
    # Another machine's bytes: whatever comes of reading them is that site's failure.
    except Exception as error:
        return Failure(f"its answer cannot be read ({type(error).__name__})")
