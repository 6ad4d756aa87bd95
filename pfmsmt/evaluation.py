"""Predict with a client's model, then measure. Legend: N rows, T tasks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pfmsmt.data.batches import Rows
from pfmsmt.errors import TrainingError
from pfmsmt.metrics import auc, log_loss
from pfmsmt.models.heads import log_probabilities
from pfmsmt.models.mmoe import MMoE

Validation = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""scenario -> task -> {auc, logloss}; None: undefined, as the shard holds a single class."""

ROWS_AT_ONCE = 8192


@torch.inference_mode()
def predict(model: MMoE, shard: Rows, device: torch.device, rows_at_once: int = ROWS_AT_ONCE) -> NDArray[np.float64]:
    """Return probabilities [N, T] of one shard, with the model in evaluation mode."""
    model.eval()
    parts = []
    for block in shard.blocks(rows_at_once):
        logits = model(block.codes.to(device), block.values.to(device))
        parts.append(log_probabilities(logits.cpu().double(), model.spec)[0].exp().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, len(model.spec.tasks)))


def validate(model: MMoE, shards: Mapping[str, Rows], device: torch.device) -> Validation:
    """Return AUC and log-loss of each scenario's shard and task.

    Raises:
        TrainingError: a prediction is not a number.
    """
    result = {}
    for scenario, shard in shards.items():
        probabilities = predict(model, shard, device)
        if not np.isfinite(probabilities).all():
            raise TrainingError(
                f"scenario {scenario}: a predicted probability is nan; "
                "lower this method's learning rates in params.yaml"
            )
        labels = shard.labels.numpy().astype(np.uint8)
        result[scenario] = {
            task: {
                "auc": auc(labels[:, i], probabilities[:, i]),
                "logloss": log_loss(labels[:, i], probabilities[:, i]),
            }
            for i, task in enumerate(model.spec.tasks)
        }
    return result


def mean_auc(validations: Iterable[Validation]) -> float | None:
    """Return the mean AUC over clients, scenarios and tasks; None where no AUC is defined."""
    cells = [cell for found in validations for tasks in found.values() for cell in tasks.values()]
    defined = [cell["auc"] for cell in cells if cell["auc"] is not None]
    return float(np.mean(defined)) if defined else None


class Score(NamedTuple):
    """How good a round is, for choosing a client's best; compared in this order."""

    auc: float
    negative_logloss: float


Positives = Mapping[str, Mapping[str, int]]
"""scenario -> task -> rows with label 1"""


def positives(shards: Mapping[str, Rows], tasks: Sequence[str]) -> Positives:
    """Count the positive rows of each scenario's shard and task."""
    return {s: {task: int(shard.labels[:, i].sum()) for i, task in enumerate(tasks)} for s, shard in shards.items()}


def score(validation: Validation, weights: Positives | None = None) -> Score:
    """Return the mean AUC over scenarios and tasks where it is defined, and minus the mean log-loss.

    The variance of an AUC goes with one over its positives, so positives as weights make the least noisy mean (ours).
    """
    aucs, sizes, losses = [], [], []
    for scenario, tasks in validation.items():
        for task, cell in tasks.items():
            if cell["auc"] is not None:
                aucs.append(cell["auc"])
                sizes.append(weights[scenario][task] if weights else 1)
            if cell["logloss"] is not None:
                losses.append(cell["logloss"])
    mean = float(np.average(aucs, weights=sizes)) if aucs else 0.0
    return Score(mean, -float(np.mean(losses)) if losses else 0.0)
