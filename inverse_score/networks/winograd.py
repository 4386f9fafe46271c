"""3x3 convolution by Winograd's minimal filtering F(4x4, 3x3): a quarter of the multiplications.

y = A^T [(G g G^T) * (B^T d B)] A for each 6x6 tile d of the input, which gives a 4x4 tile of the
output (Lavin & Gray 2016, sec. 4.1), the products of all tiles being 36 matrix products. On a CPU
in float32 this takes about half the time of the direct convolution from 64 channels on; its
rounding error is about ten times larger, 2e-6 relative.
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
# Below these the transforms cost more than the products save; the first number of pixels is for
# kernels transformed beforehand, the second for those transformed in every call.
_MIN_CHANNELS, _MIN_PIXELS_KEPT, _MIN_PIXELS = 64, 64, 1024
# Tiles a strip: its 36 matrices stay in the cache of one core.
_STRIP = 512


def possible(x: Tensor, weight: Tensor) -> bool:
    """Whether the transformed convolution is exact enough, and there for this device."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and min(weight.shape[:2]) >= _MIN_CHANNELS
        and not torch.is_autocast_enabled("cpu")
    )


def pays(x: Tensor, kept: bool) -> bool:
    """Whether it is the faster one, with kernels kept from an earlier call or not."""
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    return pixels >= (_MIN_PIXELS_KEPT if kept else _MIN_PIXELS)


def conv3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, kernels: Tensor | None = None
) -> Tensor:
    """conv2d(x, weight, bias, padding=1): x (B, C, H, W), weight (O, C, 3, 3), any H and W.

    kernels: transform_kernels(weight), where it is known; it is not differentiated.
    """
    if kernels is not None:
        y = _convolve(x, kernels)
    elif torch.is_grad_enabled():
        y = _Conv3x3.apply(x, weight)
    else:
        y = _convolve(x, transform_kernels(weight))
    if bias is None:
        return y
    return y + bias[:, None, None] if torch.is_grad_enabled() else y.add_(bias[:, None, None])


class _Conv3x3(torch.autograd.Function):
    """The transformed convolution with its derivatives in transformed form, of any order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return _convolve(x, transform_kernels(weight))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, dy: Tensor):  # type: ignore[override]
        x, weight = ctx.saved_tensors
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = conv3x3(dy, weight.flip(2, 3).transpose(0, 1))
        if ctx.needs_input_grad[1]:
            dweight = _weight_gradient(x, dy)
        return dx, dweight

    @staticmethod
    def jvp(ctx, dx, dweight):  # type: ignore[override]
        x, weight = ctx.saved_tensors
        return _convolve(dx, transform_kernels(weight)) + _convolve(x, transform_kernels(dweight))


def _convolve(x: Tensor, kernels: Tensor) -> Tensor:
    height, width = x.shape[2:]
    outer, _, inner = _matrices(x.dtype)
    strips = []
    for tiles in _strips(_tiles(x, 1, _PATCH)):
        batch, rows, columns, channels = tiles.shape[:4]
        tiles = tiles.permute(4, 5, 0, 1, 2, 3).reshape(_PATCH**2, -1)
        products = torch.bmm((inner @ tiles).reshape(_PATCH**2, -1, channels), kernels)
        y = (outer @ products.reshape(_PATCH**2, -1)).reshape(
            _TILE, _TILE, batch, rows, columns, -1
        )
        y = y.permute(2, 3, 0, 4, 1, 5)
        strips.append(y.reshape(batch, rows * _TILE, columns * _TILE, -1))
    y = strips[0] if len(strips) == 1 else torch.cat(strips, dim=1)
    return y[:, :height, :width].permute(0, 3, 1, 2)


def _weight_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """sum_tiles G^T [(B^T d B) (A dy A^T)^T] G: d<y, dy> / d weight, (O, C, 3, 3)."""
    outer, kernel, inner = _matrices(x.dtype)
    total = 0
    pairs = zip(_strips(_tiles(x, 1, _PATCH)), _strips(_tiles(dy, 0, _TILE)), strict=True)
    for tiles, errors in pairs:
        in_channels, out_channels = tiles.shape[3], errors.shape[3]
        tiles = tiles.permute(4, 5, 0, 1, 2, 3).reshape(_PATCH**2, -1)
        errors = errors.permute(4, 5, 0, 1, 2, 3).reshape(_TILE**2, -1)
        v = (inner @ tiles).reshape(_PATCH**2, -1, in_channels)
        m = (outer.t() @ errors).reshape(_PATCH**2, -1, out_channels)
        total = total + torch.bmm(m.transpose(1, 2), v)
    gradient = kernel.t() @ total.reshape(_PATCH**2, -1)  # type: ignore[union-attr]
    return gradient.reshape(_TAPS, _TAPS, out_channels, in_channels).permute(2, 3, 0, 1)


def transform_kernels(weight: Tensor) -> Tensor:
    """G g G^T of every kernel: (36, C, O)."""
    out_channels, in_channels = weight.shape[:2]
    flat = weight.transpose(0, 1).reshape(-1, _TAPS**2)
    kernels = _matrices(weight.dtype)[1] @ flat.t()
    return kernels.reshape(-1, in_channels, out_channels)


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
