"""Noise as a pure function of (seed, item, sample, step, stream), whatever the device.

Philox is counter-based (Salmon et al. 2011): seed and item make its key, sample, step and stream
the high words of its counter, so that no two draws overlap and none depends on a batch's size or
order. Its words are the whole state of the Mersenne twister behind torch's own normal_ and
uniform_, which fill an event at the speed of torch.randn: a torch seed has 32 bits, too few to keep
millions of draws apart. Drawn on the CPU in float32 and then moved, so that the device changes no
bit. The words, uniform and rademacher are the same bits on every processor too. Normal draws are
so on processors of one instruction set (torch.backends.cpu.get_cpu_capability()); another rounds
log and cos otherwise and moves a draw by a few 1e-6 at most.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

# Streams keep the draws of one step apart.
START, PREDICTOR, CORRECTOR, MEASUREMENT, PROBE, OTHER, TEST = range(7)
_MASK = (1 << 64) - 1
# The 624 words of the twister's state lie in torch.Generator's, each in 8 bytes.
_WORDS = slice(24, 24 + 624 * 8)
Fill = Callable[[Tensor, torch.Generator], object]


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
        return self._draw(like, step, stream, lambda out, rng: out.normal_(generator=rng))

    def uniform(self, like: Tensor, step: int, stream: int = OTHER) -> Tensor:
        """U[0, 1) of like's shape, dtype and device."""
        return self._draw(like, step, stream, lambda out, rng: out.uniform_(generator=rng))

    def rademacher(self, like: Tensor, step: int, stream: int = PROBE) -> Tensor:
        """+-1 with equal chance, of like's shape, dtype and device."""
        return (self.uniform(like, step, stream) < 0.5).to(like.dtype) * 2 - 1

    def _draw(self, like: Tensor, step: int, stream: int, fill: Fill) -> Tensor:
        if len(self.items) != like.shape[0]:
            raise ValueError(f"{len(self.items)} items name the rows; got a batch {like.shape[0]}")
        if not 0 <= step < 1 << 48:
            raise ValueError(f"step must lie in [0, 2^48); got {step}")
        out = torch.empty(like.shape)

        def draw(rows: Iterable[int]) -> None:
            twister = _Twister()
            for row in rows:
                # Word 0 and 1 of the counter count within the draw: 2^128 numbers each.
                counter = (0, 0, (stream << 48) | step, self.samples[row] & _MASK)
                key = (self.seed & _MASK, self.items[row] & _MASK)
                fill(out[row], twister.at(key, counter))

        _for_each(draw, len(self.items), out.numel())
        return out.to(device=like.device, dtype=like.dtype)

    def rows(self, index: slice | Sequence[int]) -> Noise:
        """The same noise for some of the rows."""
        chosen = range(len(self.items))[index] if isinstance(index, slice) else index
        return Noise(self.seed, [self.items[i] for i in chosen], [self.samples[i] for i in chosen])


class _Twister:
    """A torch.Generator whose whole state is Philox's words at a key and a counter."""

    def __init__(self) -> None:
        self.generator, self.philox = torch.Generator().manual_seed(1), np.random.Philox()
        self.state = self.generator.get_state()
        self.words = self.state.numpy()[_WORDS].view(np.uint64)
        # Matsumoto & Nishimura 1998: word 1 of seed 1.
        if self.words[1] != 1812433254:
            raise RuntimeError(f"torch {torch.__version__} keeps its generator's state elsewhere")

    def at(self, key: tuple[int, ...], counter: tuple[int, ...]) -> torch.Generator:
        place = {"counter": counter, "key": key}
        # An empty buffer: what was drawn before leaves nothing behind.
        rest = {"buffer": (0,) * 4, "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}
        # The stub has a TypedDict of arrays; numpy takes the tuples too.
        self.philox.state = {"bit_generator": "Philox", "state": place, **rest}  # pyright: ignore[reportAttributeAccessIssue]
        self.words[:] = self.philox.random_raw(312).view(np.uint32)
        self.generator.set_state(self.state)
        return self.generator


def _for_each(draw: Callable[[Iterable[int]], None], rows: int, numbers: int) -> None:
    """draw(all rows), on all of the process's cores where that pays.

    torch fills without the interpreter's lock, and each row has bits of its own.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if rows == 1 or numbers < 1 << 18 or cores in (None, 1):
        return draw(range(rows))
    with ThreadPoolExecutor(cores) as pool:
        for _ in pool.map(draw, [range(first, rows, cores) for first in range(min(cores, rows))]):
            pass
