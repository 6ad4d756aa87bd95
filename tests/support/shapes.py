"""Small models and schemas for the tests of the model."""

from typing import Any

import numpy as np
import torch

from pfmsmt.data.schema import CategoricalField, NumericalField, ScenarioSchema, Task
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.spec import ModelSpec

SCHEMA = ScenarioSchema(
    scenario="NL",
    group="search_id",
    tasks=(Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr")),
    categorical=(
        CategoricalField(name="device", federated=True, vocabulary=(1, 2, 3)),
        CategoricalField(name="user", federated=False, vocabulary=(10, 20, 30, 40)),
        CategoricalField(name="age", federated=True, vocabulary=(7,)),
    ),
    numerical=(NumericalField(name="price", mean=2.0, std=4.0), NumericalField(name="stock", mean=0.0, std=1.0)),
)


def spec(**changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "field_codes": (4, 5, 2), "field_federated": (True, False, True), "numerical": 2,
        "tasks": ("ctr", "ctcvr"), "parents": (None, 0), "product": True, "embedding_dim": 3, "experts": 3,
        "expert_layers": (6, 5), "tower_layers": (4,), "dropout": 0.0, "rank": 2,
        "private_experts": 0,
    }  # fmt: skip
    return ModelSpec(**{**values, **changes})


def batch(rows: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [B, 3] and numbers [B, 2]."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(count, size=rows) for count in (4, 5, 2)], axis=1)
    return torch.from_numpy(codes), torch.from_numpy(rng.normal(size=(rows, 2)).astype(np.float32))


def scrambled(model: MMoE, seed: int = 0) -> MMoE:
    """Give every tensor a value of its own: zeros and ones would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if "variance" in name else -0.5))
    return model
