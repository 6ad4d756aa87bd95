"""Run by test_budget.py in a process of its own: trains on large shards and tells how much memory that took.

    python resident.py TINY LARGE MEMORY WINDOW

Prints JSON: peak (bytes above what a training on tiny shards leaves behind), streamed, and the validation AUCs.
"""

import json
import resource
import sys
from pathlib import Path

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from pfmsmt.config import parse_config
from pfmsmt.data.schema import read_schema
from pfmsmt.data.shards.streamed import StreamedShard
from pfmsmt.training.federation import load_data
from pfmsmt.training.trial import run_trial
from tests.conftest import small_tree


def train(folder: Path, memory: float, window: int) -> tuple[bool, list[float | None]]:
    """Train all clients over several windows; say whether rows were streamed, and the AUC of each round."""
    sizes = {"train.rounds": 2, "train.local_steps": 20, "train.batch_size": 1000}
    rows = {"run.memory": memory, "train.shuffle_rows": window, "train.shuffle": "row_groups"}
    config, schema = parse_config(small_tree({**sizes, **rows})), read_schema(folder / "schema.json")
    data = load_data(config, schema, folder, "local")
    trial = run_trial(config, schema, folder, "local", 0, torch.device("cpu"), workers=1, threads=1, data=data)
    return isinstance(data["NL"].train, StreamedShard), list(trial.validation)


def peak_bytes() -> int:
    """Return the highest resident memory of this program so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # Linux's ru_maxrss counts what the process that started this one had, as they were one before exec.
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    tiny, large, memory, window = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    # What the process takes for good, for code, models and activations, is taken before.
    train(tiny, 1.0, window)
    before = psutil.Process().memory_info().rss
    streamed, validation = train(large, memory, window)
    print(json.dumps({"peak": peak_bytes() - before, "streamed": streamed, "validation": validation}))
