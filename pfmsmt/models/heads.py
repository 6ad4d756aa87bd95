"""Probabilities and losses from the towers' logits.

Legend: B batch, T tasks.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pfmsmt.data.schema import UNLABELLED
from pfmsmt.models.spec import ModelSpec


def log_probabilities(logits: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Return log p and log (1 - p), each [B, T].

    Of logits [B, T].

    With the product head, a nested task has p_t = p_parent sigmoid(z_t) (ESMM, Ma et al. 2018), hence
    1 - p_t = (1 - p_parent) + p_parent sigmoid(-z_t); both stay in logarithms, so neither underflows.
    """
    yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    if not spec.product:
        return yes, no
    log_p: list[Tensor] = []
    log_not_p: list[Tensor] = []
    for task, parent in enumerate(spec.parents):
        if parent is None:
            log_p.append(yes[:, task])
            log_not_p.append(no[:, task])
        else:
            log_p.append(log_p[parent] + yes[:, task])
            log_not_p.append(torch.logaddexp(log_not_p[parent], log_p[parent] + no[:, task]))
    return torch.stack(log_p, dim=1), torch.stack(log_not_p, dim=1)


def task_losses(logits: Tensor, labels: Tensor, weights: Tensor, spec: ModelSpec, partial: bool = False) -> Tensor:
    """Return v_t BCE_t [T], whose sum is `loss`."""
    return _entropies(logits, labels, spec, partial) * weights


def loss(logits: Tensor, labels: Tensor, weights: Tensor, spec: ModelSpec, partial: bool = False) -> Tensor:
    """Return the loss, sum_t v_t BCE_t, averaged over the batch.

    Of logits and labels [B, T] and task weights v [T]. With `partial` some labels may be UNLABELLED, and each task's
    average is over its labelled rows; 0 where there are none.
    """
    return _entropies(logits, labels, spec, partial) @ weights


def _entropies(logits: Tensor, labels: Tensor, spec: ModelSpec, partial: bool) -> Tensor:
    """Return BCE_t [T]."""
    log_p, log_not_p = log_probabilities(logits, spec)
    if not partial:
        return -torch.lerp(log_not_p, log_p, labels).mean(0)
    known = labels != UNLABELLED
    each = -torch.lerp(log_not_p, log_p, labels * known) * known
    return each.sum(0) / known.sum(0).clamp(min=1)
