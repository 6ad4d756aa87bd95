import os

import pytest
import torch

from pfmsmt.core.errors import ConfigError
from pfmsmt.training.devices import choose_device, choose_workers

CPU = torch.device("cpu")


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == CPU


def test_auto_takes_the_best_device():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto") == torch.device(best)


@pytest.mark.parametrize("name", ["cuda:99", "mps:7", "cuda:x", "cuda:", "auto:1", "cpu:3", "cpu:x", "cuda:-1"])
def test_a_device_that_is_not_here_is_named(name):
    with pytest.raises(ConfigError, match=rf"^run\.device: {name} is (not here|no device)"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_no_cuda_says_what_to_use():
    with pytest.raises(ConfigError, match=r"cuda is not here \(0 CUDA devices\); use auto or cpu"):
        choose_device("cuda")


def test_workers(make_config):
    def choose(workers, threads, clients, device=CPU):
        return choose_workers(make_config({"run.workers": workers, "run.threads": threads}).run, clients, device)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert choose(3, 2, 4) == (3, 2)
    assert choose("auto", 1, 1) == (1, 1)
    assert choose("auto", 1, 1000) == (cores, 1)
    assert choose("auto", "auto", 1) == (1, cores)
    assert choose("auto", "auto", 1000) == (cores, 1)
    assert choose(1000, "auto", 4) == (1000, 1)
    assert choose("auto", 1, 4, torch.device("cuda")) == (1, 1)
    # Trainings at the same time have their share of the cores, and at least one.
    run = make_config({"run.workers": "auto", "run.threads": "auto"}).run
    assert choose_workers(run, 1000, CPU, trainings=cores) == (1, 1)
    assert choose_workers(run, 1000, CPU, trainings=2 * cores) == (1, 1)
