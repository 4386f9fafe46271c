"""What samplers cost beside the network: their own arithmetic, and noise."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inverse_score.memory import keep_freed_memory
from inverse_score.prior import Prior
from inverse_score.randomness import Noise
from inverse_score.sampling import SAMPLERS, make_grid
from inverse_score.sde import VPSDE

from .sampler_runs import AFFINE, TWO_CALLS, markdown


class _Drawn:
    """Noise that was drawn before."""

    def __init__(self, z: Tensor):
        self.z = z

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return self.z


def _seconds(function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    function()
    return clock() - began


def table_overhead() -> str:
    """Time a call of the sampler itself, against a network of 50 ms."""
    kept = keep_freed_memory()
    shape, steps, rounds = (8, 2, 320, 320), 20, 9
    x, z, x0_hat, copy = torch.randn(4, *shape).clone().unbind()
    prior = Prior(lambda x, t: x0_hat, VPSDE(), output="x0", event_shape=shape[1:])
    grid = make_grid(prior.sde, steps, end_ratio=0.01)
    calls = {name: 2 * steps - 1 if name in TWO_CALLS else steps for name in AFFINE}
    found: dict[str, list[float]] = {name: [] for name in AFFINE}
    copies = []
    for _ in range(rounds):
        copies.append(min(_seconds(lambda: copy.copy_(x), time.process_time) for _ in range(5)))
        for name, times in found.items():
            seconds = _seconds(lambda: SAMPLERS[name](prior, x, grid, _Drawn(z)), time.process_time)  # noqa: B023
            times.append(seconds / calls[name])
    rows = [
        [name, 1000 * min(times), 1000 * statistics.median(times), 100 * min(times) / 0.05,
         min(times) / min(copies)] for name, times in found.items()
    ]  # fmt: skip
    rate = 2 * x.numel() * x.element_size() / min(copies) / 1e9
    return markdown(
        "Overhead a call at 8 x 2 x 320 x 320",
        f"{steps} steps with a network's answer and noise that lie ready: processor time of one "
        f"thread, the best of {rounds} rounds and their median; freed memory "
        f"{'kept, as by the command line' if kept else 'goes back to the kernel'}. Memory sets the "
        f"limit: copying the state takes {1000 * min(copies):.2f} ms ({rate:.0f} GB/s), and a step "
        "reads two (ddim), three or four tensors and writes one: 1.5, 2 or 2.5 copies.",
        ["sampler", "ms a call", "median", "% of a 50 ms network", "in copies"],
        rows,
    )


def table_noise() -> str:
    """Reproducible noise against one torch.randn of the batch."""
    rows = []
    for batch in (1, 8, 64):
        like, noise = torch.empty(batch, 2, 320, 320), Noise(0, range(batch))
        pairs = [
            (_seconds(lambda: torch.randn(like.shape)), _seconds(lambda: noise(like, 0)))  # noqa: B023
            for _ in range(9)
        ]
        plain, mine = map(min, zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        rows.append([batch, 1000 * plain, 1000 * mine, ratio])
    return markdown(
        "Noise that is a pure function of (seed, item, sample, draw), B x 2 x 320 x 320",
        "Milliseconds, best of nine taken in turn, and the median of the nine ratios; Noise spreads"
        " the items over the process's cores, torch.randn uses one.",
        ["batch", "torch.randn", "Noise", "ratio"],
        rows,
    )
