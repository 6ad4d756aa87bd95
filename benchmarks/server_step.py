"""Cost of PF-MSMTrec's step on the server: seconds over clients S and parameters P, and its share of a real round.

    python benchmarks/server_step.py [--quick] [--clients 4 16 64] [--parameters 1e5 1e6 1e7 1e8] [--memory GIB]

Parameters are random, in groups as an MMoE has them (four experts, two gates and towers); the method is the one that
params.yaml configures, but with gates federated, and with Adam or plain steps on the server. A step is both phases'
`server_update`. Each size takes one step first, so that every client has its own parameters and moments, as in any
later round. Sizes that do not fit into the memory that is free are skipped, and say so. Last, the default data are
trained for some rounds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pfmsmt.config import Config, ScenarioSize, load_config
from pfmsmt.core.types import NamedArrays, Role, Slot, Template
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.prepare.partition import partition
from pfmsmt.methods import LocalResult, Method, Upload
from pfmsmt.methods.catalogue import build_method
from pfmsmt.training.devices import choose_workers
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import build_federation
from pfmsmt.training.rounds import run_rounds

PARAMS = Path(__file__).parents[1] / "params.yaml"
SHARES = {Role.EXPERT: (4, 0.90), Role.TOWER: (2, 0.08), Role.GATE: (2, 0.02)}
"""role -> groups, and their share of all parameters"""
OPTIMIZERS = ("adam", "plain")
ENOUGH_SECONDS, MOST_STEPS = 1.0, 10


class Size(NamedTuple):
    """One combination."""

    optimizer: str
    clients: int
    parameters: int

    @property
    def memory(self) -> int:
        """Bytes needed: uploads, and the state before and after; the largest array in float64."""
        # Parameters, Adam's two moments, and the odd and even rounds' updates that similarity keeps.
        state = (3 if self.optimizer == "adam" else 1) + 2
        largest = SHARES[Role.EXPERT][1] / SHARES[Role.EXPERT][0] * 2 / 3
        return int(self.clients * self.parameters * (4 * (2 * state + 1) + 16 * largest))


def layout(parameters: int) -> tuple[Template, dict[str, int]]:
    """Return the template and the size of each array; every group has two layers, two thirds and one."""
    template, sizes = {}, {}
    for role, (groups, share) in SHARES.items():
        for index in range(groups):
            whole = max(3, round(parameters * share / groups))
            for layer, size in enumerate((whole * 2 // 3, whole - whole * 2 // 3)):
                name = f"{role}/{index}/layers.{layer}.weight"
                template[name], sizes[name] = Slot(role, f"{role}/{index}"), size
    return template, sizes


def random_arrays(sizes: dict[str, int], seed: int) -> NamedArrays:
    """Draw float32 arrays."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(size, np.float32) for name, size in sizes.items()}


def no_training(*_: Any, **__: Any) -> LocalResult:
    """Stand where clients would train."""
    raise AssertionError("the server's step trains nothing")


def step_seconds(size: Size, config: Config) -> float:
    """Return the seconds of one step of both phases, the median of up to MOST_STEPS."""
    template, sizes = layout(size.parameters)
    block = config.methods.pf_msmtrec.model_copy(update={"server_optimizer": size.optimizer, "gate": "federated"})
    methods = config.methods.model_copy(update={"pf_msmtrec": block})
    method = build_method("pf_msmtrec", methods, no_training, template)
    names = tuple(f"client{i:02d}" for i in range(size.clients))
    arrays = {name: random_arrays(sizes, seed) for seed, name in enumerate(names, start=1)}
    server = method.init(random_arrays(sizes, 0), names)
    step = both_phases(method, template, arrays)
    server, _ = step(server)
    times: list[float] = []
    while not times or (sum(times) < ENOUGH_SECONDS and len(times) < MOST_STEPS):
        server, seconds = step(server)
        times.append(seconds)
    return statistics.median(times)


def both_phases(
    method: Method, template: Template, arrays: dict[str, NamedArrays]
) -> Callable[[Any], tuple[Any, float]]:
    """Return a function from a server's state to the next one and the seconds that took."""
    heads = {Role.TOWER, Role.GATE}
    uploads = [
        {
            client: Upload({n: a for n, a in own.items() if (template[n].role in heads) is head}, 1000 + i, 0.5)
            for i, (client, own) in enumerate(arrays.items())
        }
        for head in (False, True)
    ]
    if len(method.phases) == 1:
        uploads = [{k: Upload({**a.arrays, **uploads[1][k].arrays}, a.examples, a.loss) for k, a in uploads[0].items()}]

    def step(server: Any) -> tuple[Any, float]:
        start = time.perf_counter()
        for phase, sent in zip(method.phases, uploads, strict=True):
            server = phase.server_update(server, sent).server
        return server, time.perf_counter() - start

    return step


def free_memory() -> int:
    """Return the bytes that can be had without swapping, less a fifth for others."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return free * 4 // 5


def measure(clients: list[int], parameters: list[int], memory: int | None, config: Config) -> dict[Size, float]:
    """Measure and print every combination that fits."""
    print("server     clients   parameters    seconds a step   ns per client and parameter")
    times: dict[Size, float] = {}
    for optimizer in OPTIMIZERS:
        for count in clients:
            for total in parameters:
                size = Size(optimizer, count, total)
                shown = f"{optimizer:8s}  {count:8d}  {total:11.0e}"
                free = free_memory() if memory is None else memory
                if size.memory > free:
                    print(f"{shown}    skipped: needs {size.memory / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
                    continue
                times[size] = step_seconds(size, config)
                print(f"{shown}    {times[size]:14.5f}   {times[size] / count / total * 1e9:10.2f}", flush=True)
    return times


def power(points: dict[int, float]) -> str:
    """Return the exponent of time against size: of the whole range, and of each step in it."""
    if len(points) < 2:
        return "too few sizes"
    x, y = np.log(list(points)), np.log(list(points.values()))
    steps = ", ".join(f"{slope:.2f}" for slope in np.diff(y) / np.diff(x))
    return f"exponent {np.polyfit(x, y, 1)[0]:.2f}; from each size to the next {steps}"


def print_growth(times: dict[Size, float], clients: list[int], parameters: list[int]) -> None:
    """Print how time grows with P at each S, and with S at each P."""
    print("\ngrowth (time ~ size ^ exponent; 1 is linear, 2 is quadratic)")
    for optimizer in OPTIMIZERS:
        for count in clients:
            points = {p: times[Size(optimizer, count, p)] for p in parameters if Size(optimizer, count, p) in times}
            print(f"{optimizer:8s}  with P at S = {count:<8d}  {power(points)}")
        for total in parameters:
            points = {s: times[Size(optimizer, s, total)] for s in clients if Size(optimizer, s, total) in times}
            print(f"{optimizer:8s}  with S at P = {total:<8.0e}  {power(points)}")


def round_share(config: Config, rounds: int) -> None:
    """Train pf_msmtrec on generated data for some rounds and print the step's share of a round."""
    with tempfile.TemporaryDirectory() as name:
        raw, shards = Path(name) / "raw", Path(name) / "clients"
        obtain(config.data, config.seed, raw, lambda _: None)
        schema = partition(config.data, config.seed, raw, shards, lambda _: None)
        device = torch.device("cpu")
        federation = build_federation(config, schema, shards, "pf_msmtrec", 0, device)
    method, names = federation.method, federation.names
    initial = federation.clients[names[0]].initial_parameters
    server = method.init(initial, names)
    workers, threads = choose_workers(config.run, len(names), device)
    with InProcess(federation.clients, workers, threads) as exchange:
        # One round more: the first one warms up.
        results = run_rounds(method, exchange, server, names, rounds=rounds + 1, quorum=1.0)
        found = [result.metrics for result in results][1:]
    step = statistics.median(m["server/step_seconds"] for m in found)
    training = statistics.median(m["server/seconds"] for m in found)
    whole = statistics.median(m["server/seconds"] + m["server/validation_seconds"] for m in found)
    size = sum(array.size for array in method.broadcast(server, names[0]).values())
    print(
        f"\n{rounds} rounds of pf_msmtrec, {len(names)} clients, {size:,} federated parameters, {workers} worker(s): "
        f"step {step * 1e3:.2f} ms, round {training * 1e3:.1f} ms, with validation {whole * 1e3:.1f} ms\n"
        f"share of a round {step / whole:.2%}, without validation {step / training:.2%}"
    )


def main() -> None:
    """Measure, fit, and train a little."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--clients", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--parameters", type=float, nargs="+", default=[1e5, 1e6, 1e7, 1e8])
    parser.add_argument("--memory", type=float, help="GiB to keep to, in the place of what is free")
    parser.add_argument("--rounds", type=int, default=20, help="of the real federation; 0 leaves it out")
    chosen = parser.parse_args()
    config = load_config(PARAMS)
    # The generated data, whatever params.yaml names; test rows take no part in training.
    sizes = {name: size.model_copy(update={"test_rows": 100}) for name, size in config.data.synthetic.scenarios.items()}
    if chosen.quick:
        chosen.clients, chosen.parameters, chosen.rounds = [2, 4], [1e3, 1e4], min(chosen.rounds, 2)
        sizes = {name: ScenarioSize(train_rows=600, test_rows=100) for name in sizes}
    synthetic = config.data.synthetic.model_copy(update={"scenarios": sizes})
    data = config.data.model_copy(update={"source": "synthetic", "synthetic": synthetic, "private_fields": ()})
    parameters = sorted(int(p) for p in chosen.parameters)
    clients = sorted(chosen.clients)
    print(f"numpy {np.__version__}, {os.cpu_count()} cores, conflict {config.methods.pf_msmtrec.conflict}, "
          f"aggregation {config.methods.pf_msmtrec.aggregation}")  # fmt: skip
    memory = None if chosen.memory is None else int(chosen.memory * 2**30)
    times = measure(clients, parameters, memory, config)
    print_growth(times, clients, parameters)
    if chosen.rounds:
        round_share(config.model_copy(update={"data": data}), chosen.rounds)


if __name__ == "__main__":
    main()
