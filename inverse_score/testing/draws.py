"""Noise without names, and a sampler's draws from the terminal law, for many small items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..prior import Prior
from ..sampling import SAMPLERS, counted, start


class BatchNoise:
    """Noise for many small items at once: Noise seeds each item apart, which costs microseconds."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)

    def uniform(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, dtype=like.dtype)


def sampler_draws(prior: Prior, num: int, name: str, times: Sequence[float], **options: Any):
    """(samples, calls of the prior) from the terminal law."""
    watched, counter = counted(prior)
    noise: Any = BatchNoise()
    xT = start(prior, (num, *prior.event_shape), noise)  # type: ignore[misc]
    return SAMPLERS[name](watched, xT, times, noise, **options), counter.nfe
