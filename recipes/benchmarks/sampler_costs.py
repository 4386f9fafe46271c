"""What samplers cost beside the network: their own arithmetic, and noise."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inverse_score.prior import Prior
from inverse_score.randomness import Noise
from inverse_score.sampling import SAMPLERS, make_grid
from inverse_score.sde import VPSDE

from .sampler_runs import AFFINE, TWO_CALLS, markdown


class _Nothing:
    """Noise that costs nothing."""

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return like


def _seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def table_overhead() -> str:
    """Time a call of the sampler itself, against a network of 50 ms."""
    shape = (8, 2, 320, 320)
    prior = Prior(lambda x, t: x, VPSDE(), output="x0", event_shape=shape[1:])
    x = torch.randn(shape)
    rows = []
    for name in AFFINE:
        grid = make_grid(prior.sde, 20, end_ratio=0.01)
        calls = 39 if name in TWO_CALLS else 20
        runs = [_seconds(lambda: SAMPLERS[name](prior, x, grid, _Nothing())) for _ in range(5)]  # noqa: B023
        rows.append([name, 1000 * min(runs) / calls, 100 * min(runs) / calls / 0.05])
    return markdown(
        "Overhead a call at 8 x 2 x 320 x 320",
        "20 steps with a network and noise that cost nothing, best of five, one thread.",
        ["sampler", "ms a call", "% of a 50 ms network"],
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
