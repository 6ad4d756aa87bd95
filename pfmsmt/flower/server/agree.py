"""The server's side of the schema exchange.

It asks for proposals, agrees, and saves the schema. Sites answer with what `site/prepare.py` wrote: proposals first,
the counts of their shards then. Rows and private values stay with them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pfmsmt.config import PARAMS_FILE, load_config
from pfmsmt.core.console import say
from pfmsmt.core.errors import FederationError
from pfmsmt.core.files import write_text
from pfmsmt.core.layout import SCHEMA
from pfmsmt.data.prepare.agreement import Proposal, agree_on_fields
from pfmsmt.data.schema import SPLITS, Schema, SplitCounts
from pfmsmt.data.sources import SOURCES
from pfmsmt.flower.server.nodes import Nodes
from pfmsmt.flower.wire import PREPARE, PROPOSE, pack_text, read_text
from pfmsmt.training.exchange import Failure

_Part = TypeVar("_Part", bound=BaseModel)


def agree_on_schema(nodes: Nodes, root: Path) -> Schema:
    """Agree with all sites on a schema, and write the server's `schema.json`.

    Asks all sites for their proposals, then has them write their shards with what was agreed.

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
    proposals = _ask(nodes, scenarios, PROPOSE, {})
    agreed = agree_on_fields([_parsed(Proposal, proposals[scenario], scenario) for scenario in scenarios])
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


def _parsed(kind: type[_Part], text: str, scenario: str) -> _Part:
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
            raise FederationError(f"site {scenario} reports no rows, groups or positives of {split}; prepare it again")
        if not all(0 <= positives <= found.rows for positives in found.positives.values()):
            raise FederationError(f"site {scenario} reports more positives of {split} than rows; prepare it again")


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
