"""Compressed sensing: some coefficients of a randomised orthonormal transform, matrix-free."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .fourier import hartley2
from .linear import Forms, LinearOperator
from .spectral import SVD

TRANSFORMS = ("hadamard", "hartley")


class CompressedSensing(LinearOperator):
    """y = P H D x per channel: random signs D, orthonormal H, and m of its rows: A A^T = I.

    x: (B, C, H, W), y: (B, C, m). transform "hadamard" (Walsh-Hadamard, H W a power of two) or
    "hartley" (the real Fourier transform, any size). Signs and rows are drawn from seed, without
    replacement, the same for every item and channel.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_measurements: int,
        *,
        transform: str = "hadamard",
        seed: int = 0,
    ):
        shape, m = tuple(image_shape), int(num_measurements)
        if len(shape) != 3:
            raise ValueError(f"image_shape must be (C, H, W); got {shape}")
        n = shape[1] * shape[2]
        if not 1 <= m <= n:
            raise ValueError(f"num_measurements must lie in 1 .. H W = {n}; got {num_measurements}")
        if transform not in TRANSFORMS:
            raise ValueError(f"transform must be one of {', '.join(TRANSFORMS)}; got {transform!r}")
        if transform == "hadamard" and n & (n - 1):
            raise ValueError(
                f"hadamard needs H W a power of two; got {shape[1]} x {shape[2]}: "
                'transform="hartley" takes any size'
            )
        super().__init__(shape, (shape[0], m))
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, n], dtype=np.uint64)))
        self.signs = torch.from_numpy(rng.choice([-1.0, 1.0], size=shape[1:]))
        self.rows = torch.from_numpy(np.sort(rng.permutation(n)[:m]))
        self._kind = transform

    def forward(self, x: Tensor) -> Tensor:
        return self._coefficients(x)[..., self.rows.to(x.device)]

    def adjoint(self, y: Tensor) -> Tensor:
        return self._image(self._embed(y))

    def _coefficients(self, x: Tensor) -> Tensor:
        x = x * self.signs.to(x)
        return hadamard(x.flatten(2)) if self._kind == "hadamard" else hartley2(x).flatten(2)

    def _image(self, z: Tensor) -> Tensor:
        if self._kind == "hadamard":
            x = hadamard(z).reshape(-1, *self.in_shape)
        else:
            x = hartley2(z.reshape(-1, *self.in_shape))
        return x * self.signs.to(x)

    def _embed(self, y: Tensor) -> Tensor:
        z = y.new_zeros(*y.shape[:-1], self.in_shape[1] * self.in_shape[2])
        return z.index_copy(-1, self.rows.to(y.device), y)

    @property
    def forms(self) -> Forms:
        return Forms.of(self, row_gram=torch.ones(1, 1, 1), svd=self._svd)

    def _svd(self) -> SVD:
        """V^T = H D with coefficients (B, C, H W); s = 1 at the chosen rows."""
        s = torch.zeros(1, 1, self.in_shape[1] * self.in_shape[2])
        s[..., self.rows] = 1.0
        return SVD(
            s,
            self._image,
            self._coefficients,
            lambda z: z[..., self.rows.to(z.device)],
            self._embed,
            entrywise=True,
        )


def hadamard(x: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform of the last axis, a power of two long."""
    n = x.shape[-1]
    shape, half = x.shape, 1
    while half < n:
        a, b = x.reshape(*shape[:-1], n // (2 * half), 2, half).unbind(-2)
        x = torch.stack([a + b, a - b], -2).reshape(shape)
        half *= 2
    return x / math.sqrt(n)
