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
# Below these the transforms cost more than the products save.
_MIN_CHANNELS, _MIN_PIXELS = 64, 256
# Tiles a strip: its 36 matrices stay in the cache of one core.
_STRIP = 512


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether the transformed convolution of x by weight is the faster one and exact enough."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and min(weight.shape[:2]) >= _MIN_CHANNELS
        and x.shape[0] * x.shape[2] * x.shape[3] >= _MIN_PIXELS
        and not torch.is_autocast_enabled("cpu")
    )


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """conv2d(x, weight, bias, padding=1): x (B, C, H, W), weight (O, C, 3, 3), any H and W.

    Made of differentiable operations, so that autograd, jvp and vmap pass through it.
    """
    batch, _, height, width = x.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    padded = functional.pad(
        x, (1, columns * _TILE - width + 1, 1, rows * _TILE - height + 1)
    ).permute(0, 2, 3, 1)
    kernels = _transform_kernels(weight)
    step = max(1, _STRIP // (batch * columns))
    strips = [
        _strip(padded[:, _TILE * row : _TILE * min(row + step, rows) + 2], kernels)
        for row in range(0, rows, step)
    ]
    y = strips[0] if len(strips) == 1 else torch.cat(strips, dim=1)
    y = y[:, :height, :width].permute(0, 3, 1, 2)
    return y if bias is None else y + bias[:, None, None]


def _transform_kernels(weight: Tensor) -> Tensor:
    """G g G^T of every kernel: (36, C, O)."""
    out_channels, in_channels = weight.shape[:2]
    kernels = _matrices(weight.dtype)[1] @ weight.reshape(-1, _TAPS**2).t()
    return kernels.reshape(-1, out_channels, in_channels).transpose(1, 2)


def _strip(padded: Tensor, kernels: Tensor) -> Tensor:
    """Rows of tiles (B, 4 r + 2, 4 c + 2, C) to (B, 4 r, 4 c, O)."""
    outer, _, inner = _matrices(padded.dtype)
    tiles = padded.unfold(1, _PATCH, _TILE).unfold(2, _PATCH, _TILE)
    batch, rows, columns, channels = tiles.shape[:4]
    tiles = tiles.permute(4, 5, 0, 1, 2, 3).reshape(_PATCH**2, -1)
    products = torch.bmm((inner @ tiles).reshape(_PATCH**2, -1, channels), kernels)
    y = (outer @ products.reshape(_PATCH**2, -1)).reshape(_TILE, _TILE, batch, rows, columns, -1)
    return y.permute(2, 3, 0, 4, 1, 5).reshape(batch, rows * _TILE, columns * _TILE, -1)


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
