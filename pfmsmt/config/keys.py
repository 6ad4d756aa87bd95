"""Values of a configuration by dotted keys, such as `methods.local.learning_rate`."""

from collections.abc import Mapping
from typing import Any


def set_values(tree: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set values by dotted keys in a tree of plain values; KeyError for a block that it does not have."""
    for key, value in values.items():
        path, _, last = key.rpartition(".")
        (value_at(tree, path) if path else tree)[last] = value


def value_at(tree: Any, key: str) -> Any:
    """Return what stands at a dotted key of a `Config` or of a tree of plain values.

    Raises:
        KeyError, AttributeError: nothing does.
    """
    for part in key.split("."):
        tree = tree[part] if isinstance(tree, Mapping) else getattr(tree, part)
    return tree
