"""The `pfmsmt site` commands: what a site does before it takes part."""

from pathlib import Path
from typing import Annotated

import typer

from pfmsmt.console import say
from pfmsmt.federate import need_flower

app = typer.Typer(help="A scenario's own site.", no_args_is_help=True)


@app.callback()
def _site() -> None:
    """Prepare a scenario's own site."""


@app.command()
def prepare(
    scenario: Annotated[str, typer.Argument(help="Whose site this is.")],
    folder: Annotated[Path, typer.Option(help="The site's folder, with its params.yaml.")] = Path("."),
) -> None:
    """Obtain this scenario's raw data, and write what its site proposes for the federation's schema."""
    need_flower()
    from pfmsmt.flower.preparing import prepare_site

    say(f"{prepare_site(folder, scenario)} is what will leave this site when the server asks for it; look at it, then")
    say(f"start it with `pfmsmt federate site {scenario} --server HOST:PORT`; `pfmsmt federate agree` does the rest")
