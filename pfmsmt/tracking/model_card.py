"""Model cards: descriptions in Markdown that MLflow's pages show.

A run, its logged models and their registered versions get the same card, a model's with its own scenario alone. All
texts that users made are escaped.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from pfmsmt.data.schema import Schema
from pfmsmt.tracking.store import readable

if TYPE_CHECKING:
    import pandas as pd

    from pfmsmt.tracking.promotion import Promotion
    from pfmsmt.tracking.registry import Version
    from pfmsmt.tracking.store import Store

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run or a logged model."""
_CHARACTERS = 4900
"""A registered version's description may have 5,000."""
_FEW_POSITIVES = 30
"""With fewer, an AUC is mostly luck."""
_NO_TENSOR = ("number", "unlabelled")
_SPECIAL = re.compile(r"[&<>|`*\\#~!\[\]{}()]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)")
_NEWEST = 20
_HOW = {"register": "registered", "promote": "promoted", "rollback": "rolled back"}


class CardFacts(NamedTuple):
    """All that a run's card says."""

    method: str
    seed: int
    schema: Schema
    best: Mapping[str, Any]
    """scenario -> round, mean_auc, validation, perhaps refit_rows"""
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """scenario -> task -> metrics on test rows"""
    calibration: str
    calibrated: bool
    """Whether the scores are of calibrated probabilities."""
    confidence: float | None
    """Of the intervals; None where there are none."""
    ledger: "pd.DataFrame"
    """Columns client, direction, name, role, bytes: what passed in training."""
    pictures: bool
    """Whether the run has pictures of who listens to whom."""


def describe_run(store: "Store", run_id: str, models: Mapping[str, str], facts: CardFacts) -> None:
    """Give a run and its models their cards.

    Args:
        store: that has the run.
        run_id: the run's id.
        models: scenario -> id of its logged model.
        facts: what the cards say.

    Raises:
        TrackingError: the store refuses.
    """
    links = f"#/experiments/{store.experiment_id}/runs/{run_id}/artifacts"
    with readable(store.uri, f"describing run {run_id}"):
        store.client.set_tag(run_id, NOTE, model_card(facts, facts.schema.scenarios, links))
        for scenario, model_id in models.items():
            store.client.set_logged_model_tags(model_id, {NOTE: model_card(facts, [scenario], links)})


def model_card(facts: CardFacts, scenarios: Sequence[str], artifacts: str) -> str:
    """Return the card of a run, or of one scenario's model.

    Args:
        facts: what it says.
        scenarios: those that it speaks of.
        artifacts: address of the run's files in MLflow's UI.
    """
    schema = facts.schema
    models = f"the model of scenario {escaped(scenarios[0])}" if len(scenarios) == 1 else "one model for each scenario"
    interval = f" [{facts.confidence:.0%}]" if facts.confidence else ""
    head = [
        f"**{escaped(facts.method)}**, seed {facts.seed}: {models}, chosen by validation AUC.\n",
        f"| scenario | task | rows: train, val, test | round | val AUC | test AUC{interval} | log-loss | ECE |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    calibrated = "calibrated" if facts.calibrated else "uncalibrated"
    line = "no calibration" if facts.calibration == "none" else f"{facts.calibration}, fitted to validation rows"
    heat_map = f"{artifacts}/training/pictures/listening-{quote(facts.method)}.png"
    pictures = f", [who listens to whom]({heat_map})" if facts.pictures else ""
    refits = [str(facts.best[s]["refit_rows"]) for s in scenarios if "refit_rows" in facts.best[s]]
    refit = f" Trained again on training and validation rows ({', '.join(refits)})." if refits else ""
    tail = [
        f"\n**Data.** {escaped(schema.source)}, fingerprint `{schema.fingerprint[:12]}`, grouped by "
        f"{escaped(schema.group)}; {len(schema.categorical)} categorical and {len(schema.numerical)} numerical columns."
        f"{refit} The prepared rows hold no dates; the [data card]({artifacts}/data/data.html) compares the splits.",
        f"\n**Calibration.** {line}; the scores above are of {calibrated} probabilities.",
        f"\n**What leaves a client.** {what_left(facts.ledger, scenarios)} Rows never leave it.",
        f"\n**Limits.** {' '.join(_limits(facts, scenarios))}",
        f"\n**Report.** [Comparison]({artifacts}/comparison/comparison.html){pictures}; "
        "files of the stages `compare` and `card` are there once these have run.",
    ]
    rows = [_score_row(facts, scenario, task) for scenario in scenarios for task in facts.scores[scenario]]
    # A card has an end: the rest of a long table is in the report.
    room = _CHARACTERS - sum(len(text) + 1 for text in (*head, *tail)) - 80
    shown: list[str] = []
    for row in rows:
        room -= len(row) + 1
        if room < 0:
            shown.append(f"\n{len(rows) - len(shown)} more rows are in the report.")
            break
        shown.append(row)
    return "\n".join([*head, *shown, *tail])


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", " ".join(text.split()))


def what_left(ledger: "pd.DataFrame", scenarios: Sequence[str]) -> str:
    """Say which tensors clients sent in a round.

    Args:
        ledger: columns client, direction, name, role, bytes.
        scenarios: the clients; where none has one of these names, a client holds several scenarios.
    """
    sent = ledger[(ledger["direction"] == "up") & ~ledger["role"].isin(_NO_TENSOR)]
    own = sent[sent["client"].isin(scenarios)]
    sent = own if len(own) else sent
    if not len(sent):
        return "No tensor: only counts, losses and metrics."
    size = sent.groupby("client")["bytes"].sum().max() / 1024
    count = sent.groupby("client")["name"].count().max()
    roles, plural = ", ".join(sorted(set(sent["role"]))), "s" if count > 1 else ""
    return f"{count} tensor{plural} in a round, {size:,.0f} KiB ({roles}); counts and metrics."


def champion_text(version: "Version", done: "Promotion", before: "Version | None") -> str:
    """Say when and why a version became the champion, with its figures."""
    place = f" in place of version {done.before}" if done.before else ""
    figures = []
    for name, label in (("val_mean_auc", "validation AUC"), ("test_mean_auc", "test AUC")):
        value, old = version.metric(name), before.metric(name) if before else None
        if value is not None:
            figures.append(f"{label} {value:.4f}" + (f" (before {old:.4f})" if old is not None else ""))
    spite = f"; in spite of: {'; '.join(done.objections)}" if done.objections else ""
    how = f"{_HOW[done.action]}{' by force' if done.forced else ''} by {done.user}"
    return f"champion since {_shown(done.time)}{place}, {how}; {', '.join(figures) or 'no figures'}{spite}"


def registered_text(scenario: str, history: Sequence["Promotion"], versions: Sequence["Version"]) -> str:
    """Return the description of a scenario's registered model: its champions."""
    known = {version.version: version for version in versions}
    lines = [
        f"Models of scenario {escaped(scenario)}. The version with the alias `champion` is served; a `challenger` "
        "waits for `pfmsmt models promote`. Each version's description is its model card.\n",
        "**Champions**, the newest first:\n",
    ]
    for done in list(history)[: -_NEWEST - 1 : -1]:
        version = known.get(done.after)
        what = champion_text(version, done, known.get(done.before or "")) if version else f"since {_shown(done.time)}"
        lines.append(f"- version {escaped(done.after)}: {escaped(what)}")
    return "\n".join(lines)[:_CHARACTERS]


def _score_row(facts: CardFacts, scenario: str, task: str) -> str:
    cell, counts = facts.scores[scenario][task], facts.schema.counts[scenario]
    rows = ", ".join(f"{counts[split].rows:,}" if split in counts else "-" for split in ("train", "val", "test"))
    validation = facts.best[scenario]["validation"].get(task, {}).get("auc")
    low, high = cell.get("auc_low"), cell.get("auc_high")
    interval = f" [{low:.4f}, {high:.4f}]" if low is not None and high is not None else ""
    cells = (
        escaped(scenario), f"{escaped(task)}&ensp;", rows, facts.best[scenario]["round"], _figure(validation),
        f"{_figure(cell['auc'])}{interval}&ensp;", _figure(cell["logloss"]), _figure(cell["ece"]),
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _limits(facts: CardFacts, scenarios: Sequence[str]) -> list[str]:
    few = [
        f"{escaped(scenario)} {escaped(task)} ({cell['positives']})"
        for scenario in scenarios
        for task, cell in facts.scores[scenario].items()
        if cell["positives"] < _FEW_POSITIVES
    ]
    found = [
        "Scores hold for rows like the test rows of the same scenario, and say nothing of other scenarios or later "
        "times. Categories that training rows lack share one embedding.",
    ]
    if few:
        shown = ", ".join(few[:10]) + (f" and {len(few) - 10} more" if len(few) > 10 else "")
        found.append(f"Fewer than {_FEW_POSITIVES} test positives, so that an AUC is mostly luck: {shown}.")
    if not facts.confidence:
        found.append("No interval was computed.")
    return found


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _shown(time: str) -> str:
    return f"{time[:19].replace('T', ' ')} UTC"
