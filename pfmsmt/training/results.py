"""A finished run on disk: models, history and results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pfmsmt.config import CalibrationChoice
from pfmsmt.core.errors import TrainingError
from pfmsmt.core.files import new_folder, write_json
from pfmsmt.core.types import Template
from pfmsmt.data.encoder import Encoded
from pfmsmt.data.schema import ScenarioSchema, Schema
from pfmsmt.models.calibration import Calibration, CalibrationName, fit_calibration
from pfmsmt.models.saved import SavedModel, build_model, save_model
from pfmsmt.training.client import Client
from pfmsmt.training.history import History
from pfmsmt.training.scores import score
from pfmsmt.training.validate import ROWS_AT_ONCE

FILES = ("result.json", "history.csv", "ledger.csv", "traffic.csv", "diagnostics.parquet")
"""Beside the models; `train` logs them to the run."""


def best_rounds(clients: Mapping[str, Client]) -> dict[str, dict[str, Any]]:
    """Return scenario -> {round, mean_auc, validation} of its best model.

    Chosen on validation rows. With a refit all three are of the first training, and `refit_rows` says on how many rows
    the model was trained in the second.

    `mean_auc` is None where no task's AUC is defined.

    Args:
        clients: scenario -> the client whose model serves it.

    Raises:
        TrainingError: a client never validated a model.
    """
    found = {}
    for scenario, client in clients.items():
        best = client.best
        if best is None:
            raise TrainingError(f"scenario {scenario}: its client never validated a model, so there is none to save")
        own = best.validation[scenario]
        defined = any(cell["auc"] is not None for cell in own.values())
        mean = score({scenario: own}).auc if defined else None
        found[scenario] = {"round": best.round, "mean_auc": mean, "validation": own}
        if client.refits:
            found[scenario]["refit_rows"] = client.learner.data.train.rows
    return found


def write_models(
    folder: Path,
    clients: Mapping[str, Client],
    schema: Schema,
    template: Template,
    history: History,
    *,
    calibrations: Mapping[str, Calibration],
) -> dict[str, dict[str, Any]]:
    """Write every scenario's best model, and the files in FILES.

    Args:
        clients: scenario -> the client whose model serves it.
        template: roles of all tensors of a client's model.
        calibrations: scenario -> what is saved with its model; may lack some or all.

    Returns:
        `best_rounds`, as `result.json` holds it.

    Raises:
        TrainingError: a client never validated a model; nothing is written.
    """
    best = best_rounds(clients)
    with new_folder(folder) as temporary:
        for scenario, client in clients.items():
            own, line = schema.scenario(scenario), calibrations.get(scenario)
            save_model(temporary / scenario, client.learner.model.spec, client.best_parameters(), own, calibration=line)
        write_results(temporary, best, template, history)
    return best


def fit_calibrations(kind: CalibrationChoice, clients: Mapping[str, Client], schema: Schema) -> dict[str, Calibration]:
    """Return scenario -> calibration of its best model.

    Each is fitted to the scenario's own validation rows; with the kind none there are none.

    Args:
        kind: of every calibration.
        clients: scenario -> the client whose model serves it.
        schema: of the shards.

    Raises:
        TrainingError: a client never validated a model, or a calibration did not converge.
    """
    if kind == "none":
        return {}
    return {scenario: _calibrate(kind, client, schema.scenario(scenario)) for scenario, client in clients.items()}


def _calibrate(kind: CalibrationName, client: Client, schema: ScenarioSchema) -> Calibration:
    """Fit a scenario's calibration to its validation rows."""
    rows = client.learner.data.validation[schema.scenario]
    model = SavedModel(build_model(client.learner.model.spec, client.best_parameters()), schema)
    blocks = [
        model.log_odds(Encoded(block.codes.cpu().numpy(), block.values.cpu().numpy()))
        for block in rows.blocks(ROWS_AT_ONCE)
    ]
    log_odds = np.concatenate(blocks) if blocks else np.zeros((0, len(schema.tasks)))
    return fit_calibration(kind, log_odds, rows.labels.cpu().numpy())


def write_results(folder: Path, best: Mapping[str, Any], template: Template, history: History) -> None:
    """Write the files in FILES into a folder.

    `diagnostics.parquet` only where the method has any.
    """
    columns = ["round", "scenario", "task", "auc", "logloss"]
    pd.DataFrame(history.rows, columns=columns).to_csv(folder / "history.csv", index=False)
    write_json(folder / "result.json", {"best": best})
    history.ledger.table(template).to_csv(folder / "ledger.csv", index=False)
    history.ledger.traffic().to_csv(folder / "traffic.csv", index=False)
    diagnostics = history.diagnostics()
    if diagnostics is not None:
        diagnostics.to_parquet(folder / "diagnostics.parquet", index=False, compression="zstd")
