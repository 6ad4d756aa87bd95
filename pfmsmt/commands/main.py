"""The `pfmsmt` command."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import pfmsmt
from pfmsmt.commands.federate import federate_app, site_app
from pfmsmt.commands.models import models
from pfmsmt.commands.params import params_app
from pfmsmt.config import load_config
from pfmsmt.core.console import run_main, say
from pfmsmt.core.layout import SCHEMA
from pfmsmt.tracking import connect
from pfmsmt.tracking.ui_app import app_options
from pfmsmt.tracking.ui_views import deep_links

app = typer.Typer(
    help="Personalised federated multi-scenario multi-task recommendation.", no_args_is_help=True, add_completion=False
)
app.add_typer(federate_app, name="federate")
app.add_typer(models, name="models")
app.add_typer(params_app, name="params")
app.add_typer(site_app, name="site")


def _print_version(asked: bool) -> None:
    if asked:
        say(f"pfmsmt {pfmsmt.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Personalised federated multi-scenario multi-task recommendation."""


@app.command("repro")
def _repro(stages: Annotated[list[str] | None, typer.Argument(help="Stages; all if left out.")] = None) -> None:
    """Run `dvc repro` with this environment's programs.

    `mlflow run .` comes through here.
    """
    # Here too, as it may be that no stage has to run: a run that `mlflow run` made would stay without a name.
    if "MLFLOW_RUN_ID" in os.environ:
        connect(Path.cwd())
    _run([_program("dvc"), "repro", *(stages or [])])


@app.command("show")
def _show() -> None:
    """Print the comparison table and the next commands."""
    # Here and below, what one command needs is imported there: the others need not wait for it.
    from pfmsmt.commands.compare import comparison_text
    from pfmsmt.data.schema import read_schema

    say(comparison_text(load_config(), read_schema(SCHEMA), Path.cwd()))


@app.command("ui")
def _ui(
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 5000,
    links_only: Annotated[bool, typer.Option("--links-only", help="Print the links; start nothing.")] = False,
) -> None:
    """Start the MLflow UI and print links to its useful pages."""
    tracking = connect(Path.cwd())
    say("Pages of the MLflow UI:")
    for name, link in deep_links(tracking, f"http://127.0.0.1:{port}").items():
        say(f"  {name:9s} {link}")
    if links_only:
        return
    # One worker and no job runner: 0.5 GB instead of 3.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    words = ["ui", "--backend-store-uri", tracking.uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    mlflow = _program("mlflow")
    # In this process's place: a signal that ends it then reaches MLflow, which ends its own processes.
    sys.stdout.flush()
    os.execv(mlflow, [mlflow, *words, *app_options()])


@app.command("serve")
def _serve(
    host: Annotated[str | None, typer.Option(help="Address to listen at; serve.host if left out.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; serve.port if left out.", min=1, max=65535)] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Answer without a token, wherever it listens.")] = False,
    scenario: Annotated[
        list[str] | None, typer.Option(help="Scenario to serve, whatever its data set; may be repeated.")
    ] = None,
) -> None:
    """Serve all scenarios' champions over HTTP.

    They are the scenarios of the data here; where there are none, all that are registered.
    PFMSMT_SERVE_TOKEN is the bearer token that requests must carry.
    """
    settings = load_config().serve
    changes = {"host": host or settings.host, "port": port or settings.port}
    tracking = connect(Path.cwd())
    from pfmsmt.data.schema import read_schema
    from pfmsmt.serving.deployments import Offer
    from pfmsmt.serving.http_server import serve

    offer = Offer(tuple(scenario) if scenario else None)
    if not scenario and SCHEMA.exists():
        schema = read_schema(SCHEMA)
        offer = Offer(schema.scenarios, schema.source)
    serve(tracking, settings.model_copy(update=changes), offer, authenticate=not no_auth)


@app.command("predict")
def _predict(
    source: Annotated[Path, typer.Argument(help="Parquet file with the raw feature columns.")],
    target: Annotated[Path, typer.Argument(help="Parquet file to write: a probability column for each task.")],
    scenario: Annotated[str, typer.Option(help="Scenario whose model predicts.")],
    version: Annotated[str, typer.Option(help="Version or alias of the model.")] = "champion",
    keep: Annotated[list[str] | None, typer.Option(help="Column to copy to the target; may be repeated.")] = None,
) -> None:
    """Predict a Parquet file of any size with a registered model."""
    settings = load_config().serve
    tracking = connect(Path.cwd())
    from pfmsmt.serving.file import predict_file

    done = predict_file(
        tracking, scenario, source, target, which=version, calibrated=settings.calibrated,
        optional=settings.optional_columns, keep=keep or (),
    )  # fmt: skip
    say(f"{target}: {done.rows:,} rows, predicted by pfmsmt-{scenario} version {done.version}")
    if done.filled:
        cells = ", ".join(f"{column} {count:,}" for column, count in sorted(done.filled.items()))
        say(f"missing values that were filled: {cells}")


@app.command("tune")
def _tune(
    methods: Annotated[list[str], typer.Option(help="Methods to tune, or all; several in a row.", metavar="M [M ...]")],
    more: Annotated[list[str] | None, typer.Argument(help="Further methods, in a row after --methods M.")] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Trials of each method in all, finished ones included; tune.yaml's if left out.", min=1),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds for each method, after which no trial is begun.", min=0)
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes, which share this machine's cores.", min=1)] = 1,
    storage: Annotated[
        str | None,
        typer.Option(help="Where studies are kept: a journal file, or a URL (sqlite, postgresql, mysql) to share."),
    ] = None,
    study: Annotated[str, typer.Option(help="Name of the search; each method's study is NAME-<method>.")] = "tune",
    resume: Annotated[bool, typer.Option("--resume", help="Continue studies that are there.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Write the best values into params.yaml.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write the best values to this .yaml file, or folder with a file a method.")
    ] = None,
) -> None:
    """Search for the parameters that validate best; tune.yaml says in which ranges."""
    from pfmsmt.tuning.command import SearchRequest, tune

    # `--methods a b` reaches us as `--methods a` and an argument b.
    words = (*methods, *(more or []))
    tune(SearchRequest(words, trials, timeout, workers, storage, study, resume, apply, export), Path.cwd())


def _program(name: str) -> str:
    """Return a program of this Python's environment, activated or not."""
    folder = Path(sys.executable).parent
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    return str(folder / name)


def _run(words: list[str]) -> None:
    raise typer.Exit(subprocess.run(words, check=False).returncode)


def main() -> None:
    """Run the command with readable errors."""
    run_main(app)


if __name__ == "__main__":
    main()
