"""Predict with a client's model, then measure. Legend: N rows, T tasks."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pfmsmt.core.errors import TrainingError
from pfmsmt.core.metrics import auc, log_loss
from pfmsmt.data.schema import UNLABELLED
from pfmsmt.data.shards.resident import ClientRows
from pfmsmt.models.heads import log_probabilities
from pfmsmt.models.mmoe import MMoE
from pfmsmt.training.scores import Positives, Validation

ROWS_AT_ONCE = 8192


@torch.inference_mode()
def predict_rows(
    model: MMoE, shard: ClientRows, device: torch.device, rows_at_once: int = ROWS_AT_ONCE
) -> NDArray[np.float64]:
    """Return probabilities [N, T] of a shard, in evaluation mode."""
    model.eval()
    parts = []
    for block in shard.blocks(rows_at_once):
        logits = model(block.codes.to(device), block.values.to(device))
        parts.append(log_probabilities(logits.cpu().double(), model.spec)[0].exp().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, len(model.spec.tasks)))


def validate(model: MMoE, shards: Mapping[str, ClientRows], device: torch.device) -> Validation:
    """Return AUC and log-loss of each scenario's shard and task.

    Raises:
        TrainingError: a prediction is not a number.
    """
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    for scenario, shard in shards.items():
        probabilities = predict_rows(model, shard, device)
        if not np.isfinite(probabilities).all():
            raise TrainingError(
                f"scenario {scenario}: a predicted probability is nan; "
                "lower this method's learning rates in params.yaml"
            )
        labels = shard.labels.numpy().astype(np.uint8)
        result[scenario] = {}
        for i, task in enumerate(model.spec.tasks):
            known = labels[:, i] != UNLABELLED
            given, found = labels[known, i], probabilities[known, i]
            result[scenario][task] = {"auc": auc(given, found), "logloss": log_loss(given, found)}
    return result


def positives(shards: Mapping[str, ClientRows], tasks: Sequence[str]) -> Positives:
    """Count the positive rows of each scenario's shard and task."""
    return {
        s: {task: int((shard.labels[:, i] == 1).sum()) for i, task in enumerate(tasks)} for s, shard in shards.items()
    }
