"""One version of one scenario's model, ready to answer.

Legend: B batch, F categorical fields, M numerical fields, T tasks, G expert copies.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.encoder import Encoded, RowEncoder
from pfmsmt.data.schema import ScenarioSchema
from pfmsmt.models.saved import SavedModel, load_model
from pfmsmt.serving.fused import fused
from pfmsmt.tracking import registry

if TYPE_CHECKING:
    from pfmsmt.tracking.store import Store

SCORE_TOLERANCE = 1e-6
"""Largest difference between a served probability and the evaluated one."""
_PROBES = 64


class ScoredRows(NamedTuple):
    """The answers for B rows."""

    probabilities: NDArray[np.float64]
    """[B, T]"""
    gates: NDArray[np.float32]
    """[B, T, G]"""


class Scorer:
    """Encodes and scores rows; threads may share it."""

    def __init__(self, saved: SavedModel, version: str, calibrated: bool) -> None:
        """Fuse the model, and compare it with the one that was evaluated.

        Raises:
            SchemaError: their answers differ by more than TOLERANCE.
        """
        self.version, self.calibrated = version, calibrated and saved.calibration is not None
        self.encoder = RowEncoder(saved.schema)
        self._saved, self._fused = saved, fused(saved.model)
        probes = _probes(saved.schema)
        difference = np.abs(self.score(probes).probabilities - saved.probabilities(probes, calibrated)).max()
        if not difference <= SCORE_TOLERANCE:
            raise SchemaError(f"version {version}: served and evaluated answers differ by {difference:.2g}")

    @property
    def schema(self) -> ScenarioSchema:
        """The raw columns, and how they are encoded."""
        return self._saved.schema

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the predicted tasks."""
        return self._saved.model.spec.tasks

    @property
    def experts(self) -> list[list[tuple[str, int]]]:
        """For each task its experts: (name, place in `Scores.gates`)."""
        return self._fused.experts

    def score(self, encoded: Encoded) -> ScoredRows:
        """Score encoded rows.

        Answers that are not finite belong to values that are too extreme; see `check_scored`.
        """
        codes = torch.from_numpy(encoded.codes.astype(np.int64))
        if self._saved.scenario_code is not None:
            codes = torch.cat((codes, torch.full((len(codes), 1), self._saved.scenario_code)), dim=1)
        found = self._fused(codes, torch.from_numpy(encoded.values))
        return ScoredRows(self._saved.from_logits(found.logits, self.calibrated), found.gates.numpy())


def load_scorer(tracking: "Store", scenario: str, version: str, calibrated: bool) -> Scorer:
    """Fetch and load a registered version.

    Raises:
        TrackingError: it cannot be fetched, or holds a pickle.
        SchemaError: it is damaged, is another scenario's model, or is served differently than it was evaluated.
    """
    with TemporaryDirectory() as temporary:
        folder = registry.download_version(tracking, scenario, version, Path(temporary, "model"))
        try:
            saved = load_model(folder)
        except SchemaError as error:
            # The same text whenever it is tried again: without the temporary folder's name.
            raise SchemaError(str(error).replace(f"{temporary}/model/", "")) from None
    if saved.schema.scenario != scenario:
        raise SchemaError(f"pfmsmt-{scenario} version {version} is a model of scenario {saved.schema.scenario}")
    return Scorer(saved, version, calibrated)


def _probes(schema: ScenarioSchema) -> Encoded:
    """Return made-up rows that touch many codes."""
    generator = np.random.default_rng(0)
    codes: Any = [generator.integers(0, field.codes, _PROBES) for field in schema.categorical]
    return Encoded(
        np.stack(codes, 1).astype(np.int32) if codes else np.zeros((_PROBES, 0), np.int32),
        generator.normal(size=(_PROBES, len(schema.numerical))).astype(np.float32),
    )
