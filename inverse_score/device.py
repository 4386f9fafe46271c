"""What this process may compute on: a device, its cores and its memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BadInput

if TYPE_CHECKING:
    import torch


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """ "auto" is CUDA, else MPS, else the CPU; a device that is named and absent is BadInput.

    local_rank: which CUDA device, where the name leaves it open.
    """
    import torch

    mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"device must be auto, cpu, cuda, cuda:N or mps; got {name!r}") from None
    there = {"cpu": True, "mps": mps, "cuda": (device.index or 0) < torch.cuda.device_count()}
    if not there.get(device.type, False):
        raise BadInput(f"device {name}: there is no such device here; `doctor` lists them")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local_rank or 0)
    return device


def available_cpus() -> int:
    """Cores that this process may run on: its affinity, and its cgroup's quota where smaller."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, _, period = quota.read_text().partition(" ")
        if limit.isdigit() and period.strip().isdigit():
            count = min(count or 1, max(1, int(limit) // int(period)))
    return count or 1


def total_memory() -> int:
    """Bytes of memory this process may have: the machine's, or its cgroup's where smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def use_cores(share: int = 1) -> int:
    """Let torch use this process's share of its cores; OMP_NUM_THREADS, where set, is obeyed."""
    import torch

    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, available_cpus() // share))
    return torch.get_num_threads()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host's or the device's memory is exhausted, in any of torch's wordings."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("can't allocate memory", "out of memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
