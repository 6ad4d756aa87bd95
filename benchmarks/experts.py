"""Training throughput of the batched MMoE beside the usual one (a list of experts), in one run.

    python benchmarks/experts.py [--only default large] [--steps 100] [--threads 1]

*default* is pf_msmtrec's model of params.yaml, *large* the sizes of the literature. Both models have the same shapes
(no adapters), loss and fused Adam, and see the same random batches in memory; the two take turns, so that a machine
whose speed drifts is fair to both. Prints rows per second and the ratio of each pair.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pfmsmt.config import load_config
from pfmsmt.models.heads import loss
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.spec import ModelSpec

PARAMS = Path(__file__).parents[1] / "params.yaml"
LARGE = {"embedding_dim": 128, "experts": 8, "expert_layers": (512, 256), "tower_layers": (128, 64)}
LARGE_BATCH = 2048


def specs() -> dict[str, tuple[ModelSpec, int]]:
    """Return name -> shapes and rows of a batch."""
    config = load_config(PARAMS)
    sizes = config.model.model_dump(include={*LARGE, "dropout"})
    shapes = {"field_codes": (20,) * 16, "field_federated": (True,) * 16, "numerical": 63, "tasks": ("ctr", "ctcvr"),
              "parents": (None, 0), "product": True, "rank": 0}  # fmt: skip
    private = config.methods.pf_msmtrec.private_experts
    return {
        "default": (ModelSpec(**shapes, **sizes, private_experts=private), config.train.batch_size),
        "large": (ModelSpec(**shapes, **{**sizes, **LARGE}, private_experts=0), LARGE_BATCH),
    }


class ListOfExperts(nn.Module):
    """The peer: one module per field, expert, gate and tower, called one after the other."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.fields = nn.ModuleList(nn.Embedding(codes, spec.embedding_dim) for codes in spec.field_codes)
        self.experts = _experts(spec, spec.experts)
        self.private_experts = nn.ModuleList(_experts(spec, spec.private_experts) for _ in spec.tasks)
        self.gates = nn.ModuleList(nn.Linear(spec.inputs, spec.experts + spec.private_experts) for _ in spec.tasks)
        self.towers = nn.ModuleList(
            nn.Sequential(_stack(spec.expert_layers[-1], spec.tower_layers, spec.dropout, norm=False),
                          nn.Linear(spec.tower_layers[-1], 1))
            for _ in spec.tasks
        )  # fmt: skip

    def forward(self, codes: Tensor, values: Tensor) -> Tensor:
        """Map codes [B, F] and numbers [B, M] to logits [B, T]."""
        x = torch.cat([field(codes[:, i]) for i, field in enumerate(self.fields)] + [values], dim=1)
        shared = [expert(x) for expert in self.experts]
        mixed = []
        for gate, private in zip(self.gates, self.private_experts, strict=True):
            h = torch.stack([*shared, *(expert(x) for expert in private)], dim=1)
            mixed.append((gate(x).softmax(1).unsqueeze(2) * h).sum(1))
        return torch.cat([tower(m) for tower, m in zip(self.towers, mixed, strict=True)], dim=1)


def _experts(spec: ModelSpec, count: int) -> nn.ModuleList:
    return nn.ModuleList(_stack(spec.inputs, spec.expert_layers, spec.dropout) for _ in range(count))


def _stack(inputs: int, layers: tuple[int, ...], dropout: float, norm: bool = True) -> nn.Sequential:
    modules: list[nn.Module] = []
    for units in layers:
        modules += [
            nn.Linear(inputs, units),
            *([nn.BatchNorm1d(units)] if norm else []),
            nn.ReLU(),
            nn.Dropout(dropout),
        ]
        inputs = units
    return nn.Sequential(*modules)


def trainer(model: nn.Module, spec: ModelSpec, batch: int) -> Callable[[int], float]:
    """Return a function that trains some steps and tells rows per second."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 20, (batch, len(spec.field_codes)), generator=generator)
    values = torch.randn(batch, spec.numerical, generator=generator)
    labels = (torch.rand(batch, len(spec.tasks), generator=generator) < 0.1).float()
    weights = torch.ones(len(spec.tasks))
    adam = torch.optim.Adam(model.parameters(), fused=True)

    def train(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            adam.zero_grad()
            loss(model(codes, values), labels, weights, spec).backward()
            adam.step()
        return steps * batch / (time.perf_counter() - start)

    return train


def main() -> None:
    """Measure both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of the default size per turn; large takes a 20th")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    sizes = specs()
    parser.add_argument("--only", nargs="+", choices=list(sizes), default=list(sizes), help="which sizes")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"torch {torch.__version__}, {chosen.threads} thread(s), median of {chosen.turns} turns, rows per second")
    for name in chosen.only:
        spec, batch = sizes[name]
        batched = MMoE(spec).initialise(0, "")
        batched.dropout.generator = torch.Generator().manual_seed(0)
        ours, peer = trainer(batched, spec, batch), trainer(ListOfExperts(spec), spec, batch)
        steps = max(2, chosen.steps // (1 if name == "default" else 20))
        ours(2), peer(2)
        turns = [(ours(steps), peer(steps)) for _ in range(chosen.turns)]
        ratios = [a / b for a, b in turns]
        print(
            f"{name:8s} batched {statistics.median(a for a, _ in turns):9,.0f}"
            f"   list {statistics.median(b for _, b in turns):9,.0f}"
            f"   ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
