"""Masking of pixels: inpainting with box, random or half masks, and the identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .algebra import as_event, count
from .linalg import per_item
from .linear import Forms, LinearOperator, Resolvent
from .spectral import SVD, safe_inverse


def checked_mask(mask: Tensor, name: str = "mask") -> Tensor:
    """mask as bool; ValueError unless it holds only 0 and 1 and at least one 1 in each item."""
    mask = torch.as_tensor(mask)
    if mask.dtype != torch.bool:
        if mask.is_complex() or not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(f"{name} must hold only 0 and 1; got {mask.dtype} with other values")
        mask = mask == 1
    if mask.numel() == 0 or not bool(mask.any()):
        raise ValueError(f"{name} is empty: it measures nothing; got shape {tuple(mask.shape)}")
    return mask


class Identity(LinearOperator):
    """y = x: denoising. in_shape: of one item."""

    def __init__(self, in_shape: Sequence[int]):
        super().__init__(in_shape, in_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    @property
    def forms(self) -> Forms:
        ones, same = torch.ones([1] * (len(self.in_shape) + 1)), lambda v: v
        return Forms.of(self, row_gram=ones, svd=lambda: SVD(ones, same, same, same, same, True))


class Mask(LinearOperator):
    """y = m * x, m 0 or 1: inpainting on the full grid, unmeasured entries zero.

    mask: bool or 0/1, (*image_shape) or broadcastable to it, or (B, *image_shape) per item;
    image_shape: default the mask's own shape, e.g. (C, H, W).
    """

    def __init__(self, mask: Tensor, image_shape: Sequence[int] | None = None):
        mask = checked_mask(mask)
        shape = tuple(mask.shape) if image_shape is None else tuple(image_shape)
        self.mask, batch = as_event(mask, shape, "mask")
        if batch is not None and not bool(mask.flatten(1).any(1).all()):
            raise ValueError("mask is empty for some item: it measures nothing")
        super().__init__(shape, shape, batch)
        self._per_item = () if batch is None else ("mask",)

    def forward(self, x: Tensor) -> Tensor:
        return self.mask.to(x) * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.forward(y)

    def _normal(self, x: Tensor) -> Tensor:
        return self.forward(x)

    @property
    def forms(self) -> Forms:
        """V = U = I, s = m."""
        gram, same = self._gram(), lambda v: v
        return Forms.of(
            self,
            row_gram=gram,
            svd=lambda: SVD(gram, same, same, self.forward, self.forward, True),
            solve=self._solve,
            near=self._near,
        )

    def _gram(self) -> Tensor:
        mask = self.mask if self.batch is not None else self.mask[None]
        return mask.reshape(-1, *_padded(mask.shape[1:], self.in_shape)).to(torch.float32)

    def _solve(self, b: Tensor, rho: float | Tensor, weights: Tensor | None) -> Tensor:
        # Diagonal whatever the weights.
        gain = self.mask.to(b) * (1.0 if weights is None else weights.to(b))
        return b * safe_inverse(gain, per_item(rho, b))

    def _near(self, weights: Tensor | None) -> Resolvent:
        gain = self._gram() if weights is None else self._gram().to(weights) * weights

        def at(rho: float | Tensor) -> Callable[[Tensor], Tensor]:
            known: dict[torch.dtype, Tensor] = {}

            def solve(b: Tensor) -> Tensor:
                if b.dtype not in known:
                    known[b.dtype] = safe_inverse(gain.to(b), per_item(rho, b))
                return b * known[b.dtype]

            return solve

        return at

    @property
    def num_measured(self) -> int | Tensor:
        return count(self.mask, self.out_shape, self.batch)


def _padded(shape: Sequence[int], full: Sequence[int]) -> list[int]:
    """shape with leading ones, as many axes as full."""
    return [1] * (len(full) - len(shape)) + list(shape)


def box_mask(height: int, width: int, box: tuple[int, int, int, int] | None = None) -> Tensor:
    """(1, H, W), 0 in the box (top, left, height, width); default the central half by half."""
    top, left, tall, wide = box or (height // 4, width // 4, height // 2, width // 2)
    if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
        raise ValueError(f"box {(top, left, tall, wide)} does not lie in {height} x {width}")
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[:, top : top + tall, left : left + wide] = False
    return mask


def half_mask(height: int, width: int, side: str = "left") -> Tensor:
    """(1, H, W), 1 on the named half: left, right, top or bottom."""
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    halves = {
        "left": (slice(None), slice(0, width // 2)),
        "right": (slice(None), slice(width // 2, None)),
        "top": (slice(0, height // 2), slice(None)),
        "bottom": (slice(height // 2, None), slice(None)),
    }
    if side not in halves:
        raise ValueError(f"side must be one of {', '.join(halves)}; got {side!r}")
    mask[:, halves[side][0], halves[side][1]] = True
    return mask
