"""What a study found: its best trial beside params.yaml's own values, on the terminal and as a file.

Writes values into params.yaml, where they stand: all other lines of the file stay as they are.
"""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from optuna import Study
from optuna.trial import TrialState
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

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
    """Set values by dotted keys; the file is changed whole or not at all.

    Raises:
        ConfigError: the file no longer holds a key, or a value stands in a form that cannot be replaced on its own.
    """
    text = path.read_bytes().decode("utf-8")
    root = YAML().compose(text)
    expected = yaml.safe_load(text)
    places = []
    for key, value in values.items():
        node = _node(root, key, path)
        places.append((node.start_mark.index, node.end_mark.index, _flow(value)))
        set_values(expected, {key: list(value) if isinstance(value, tuple) else value})
    # From the end on, so that places in front keep their index.
    for start, end, new in sorted(places, reverse=True):
        text = text[:start] + new + _aligned(text[end:], len(new) - (end - start))
    _check(text, expected, path)
    write_text(path, text)


def _node(root: Node, key: str, path: Path) -> Node:
    node = root
    for part in key.split("."):
        found = [value for name, value in node.value if name.value == part] if isinstance(node, MappingNode) else []
        if not found:
            raise ConfigError(f"{path}: {key} is no longer there; the best parameters were not written")
        node = found[0]
    return node


def _aligned(rest: str, longer: int) -> str:
    """Keep a comment behind the value in its column, as far as there is room."""
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
    """The best of one method."""

    method: str
    study: str
    objective: str
    states: Mapping[str, int]
    """How many trials ended complete, pruned, failed, or were tried again after their worker was killed."""
    elsewhere: int
    """How many still run, on other machines or in other processes."""
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
            notes.append(f"* {', '.join(found.outside)}: outside of tune.space; the first trial had the nearest value")
        states = ", ".join(f"{number} {state}" for state, number in sorted(found.states.items()))
        running = f", {found.elsewhere} still running elsewhere" if found.elsewhere else ""
        notes.append(f"{found.study}: {states}{running}; the best is trial {found.best_trial}")
        if found.elsewhere:
            notes.append("  a machine that is gone is noticed after three minutes; --resume then runs its trials again")
    names = ("", "params.yaml", "best")
    return "\n".join([terminal_table(text_table(names, rows, right=names[1:])), *notes])


def export(found: Outcome, config: Config, path: Path) -> None:
    """Write the best parameters, by dotted keys, with the study's figures; benchmarks/quality.py reads such files."""
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
