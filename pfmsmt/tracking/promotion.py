"""Champions: promoted, rolled back, and on record.

One version of each scenario's model is its champion.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pfmsmt.core.errors import TrackingError
from pfmsmt.data.schema import ScenarioSchema
from pfmsmt.tracking import registry
from pfmsmt.tracking.logged_models import read_model_schema
from pfmsmt.tracking.model_card import champion_text, registered_text
from pfmsmt.tracking.origin import source_tags
from pfmsmt.tracking.registry import CHALLENGER, CHAMPION, Version

if TYPE_CHECKING:
    from pfmsmt.tracking.store import Store

_METRIC = "val_mean_auc"
_DATA = "data_fingerprint"
_RECORD = "promotion."


class Promotion(NamedTuple):
    """One change of a champion."""

    time: str
    """UTC, ISO 8601"""
    action: Literal["register", "promote", "rollback"]
    before: str | None
    """Version that was the champion."""
    after: str
    forced: bool
    objections: tuple[str, ...]
    """Reasons against it; only a forced promotion has any."""
    user: str


def objections(store: "Store", champion: Version, candidate: Version, margin: float) -> tuple[str, ...]:
    """Return what speaks against a candidate.

    A validation AUC worse by more than `margin`, or a schema that does not fit.

    Raises:
        TrackingError: a version's files cannot be read, or hold a pickle.
    """
    found = []
    old, new = champion.metric(_METRIC), candidate.metric(_METRIC)
    if old is not None and (new is None or new < old - margin):
        shown = "undefined" if new is None else f"{new:.4f}"
        found.append(f"its {_METRIC} is {shown}, the champion's {old:.4f}; it may be worse by {margin:g} at most")
    found += schema_faults(version_schema(store, champion), version_schema(store, candidate))
    return tuple(found)


def schema_faults(old: ScenarioSchema, new: ScenarioSchema) -> list[str]:
    """Return why a schema cannot take another one's place.

    Requests that `old` takes would not do for `new`, or answers that `old` gives would be missing.
    """
    found = []
    if new.scenario != old.scenario:
        found.append(f"it is a model of scenario {new.scenario}")
    kinds_old, kinds_new = _kinds(old), _kinds(new)
    added = [name for name in kinds_new if name not in kinds_old and name not in new.fill]
    needed = [name for name in old.fill if name in kinds_new and name not in new.fill]
    changed = [name for name, kind in kinds_new.items() if name in kinds_old and kinds_old[name] != kind]
    lost = [task.name for task in old.tasks if task.name not in {task.name for task in new.tasks}]
    if added:
        found.append(f"it needs columns that requests do not have: {', '.join(added)}")
    if needed:
        found.append(f"it has no fill for columns that requests may lack: {', '.join(needed)}")
    if changed:
        found.append(f"these columns are of another kind: {', '.join(changed)}")
    if lost:
        found.append(f"it does not predict {', '.join(lost)}")
    return found


def promote(store: "Store", scenario: str, which: str, margin: float, *, force: bool = False) -> Promotion:
    """Make a version the champion, unless something speaks against it.

    The version is named by number or alias.

    Raises:
        TrackingError: no such version, it is the champion already, or an objection and no `force`; nothing changes.
    """
    candidate = registry.find_version(store, scenario, which)
    champion = current(store, scenario)
    if champion is not None and champion.version == candidate.version:
        raise TrackingError(f"pfmsmt-{scenario} version {candidate.version} is the champion already")
    against = objections(store, champion, candidate, margin) if champion else ()
    if against and not force:
        raise TrackingError(
            f"pfmsmt-{scenario} version {candidate.version} is not promoted: {'; '.join(against)}. "
            "`--force` promotes it all the same"
        )
    return _replace_champion(store, candidate, "promote", against)


class Placed(NamedTuple):
    """The alias of a version that was just registered."""

    alias: str
    against: tuple[str, ...] = ()
    """Why it is not the champion, beyond that nobody has promoted it."""


def place(store: "Store", scenario: str, version: str, promote: Literal["manual", "if_better"]) -> Placed:
    """Give a version that was just registered its alias.

    A scenario's first version is its champion. Later ones are challengers; with `if_better` the champion is replaced
    at once by a version that validated better on the same rows and takes the same requests.
    """
    champion = current(store, scenario)
    if champion is None:
        set_champion(store, scenario, version, "register")
        return Placed(CHAMPION)
    if champion.version == version:
        return Placed(CHAMPION)
    candidate = registry.find_version(store, scenario, version)
    against = _other_data(champion, candidate)
    if promote == "if_better" and not against:
        against = _not_better(store, champion, candidate)
        if not against:
            _replace_champion(store, candidate, "register")
            return Placed(CHAMPION)
    registry.set_alias(store, scenario, CHALLENGER, version)
    return Placed(CHALLENGER, against)


def _replace_champion(
    store: "Store", candidate: Version, action: Literal["register", "promote"], against: tuple[str, ...] = ()
) -> Promotion:
    """Make a version the champion, and no longer the challenger."""
    done = set_champion(store, candidate.scenario, candidate.version, action, forced=bool(against), against=against)
    if CHALLENGER in candidate.aliases:
        registry.drop_alias(store, candidate.scenario, CHALLENGER)
    return done


def _other_data(champion: Version, candidate: Version) -> tuple[str, ...]:
    """Return that the champion is of another data set, if it is."""
    old, new = champion.tags.get("dataset"), candidate.tags.get("dataset")
    if old is None or old == new:
        return ()
    how = f"`pfmsmt models promote {champion.scenario} --force` replaces it"
    return (f"the champion, version {champion.version}, is a model of the data set {old}; {how}",)


def _not_better(store: "Store", champion: Version, candidate: Version) -> tuple[str, ...]:
    """Return why a candidate may not be better than the champion."""
    # Rows of other data may have been trained on, and are another measure.
    if champion.tags.get(_DATA) != candidate.tags.get(_DATA):
        return ("the champion was validated on other rows",)
    old, new = champion.metric(_METRIC), candidate.metric(_METRIC)
    if old is None or new is None or new <= old:
        shown = ["undefined" if value is None else f"{value:.4f}" for value in (new, old)]
        return (f"its {_METRIC} is {shown[0]}, the champion's {shown[1]}",)
    return objections(store, champion, candidate, 0.0)


def rollback(store: "Store", scenario: str) -> Promotion:
    """Bring back the champion before this one; again, the one before that.

    Raises:
        TrackingError: no champion was before, or its version is gone.
    """
    line: list[str] = []
    """Champions, the oldest first, without those that were rolled back."""
    for entry in history(store, scenario):
        if entry.before and line[-1:] != [entry.before]:
            line.append(entry.before)  # an alias that was moved without a record
        if entry.action == "rollback":
            while line and line[-1] != entry.after:
                line.pop()
        if line[-1:] != [entry.after]:
            line.append(entry.after)
    champion = current(store, scenario)
    if champion is not None and line and line[-1] == champion.version:
        line.pop()
    if not line:
        raise TrackingError(f"pfmsmt-{scenario} has had no champion before this one, so there is none to go back to")
    registry.find_version(store, scenario, line[-1])
    return set_champion(store, scenario, line[-1], "rollback")


def set_champion(
    store: "Store",
    scenario: str,
    version: str,
    action: Literal["register", "promote", "rollback"],
    *,
    forced: bool = False,
    against: tuple[str, ...] = (),
) -> Promotion:
    """Move the alias `champion`, and record the move.

    The record is a tag of the registered model.
    """
    champion = current(store, scenario)
    time = datetime.now(UTC).isoformat(timespec="microseconds")
    done = Promotion(
        time, action, champion and champion.version, version, forced, against, source_tags()["mlflow.user"]
    )
    # The record first: a champion without one would be lost to rollback, a record without its champion is seen.
    registry.set_model_tag(store, scenario, _RECORD + time.replace(":", "").replace("+0000", "Z"), _text(done))
    registry.set_alias(store, scenario, CHAMPION, version)
    _describe(store, scenario, done)
    return done


def _describe(store: "Store", scenario: str, done: Promotion) -> None:
    """Say a change in words on MLflow's pages of version and model."""
    versions = registry.versions(store, scenario)
    known = {entry.version: entry for entry in versions}
    text = champion_text(known[done.after], done, known.get(done.before or ""))
    registry.set_version_tag(store, scenario, done.after, "promotion", text)
    registry.describe_model(store, scenario, registered_text(scenario, history(store, scenario), versions))


def history(store: "Store", scenario: str) -> list[Promotion]:
    """Return all recorded changes of a scenario's champion, the oldest first."""
    texts = sorted((k, v) for k, v in registry.model_tags(store, scenario).items() if k.startswith(_RECORD))
    found = []
    for key, text in texts:
        try:
            entry = json.loads(text)
            found.append(Promotion(**{**entry, "objections": tuple(entry["objections"])}))
        except (ValueError, TypeError, KeyError):
            raise TrackingError(f"tag {key} of pfmsmt-{scenario} is no promotion record; delete it") from None
    return found


def current(store: "Store", scenario: str) -> Version | None:
    """Return the champion, if there is one."""
    return next((entry for entry in registry.versions(store, scenario) if CHAMPION in entry.aliases), None)


def version_schema(store: "Store", version: Version) -> ScenarioSchema:
    """Return the schema of a registered version."""
    with TemporaryDirectory() as temporary:
        return read_model_schema(
            registry.download_version(store, version.scenario, version.version, Path(temporary, "model"))
        )


def _kinds(schema: ScenarioSchema) -> dict[str, str]:
    categorical = {field.name: "text" if field.text else "categorical" for field in schema.categorical}
    return categorical | {field.name: "numerical" for field in schema.numerical}


def _text(done: Promotion) -> str:
    entry: dict[str, Any] = done._asdict()
    entry["objections"] = [text[:300] for text in done.objections]
    return json.dumps(entry)
