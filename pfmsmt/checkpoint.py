"""Nested mappings of arrays, on disk as safetensors: names are the path from the root, joined with `|`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pfmsmt.atomic import new_file
from pfmsmt.errors import CheckpointError

SEPARATOR = "|"


def write_tree(path: Path, tree: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Write arrays and JSON-able notes as one file, whole or not at all."""
    flat = {name: np.ascontiguousarray(array) for name, array in _flatten(tree, ())}
    with new_file(path) as temporary:
        save_file(flat, temporary, metadata={"notes": json.dumps(notes)})


def read_tree(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays as nested dicts, and the notes; empty mappings are not kept.

    Raises:
        CheckpointError: missing or damaged.
    """
    tree: dict[str, Any] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            notes = json.loads(file.metadata()["notes"])
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                *parents, leaf = name.split(SEPARATOR)
                place = tree
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[leaf] = file.get_tensor(name)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); remove its folder to start anew") from error
    return tree, notes


def _flatten(tree: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[str, Any]]:
    flat = []
    for name, value in sorted(tree.items()):
        here = (*path, name)
        flat += _flatten(value, here) if isinstance(value, Mapping) else [(SEPARATOR.join(here), np.asarray(value))]
    return flat
