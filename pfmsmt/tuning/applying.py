"""Writes values into params.yaml, where they stand: all other lines of the file stay as they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from pfmsmt.atomic import write_text
from pfmsmt.config import parse_config
from pfmsmt.dotted_keys import set_values
from pfmsmt.errors import ConfigError


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
