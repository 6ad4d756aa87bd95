"""Every key with its range, default and meaning, from the models.

The terminal and the documentation show this one list.
"""

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import yaml

from pfmsmt.config.keys import GONE, MOVED
from pfmsmt.config.loading import PARAMS_FILE, TUNE_FILE, Config
from pfmsmt.config.methods import WITH_PRIVATE_SHARED, WITH_SHARED, shared_keys
from pfmsmt.core.errors import ConfigError

JsonSchema = Mapping[str, Any]
"""A part of what pydantic says of the models."""
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


class Setting(NamedTuple):
    """One key of params.yaml or tune.yaml."""

    key: str
    """Dotted; `<name>` and `<n>` stand for any name and any place in a list."""
    kind: str
    """Type and range, such as `number, 0 <= x < 1`."""
    default: str
    """As YAML would write it; empty where the key must be given, `methods.shared...` where it is taken from there."""
    meaning: str

    @property
    def file(self) -> str:
        """The file in which the key stands."""
        return str(TUNE_FILE if self.key.startswith("tune.") else PARAMS_FILE)

    @property
    def is_shared(self) -> bool:
        """Whether a method has the key from `methods.shared`."""
        return self.default.startswith("methods.shared.")


def reference() -> list[Setting]:
    """Return all keys, in the order of the files."""
    return list(_settings(_schema(), ""))


def below(key: str) -> list[Setting]:
    """Return the keys that are `key` or stand below it.

    Raises:
        ConfigError: there is none; the nearest is named.
    """
    found = [setting for setting in reference() if f"{setting.key}.".startswith(f"{key}.")]
    if found:
        return found
    if key in MOVED:
        raise ConfigError(f"{key}: this key is now {MOVED[key]}")
    if key in GONE:
        raise ConfigError(f"{key}: this key is gone: {GONE[key]}")
    valid = dict.fromkeys(part for setting in reference() for part in _prefixes(setting.key))
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"blocks: {', '.join(_schema()['properties'])}"
    raise ConfigError(f"{key}: unknown key; {hint}")


def reference_page() -> str:
    """Return all keys as a Markdown page with a table per block."""
    lines = [
        "# Settings",
        "",
        f"Every key of `{PARAMS_FILE}`, and in the last table of `{TUNE_FILE}`. What is in no file has its default.",
        "`pfmsmt params show` prints the same list, with the present values.",
    ]
    for block, part in _schema()["properties"].items():
        # The search has a file of its own, in which its keys stand at the top.
        rows = [s for s in reference() if s.key.split(".")[0] == block and not s.is_shared]
        title = f"## `{block}`" if block != "tune" else f"## `{TUNE_FILE}`"
        lines += ["", title, "", _meaning(part)]
        if block == "methods":
            lines += ["", f"{', '.join(WITH_SHARED)} also take every key of `shared`, in place of what stands there."]
            *first, last = sorted(shared_keys(WITH_PRIVATE_SHARED[0]))
            keys = f"{', '.join(first)} and {last}"
            lines.append(f"{', '.join(WITH_PRIVATE_SHARED)} take {keys} of it.")
        lines += ["", "| Key | Value | Default | Meaning |", "|---|---|---|---|"]
        for setting in rows:
            key = setting.key.removeprefix("tune.")
            default = f"`{_cell(setting.default)}`" if setting.default else "must be given"
            lines.append(f"| `{key}` | {_cell(setting.kind)} | {default} | {_cell(setting.meaning)} |")
    return "\n".join([*lines, ""])


def as_yaml(value: Any) -> str:
    """Return a plain value as YAML has it behind a key."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("...\n").strip()


@cache
def _schema() -> JsonSchema:
    return Config.model_json_schema()


def _settings(schema: JsonSchema, place: str) -> Iterator[Setting]:
    for name, part in schema["properties"].items():
        key = f"{place}.{name}" if place else name
        block = _block(part)
        if block is not None:
            yield from _settings(block, key)
            continue
        default = as_yaml(part["default"]) if "default" in part else ""
        if name in shared_keys(place.removeprefix("methods.")):
            default = f"methods.shared.{name}"
        yield Setting(key, _kind(part), default, part["description"])
        for inner, mark in ((part.get("additionalProperties"), "<name>"), (part.get("items"), "<n>")):
            held = _block(inner) if isinstance(inner, Mapping) else None
            if held is not None:
                yield from _settings(held, f"{key}.{mark}")


def _block(part: JsonSchema) -> JsonSchema | None:
    """Return the schema of a part that is a block, else None."""
    name = str(part.get("$ref", "")).rpartition("/")[2]
    found: JsonSchema | None = _schema()["$defs"].get(name)
    return found


def _meaning(part: JsonSchema) -> str:
    # A block whose field says the same as its model says it once.
    return str(part.get("description") or (_block(part) or {})["description"])


def _kind(part: JsonSchema) -> str:
    if "$ref" in part:
        return "block"
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(_kind(choice) for choice in part["anyOf"]))
    if "enum" in part or "const" in part:
        return " | ".join(str(value) for value in part.get("enum", [part.get("const")]))
    if part.get("type") == "array":
        return f"list of {_plural(part['items'])}{', one or more' if part.get('minItems') else ''}"
    if part.get("type") == "object":
        return f"mapping from names to {_plural(part['additionalProperties'])}"
    names = {"integer": "whole number", "number": "number", "boolean": "true | false", "string": "text", "null": "null"}
    return f"{names.get(part.get('type', ''), 'any value')}{_range(part)}"


def _plural(part: JsonSchema) -> str:
    kind = _kind(part)
    words = {"block": "blocks", "text": "texts", "any value": "any values"}
    if kind.startswith(("whole number", "number")):
        name, comma, bounds = kind.partition(",")
        return f"{name}s{comma}{bounds}"
    return words.get(kind, kind)


def _range(part: JsonSchema) -> str:
    found = {sign: part[bound] for bound, sign in _BOUNDS.items() if bound in part}
    low = next((f"{value:,} {sign.replace('>', '<')}" for sign, value in found.items() if ">" in sign), None)
    high = next((f"{sign} {value:,}" for sign, value in found.items() if "<" in sign), None)
    if low and high:
        return f", {low} x {high}"
    return "".join(f", {sign} {value:,}" for sign, value in found.items())


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
