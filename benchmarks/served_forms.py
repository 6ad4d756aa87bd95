"""Whether torch.compile or ONNX Runtime would score faster than the served form of a model, in one run.

    python benchmarks/served_forms.py [--rows 1 50 200 1000] [--threads 1] [--turns 200]

The model has params.yaml's size (pf_msmtrec) and AliExpress's columns, its weights are drawn. Every candidate is the
served form (pfmsmt/serving/fused.py) with the same weights, and must give the same logits within 1e-5: as it is;
compiled by torch.compile for any number of rows, where there is a C++ compiler; exported to ONNX and run by ONNX
Runtime, where `onnx`, `onnxscript` and `onnxruntime` are installed (this project does not need them). Prints medians in
milliseconds over turns that take the candidates one after the other, and what each takes before it can answer.
"""

import argparse
import importlib.util
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from serving import CATEGORIES, ROOT, schema
from torch import Tensor

from pfmsmt.config import load_config
from pfmsmt.data.sources.aliexpress.columns import CATEGORICAL, NUMERICAL
from pfmsmt.methods.catalogue import method_facts
from pfmsmt.models.mmoe import MMoE
from pfmsmt.models.spec import build_spec
from pfmsmt.serving.fused import FusedModel

Score = Callable[[Tensor, Tensor], np.ndarray]
COMPILERS = ("g++", "clang++")
ONNX = ("onnx", "onnxscript", "onnxruntime")


class Candidate(NamedTuple):
    """One way to score."""

    name: str
    score: Score
    seconds: float
    """From the served form to the first answers."""


class Exported(torch.nn.Module):
    """The served form as the exporter wants it."""

    def __init__(self, fused: FusedModel) -> None:
        """Hold the served form."""
        super().__init__()
        self.fused = fused

    def forward(self, codes: Tensor, values: Tensor) -> Tensor:
        """Score rows."""
        return self.fused(codes, values).logits


def build() -> FusedModel:
    """Return the served form of a model with drawn weights."""
    config = load_config(ROOT / "params.yaml")
    spec = build_spec(schema(), config.model, **method_facts("pf_msmtrec", config.methods).model_parts)
    model = MMoE(spec)
    model.initialise(0, "NL")
    return FusedModel(model.eval())


def draw(rows: int) -> tuple[Tensor, Tensor]:
    """Draw encoded rows."""
    generator = torch.Generator().manual_seed(rows)
    codes = torch.randint(0, CATEGORIES + 1, (rows, len(CATEGORICAL)), generator=generator)
    return codes, torch.randn(rows, len(NUMERICAL), generator=generator)


def compiled(fused: FusedModel) -> Score:
    """Return the form that torch.compile makes, for any number of rows."""
    call = torch.compile(lambda codes, values: FusedModel.__call__(fused, codes, values).logits, dynamic=True)
    return lambda codes, values: call(codes, values).numpy()


def exported(fused: FusedModel, threads: int) -> Score:
    """Return the form that ONNX Runtime runs."""
    import onnxruntime

    rows = torch.export.Dim("rows", min=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            Exported(fused).eval(), draw(7), path, input_names=["codes", "values"], dynamo=True, verbose=False,
            dynamic_shapes={"codes": {0: rows}, "values": {0: rows}},
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda codes, values: session.run(None, {"codes": codes.numpy(), "values": values.numpy()})[0]


def candidates(fused: FusedModel, threads: int) -> list[Candidate]:
    """Return all ways to score, each ready."""
    ways: dict[str, Callable[[], Score]] = {
        "as it is": lambda: lambda codes, values: fused(codes, values).logits.numpy()
    }
    if any(shutil.which(compiler) for compiler in COMPILERS):
        ways["torch.compile"] = lambda: compiled(fused)
    else:
        print(f"torch.compile is left out: none of {', '.join(COMPILERS)} is here")
    if missing := [name for name in ONNX if importlib.util.find_spec(name) is None]:
        print(f"ONNX Runtime is left out: {', '.join(missing)} not installed")
    else:
        ways["ONNX Runtime"] = lambda: exported(fused, threads)
    found = []
    for name, make in ways.items():
        begun = time.perf_counter()
        score = make()
        for rows in (1, 7, 200):
            score(*draw(rows))
        found.append(Candidate(name, score, time.perf_counter() - begun))
    return found


def main() -> None:
    """Print a line for each candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 50, 200, 1000])
    parser.add_argument("--threads", type=int, default=1, help="within a product (serve.threads)")
    parser.add_argument("--turns", type=int, default=200)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    fused = build()
    ways = candidates(fused, chosen.threads)
    times: dict[tuple[str, int], list[float]] = {(way.name, rows): [] for way in ways for rows in chosen.rows}
    for rows in chosen.rows:
        codes, values = draw(rows)
        expected = ways[0].score(codes, values)
        for way in ways:
            difference = float(np.abs(way.score(codes, values) - expected).max())
            if not difference <= 1e-5:
                raise SystemExit(f"{way.name} differs from the served form by {difference:.1e} at {rows} rows")
        for _ in range(chosen.turns):
            for way in ways:
                begun = time.perf_counter()
                way.score(codes, values)
                times[way.name, rows].append(time.perf_counter() - begun)
    print(f"{'ms for rows':16s}{''.join(f'{rows:>10,d}' for rows in chosen.rows)}{'ready after':>14s}")
    for way in ways:
        cells = "".join(f"{statistics.median(times[way.name, rows]) * 1e3:10.3f}" for rows in chosen.rows)
        print(f"{way.name:16s}{cells}{way.seconds:12.1f} s")


if __name__ == "__main__":
    main()
