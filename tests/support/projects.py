"""A user's project in a folder: its data, settings and MLflow store, and what the stages do in it."""

import shutil
from pathlib import Path
from typing import Any

from pfmsmt.config import Config
from pfmsmt.data.schema import read_schema
from tests.support.settings import write_settings


def fill_project(folder: Path, data: Path, database: Path, tree: dict[str, Any]) -> Path:
    """Make a project of prepared data, an empty MLflow store and its settings."""
    shutil.copytree(data, folder)
    shutil.copy(database, folder)
    write_settings(folder, tree)
    return folder


def run_stages(config: Config, project: Path, last: str = "register"):
    """Do what the stages do in a project that is the working directory, for every method; return its tracking."""
    from pfmsmt.commands.compare import compare
    from pfmsmt.commands.evaluate import evaluate
    from pfmsmt.commands.register import register
    from pfmsmt.commands.train import train
    from pfmsmt.core.files import write_json
    from pfmsmt.tracking import connect

    schema, tracking = read_schema(Path("data/clients/schema.json")), connect(project)
    for method in config.train.methods:
        ids = train(config, schema, method, 0, tracking, project)
        write_json(project / f"runs/{method}-seed0.json", ids)
        if last != "train":
            evaluate(config, schema, method, 0, tracking, project)
    if last in ("compare", "register"):
        compare(config, schema, tracking, project)
    if last == "register":
        register(config, schema, tracking, project)
    return tracking
