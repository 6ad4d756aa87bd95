"""Settings of one file are taken into params.yaml, whose comments stay."""

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from pfmsmt.config.keys import set_values, value_at
from pfmsmt.config.loading import PARAMS_FILE, load_config, parse_config, read_mapping
from pfmsmt.config.reference import as_yaml, reference
from pfmsmt.config.upgrade import dump_tree, round_trip_form
from pfmsmt.core.errors import ConfigError
from pfmsmt.core.files import write_text


def merge_settings(overlay: Path, target: Path = PARAMS_FILE) -> list[str]:
    """Write a file's settings into the params file; both have one form.

    A block is merged key by key. A value is replaced, and so is a list or a mapping of free names, such as
    `data.tabular.scenarios`. The params file is written whole, or stays as it was.

    Returns:
        what was changed, a line each; none where all values stood there already.

    Raises:
        ConfigError: a file is missing or no valid YAML, a key is unknown, or a value is out of range.
    """
    load_config(target)
    before, given = read_mapping(target), read_mapping(overlay)
    changed = dict(_differences(before, given, ""))
    expected = copy.deepcopy(before)
    set_values(expected, changed)
    parse_config(expected, str(overlay))
    if changed:
        _write(overlay, target, changed, expected)
    return [f"{key}: {as_yaml(value)}" for key, value in changed.items()]


def _differences(target: Mapping[str, Any], given: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of values that the target lacks."""
    for name, value in given.items():
        key = f"{place}.{name}" if place else str(name)
        if key in _blocks() and isinstance(value, dict) and isinstance(target.get(name), dict):
            yield from _differences(target[name], value, key)
        elif name not in target or target[name] != value:
            yield key, value


@cache
def _blocks() -> frozenset[str]:
    """Return the dotted keys of blocks without free names."""
    found = set()
    for setting in reference():
        parts = setting.key.split(".")
        found |= {".".join(parts[:length]) for length in range(1, len(parts)) if not parts[length].startswith("<")}
    return frozenset(found)


def _write(overlay: Path, target: Path, changed: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    form = round_trip_form()
    try:
        tree, given = (form.load(path.read_text(encoding="utf-8")) for path in (target, overlay))
        for key in changed:
            # As it is written there, quotes included: a `'NO'` without them would be false.
            _place(tree, key, value_at(given, key))
    except (YAMLError, KeyError) as error:
        raise ConfigError(f"{target} cannot be rewritten with {overlay}: {error}; change it by hand") from None
    text = dump_tree(form, tree)
    if yaml.safe_load(text) != expected:
        raise ConfigError(f"{target} cannot be rewritten without changing another value; change it by hand")
    write_text(target, text)


def _place(tree: CommentedMap, key: str, value: Any) -> None:
    """Set a value; a new key goes before the block's last.

    So the blank line behind that one stays where it is.
    """
    *path, name = key.split(".")
    for part in path:
        tree = tree[part]
    # A comment behind the key would go between it and a value of several lines.
    if isinstance(value, (CommentedMap, CommentedSeq)) and not value.fa.flow_style():
        tree.ca.items.pop(name, None)
    if name in tree:
        tree[name] = value
    else:
        tree.insert(max(len(tree) - 1, 0), name, value)
