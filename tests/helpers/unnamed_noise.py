"""Noise for tests of many rows, whose names do not matter."""

import torch


class Draws:
    """Noise without names: one generator, fast for many rows."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def __call__(self, like, step, stream=0):
        return torch.randn(like.shape, dtype=like.dtype, generator=self.generator)

    def uniform(self, like, step, stream=0):
        return torch.rand(like.shape, dtype=like.dtype, generator=self.generator)
