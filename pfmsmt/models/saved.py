"""A scenario's model on disk: `weights.safetensors` and `model.json`. No pickle is written or read."""

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

from pfmsmt.atomic import new_folder, write_json
from pfmsmt.data.schema import Encoded, ScenarioSchema, encode
from pfmsmt.errors import SchemaError
from pfmsmt.models.heads import log_probabilities
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.spec import ModelSpec
from pfmsmt.models.template import Binding
from pfmsmt.types import NamedArrays

WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
FORMAT = 1


class SavedModel:
    """A personalised model that takes raw named columns and returns probabilities."""

    def __init__(self, model: MMoE, schema: ScenarioSchema, scenario_code: int | None) -> None:
        """`scenario_code` fills the scenario field of a model that was trained on pooled data."""
        self.model, self.schema, self._scenario_code = model.eval(), schema, scenario_code

    @torch.inference_mode()
    def probabilities(self, encoded: Encoded) -> NDArray[np.float64]:
        """Return probabilities [B, T] of encoded rows."""
        codes = torch.from_numpy(encoded.codes.astype(np.int64))
        if self._scenario_code is not None:
            codes = torch.cat((codes, torch.full((len(codes), 1), self._scenario_code)), dim=1)
        logits = self.model(codes, torch.from_numpy(encoded.values))
        return log_probabilities(logits.double(), self.model.spec)[0].exp().numpy()

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return one probability column per task, with the frame's index.

        Raises:
            SchemaError: a missing column, or a value that is no category or no finite number.
        """
        probabilities = self.probabilities(encode(frame, self.schema))
        return pd.DataFrame(probabilities, columns=list(self.model.spec.tasks), index=frame.index)


def save_model(
    folder: Path, spec: ModelSpec, arrays: NamedArrays, schema: ScenarioSchema, scenario_code: int | None = None
) -> None:
    """Write one scenario's model as a folder, whole or not at all."""
    with new_folder(folder) as temporary:
        weights = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
        # Not save_file: on a full disk it raises an error of its own, without the system's reason.
        (temporary / WEIGHTS).write_bytes(save(weights))
        description: dict[str, Any] = {
            "format": FORMAT,
            "spec": spec.model_dump(mode="json"),
            "schema": schema.model_dump(mode="json"),
            "scenario_code": scenario_code,
        }
        write_json(temporary / DESCRIPTION, description)


def load_model(folder: Path) -> SavedModel:
    """Read a scenario's model.

    Raises:
        SchemaError: a file is missing or damaged, or weights and description do not fit.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise SchemaError(f"{folder}: model format {description['format']}, this version reads {FORMAT}")
        spec = ModelSpec.model_validate(description["spec"])
        schema = ScenarioSchema.model_validate(description["schema"])
        scenario_code = description["scenario_code"]
        arrays = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, KeyError, ValidationError, SafetensorError) as error:
        raise SchemaError(f"{folder} holds no readable model: {error}") from error
    _check_fit(folder, spec, schema, scenario_code)
    model = MMoE(spec)
    binding = Binding(model)
    if arrays.keys() != binding.template.keys():
        raise SchemaError(f"{folder}: weights do not fit: {sorted(arrays.keys() ^ binding.template.keys())}")
    binding.write(arrays)
    return SavedModel(model, schema, scenario_code)


def _check_fit(folder: Path, spec: ModelSpec, schema: ScenarioSchema, scenario_code: int | None) -> None:
    own = tuple(field.codes for field in schema.categorical)
    fields = spec.field_codes if scenario_code is None else spec.field_codes[:-1]
    tasks = tuple(task.name for task in schema.tasks)
    if fields != own or spec.numerical != len(schema.numerical) or spec.tasks != tasks:
        raise SchemaError(f"{folder}: the model's shapes do not fit its schema (fields, numbers or tasks)")
