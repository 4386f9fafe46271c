"""Peak memory of inpainting one large photograph, whole and in patches, each in its own process.

`python tests/studies/large_images.py SIZE PATCH` prints one run; PATCH 0 is the whole image.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from inverse_score import PatchWise, load_prior
from recipes.inpainting import inpainting

HEADER = ["image", "network sees", "memory before", "peak", "grew by", "s / call"]
PATCHES = (0, 256, 128)


def table(size: int, patches: tuple[int, ...] = PATCHES) -> list[list[str]]:
    """HEADER and a line a patch size."""
    lines = [HEADER]
    for patch in patches:
        command = [sys.executable, __file__, str(size), str(patch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        seen = f"{patch} x {patch} pixels" if patch else "the whole"
        before, peak = found["before"], found["peak"]
        memory = [f"{value:.0f} MB" for value in (before, peak, peak - before)]
        lines.append([f"{size} x {size}", seen, *memory, f"{found['seconds']:.1f}"])
    return lines


def measure(size: int, patch: int, steps: int = 2) -> dict[str, float]:
    """MB of the process before and at its peak, and seconds a network call.

    Memory does not depend on the steps, so that two are enough.
    """
    prior = load_prior("photo-patches")
    prior = PatchWise(prior, patch) if patch else prior
    draw = torch.Generator().manual_seed(0)
    photo, mask = torch.rand(3, size, size, generator=draw), torch.ones(size, size)
    mask[size // 4 : size // 2, size // 4 : size // 2] = 0
    # A small run first: what importing and starting threads cost is not the image's.
    small = inpainting(prior, mask[:64, :64].clone().fill_(1))
    small(photo[:, :64, :64], 1, steps=2)
    before, began = resident(), time.perf_counter()
    inpainting(prior, mask)(photo, 1, steps=steps)
    seconds = (time.perf_counter() - began) / (steps + 1)
    return {"before": before, "peak": peak(), "seconds": seconds}


def peak() -> float:
    """The most memory that this process ever held, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def resident() -> float:
    """The memory that this process holds now, in MB; its peak where the system does not say."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return peak()
    return int(pages.read_text().split()[1]) * resource.getpagesize() / 1e6


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(*map(int, sys.argv[1:3]))))
