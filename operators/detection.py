"""Detectors that record magnitudes or counts: forward models that are not linear."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from .linear import LinearOperator
from .nonlinear import NonlinearOperator


class Magnitude(NonlinearOperator):
    """y = |A x|: phase retrieval, A linear with complex or real values.

    y (B, *A.out_shape), real. The derivative is v -> Re(conj(A x) A v) / |A x|, taken as 0 where
    A x = 0. With A the Fourier transform of an image padded twofold it is far-field diffraction.
    """

    def __init__(self, A: LinearOperator):
        super().__init__(A.in_shape, A.out_shape, A.batch)
        self.A = A

    def forward(self, x: Tensor) -> Tensor:
        return self.A(x).abs()

    def linearize(self, x: Tensor) -> LinearOperator:
        z = self.A(x)
        size = z.abs()
        phase = torch.where(size > 0, z / size.clamp_min(torch.finfo(size.dtype).tiny), 0)
        return _Pointwise(self.A, phase)

    def __getitem__(self, index: Any) -> NonlinearOperator:
        return Magnitude(self.A[index])


class BeerLambert(NonlinearOperator):
    """y = I0 exp(-(A x + offset)): CT counts or intensities as they are, without a logarithm.

    A x: line integrals without unit, (B, *out_shape); offset: what is added to them, as where x is
    in Hounsfield units (a tensor broadcastable to y, or a number). The noise of counts is
    noise_std = sqrt(counts), which for few counts the logarithm would skew.
    """

    def __init__(self, A: LinearOperator, I0: float = 1.0, offset: float | Tensor = 0.0):
        if A.out_complex or not (math.isfinite(I0) and I0 > 0):
            raise ValueError(f"BeerLambert takes a real operator and I0 > 0; got {A!r}, {I0}")
        super().__init__(A.in_shape, A.out_shape, A.batch)
        self.A, self.I0, self.offset = A, float(I0), offset

    def forward(self, x: Tensor) -> Tensor:
        offset = self.offset.to(x) if isinstance(self.offset, Tensor) else self.offset
        return self.I0 * torch.exp(-(self.A(x) + offset))

    def linearize(self, x: Tensor) -> LinearOperator:
        return _Pointwise(self.A, -self.forward(x))

    def __getitem__(self, index: Any) -> NonlinearOperator:
        item = copy.copy(self)
        item.A = self.A[index]
        item.batch = item.A.batch
        return item


class _Pointwise(LinearOperator):
    """v -> Re(conj(factor) A v), factor (B, *out_shape)."""

    _per_item = ("factor",)
    _parts = ("A",)

    def __init__(self, A: LinearOperator, factor: Tensor):
        super().__init__(A.in_shape, A.out_shape, len(factor))
        self.A, self.factor = A, factor

    def forward(self, x: Tensor) -> Tensor:
        z = self.factor.conj() * self.A(x)
        return z.real if z.is_complex() else z

    def adjoint(self, y: Tensor) -> Tensor:
        return self.A.T(self.factor * y)
