"""A 3x3 convolution that keeps the size, by the faster of two ways; the one entry to `winograd`.

Winograd's filtering is here because PyTorch's own convolution has no such way on a CPU in float32,
and released networks are nearly all 3x3 convolutions: with 128 channels and more it is 1.3 to 1.9
times as fast, and 1.1 to 2.0 times in training; at 64 channels it pays in training only. Measured
on one thread of an AMD EPYC beside other load: python tests/studies/convolution_speed.py prints,
tests/studies/results/convolutions.md holds it. It goes when PyTorch's own way is as fast.
"""

from __future__ import annotations

import os
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import winograd

# Below these the transforms, and four times as many weights to be read from memory, cost more than
# the products save; the first number of pixels is for kernels transformed beforehand, the second
# for those transformed in every call.
_MIN_CHANNELS, _MIN_PIXELS_KEPT, _MIN_PIXELS = 64, 128, 1024
# INVERSE_SCORE_WINOGRAD=0 in the environment, or False here, leaves every convolution to PyTorch.
enabled = os.environ.get("INVERSE_SCORE_WINOGRAD", "1") != "0"


def conv3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, kept: KeptKernels | None = None
) -> Tensor:
    """conv2d(x, weight, bias, padding=1), by Winograd's filtering where that is exact and faster.

    x (B, C, H, W), weight (O, C, 3, 3), any H and W. kept: where to keep the transformed kernels.
    """
    if not (enabled and _possible(x, weight)):
        return functional.conv2d(x, weight, bias, padding=1)
    kernels = None if kept is None else kept.of(x, weight)
    if kernels is not None or _pays(x, kept=False):
        return winograd.transformed(x, weight, bias, kernels)
    # At few pixels the layout of the weights decides, and theirs is this one.
    y = functional.conv2d(x.contiguous(), weight, bias, padding=1)
    return y.contiguous(memory_format=torch.channels_last)


def _possible(x: Tensor, weight: Tensor) -> bool:
    """Whether the transformed convolution is exact enough, and there for this device."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and min(weight.shape[:2]) >= _MIN_CHANNELS
        and not torch.is_autocast_enabled("cpu")
    )


def _pays(x: Tensor, kept: bool) -> bool:
    """Whether it is the faster one, with kernels kept from an earlier call or not."""
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    return pixels >= (_MIN_PIXELS_KEPT if kept else _MIN_PIXELS)


class KeptKernels:
    """The transformed kernels of a layer's weights while these need no gradient.

    They take four times the weights' memory, up to `limit` bytes for all layers of a process; a
    change of the weights is noticed.
    """

    limit: ClassVar[int] = 2 << 30
    total: ClassVar[int] = 0

    def __init__(self) -> None:
        self._found: tuple[tuple, Tensor, Tensor] | None = None

    def of(self, x: Tensor, weight: Tensor) -> Tensor | None:
        """transform_kernels(weight), or None where they may not be kept, or do not pay."""
        frozen = not (torch.is_grad_enabled() and weight.requires_grad)
        if not frozen or type(weight) is not nn.Parameter or weight.is_inference():
            return None
        if not _pays(x, kept=True):
            return None
        # The weights are held too, so that no other tensor can come to lie at their address.
        state = (weight._version, weight.data_ptr())
        if self._found is None or self._found[0] != state:
            self.forget()
            needed = weight.numel() * weight.element_size() * 4
            if KeptKernels.total + needed > self.limit:
                return None
            with torch.inference_mode(False), torch.no_grad():
                held = weight.detach()
                self._found = (state, winograd.transform_kernels(held).contiguous(), held)
            KeptKernels.total += needed
        return self._found[1]

    def forget(self) -> None:
        """Free the kept kernels."""
        if self._found is not None:
            KeptKernels.total -= self._found[1].numel() * self._found[1].element_size()
            self._found = None

    def __reduce__(self) -> tuple:
        # Copies and files of a network begin without.
        return KeptKernels, ()

    def __del__(self) -> None:
        if self.__dict__.get("_found") is not None:
            self.forget()
