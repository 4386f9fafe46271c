"""3x3 convolution by Winograd's minimal filtering F(4x4, 3x3): a quarter of the multiplications.

y = A^T [(G g G^T) * (B^T d B)] A for each 6x6 tile d of the input, which gives a 4x4 tile of the
output (Lavin & Gray 2016, sec. 4.1), the products of all tiles being 36 matrix products. Its
rounding error is about ten times that of the direct sum, 2e-6 relative.

`conv3x3` is what uses it, and says why it is here.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Interpolation points, with infinity: this choice has the least rounding error of those tried.
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
_TILE, _TAPS = 4, 3
_PATCH = _TILE + _TAPS - 1
# Tiles a strip: its 36 matrices stay in the cache of one core.
_STRIP = 512


def transformed(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, kernels: Tensor | None = None
) -> Tensor:
    """The convolution by Winograd's filtering whatever its cost, in the dtype of x.

    kernels: transform_kernels(weight), where it is known.
    """
    if kernels is None:
        kernels = transform_kernels(weight.detach())
    if torch.is_grad_enabled():
        return _Transformed.apply(x, weight, bias, kernels)
    return _convolve(x, kernels, bias)


class _Transformed(torch.autograd.Function):
    """The transformed convolution with its derivatives in transformed form, of any order.

    kernels = transform_kernels(weight) are an argument in order to be kept for the derivatives;
    the function's derivative by them is counted in that by weight.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, kernels: Tensor) -> Tensor:
        return _convolve(x, kernels, bias)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, _, kernels = inputs
        ctx.save_for_backward(x, weight, kernels)
        ctx.save_for_forward(x, kernels)

    @staticmethod
    def backward(ctx, dy: Tensor):  # type: ignore[override]
        x, weight, kernels = ctx.saved_tensors
        by_x, by_weight, by_bias, _ = ctx.needs_input_grad
        dbias = dy.sum((0, 2, 3)) if by_bias else None
        if not torch.is_grad_enabled():
            return *_gradients(x, kernels, dy, by_x, by_weight), dbias, None
        dx = transformed(dy, weight.flip(2, 3).transpose(0, 1)) if by_x else None
        return dx, _weight_gradient(x, dy) if by_weight else None, dbias, None

    @staticmethod
    def jvp(ctx, dx, dweight, dbias, _):  # type: ignore[override]
        x, kernels = ctx.saved_tensors
        dy = _convolve(x, transform_kernels(dweight), dbias)
        return dy + _convolve(dx, kernels, None)


def _convolve(x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
    batch, _, height, width = x.shape
    outer, row = _matrices(x.dtype)[0], 0
    y: Tensor = None  # type: ignore[assignment]
    tiles = _tiles(x, 1, _PATCH)
    rows, columns = tiles.shape[1:3]
    for strip in _strips(tiles):
        products = torch.bmm(_inner(strip), kernels)
        if y is None:
            y = _channels_last(products, batch, rows * _TILE, columns * _TILE, products.shape[2])
            into = y.permute(0, 2, 3, 1).unflatten(2, (-1, _TILE)).unflatten(1, (-1, _TILE))
        part = outer @ products.reshape(_PATCH**2, -1)
        part = part.reshape(_TILE, _TILE, batch, -1, columns, products.shape[2])
        into.narrow(1, row, strip.shape[1]).copy_(part.permute(2, 3, 0, 4, 1, 5))
        row += strip.shape[1]
    y = y if bias is None else y.add_(bias[:, None, None])
    if y.shape[2:] == x.shape[2:]:
        return y
    whole = _channels_last(y, batch, height, width, y.shape[1])
    return whole.copy_(y[..., :height, :width])


def _channels_last(like: Tensor, batch: int, height: int, width: int, channels: int) -> Tensor:
    """Memory for (B, C, H, W); no view of other memory, which forward derivatives refuse."""
    strides = (height * width * channels, 1, width * channels, channels)
    return like.new_empty_strided((batch, channels, height, width), strides)


def _gradients(
    x: Tensor, kernels: Tensor, dy: Tensor, by_x: bool, by_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """(d<y, dy> / dx, d<y, dy> / dweight): the adjoints of the forward pass's own steps.

    Both begin with A dy A^T, and the kernels of the forward pass serve again.
    """
    total = None
    dx = _Overlap(dy, x.shape) if by_x else None
    pairs = zip(_strips(_tiles(x, 1, _PATCH)), _strips(_tiles(dy, 0, _TILE)), strict=True)
    for tiles, errors in pairs:
        m = _outer_adjoint(errors)
        if by_weight:
            v = _inner(tiles)
            product = m.transpose(1, 2)
            total = torch.bmm(product, v) if total is None else total.baddbmm_(product, v)
        if dx is not None:
            dx.add(torch.bmm(m, kernels.transpose(1, 2)), errors.shape[1])
    return None if dx is None else dx.result(), None if total is None else _kernel_adjoint(total)


class _Overlap:
    """The sum of overlapping tiles: sum_tiles B d B^T, the adjoint of cutting and transforming."""

    def __init__(self, dy: Tensor, shape: torch.Size):
        batch, channels, self.height, self.width = shape
        rows, columns = (-(-length // _TILE) + 1 for length in shape[2:])
        # Tiles begin one pixel outside and reach two into the next.
        self.sum = dy.new_zeros(batch, rows, _TILE, columns, _TILE, channels)
        self.row = 0

    def add(self, products: Tensor, rows: int) -> None:
        """products (36, tiles, C) of the next rows of tiles."""
        batch, columns = len(self.sum), self.sum.shape[3] - 1
        d = _matrices(products.dtype)[2].t() @ products.reshape(_PATCH**2, -1)
        d = d.reshape(_PATCH, _PATCH, batch, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
        for down, height in ((0, _TILE), (1, _PATCH - _TILE)):
            upper = self.sum.narrow(1, self.row + down, rows).narrow(2, 0, height)
            part = d.narrow(2, down * _TILE, height)
            for right, width in ((0, _TILE), (1, _PATCH - _TILE)):
                into = upper.narrow(3, right, columns).narrow(4, 0, width)
                into.add_(part.narrow(4, right * _TILE, width))
        self.row += rows

    def result(self) -> Tensor:
        """(B, C, H, W)."""
        batch, rows, _, columns, _, channels = self.sum.shape
        dx = self.sum.reshape(batch, rows * _TILE, columns * _TILE, channels)
        dx = dx.narrow(1, 1, self.height).narrow(2, 1, self.width)
        return dx.contiguous().permute(0, 3, 1, 2)


def _weight_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """sum_tiles G^T [(B^T d B) (A dy A^T)^T] G: d<y, dy> / d weight, (O, C, 3, 3)."""
    pairs = zip(_strips(_tiles(x, 1, _PATCH)), _strips(_tiles(dy, 0, _TILE)), strict=True)
    total = sum(
        torch.bmm(_outer_adjoint(errors).transpose(1, 2), _inner(tiles)) for tiles, errors in pairs
    )
    return _kernel_adjoint(total)  # type: ignore[arg-type]


def transform_kernels(weight: Tensor) -> Tensor:
    """G g G^T of every kernel: (36, C, O), the transpose of what lies in memory."""
    flat = _matrices(weight.dtype)[1] @ weight.reshape(-1, _TAPS**2).t()
    return flat.reshape(-1, *weight.shape[:2]).transpose(1, 2)


def _kernel_adjoint(total: Tensor) -> Tensor:
    """G^T k G of (36, O, C): (O, C, 3, 3)."""
    flat = total.reshape(_PATCH**2, -1).t() @ _matrices(total.dtype)[1]
    return flat.reshape(*total.shape[1:], _TAPS, _TAPS)


def _inner(tiles: Tensor) -> Tensor:
    """B^T d B of tiles (B, r, c, C, 6, 6): (36, tiles, C)."""
    flat = tiles.permute(4, 5, 0, 1, 2, 3).reshape(_PATCH**2, -1)
    return (_matrices(tiles.dtype)[2] @ flat).reshape(_PATCH**2, -1, tiles.shape[3])


def _outer_adjoint(errors: Tensor) -> Tensor:
    """A e A^T of tiles (B, r, c, O, 4, 4): (36, tiles, O)."""
    flat = errors.permute(4, 5, 0, 1, 2, 3).reshape(_TILE**2, -1)
    return (_matrices(errors.dtype)[0].t() @ flat).reshape(_PATCH**2, -1, errors.shape[3])


def _tiles(x: Tensor, border: int, size: int) -> Tensor:
    """The overlapping tiles (B, r, c, C, size, size) of (B, C, H, W) with zeros around it."""
    below, right = (-length % _TILE + border for length in x.shape[2:])
    padded = functional.pad(x, (border, right, border, below)).permute(0, 2, 3, 1)
    return padded.unfold(1, size, _TILE).unfold(2, size, _TILE)


def _strips(tiles: Tensor) -> tuple[Tensor, ...]:
    """Rows of tiles, a few at a time."""
    return tiles.split(max(1, _STRIP // (tiles.shape[0] * tiles.shape[2])), dim=1)


@cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(A^T x A^T, G x G, B^T x B^T) with x the Kronecker product: both axes of a tile at once."""
    # Cached, hence neither on the caller's default device nor bound to its inference mode.
    with torch.inference_mode(False), torch.device("cpu"):
        return tuple(torch.tensor(np.kron(m, m), dtype=dtype) for m in toom_cook())  # type: ignore[return-value]


def toom_cook() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A^T, G, B^T) of F(4, 3): the transpose of polynomial multiplication by interpolation."""

    def evaluate(size: int) -> np.ndarray:
        values = np.vander(_POINTS, size, increasing=True)
        infinity = np.eye(1, size, size - 1)
        return np.concatenate([values, infinity])

    outer, kernel = evaluate(_TILE).T, evaluate(_TAPS)
    inner = np.linalg.inv(evaluate(_PATCH)).T
    # Powers of two move between the two factors without rounding; they even out their sizes.
    scale = 2.0 ** np.round(np.log2(np.abs(inner).max(axis=1, keepdims=True)))
    return outer, kernel * scale, inner / scale
