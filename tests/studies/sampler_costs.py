"""What samplers cost beside the network: their own arithmetic, and noise."""

from __future__ import annotations

import os
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
from sampler_runs import AFFINE, TWO_CALLS, markdown


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
    kept, cores, rounds = keep_freed_memory(), os.cpu_count() or 1, 9
    x, z, x0_hat, copy = torch.randn(4, 8, 2, 320, 320).clone().unbind()
    prior = Prior(lambda x, t: x0_hat, VPSDE(), output="x0", event_shape=x.shape[1:])
    copied = min(_seconds(lambda: copy.copy_(x), time.process_time) for _ in range(5 * rounds))
    alone = _ms_a_call(prior, x, _Drawn(z), rounds, time.process_time)
    torch.set_num_threads(cores)
    together = _ms_a_call(prior, x, _Drawn(z), rounds, time.perf_counter)
    torch.set_num_threads(1)
    rows = [
        [name, alone[name], alone[name] / 0.5, alone[name] / (1000 * copied), together[name],
         together[name] / 0.5] for name in AFFINE
    ]  # fmt: skip
    rate = 2 * x.numel() * x.element_size() / copied / 1e9
    return markdown(
        "Overhead a call at 8 x 2 x 320 x 320",
        "20 steps with a network's answer and noise that lie ready, the best of "
        f"{rounds} rounds: processor time of one thread, and wall time of all; freed memory "
        f"{'kept, as by the command line' if kept else 'goes back to the kernel'}. % of a network "
        f"of 50 ms. Memory sets the limit: copying the state takes one thread {1000 * copied:.2f} "
        f"ms ({rate:.0f} GB/s), a step reads two (ddim), three or four tensors and writes one, and "
        "each term is a pass over the sum.",
        ["sampler", "1 thread, ms", "%", "in copies", f"{cores} threads, ms", "%"],
        rows,
    )


def _ms_a_call(
    prior: Prior, x: Tensor, noise: Any, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Milliseconds a call of each sampler of 20 steps, the least of rounds taken in turn."""
    grid = make_grid(prior.sde, 20, end_ratio=0.01)
    found: dict[str, list[float]] = {name: [] for name in AFFINE}
    for _ in range(rounds):
        for name, times in found.items():
            seconds = _seconds(lambda: SAMPLERS[name](prior, x, grid, noise), clock)  # noqa: B023
            times.append(1000 * seconds / (39 if name in TWO_CALLS else 20))
    return {name: min(times) for name, times in found.items()}


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
