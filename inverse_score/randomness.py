"""Noise as a pure function of (seed, item, sample, step, stream), the same bits on every device.

Philox is counter-based (Salmon et al. 2011): seed and item make its key, sample, step and stream
the high words of its counter, so that no two draws overlap and none depends on a batch's size or
order. Drawn on the CPU in float32 and then moved.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

# Streams keep the draws of one step apart.
START, PREDICTOR, CORRECTOR, MEASUREMENT, PROBE, OTHER, TEST = range(7)
_MASK = (1 << 64) - 1
Fill = Callable[[np.random.Generator, np.ndarray], object]


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

    def _draw(self, like: Tensor, step: int, stream: int, fill: Fill) -> Tensor:
        if len(self.items) != like.shape[0]:
            raise ValueError(f"{len(self.items)} items name the rows; got a batch {like.shape[0]}")
        if not 0 <= step < 1 << 48:
            raise ValueError(f"step must lie in [0, 2^48); got {step}")
        out = np.empty(tuple(like.shape), dtype=np.float32)
        # out[row : row + 1] is a view even where an event is a single number.

        def draw(row: int) -> None:
            # Word 0 and 1 of the counter count within the draw: 2^128 numbers each.
            counter = [0, 0, (stream << 48) | step, self.samples[row] & _MASK]
            key = [self.seed & _MASK, self.items[row] & _MASK]
            bits = np.random.Philox(counter=_words(counter), key=_words(key))
            fill(np.random.Generator(bits), out[row : row + 1].reshape(-1))

        _for_each(draw, len(self.items), out.size)
        return torch.from_numpy(out).to(device=like.device, dtype=like.dtype)

    def rows(self, index: slice | Sequence[int]) -> Noise:
        """The same noise for some of the rows."""
        chosen = range(len(self.items))[index] if isinstance(index, slice) else index
        return Noise(self.seed, [self.items[i] for i in chosen], [self.samples[i] for i in chosen])


def _for_each(draw: Callable[[int], None], rows: int, numbers: int) -> None:
    """draw(row) for all rows, on all of the process's cores where that pays.

    numpy fills without the interpreter lock, and each row has bits of its own.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if rows == 1 or numbers < 1 << 18 or cores in (None, 1):
        for row in range(rows):
            draw(row)
        return
    with ThreadPoolExecutor(cores) as pool:
        for _ in pool.map(draw, range(rows)):
            pass


def _words(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.uint64)
