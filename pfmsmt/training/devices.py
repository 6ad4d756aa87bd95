"""Devices and workers: the place of computation, and clients at a time."""

import os

import torch

from pfmsmt.config import Run
from pfmsmt.core.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device that `run.device` names.

    auto takes cuda, else mps, else cpu.

    Raises:
        ConfigError: a device that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, colon, index = name.partition(":")
    if kind not in ("cuda", "mps", "cpu") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"run.device: {name} is no device; use auto, cuda, cuda:0, mps or cpu")
    if kind == "cuda" and not (torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count()):
        raise ConfigError(f"run.device: {name} is not here ({torch.cuda.device_count()} CUDA devices); use auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("run.device: mps is not here; use auto or cpu")
    return torch.device(name)


def choose_workers(run: Run, clients: int, device: torch.device, trainings: int = 1) -> tuple[int, int]:
    """Return (workers, torch threads of each).

    `trainings` that run at the same time share the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, cores // trainings)
    auto = min(cores, clients) if device.type == "cpu" else 1
    workers = auto if run.workers == "auto" else run.workers
    threads = max(1, cores // workers) if run.threads == "auto" else run.threads
    return workers, threads
