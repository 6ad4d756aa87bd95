"""The cost of half precision, clipping and noise: test AUC, bytes and epsilon of pf_msmtrec, beside local training.

    python benchmarks/messages.py [--seeds 0 1 2] [--rounds 20] [--local-steps 24] [--quick]

Data are drawn by params.yaml, once. Few rounds with many local steps, as across sites: every round is two uploads.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from pfmsmt.config import Config, parse_config
from pfmsmt.config.keys import set_values
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.schema import Schema, read_schema
from pfmsmt.training.devices import choose_workers
from pfmsmt.training.privacy import epsilon
from pfmsmt.training.rounds import RoundResult
from pfmsmt.training.trial import run_trial

ROOT = Path(__file__).parents[1]
CLIP = 0.2
QUICK = {"train.batch_size": 32, "data.synthetic.scenarios": {k: {"train_rows": 2000, "test_rows": 2000} for k in "AB"}}


class Setting(NamedTuple):
    """One line of the table."""

    name: str
    method: str
    changes: dict[str, Any]


SETTINGS = [
    Setting("as it is", "pf_msmtrec", {}),
    Setting("float16", "pf_msmtrec", {"privacy.wire": "float16"}),
    Setting(f"clip {CLIP}", "pf_msmtrec", {"privacy.clip": CLIP}),
    *(
        Setting(f"clip {CLIP}, noise {noise:g}", "pf_msmtrec", {"privacy.clip": CLIP, "privacy.noise": noise})
        for noise in (0.001, 0.01, 0.1, 1.0)
    ),
    Setting("local", "local", {}),
]


class Found(NamedTuple):
    """The figures of one run."""

    ctr: float
    ctcvr: float
    kib_up: float
    """All clients together, in a round"""
    releases: int


def run(config: Config, schema: Schema, shards: Path, method: str, seed: int) -> Found:
    """Train once and score the test rows."""
    device = torch.device("cpu")
    workers, threads = choose_workers(config.run, len(schema.scenarios), device)
    rounds: list[RoundResult] = []
    trial = run_trial(
        config, schema, shards, method, seed, device, workers=workers, threads=threads, on_round=rounds.append
    )
    scored = trial.test(schema, shards)
    ctr, ctcvr = (float(np.mean([tasks[task.name] for tasks in scored.values()])) for task in schema.tasks)
    metrics = rounds[-1].metrics
    releases = [v for key, v in metrics.items() if key.endswith("/releases")]
    return Found(ctr, ctcvr, metrics["server/bytes_up"] / 1024, round(max(releases, default=0)))


def main(words: Sequence[str] | None = None) -> None:
    """Run every setting with every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--local-steps", type=int, default=24)
    parser.add_argument("--quick", action="store_true", help="tiny data and two rounds: to see that it runs")
    options = parser.parse_args(words)
    base = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    rounds = 2 if options.quick else options.rounds
    set_values(base, {"train.rounds": rounds, "train.local_steps": options.local_steps})
    set_values(base, QUICK if options.quick else {})
    with tempfile.TemporaryDirectory() as folder:
        config, raw, shards = parse_config(base), Path(folder) / "raw", Path(folder) / "clients"
        obtain(config.data, config.seed, raw, lambda _: None)
        partition(config.data, config.seed, raw, shards, lambda _: None)
        schema = read_schema(shards / "schema.json")
        print(
            f"{rounds} rounds of {options.local_steps} steps, {len(options.seeds)} seeds; test AUC, mean over scenarios"
        )
        print(f"{'':26s}{'CTR':>8s}{'CTCVR':>8s}{'std':>8s}{'KiB up a round':>16s}{'epsilon':>13s}")
        for setting in SETTINGS:
            set_values(base, {"privacy.wire": "float32", "privacy.clip": None, "privacy.noise": 0.0, **setting.changes})
            config = parse_config(base)
            found = [run(config, schema, shards, setting.method, seed) for seed in options.seeds]
            aucs = np.array([(one.ctr, one.ctcvr) for one in found])
            spread = f"{aucs.mean(1).std(ddof=1):.4f}" if len(found) > 1 else ""
            privacy = config.privacy
            told = f"{epsilon(privacy.noise, found[0].releases, privacy.delta):,.1f}" if found[0].releases else "none"
            print(
                f"{setting.name:26s}{aucs[:, 0].mean():8.4f}{aucs[:, 1].mean():8.4f}{spread:>8s}"
                f"{found[0].kib_up:16,.1f}{told:>13s}",
                flush=True,
            )


if __name__ == "__main__":
    main()
