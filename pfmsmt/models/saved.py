"""A scenario's model on disk: `weights.safetensors` and `model.json`.

No pickle is written or read.

Legend: B batch, T tasks.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pfmsmt.core.errors import SchemaError
from pfmsmt.core.files import new_folder, write_json
from pfmsmt.core.types import NamedArrays
from pfmsmt.data.encoder import Encoded, encode
from pfmsmt.data.schema import ScenarioSchema
from pfmsmt.models.calibration import Calibration
from pfmsmt.models.heads import log_probabilities
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.spec import ModelSpec
from pfmsmt.models.template import Binding

WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
_FORMAT = 4
_READABLE = (1, 2, 3, 4)
"""Format 1 had no calibration, formats 1 and 2 had no fill in their schema."""


class SavedModel:
    """A personalised model that takes raw named columns and returns probabilities."""

    def __init__(
        self,
        model: MMoE,
        schema: ScenarioSchema,
        scenario_code: int | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """Wrap a model.

        `scenario_code` fills the scenario field of a model that was trained on pooled data.
        """
        self.model, self.schema, self.scenario_code = model.eval(), schema, scenario_code
        self.calibration = calibration

    def probabilities(self, encoded: Encoded, calibrated: bool = True) -> NDArray[np.float64]:
        """Return probabilities [B, T] of encoded rows.

        Calibrated, if the model has a calibration.
        """
        return self.from_logits(self._logits(encoded), calibrated)

    def log_odds(self, encoded: Encoded) -> NDArray[np.float64]:
        """Return the log-odds [B, T] of uncalibrated probabilities.

        log p - log (1 - p).
        """
        log_p, log_not_p = log_probabilities(self._logits(encoded).double(), self.model.spec)
        return (log_p - log_not_p).numpy()

    def from_logits(self, logits: torch.Tensor, calibrated: bool = True) -> NDArray[np.float64]:
        """Return probabilities [B, T] of the towers' logits [B, T]."""
        spec = self.model.spec
        with torch.inference_mode():
            log_p, log_not_p = log_probabilities(logits.double(), spec)
            if not calibrated or self.calibration is None:
                return log_p.exp().numpy()
            return self.calibration.apply((log_p - log_not_p).numpy(), spec.parents, spec.product)

    @torch.inference_mode()
    def _logits(self, encoded: Encoded) -> torch.Tensor:
        if not len(encoded.codes):
            return torch.zeros(0, len(self.model.spec.tasks))
        codes = torch.from_numpy(encoded.codes.astype(np.int64))
        if self.scenario_code is not None:
            codes = torch.cat((codes, torch.full((len(codes), 1), self.scenario_code)), dim=1)
        logits: torch.Tensor = self.model(codes, torch.from_numpy(encoded.values))
        return logits

    def predict(self, frame: pd.DataFrame, calibrated: bool = True) -> pd.DataFrame:
        """Return one probability column per task, with the frame's index.

        Missing values are filled as in training.

        Raises:
            SchemaError: a missing column, or a value that is no category, no finite number or too extreme to score.
        """
        encoded = encode(frame, self.schema)
        probabilities = self.probabilities(encoded, calibrated)
        check_scored(probabilities, encoded, self.schema)
        return pd.DataFrame(probabilities, columns=list(self.model.spec.tasks), index=frame.index)


def check_scored(probabilities: NDArray[np.float64], encoded: Encoded, schema: ScenarioSchema) -> None:
    """Refuse answers [B, T] that are no numbers.

    Values far outside of the training rows' overflow in the model.

    Raises:
        SchemaError: names the first such row, and its most extreme column.
    """
    bad = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if bad.size:
        row = int(bad[0])
        column = int(np.argmax(np.abs(encoded.values[row]))) if encoded.values.shape[1] else 0
        name, far = schema.numerical[column].name, encoded.values[row, column]
        raise SchemaError(
            f"column {name}, row {row}: the value lies {far:.3g} standard deviations from the training mean, "
            "too far to score"
        )


def build_model(spec: ModelSpec, arrays: NamedArrays) -> MMoE:
    """Return the model that has these parameters."""
    model = MMoE(spec)
    Binding(model).write(arrays)
    return model


def save_model(
    folder: Path,
    spec: ModelSpec,
    arrays: NamedArrays,
    schema: ScenarioSchema,
    scenario_code: int | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Write one scenario's model as a folder, whole or not at all."""
    with new_folder(folder) as temporary:
        weights = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
        # Not save_file: on a full disk it raises an error of its own, without the system's reason.
        (temporary / WEIGHTS).write_bytes(save(weights))
        description: dict[str, Any] = {
            "format": _FORMAT,
            "spec": spec.model_dump(mode="json"),
            "schema": schema.model_dump(mode="json"),
            "scenario_code": scenario_code,
            "calibration": calibration and calibration.model_dump(mode="json"),
        }
        write_json(temporary / DESCRIPTION, description)


def load_model(folder: Path) -> SavedModel:
    """Read a scenario's model.

    Raises:
        SchemaError: a file is missing or damaged, or weights and description do not fit.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] not in _READABLE:
            raise SchemaError(f"{folder}: model format {description['format']}, this version reads {list(_READABLE)}")
        spec = ModelSpec.model_validate(description["spec"])
        schema = ScenarioSchema.model_validate(description["schema"])
        scenario_code = description["scenario_code"]
        line = description.get("calibration")
        calibration = None if line is None else Calibration.model_validate(line)
        arrays = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, KeyError, ValidationError, SafetensorError) as error:
        raise SchemaError(f"{folder} holds no readable model: {error}") from error
    _check_fit(folder, spec, schema, scenario_code)
    if calibration and not len(calibration.slopes) == len(calibration.intercepts) == len(spec.tasks):
        raise SchemaError(f"{folder}: the calibration does not fit the tasks {', '.join(spec.tasks)}")
    model = MMoE(spec)
    binding = Binding(model)
    if arrays.keys() != binding.template.keys():
        raise SchemaError(f"{folder}: weights do not fit: {sorted(arrays.keys() ^ binding.template.keys())}")
    binding.write(arrays)
    return SavedModel(model, schema, scenario_code, calibration)


def _check_fit(folder: Path, spec: ModelSpec, schema: ScenarioSchema, scenario_code: int | None) -> None:
    own = tuple(field.codes for field in schema.categorical)
    fields = spec.field_codes if scenario_code is None else spec.field_codes[:-1]
    tasks = tuple(task.name for task in schema.tasks)
    if fields != own or spec.numerical != len(schema.numerical) or spec.tasks != tasks:
        raise SchemaError(f"{folder}: the model's shapes do not fit its schema (fields, numbers or tasks)")
