"""Noise as a pure function of (seed, item, sample, step, stream), the same bits on every device.

Philox is counter-based (Salmon et al. 2011): seed and item make its key, sample, step and stream
the high words of its counter, so that no two draws overlap and none depends on a batch's size or
order. Drawn on the CPU in float32 and then moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Streams keep the draws of one step apart.
START, PREDICTOR, CORRECTOR, MEASUREMENT, PROBE, OTHER = range(6)
_MASK = (1 << 64) - 1


class Noise:
    """Standard normal draws for rows (item, sample) of a batch.

    items: one integer a row (any size; taken modulo 2^64); samples: one integer a row, default 0.
    """

    def __init__(self, seed: int, items: Sequence[int], samples: Sequence[int] | None = None):
        self.seed = int(seed)
        self.items = [int(item) for item in items]
        self.samples = [0] * len(self.items) if samples is None else [int(s) for s in samples]
        if len(self.samples) != len(self.items):
            raise ValueError(
                f"items and samples must be of one length; got {len(self.items)} items, "
                f"{len(self.samples)} samples"
            )

    def __call__(self, like: Tensor, step: int, stream: int = OTHER) -> Tensor:
        """N(0, I) of like's shape (B, *event), dtype and device."""
        return self._draw(
            like, step, stream, lambda rng, out: rng.standard_normal(dtype=np.float32, out=out)
        )

    def uniform(self, like: Tensor, step: int, stream: int = OTHER) -> Tensor:
        """U[0, 1) of like's shape, dtype and device."""
        return self._draw(
            like, step, stream, lambda rng, out: rng.random(dtype=np.float32, out=out)
        )

    def rademacher(self, like: Tensor, step: int, stream: int = PROBE) -> Tensor:
        """+-1 with equal chance, of like's shape, dtype and device."""
        return (self.uniform(like, step, stream) < 0.5).to(like.dtype) * 2 - 1

    def _draw(self, like: Tensor, step: int, stream: int, fill) -> Tensor:
        if len(self.items) != like.shape[0]:
            raise ValueError(f"{len(self.items)} items name the rows; got a batch {like.shape[0]}")
        out = np.empty((like.shape[0], *like.shape[1:]), dtype=np.float32)
        # out[row : row + 1] is a view even where an event is a single number.
        for row, (item, sample) in enumerate(zip(self.items, self.samples, strict=True)):
            # Word 0 and 1 of the counter count within the draw: 2^128 numbers each.
            counter = [0, 0, (stream << 48) | step, sample & _MASK]
            key = [self.seed & _MASK, item & _MASK]
            bits = np.random.Philox(counter=_words(counter), key=_words(key))
            fill(np.random.Generator(bits), out[row : row + 1].reshape(-1))
        return torch.from_numpy(out).to(device=like.device, dtype=like.dtype)

    def rows(self, index: slice | Sequence[int]) -> Noise:
        """The same noise for some of the rows."""
        chosen = range(len(self.items))[index] if isinstance(index, slice) else index
        return Noise(self.seed, [self.items[i] for i in chosen], [self.samples[i] for i in chosen])


def _words(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.uint64)
