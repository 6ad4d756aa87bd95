"""Nested mappings of arrays, on disk as safetensors.

Names are the path from the root, joined with `|`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pfmsmt.core.errors import CheckpointError
from pfmsmt.core.files import new_file

SEPARATOR = "|"


def write_tree(path: Path, tree: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Write arrays and notes as one file, whole or not at all.

    Notes are values that JSON can hold.
    """
    leaves = _flatten(tree, ())
    flat = {name: np.asarray(value, order="C") for name, value in leaves if not isinstance(value, Mapping)}
    empty = [name for name, value in leaves if isinstance(value, Mapping)]
    # One entry, as safetensors keeps several in no fixed order.
    header = {"notes": json.dumps({"notes": notes, "empty": empty})}
    with new_file(path) as temporary:
        # Not save_file: on a full disk it raises an error of its own, without the system's reason.
        temporary.write_bytes(save(flat, metadata=header))


def read_tree(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays as nested dicts, and the notes.

    Raises:
        CheckpointError: missing or damaged.
    """
    tree: dict[str, Any] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()["notes"])
            notes: dict[str, Any] = header["notes"]
            for name in header["empty"]:
                _place(tree, name, {})
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                _place(tree, name, file.get_tensor(name))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); remove {path.parent} to start anew") from error
    return tree, notes


def _flatten(tree: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Return the leaves: arrays, and empty mappings.

    A method may look for the latter.
    """
    flat = []
    for name, value in sorted(tree.items()):
        here = (*path, name)
        flat += _flatten(value, here) if isinstance(value, Mapping) and value else [(SEPARATOR.join(here), value)]
    return flat


def _place(tree: dict[str, Any], name: str, value: Any) -> None:
    *parents, leaf = name.split(SEPARATOR)
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[leaf] = value
