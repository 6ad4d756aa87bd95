"""Rewrites a params.yaml of version 0.1.0 to the keys of today."""

import copy
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from pfmsmt.config.blocks import Federated
from pfmsmt.config.keys import GONE, MOVED, block_at, set_values
from pfmsmt.config.loading import TUNE_FILE, load_config, parse_config, read_mapping
from pfmsmt.config.methods import WITH_PRIVATE_SHARED, WITH_SHARED
from pfmsmt.core.errors import ConfigError
from pfmsmt.core.files import write_text

_FEDERATED_BEFORE = ("pf_msmtrec", "fedavg", "fedprox", "fedbn", "fedper", "ditto")
"""The federated methods of version 0.1.0."""
_TUNE_HEAD = "# The search of `pfmsmt tune`; `pfmsmt params show tune` explains every key.\n\n"


class Rewritten(NamedTuple):
    """Both files as they shall be, and what is different."""

    params: str
    tune: str | None
    """None where there is no search to move."""
    changes: list[str]


def upgrade(path: Path) -> list[str]:
    """Rewrite a params file with its values and comments, and write tune.yaml.

    Both are written whole, or nothing is.

    Returns:
        what was changed, a line each; none where the file is current.

    Raises:
        ConfigError: the file has another fault, is in a form that cannot be rewritten, or a key stands there under its
            old and its new name; nothing was written.
    """
    old = read_mapping(path)
    if not _is_old(old):
        load_config(path)
        return []
    done = _rewrite(path, old)
    _check(path, old, done)
    if done.tune is not None:
        search = path.with_name(TUNE_FILE.name)
        if search.exists() and read_mapping(search) != yaml.safe_load(done.tune):
            aside = search.with_name(f"{search.name}.old")
            write_text(aside, search.read_text(encoding="utf-8"))
            done.changes.append(f"{search.name}: replaced by the block tune; what it was is in {aside.name}")
        # First: where this is the last that happens, the params file is still old, and is upgraded the next time.
        write_text(search, done.tune)
    write_text(path, done.params)
    return done.changes


def _is_old(tree: dict[str, Any]) -> bool:
    moved = any(name in block_at(tree, place) for place, name in map(_split, [*MOVED, *GONE]))
    methods = tree.get("methods")
    return moved or "tune" in tree or (isinstance(methods, dict) and "shared" not in methods)


def _rewrite(path: Path, old: dict[str, Any]) -> Rewritten:
    text = path.read_bytes().decode("utf-8")
    ends = "\r\n" if "\r\n" in text else "\n"
    form = round_trip_form()
    try:
        tree = form.load(text)
    except YAMLError as error:
        raise ConfigError(f"{path} cannot be rewritten: {error}") from None
    for block in (tree, tree.get("train"), tree.get("methods")):
        if getattr(block, "merge", None):
            raise ConfigError(f"{path}: a block with `<<` cannot be rewritten; write its keys out")
    changes = [*_move_keys(tree, path), *_drop_keys(tree), *_share(tree)]
    # A search names keys whole.
    space = block_at(tree, "tune.space")
    for key in [*space]:
        if key in MOVED:
            _carry(space, space, key, MOVED[key])
    tune = tree.pop("tune", None)
    if tune is not None:
        changes.append(f"tune: moved to {TUNE_FILE}")
    new = [key for key in tree if key not in old]
    params = _spaced(dump_tree(form, tree), [*new, *(_after(tree, new))])
    search = None if tune is None else _TUNE_HEAD + re.sub(r"\A\s+#", "#", dump_tree(form, tune))
    return Rewritten(params.replace("\n", ends), search and search.replace("\n", ends), changes)


def round_trip_form() -> YAML:
    """Return a reader and writer that keeps comments, quotes and order."""
    form = YAML()
    form.preserve_quotes = True
    form.width = 10**6
    form.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return form


def _move_keys(tree: CommentedMap, path: Path) -> list[str]:
    changes = []
    for place in dict.fromkeys(_split(old)[0] for old in MOVED):
        block = block_at(tree, place)
        # In the order of the file, so that the blank line behind its last key stays the last.
        for name in [*block]:
            old = f"{place}.{name}"
            if old not in MOVED:
                continue
            target, new = _split(MOVED[old])
            if "." not in target and target not in tree:
                tree.insert(max(list(tree).index(known) for known in ("train", "run") if known in tree) + 1, target,
                            CommentedMap())  # fmt: skip
            if new in block_at(tree, target):
                raise ConfigError(f"{path}: {old} and {MOVED[old]} are both there; remove one of them")
            _carry(block, block_at(tree, target), name, new)
            changes.append(f"{old}: now {MOVED[old]}")
    return changes


def _drop_keys(tree: CommentedMap) -> list[str]:
    changes = []
    for key, now in GONE.items():
        place, name = _split(key)
        if block_at(tree, place).pop(name, None) is not None:
            changes.append(f"{key}: gone; {now}")
    return changes


def _split(key: str) -> tuple[str, str]:
    """Return a dotted key's block and its name there."""
    place, _, name = key.rpartition(".")
    return place, name


def _carry(source: CommentedMap, target: CommentedMap, key: str, new: str | None = None) -> None:
    """Move a key with the comment behind it.

    `new` is its name there, where that is another one.
    """
    new = new or key
    target[new] = source.pop(key)
    if key in source.ca.items:
        target.ca.items[new] = source.ca.items.pop(key)


def _share(tree: CommentedMap) -> list[str]:
    """Say once what federated methods have in common.

    A key with comments on lines of their own stays where it is.
    """
    methods: CommentedMap | None = tree.get("methods")
    if not isinstance(methods, CommentedMap) or "shared" in methods:
        return []
    shared = CommentedMap()
    blocks = {name: methods[name] for name in _FEDERATED_BEFORE if isinstance(methods.get(name), dict)}
    changes = ["methods.shared: new, what federated methods have in common"]
    for key, field in _ordered(blocks):
        values = Counter(block[key] for block in blocks.values() if key in block)
        # A method that does not say it has its default.
        complete = len(blocks) == len(_FEDERATED_BEFORE) and values.total() == len(blocks)
        value = values.most_common(1)[0][0] if complete else field.default
        owners = [name for name, block in blocks.items() if block.get(key) == value]
        removable = [name for name in owners if not _has_lines(blocks[name], key)]
        if removable:
            _carry(blocks[removable[0]], shared, key)
        else:
            shared[key] = value
        for name in removable[1:]:
            del blocks[name][key]
        if removable:
            changes.append(f"methods.shared.{key}: {value}, from {', '.join(removable)}")
    methods.insert(0, "shared", shared)
    return changes


def _ordered(blocks: Mapping[str, CommentedMap]) -> list[tuple[str, FieldInfo]]:
    """Return the shared fields in the order of the first block."""
    order = list(next(iter(blocks.values()), ()))
    return sorted(Federated.model_fields.items(), key=lambda f: order.index(f[0]) if f[0] in order else len(order))


def _has_lines(block: CommentedMap, key: str) -> bool:
    """Tell whether comments stand on lines of their own behind a key."""
    tokens = [token for token in block.ca.items.get(key, ()) if token is not None]
    flat = [part for token in tokens for part in (token if isinstance(token, list) else [token])]
    return any(re.search(r"\n\s*#", token.value) for token in flat)


def dump_tree(form: YAML, tree: CommentedMap) -> str:
    """Return a file's text of a tree that `form` has read."""
    stream = io.StringIO()
    form.dump(tree, stream)
    return stream.getvalue().rstrip() + "\n"


def _after(tree: CommentedMap, keys: list[str]) -> list[str]:
    order = list(tree)
    return [order[order.index(key) + 1] for key in keys if order.index(key) + 1 < len(order)]


def _spaced(text: str, keys: list[str]) -> str:
    """Put a blank line in front of top-level keys that have none."""
    for key in keys:
        text = re.sub(rf"(?m)(?<=[^\n]\n)(?={re.escape(key)}:)", "\n", text, count=1)
    return text


def _check(path: Path, old: dict[str, Any], done: Rewritten) -> None:
    """Refuse rewritten files whose effective configuration is another one."""
    before = copy.deepcopy(old)
    for place, name in map(_split, MOVED):
        if name in (block := block_at(before, place)):
            set_values(before, {MOVED[f"{place}.{name}"]: block.pop(name)})
    for place, name in map(_split, GONE):
        block_at(before, place).pop(name, None)
    space = block_at(before, "tune.space")
    for key in [*space]:
        space[MOVED.get(key, key)] = space.pop(key)
    try:
        expected = parse_config(before, str(path))
    except ConfigError as error:
        raise ConfigError(f"{error}\nnothing was rewritten; mend this first") from None
    after = yaml.safe_load(done.params) | ({} if done.tune is None else {"tune": yaml.safe_load(done.tune)})
    found = parse_config(after, str(path))
    # What the old file has in common is also what methods have that it does not know.
    later = {*WITH_SHARED, *WITH_PRIVATE_SHARED} - {*_FEDERATED_BEFORE, *(before.get("methods") or ())}
    common = {"methods": {"shared", *later}}
    if found.model_dump(exclude=common) != expected.model_dump(exclude=common):
        raise ConfigError(f"{path} is in a form that cannot be rewritten without changing a value; nothing was written")
