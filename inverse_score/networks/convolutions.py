"""The convolutions and resampling of the released networks, quick on a CPU too."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .conv3x3 import KeptKernels, conv3x3

Resampling = Literal["up", "down"]


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size; by Winograd's filtering where that is faster."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)
        self._kept = KeptKernels()

    def forward(self, x: Tensor) -> Tensor:
        return conv3x3(x, self.weight, self.bias, self._kept)


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution, as one matrix product over all pixels."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor, bias: bool = True) -> Tensor:
        if x.device.type != "cpu":
            return functional.conv2d(x, self.weight, self.bias if bias else None)
        y = functional.linear(
            x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias if bias else None
        )
        return y.permute(0, 3, 1, 2)


class StridedConv(nn.Conv2d):
    """Half the size by a 3x3 convolution of stride 2.

    before: zeros above and to the left (1: symmetric; 0: TensorFlow's "SAME", one row and column
    of zeros below and to the right, as in DDPM).
    """

    def __init__(self, in_channels: int, out_channels: int, before: int):
        super().__init__(in_channels, out_channels, 3, stride=2, padding=before)
        self.before = before
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.before else functional.pad(x, (0, 1, 0, 1)))


class NearestConv(Conv3x3):
    """Twice the size: each pixel repeated, then a 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class FilteredConv(nn.Conv2d):
    """A 3x3 convolution with resampling by the filter: half the size, or twice.

    down: conv2d(filter * x) at every second pixel; up: filter * conv2d(x with zeros between).
    (StyleGAN2's order of the two, Karras et al. 2020, app. B.)
    """

    def __init__(self, in_channels: int, out_channels: int, resample: Resampling, taps):
        super().__init__(in_channels, out_channels, 3)
        self.resampling, self.taps = resample, tuple(taps)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        pad = len(self.taps) - 1
        if self.resampling == "down":
            x = _filter(functional.pad(x, ((pad + 2) // 2, (pad + 1) // 2) * 2), self.taps)
            return functional.conv2d(x, self.weight, self.bias, stride=2)
        # The adjoint of a strided convolution puts the zeros in; flipped, it is not transposed.
        kernel = self.weight.flip(2, 3).transpose(0, 1)
        x = functional.conv_transpose2d(x, kernel, stride=2)
        x = functional.pad(x, ((pad - 2) // 2 + 1, (pad - 3) // 2 + 1) * 2)
        x = 4 * _filter(x, self.taps)
        return x + self.bias[:, None, None]  # type: ignore[index]


def downsample(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    """x filtered by the separable taps / sum, every second pixel kept; zeros outside."""
    if taps == (1, 1):
        return functional.avg_pool2d(x, 2)
    kernel = _kernel(x, taps).expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(x, kernel, stride=2, padding=(len(taps) - 1) // 2, groups=x.shape[1])


def upsample(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    """x with zeros between, filtered by the separable 4 taps / sum: the adjoint of downsample, x 4.

    Each output pixel of the four phases sees 2x2 input pixels, weighted 3:1 for taps (1, 3, 3, 1).
    """
    if taps == (1, 1):
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")
    if taps != (1, 3, 3, 1):
        kernel = 4 * _kernel(x, taps).expand(x.shape[1], 1, -1, -1)
        padding = (len(taps) - 2) // 2
        return functional.conv_transpose2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])
    return _double(_double(x, 2), 3)


def _double(x: Tensor, axis: int) -> Tensor:
    """Twice the length along an axis: (x[i-1] + 3 x[i]) / 4 and (3 x[i] + x[i+1]) / 4 in turn."""
    shape = list(x.shape)
    pad = (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0)
    quarter = functional.pad(0.25 * x, pad)
    size = shape[axis]
    even = torch.add(quarter.narrow(axis, 0, size), x, alpha=0.75)
    odd = torch.add(quarter.narrow(axis, 2, size), x, alpha=0.75)
    shape[axis] *= 2
    both = torch.stack([even, odd], dim=axis + 1)
    return both.flatten(axis, axis + 1)


def _filter(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    """The separable filter taps / sum on every channel, without padding."""
    return functional.conv2d(x, _kernel(x, taps).expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def _kernel(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    # Resampling filters are symmetric, so correlation and convolution are one.
    line = torch.tensor(taps, dtype=x.dtype, device=x.device)
    return torch.outer(line, line)[None, None] / line.sum() ** 2


def initialise(module, scale: float = 1.0):
    """Weights U(-a, a) with a^2 = 3 scale / mean fan, biases 0 (DDPM's); scale 0 means 1e-10."""
    weight = module.weight
    if weight.is_meta:
        return module
    field = math.prod(weight.shape[2:])
    fan = 0.5 * (weight.shape[0] + weight.shape[1]) * field
    nn.init.uniform_(weight, -1.0, 1.0)
    with torch.no_grad():
        weight.mul_(math.sqrt(3 * (scale or 1e-10) / fan))
    nn.init.zeros_(module.bias)
    return module
