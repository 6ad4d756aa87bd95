"""The `pfmsmt params` commands explain, change and upgrade params.yaml's keys."""

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from pfmsmt.config import PARAMS_FILE, Config, load_config
from pfmsmt.config.keys import value_at
from pfmsmt.config.reference import Setting, as_yaml, below, reference, reference_page
from pfmsmt.core.console import say

params_app = typer.Typer(
    help="Explain or change the keys of params.yaml, or upgrade an old file.", no_args_is_help=True
)

_File = Annotated[Path, typer.Option(help="The params file; tune.yaml lies beside it.")]
_WIDTH = 100


@params_app.command("show")
def show_params(
    key: Annotated[str | None, typer.Argument(help="A key or a block, such as train; all if left out.")] = None,
    file: _File = PARAMS_FILE,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page instead.")] = False,
) -> None:
    """Print keys with their present values, defaults, ranges and meanings."""
    if markdown:
        if key is not None:
            raise typer.BadParameter("the page has all keys; leave KEY out")
        say(reference_page().rstrip())
        return
    settings = reference() if key is None else below(key)
    config = load_config(file)
    for setting in settings:
        say(_described(setting, config))


@params_app.command("merge")
def merge_params(
    source: Annotated[Path, typer.Argument(help="A YAML file with some of the keys, in the form of params.yaml.")],
    file: _File = PARAMS_FILE,
) -> None:
    """Write another file's settings into params.yaml; all else stays as it is."""
    from pfmsmt.config.overlay import merge_settings

    changes = merge_settings(source, file)
    if not changes:
        say(f"{file} has these settings already; nothing was changed")
        return
    for change in changes:
        say(change)
    say(f"{file} is changed; `dvc repro` runs what depends on it, `git checkout {file}` goes back")


@params_app.command("upgrade")
def upgrade_params(file: _File = PARAMS_FILE) -> None:
    """Rewrite an old params.yaml to the present keys, keeping values and comments."""
    # Not at the top: no other command needs ruamel.yaml.
    from pfmsmt.config.upgrade import upgrade

    changes = upgrade(file)
    if not changes:
        say(f"{file} is current; nothing was changed")
        return
    for change in changes:
        say(change)
    say(f"{file} is rewritten, and trains as before")


def _described(setting: Setting, config: Config) -> str:
    present = "" if "<" in setting.key else f" = {_present(setting.key, config)}"
    default = f"default: {setting.default}" if setting.default else "must be given"
    lines = textwrap.wrap(setting.meaning, _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    return "\n    ".join([f"{setting.key}{present}", *lines, f"value: {setting.kind}; {default}"])


def _present(key: str, config: Config) -> str:
    return as_yaml(value_at(config.model_dump(mode="json", by_alias=True), key))
