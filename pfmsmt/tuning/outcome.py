"""The outcome of a study: shown, exported, and applied to params.yaml."""

import datetime
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from optuna import Study
from optuna.trial import TrialState
from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from pfmsmt import __version__
from pfmsmt.config import Config, parse_config
from pfmsmt.config.keys import set_values
from pfmsmt.core.display import terminal_table, text_table
from pfmsmt.core.errors import ConfigError, TuningError
from pfmsmt.core.files import write_text
from pfmsmt.tuning.sampling import RANDOM_TRIALS, values_of
from pfmsmt.tuning.space import Space, plain_value
from pfmsmt.tuning.trials import OUTSIDE, START, is_retried, state_of


def apply(values: Mapping[str, Any], path: Path) -> None:
    """Set values by dotted keys, adding keys that are not there.

    The file is changed whole or not at all.

    Raises:
        ConfigError: the file has lost a key and is no longer valid, or a value stands in a form that cannot be replaced
            on its own.
    """
    text = path.read_bytes().decode("utf-8")
    expected = yaml.safe_load(text)
    for key, value in values.items():
        place = _find(YAML().compose(text), key)
        if place.missing:
            _check_valid(text, key, path)
            text = _added(text, place, value)
        else:
            start, end, new = place.node.start_mark.index, place.node.end_mark.index, _flow(value)
            text = text[:start] + new + _aligned(text[end:], len(new) - (end - start))
        set_values(expected, {key: list(value) if isinstance(value, tuple) else value})
    _check(text, expected, path)
    write_text(path, text)


class _Place(NamedTuple):
    """The deepest node on the way to a key."""

    node: Node
    missing: Sequence[str]
    """Parts of the key that are not there."""
    column: int
    """The column of keys in the node, where it is a block."""
    within_flow: bool
    """Whether the node lies within braces."""


def _find(root: Node, key: str) -> _Place:
    node, column, within_flow = root, 0, False
    parts = key.split(".")
    for depth, part in enumerate(parts):
        pairs = node.value if isinstance(node, MappingNode) else []
        found = [(name, held) for name, held in pairs if name.value == part]
        if not found:
            column = pairs[0][0].start_mark.column if pairs else column
            return _Place(node, parts[depth:], column, within_flow)
        within_flow = within_flow or _is_flow(node)
        node, column = found[0][1], found[0][0].start_mark.column + 2
    return _Place(node, (), column, within_flow)


def _check_valid(text: str, key: str, path: Path) -> None:
    """Refuse to add a key to a file that is not valid."""
    try:
        parse_config(yaml.safe_load(text), str(path))
    except ConfigError as error:
        raise ConfigError(
            f"{path}: {key} is no longer there, and the file is not valid, so nothing was written\n{error}"
        ) from None


def _is_flow(node: Node) -> bool:
    return isinstance(node, CollectionNode) and bool(node.flow_style)


def _added(text: str, place: _Place, value: Any) -> str:
    """Add a key behind the others of its block or braces."""
    node = place.node
    start, end = node.start_mark.index, node.end_mark.index
    if _is_flow(node) and (node.value or place.within_flow):
        block: Any = list(value) if isinstance(value, tuple) else value
        for name in reversed(place.missing):
            block = {name: block}
        new = f"{', ' if node.value else ''}{_flow(block)[1:-1]}"
        return text[: end - 1] + new + "}" + _aligned(text[end:], len(new))
    at = end
    if _is_flow(node):
        # Lines below a key take the place of its {}.
        head = text[:start].rstrip(" ")
        text, at = head + _aligned(text[end:], len(head) - end), len(head)
    else:
        while isinstance(node, MappingNode) and node.value and not _is_flow(node):
            node = node.value[-1][1]
            at = node.end_mark.index
    ends = "\r\n" if "\r\n" in text else "\n"
    *blocks, last = [f"{' ' * (place.column + 2 * depth)}{name}:" for depth, name in enumerate(place.missing)]
    lines = "".join(line + ends for line in [*blocks, f"{last} {_flow(value)}"])
    text += "" if text.endswith("\n") else ends
    at = text.index("\n", at) + 1
    while (comment := _COMMENT.match(text, at)) and len(comment[1]) > place.column:
        at = comment.end()
    return text[:at] + lines + text[at:]


_COMMENT = re.compile(r"( *)#.*\n")
"""A line that goes on with the comment of the line above, where it is further in than the keys."""


def _aligned(rest: str, longer: int) -> str:
    """Keep a comment behind the value in its column, if it fits."""
    spaces = len(rest) - len(rest.lstrip(" "))
    if not spaces or rest[spaces : spaces + 1] != "#":
        return rest
    return " " * max(1, spaces - longer) + rest[spaces:]


def _flow(value: Any) -> str:
    """Return a value on one line, as it stands behind its key."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()


def _check(text: str, expected: dict[str, Any], path: Path) -> None:
    try:
        changed = yaml.safe_load(text)
    except yaml.YAMLError:
        changed = None
    if changed != expected:
        raise ConfigError(
            f"{path}: a tuned value spans several lines, or is an anchor or alias; write it on one line, as in "
            "`expert_layers: [64, 32]`, and use --resume --apply again"
        )
    parse_config(changed, str(path))


class Outcome(NamedTuple):
    """A study's best trial beside params.yaml's own values."""

    method: str
    study: str
    objective: str
    states: Mapping[str, int]
    """Numbers of trials that ended complete, pruned, failed, or were tried again after their worker was killed."""
    elsewhere: int
    """The number that still run, on other machines or in other processes."""
    start: Mapping[str, Any]
    """params.yaml's own values."""
    start_value: float | None
    """The objective at the start; None where that trial is not complete."""
    outside: Sequence[str]
    """Keys whose start lies outside of the space, so that the first trial had other values."""
    best: Mapping[str, Any]
    best_value: float
    best_trial: int


def outcome_of(study: Study, config: Config, method: str, space: Space) -> Outcome:
    """Summarise a study.

    Raises:
        TuningError: none of its trials is complete.
    """
    trials = study.get_trials(deepcopy=False)
    states = Counter("tried again" if is_retried(t) else state_of(t) for t in trials if t.state.is_finished())
    if not states["complete"]:
        raise TuningError(
            f"study {study.study_name}: no trial is complete, so there is no best one; "
            "go on with --resume and more --trials, or a longer --timeout"
        )
    elsewhere = sum(trial.state == TrialState.RUNNING for trial in trials)
    best = study.best_trial
    first = [t.value for t in trials if START in t.user_attrs and t.state == TrialState.COMPLETE]
    return Outcome(
        method, study.study_name, config.tune.objective, states, elsewhere,
        {key: plain_value(config, key) for key in space},
        first[0] if first else None, study.user_attrs[OUTSIDE], values_of(best.params, space), study.best_value,
        best.number,
    )  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the best parameters against params.yaml's, one table for all methods."""
    rows: list[tuple[str, str, str]] = []
    notes = []
    for found in outcomes:
        mark = "*" if found.outside else ""
        start = "not complete" if found.start_value is None else f"{found.start_value:.4f}{mark}"
        rows.append((f"{found.method}, validation AUC ({found.objective})", start, f"{found.best_value:.4f}"))
        for key, value in found.best.items():
            rows.append((f"  {key}", _shown(found.start[key]), _shown(value)))
        if found.outside:
            notes.append(f"* {', '.join(found.outside)}: outside of the space; the first trial had the nearest value")
        states = ", ".join(f"{number} {state}" for state, number in sorted(found.states.items()))
        running = f", {found.elsewhere} still running elsewhere" if found.elsewhere else ""
        notes.append(f"{found.study}: {states}{running}; the best is trial {found.best_trial}")
        if found.elsewhere:
            notes.append("  a machine that is gone is noticed after three minutes; --resume then runs its trials again")
    names = ("", "params.yaml", "best")
    return "\n".join([terminal_table(text_table(names, rows, right=names[1:])), *notes])


def export(found: Outcome, config: Config, path: Path) -> None:
    """Write the best parameters, by dotted keys, with the study's figures.

    benchmarks/quality.py reads such files.
    """
    figures = {
        "study": found.study,
        "method": found.method,
        "objective": found.objective,
        "trials": sum(number for state, number in found.states.items() if state != "tried again"),
        "states": {state: number for state, number in sorted(found.states.items()) if number},
        "sampler": f"TPE, seed {config.seed}, {RANDOM_TRIALS} trials before it models anything",
        "pruner": config.tune.pruner,
        "training_seed": config.train.seeds[0],
        "validation_auc": round(found.best_value, 5),
        "validation_auc_of_the_start": None if found.start_value is None else round(found.start_value, 5),
        "best_trial": found.best_trial,
        "pfmsmt": __version__,
        "date": datetime.date.today().isoformat(),
    }
    write_text(path, yaml.safe_dump({"study": figures, "params": dict(found.best)}, sort_keys=False))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
