"""An operator of which only some measurements count."""

from __future__ import annotations

import torch
from torch import Tensor

from .linear import Forms, LinearOperator


class Observed(LinearOperator):
    """keep * A x: A's measurements where keep is 1, and 0 where it is 0 (as if not measured).

    keep: 0 and 1, broadcastable to (B, *A.out_shape); one for all items, or one an item. For rays
    through metal, dead detectors, rejected read-outs. Keeps those of A's forms that a mask leaves,
    such as its transform with Lambda times keep (Song et al. 2022, section 3).
    """

    _parts = ("A",)

    def __init__(self, A: LinearOperator, keep: Tensor):
        if keep.ndim == len(A.out_shape):
            keep = keep[None]
        try:
            fits = torch.broadcast_shapes(keep.shape[1:], A.out_shape) == A.out_shape
        except RuntimeError:
            fits = False
        fits = fits and keep.ndim == len(A.out_shape) + 1
        if not fits or not bool(((keep == 0) | (keep == 1)).all()):
            raise ValueError(
                f"keep must hold 0 and 1 and broadcast to (B, *{A.out_shape}); got "
                f"{tuple(keep.shape)} from {float(keep.min()):g} to {float(keep.max()):g}"
            )
        keep = keep.expand(len(keep), *A.out_shape)
        if not bool(keep.flatten(1).any(1).all()):
            raise ValueError("keep is 0 everywhere for some item: nothing is measured")
        batch = len(keep) if len(keep) > 1 else A.batch
        if A.batch not in (None, batch):
            raise ValueError(f"{len(keep)} masks for the {A.batch} items of {A!r}")
        super().__init__(A.in_shape, A.out_shape, batch)
        self.A, self.keep = A, keep.float()
        self.in_complex, self.out_complex = A.in_complex, A.out_complex
        self._per_item = ("keep",) if len(keep) > 1 else ()

    def forward(self, x: Tensor) -> Tensor:
        y = self.A.forward(x)
        return self.keep.to(y.real) * y

    def adjoint(self, y: Tensor) -> Tensor:
        return self.A.adjoint(self.keep.to(y.real) * y)

    @property
    def num_measured(self) -> int | Tensor:
        count = self.keep.flatten(1).sum(1).long() * (2 if self.out_complex else 1)
        return int(count[0]) if len(count) == 1 else count

    @property
    def forms(self) -> Forms:
        return self.A.forms.masked(self.keep, out_complex=self.out_complex)
