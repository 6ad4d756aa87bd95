"""Dotted keys, such as `methods.local.learning_rate`, and where old ones are now."""

from collections.abc import Mapping
from typing import Any

MOVED = {
    **{f"train.{key}": f"run.{key}" for key in ("device", "workers", "threads", "memory", "checkpoint_every")},
    **{f"train.{key}": f"privacy.{key}" for key in ("wire", "clip", "noise", "delta")},
    **{f"methods.centralized.{key}": f"methods.centralized.private_{key}" for key in ("learning_rate", "weight_decay")},
}
"""Key of version 0.1.0 -> key now; its `tune` block is a file now, tune.yaml."""
GONE = {"register.alias": "the pipeline's choice is a challenger; register.promote says when it becomes the champion"}
"""Key of version 0.1.0 that has no successor -> what holds now."""
UPGRADE = "`pfmsmt params upgrade` rewrites the file"


def set_values(tree: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set values by dotted keys in a tree; missing blocks are added."""
    for key, value in values.items():
        *path, last = key.split(".")
        block = tree
        for part in path:
            block = block.setdefault(part, {})
        block[last] = value


def block_at(tree: Mapping[str, Any], place: str) -> Any:
    """Return the block at a dotted place, or an empty one."""
    for part in place.split("."):
        found = tree.get(part)
        tree = found if isinstance(found, Mapping) else {}
    return tree


def value_at(tree: Any, key: str) -> Any:
    """Return the value at a dotted key of a `Config` or tree.

    Raises:
        KeyError, AttributeError: nothing does.
    """
    for part in key.split("."):
        tree = tree[part] if isinstance(tree, Mapping) else getattr(tree, part)
    return tree
