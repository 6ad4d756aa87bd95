"""`pfmsmt models`: list, compare and promote registered models."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pfmsmt.config import load_config
from pfmsmt.core.console import say
from pfmsmt.core.display import terminal_table, text_table
from pfmsmt.data.schema import ScenarioSchema
from pfmsmt.tracking import connect, promotion, registry
from pfmsmt.tracking.registry import CHALLENGER, CHAMPION, Version

models = typer.Typer(help="List, compare and promote registered models.", no_args_is_help=True)

_Scenario = Annotated[str, typer.Argument(help="Scenario, such as NL.")]
_LISTED = ("method", "seed", "dataset", "val_mean_auc", "test_mean_auc", "git_commit")


@models.command("list")
def list_versions(
    scenario: Annotated[str | None, typer.Argument(help="One scenario; all if left out.")] = None,
) -> None:
    """List all versions, newest first, with their aliases, origin and AUC."""
    tracking = connect(Path.cwd())
    rows = [
        (f"pfmsmt-{entry.scenario}", entry.version, ",".join(entry.aliases), *(_tag(entry, name) for name in _LISTED))
        for name in ([scenario] if scenario else registry.aliases(tracking))
        for entry in registry.versions(tracking, name)
    ]
    if not rows:
        say(f"no model is registered in {tracking.uri}; run `dvc repro register`")
        return
    say(terminal_table(text_table(("model", "version", "alias", *_LISTED), rows)))


@models.command("show")
def show_version(
    scenario: _Scenario, version: Annotated[str, typer.Option(help="Version or alias.")] = CHAMPION
) -> None:
    """Show a version's tags and columns, and the scenario's former champions."""
    tracking = connect(Path.cwd())
    found = registry.find_version(tracking, scenario, version)
    schema = promotion.version_schema(tracking, found)
    created = datetime.fromtimestamp(found.created / 1000, UTC).isoformat(timespec="seconds")
    say(f"pfmsmt-{scenario} version {found.version}  {' '.join(found.aliases)}")
    lines = {"created": created, "source": found.source, **dict(sorted(found.tags.items())), **_described(schema)}
    say(terminal_table(text_table(("", ""), list(lines.items()))))
    changes = [
        (
            f"  {entry.time}",
            entry.action,
            f"{entry.before or '-'} -> {entry.after}",
            f"by {entry.user}",
            f"in spite of: {'; '.join(entry.objections)}" if entry.objections else "",
        )
        for entry in promotion.history(tracking, scenario)
    ]
    say(f"champions:\n{terminal_table(text_table([''] * 5, changes))}")


@models.command("promote")
def promote_version(
    scenario: _Scenario,
    version: Annotated[str, typer.Option(help="Version or alias.")] = CHALLENGER,
    force: Annotated[bool, typer.Option("--force", help="Promote it in spite of what speaks against it.")] = False,
) -> None:
    """Make a version the champion.

    Refused if it validated worse by more than register.margin, or does not fit what requests hold.
    """
    margin = load_config().register_.margin
    done = promotion.promote(connect(Path.cwd()), scenario, version, margin, force=force)
    for text in done.objections:
        say(f"forced, although {text}")
    say(f"pfmsmt-{scenario}: champion {done.before or 'none'} -> {done.after}")


@models.command("rollback")
def roll_back(scenario: _Scenario) -> None:
    """Bring back the champion before this one."""
    done = promotion.rollback(connect(Path.cwd()), scenario)
    say(f"pfmsmt-{scenario}: champion {done.before or 'none'} -> {done.after}")


@models.command("diff")
def diff_versions(
    scenario: _Scenario,
    first: Annotated[str, typer.Argument(help="Version or alias.")] = CHAMPION,
    second: Annotated[str, typer.Argument(help="Version or alias.")] = CHALLENGER,
) -> None:
    """Show where two versions differ, and what speaks against the second.

    Compared are tags, training parameters and columns.
    """
    tracking = connect(Path.cwd())
    a, b = (registry.find_version(tracking, scenario, which) for which in (first, second))
    before, after = (promotion.version_schema(tracking, entry) for entry in (a, b))
    lines: list[tuple[str, str, str]] = []
    sides = [
        {**entry.tags, **registry.version_params(tracking, entry), **_described(schema)}
        for entry, schema in ((a, before), (b, after))
    ]
    for name in sorted({*sides[0], *sides[1]}):
        left, right = sides[0].get(name, "-"), sides[1].get(name, "-")
        if left != right:
            lines.append((name, left, right))
    names = (f"pfmsmt-{scenario}", f"version {a.version}", f"version {b.version}")
    say(terminal_table(text_table(names, lines)))
    against = promotion.objections(tracking, a, b, load_config().register_.margin)
    say("".join(f"against version {b.version}: {text}\n" for text in against) or f"nothing speaks against {b.version}")


def _described(schema: ScenarioSchema) -> dict[str, str]:
    return {
        "schema.tasks": ", ".join(task.name for task in schema.tasks),
        "schema.categorical": str(len(schema.categorical)),
        "schema.numerical": str(len(schema.numerical)),
        "schema.categories": str(sum(len(field.vocabulary) for field in schema.categorical)),
        "schema.fill": ", ".join(f"{name}: {value!r}" for name, value in schema.fill.items()) or "none",
        "schema.columns": f"{schema.columns[0]} ... {schema.columns[-1]}" if schema.columns else "none",
    }


def _tag(entry: Version, name: str) -> str:
    text = entry.tags.get(name, "-")
    if name.endswith("_auc"):
        value = entry.metric(name)
        return "-" if value is None else f"{value:.4f}"
    return text[:10] if name == "git_commit" else text
