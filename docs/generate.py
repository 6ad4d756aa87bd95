"""Write the pages of docs/reference that say what the code says: params, cli, files, metrics.

python docs/generate.py            writes them
python docs/generate.py --check    says which are not current, and fails
"""

import ast
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import typer
import yaml

from pfmsmt.commands.main import app
from pfmsmt.config.reference import reference_page
from pfmsmt.core import layout
from pfmsmt.tracking import logged_metrics

BESIDE = {
    "params.yaml": "The settings; `tune.yaml` has those of a search.",
    "dvc.yaml": "The stages, what they depend on, and what they write.",
    "dvc.lock": "Hashes of all that the last run read and wrote; commit it.",
    "data/downloads/": "Checksums of what was downloaded, and parts of broken downloads.",
    "mlflow.db": "The MLflow store, with `mlruns/` for artifacts, unless `MLFLOW_TRACKING_URI` names another one.",
    "federation/": "At the server of a federation: certificates, registered keys, agreed counts.",
    "proposal.json": "At a site: what it proposes for the schema, and what leaves.",
    "state/": "At a site: its private state, a folder for each step of the last rounds.",
    "federation-demo/": "What `make federation-demo` left.",
}
"""Files that no stage writes, and that core/layout.py does not name."""
ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; bars within cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def cli_page() -> str:
    """Return every command with its arguments and options, from the typer app."""
    parts = ["# Commands", "All commands are run in the project's folder."]
    for name, command in _commands("pfmsmt", typer.main.get_command(app)):
        parts += [f"## {name}", str(command.help).strip()]
        arguments = [p for p in command.params if p.param_type_name == "argument" and not p.hidden]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        usage = [name, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)]
        parts.append(f"```text\n{' '.join(usage)}\n```")
        rows = [[f"`{_argument(p)}`", _meaning(p)] for p in arguments]
        rows += [[f"`{_option(p)}`", _meaning(p)] for p in options]
        if rows:
            parts.append(table(["", "meaning"], rows))
    return "\n\n".join(parts)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word in inner:
        yield from _commands(f"{name} {word}", inner[word])


def _argument(parameter: Any) -> str:
    name = parameter.name.upper()
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> str:
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {parameter.metavar or parameter.name.upper()}"


def _meaning(parameter: Any) -> str:
    words = [str(parameter.help)]
    if isinstance(parameter.type, click.IntRange | click.FloatRange):
        low, high = parameter.type.min, parameter.type.max
        words.append(f"At least {low:g}." if high is None else f"From {low:g} to {high:g}.")
    if parameter.required:
        words.append("Required.")
    elif parameter.default is not None and not isinstance(parameter.default, (bool, tuple, list)):
        words.append(f"Default: `{parameter.default}`.")
    return " ".join(words)


def files_page() -> str:
    """Return all places of a project, from core/layout.py and dvc.yaml."""
    parts = [
        "# Files",
        "All paths are relative to the project's folder. In angle brackets stands what varies; `*` is any name.\n"
        "The stage that writes a file is named; others write at any time.",
        table(["file", "stage", "what it is"], [[f"`{path}`", _stage(path), text] for path, text in places()]),
        "## Beside them",
        table(["file", "what it is"], [[f"`{path}`", text] for path, text in BESIDE.items()]),
    ]
    return "\n\n".join(parts)


def places() -> list[tuple[str, str]]:
    """Return (path, meaning) of every place that core/layout.py names, and of the files that it says lie there."""
    body = ast.parse(Path(layout.__file__).read_text(encoding="utf-8")).body
    found = []
    for node, after in pairwise(body):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        place = getattr(layout, node.targets[0].id)
        if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
            raise ValueError(f"core/layout.py: {node.targets[0].id} has no docstring")
        summary, _, inner = str(after.value.value).partition("\n\n")
        for path in place if isinstance(place, tuple) else (place,):
            found.append((path.as_posix() if path.suffix else f"{path.as_posix()}/", summary))
            for line in inner.splitlines():
                name, _, meaning = line.partition(": ")
                found.append((f"{path.as_posix()}/{name}", f"{meaning[:1].upper()}{meaning[1:]}."))
    return found


def _stage(path: str) -> str:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    best = ("", "")
    for name, stage in stages.items():
        for entry in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            out = next(iter(entry)) if isinstance(entry, dict) else entry
            out = out.replace("${item.method}", "<method>").replace("${item.seed}", "<seed>")
            if (path.rstrip("/") == out or path.startswith(f"{out}/")) and len(out) > len(best[0]):
                best = (out, name)
    return f"`{best[1]}`" if best[1] else ""


def metrics_page() -> str:
    """Return all metrics that runs log, from tracking/logged_metrics.py."""
    parts = [
        "# Metrics",
        "Names as they are in MLflow. `<kind>` is `expert`, `embedding` or `tower`, or `gate` where it is federated.\n"
        "A metric that is undefined or not finite is not logged.\n"
        "With `train.refit`, steps after `train.rounds` are the rounds of the second training; they have no `val/...`.",
    ]
    sections = [
        ("Each round, of every method", "EACH_ROUND"),
        ("Each round, of pf_msmtrec", "OF_COORDINATION"),
        ("Each round, of fedhca2 and its rule", "OF_FEDHCA2"),
        ("Each round, with noise", "OF_NOISE"),
        ("At the end", "AT_THE_END"),
        ("Searches", "OF_SEARCHES"),
    ]
    meanings = _docstrings(Path(logged_metrics.__file__))
    for title, name in sections:
        rows = [[f"`{m.name}`", m.unit, m.meaning] for m in getattr(logged_metrics, name)]
        parts += [f"## {title}", meanings[name], table(["name", "unit", "meaning"], rows)]
    return "\n\n".join(parts)


def _docstrings(path: Path) -> dict[str, str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {
        node.targets[0].id: str(after.value.value)
        for node, after in pairwise(body)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }  # fmt: skip


PAGES = {"params.md": reference_page, "cli.md": cli_page, "files.md": files_page, "metrics.md": metrics_page}
NOTE = "<!-- Written by docs/generate.py; do not edit. -->"


def main(words: list[str]) -> int:
    """Write the pages, or say which are not current."""
    stale = []
    for name, build in PAGES.items():
        text = f"{NOTE}\n\n{build().rstrip()}\n"
        path = REFERENCE / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if words != ["--check"]:
                path.write_text(text, encoding="utf-8")
    if stale and words == ["--check"]:
        print(f"docs/reference: {', '.join(stale)} are not current; run `python docs/generate.py`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
