"""What this process may use: cores and memory."""

from __future__ import annotations

import os
from pathlib import Path


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
