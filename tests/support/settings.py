"""Writes a whole configuration as a project has it: params.yaml, and tune.yaml for its block `tune`."""

from pathlib import Path
from typing import Any

import yaml

from pfmsmt.config import PARAMS_FILE, TUNE_FILE


def write_settings(folder: Path, tree: dict[str, Any]) -> None:
    """Write both files; without a block `tune`, an old tune.yaml is removed."""
    params = {key: value for key, value in tree.items() if key != "tune"}
    (folder / PARAMS_FILE).write_text(yaml.safe_dump(params), encoding="utf-8")
    (folder / TUNE_FILE).unlink(missing_ok=True)
    if "tune" in tree:
        (folder / TUNE_FILE).write_text(yaml.safe_dump(tree["tune"]), encoding="utf-8")
